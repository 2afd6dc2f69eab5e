"""The relay: two cutters, one window, and the consumer; bytes in, bytes out, no socket."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.books import Books
from bridge.content import HeaderPolicy
from bridge.errors import MalformedFrameError
from bridge.memory import Memory
from bridge.relay import CONSUMER_TRANSITIONS, JOIN_BYTES, Consumer, ConsumerEvent, Relay
from bridge.window import Window, WindowLimits
from bridge.wire import Close, route
from tests import frames
from tests.frames import PERSISTENT, confirm, content, deliver, method, returned, short, table, text

OFF, STARTING, ON, CANCELLING, LOST = Consumer


class Bridge:
    """A relay between two brokers that the test plays."""

    def __init__(
        self, limits: WindowLimits | None = None, *, own_keys: bool = False, frame_max: tuple[int, int] = (0, 0)
    ) -> None:
        self.now_s = 1000.0
        self.books = Books()
        limits = limits or WindowLimits(own_keys=own_keys)
        self.window = Window(limits, self.books, Memory(enabled=True), lambda: 0.5)
        self.relay = Relay(
            self.window, HeaderPolicy(), destination=route("", "dq"), own_keys=own_keys, quarantine="sq.quarantine"
        )
        self.frame_max = frame_max
        self.open_source()
        self.open_destination()
        self.consume()

    def open_source(self) -> None:
        """A source generation begins."""
        self._source = self.relay.source_connecting()
        self.relay.source_opened(self.frame_max[0])

    def open_destination(self) -> None:
        """A destination generation begins."""
        self._destination = self.relay.destination_connecting()
        self.relay.destination_opened(self.frame_max[1], self.now_s)

    def consume(self) -> None:
        """`basic.consume`, and its answer."""
        self.relay.consume("ct", self.relay.wanted_prefetch, self.now_s)
        self.relay.consuming()

    def source(self, *raw: bytes) -> None:
        """The source sends."""
        self.relay.source_events(self._source.feed(b"".join(raw), self.now_s), self.now_s)

    def destination(self, *raw: bytes) -> None:
        """The destination sends."""
        self.relay.destination_events(self._destination.feed(b"".join(raw), self.now_s), self.now_s)

    def to_source(self) -> bytes:
        """What has been written to the source since last asked."""
        output = b"".join(self.relay.source_output)
        self.relay.source_output.clear()
        return output

    def to_destination(self) -> bytes:
        """What is published now."""
        return b"".join(self.relay.publishes(self.now_s))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds
        self.relay.tick(self.now_s, 1_700_000_000.0)


def publish(to: str = "dq", exchange: str = "", channel: int = 1) -> bytes:
    return method(channel, 60, 40, b"\0\0" + short(exchange) + short(to) + b"\x01")


def ack(delivery_tag: int, *, multiple: bool) -> bytes:
    return method(1, 60, 80, pack(">QB", delivery_tag, multiple))


def requeue(delivery_tag: int, *, multiple: bool) -> bytes:
    return method(1, 60, 120, pack(">QB", delivery_tag, 2 | multiple))


CANCEL = method(1, 60, 30, short("ct") + b"\0")
M = content(b"m")

# --- The consumer --------------------------------------------------------------------------------------------

TABLE = {
    (ConsumerEvent.START, OFF): STARTING,
    (ConsumerEvent.STARTED, STARTING): ON,
    (ConsumerEvent.STARTED, CANCELLING): CANCELLING,
    (ConsumerEvent.STARTED, LOST): LOST,
    (ConsumerEvent.CANCEL, ON): CANCELLING,
    (ConsumerEvent.CANCEL_OK, CANCELLING): OFF,
    (ConsumerEvent.CANCEL_OK, LOST): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, STARTING): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, ON): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, CANCELLING): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, LOST): LOST,
    **{(ConsumerEvent.SOURCE_LOST, state): OFF for state in Consumer},
}


@pytest.mark.parametrize("state", Consumer)
@pytest.mark.parametrize("event", ConsumerEvent)
def test_every_pair_of_state_and_event(event: ConsumerEvent, state: Consumer) -> None:
    bridge = Bridge()
    bridge.relay.consumer = state
    if (event, state) in TABLE:
        bridge.relay._consumer_event(event)
        assert bridge.relay.consumer is TABLE[event, state]
    else:
        with pytest.raises(
            MalformedFrameError, match=f"{event.value} cannot happen to a consumer that is {state.value}"
        ):
            bridge.relay._consumer_event(event)
        assert bridge.relay.consumer is state


def test_the_table_is_the_whole_table() -> None:
    assert CONSUMER_TRANSITIONS.keys() == set(ConsumerEvent)
    assert sum(map(len, CONSUMER_TRANSITIONS.values())) == len(TABLE)


def test_consuming_begins_only_with_a_destination_that_is_ready() -> None:
    bridge = Bridge()
    bridge.relay.source_lost(bridge.now_s)
    assert bridge.relay.wanted_prefetch == 0, "no source"
    bridge.open_source()
    assert bridge.relay.wanted_prefetch == 1000
    bridge.destination(frames.BLOCKED)
    assert bridge.relay.wanted_prefetch == 0, "blocked"
    bridge.destination(frames.UNBLOCKED)
    bridge.relay.destination_lost(bridge.now_s)
    assert bridge.relay.wanted_prefetch == 0, "no destination"
    bridge.open_destination()
    bridge.consume()
    assert bridge.relay.wanted_prefetch == 0, "it consumes"


def test_consuming_waits_for_the_orphans_of_the_last_generation() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.relay.source_lost(bridge.now_s)
    bridge.open_source()
    assert bridge.relay.wanted_prefetch == 0
    bridge.destination(confirm(1))
    assert bridge.relay.wanted_prefetch == 1000
    assert bridge.to_source() == b"", "invariant 2"


def test_a_consumer_that_the_broker_cancelled_is_not_begun_again_and_its_messages_are_forwarded() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M), frames.CANCEL)
    assert bridge.relay.consumer is LOST
    assert bridge.relay.wanted_prefetch == 0
    assert not bridge.relay.source_drained
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    assert bridge.relay.source_drained


# --- Forwarding ----------------------------------------------------------------------------------------------


def test_deliveries_are_published_as_they_are_and_acked_when_confirmed() -> None:
    bridge = Bridge()
    messages = [content(b"x" * n) for n in (0, 1, 256)]
    bridge.source(*(deliver(tag, message) for tag, message in enumerate(messages, 1)))
    assert bridge.to_destination() == b"".join(publish() + message for message in messages)
    assert bridge.to_destination() == b"", "published once"
    assert bridge.to_source() == b"", "invariant 1"
    bridge.destination(confirm(2, multiple=True))
    assert bridge.to_source() == ack(2, multiple=True)
    bridge.destination(confirm(3))
    assert bridge.to_source() == ack(3, multiple=True)


@pytest.mark.parametrize("sizes", ((JOIN_BYTES + 1, 1), (1, JOIN_BYTES + 1), (1, 1)))
def test_large_contents_go_out_uncopied(sizes: tuple[int, int]) -> None:
    bridge = Bridge()
    messages = [content(b"x" * size) for size in sizes]
    bridge.source(*(deliver(tag, message) for tag, message in enumerate(messages, 1)))
    parts = bridge.relay.publishes(bridge.now_s)
    assert b"".join(parts) == b"".join(publish() + message for message in messages)
    assert len(parts) == (1 if sizes == (1, 1) else 4)


def test_with_an_exchange_alone_each_message_keeps_its_own_key() -> None:
    bridge = Bridge(own_keys=True)
    bridge.source(deliver(1, M, routing_key="a"), deliver(2, M, routing_key="", exchange=""))
    assert bridge.to_destination() == publish("a") + M + publish("") + M


@pytest.mark.parametrize(
    ("source", "destination", "cut"),
    ((4096, 100, True), (0, 100, True), (100, 100, False), (100, 4096, False), (4096, 0, False)),
)
def test_bodies_are_cut_anew_only_for_a_smaller_frame_max(source: int, destination: int, *, cut: bool) -> None:
    bridge = Bridge(frame_max=(source, destination))
    step = (source or 4096) - 8
    small, large = content(b"s"), content(b"x" * 300, step=step)
    bridge.source(deliver(1, small), deliver(2, large))
    expected = content(b"x" * 300, step=92) if cut else large
    assert bridge.to_destination() == publish() + small + publish() + expected


def test_a_redelivery_that_has_arrived_is_acked_and_not_published() -> None:
    message = content(b"m", PERSISTENT | {"message_id": b"m-1"})
    bridge = Bridge()
    bridge.source(deliver(1, message))
    bridge.to_destination()
    bridge.relay.source_lost(bridge.now_s)
    bridge.destination(confirm(1))
    bridge.open_source()
    bridge.consume()
    bridge.source(deliver(1, message, redelivered=1))
    assert bridge.to_source() == ack(1, multiple=False)
    assert bridge.to_destination() == b""


def test_what_the_relay_was_about_to_write_is_gone_with_the_source() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.relay.source_lost(bridge.now_s)
    assert bridge.to_source() == b"", "invariant 2"


def test_reading_pauses_when_memory_is_full() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=100))
    bridge.source(deliver(1, M))
    assert not bridge.relay.paused
    bridge.source(deliver(2, content(b"x" * 100)))
    assert bridge.relay.paused


# --- What the brokers say besides ----------------------------------------------------------------------------


def test_closes_of_the_data_channel_and_the_connection_are_kept() -> None:
    for channel in (0, 1):
        bridge = Bridge()
        bridge.source(frames.close(channel, 320, "bye"))
        bridge.destination(frames.close(channel, 406, "no"))
        assert bridge.relay.source_close == Close(channel, 320, "bye")
        assert bridge.relay.destination_close == Close(channel, 406, "no")
        bridge.relay.source_connecting()
        bridge.relay.destination_connecting()
        assert bridge.relay.source_close is None
        assert bridge.relay.destination_close is None


def test_closes_of_other_channels_are_the_control_planes() -> None:
    bridge = Bridge()
    bridge.source(frames.close(3, 404, "no queue"))
    bridge.destination(frames.close(3, 404, "no queue"))
    assert bridge.relay.source_close is None
    assert bridge.relay.destination_close is None


def test_a_blocked_source_is_no_matter_and_a_blocked_destination_gets_nothing() -> None:
    bridge = Bridge()
    bridge.source(frames.BLOCKED, deliver(1, M), frames.UNBLOCKED)
    bridge.destination(frames.BLOCKED)
    assert bridge.to_destination() == b""
    bridge.destination(frames.UNBLOCKED)
    assert bridge.to_destination() == publish() + M


@pytest.mark.parametrize("raw", (confirm(1), returned(M)), ids=("confirm", "return"))
def test_the_source_confirms_and_returns_nothing_on_the_data_channel(raw: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="from the source"):
        Bridge().source(raw)


@pytest.mark.parametrize("raw", (deliver(1, M), frames.CANCEL), ids=("delivery", "cancel"))
def test_the_destination_delivers_nothing(raw: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="from the destination"):
        Bridge().destination(raw)


def test_a_returned_message_is_not_acked_but_tried_again() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(returned(M, routing_key="dq"), confirm(1))
    assert bridge.to_source() == b"", "invariant 1"
    bridge.wait(1.0)
    assert bridge.to_destination() == publish() + M


def test_what_the_destination_closed_for_reaches_the_window() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, "PRECONDITION_FAILED"))
    bridge.relay.destination_lost(bridge.now_s)
    assert [verdict.reason for _, verdict in bridge.window.condemned] == ["poison"]


# --- Giving back ---------------------------------------------------------------------------------------------

HOLD = WindowLimits(prefetch=10, hold_timeout_s=60.0)


def test_a_stop_cancels_forwards_what_a_healthy_destination_takes_and_gives_back_the_rest() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.relay.stop()
    assert bridge.to_source() == CANCEL
    bridge.source(deliver(4, M))
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.wanted_prefetch == 0
    assert bridge.to_source() == b""
    bridge.destination(confirm(3, multiple=True))
    assert bridge.to_destination() == publish() + M, "the destination is well: forwarded, not given back"
    assert not bridge.relay.source_drained
    bridge.destination(confirm(4))
    assert bridge.to_source() == ack(3, multiple=True) + ack(4, multiple=True)
    assert bridge.relay.source_drained


def test_a_stop_with_the_destination_away_gives_back_at_the_cancel_ok() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.relay.stop()
    bridge.source(deliver(4, M))
    assert bridge.to_source() == CANCEL, "what is given back before the cancel comes straight back"
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(4, multiple=True), "in one go, so that its order stays"
    assert bridge.relay.source_drained


def test_a_stop_while_consuming_begins_cancels_when_it_has_begun() -> None:
    bridge = Bridge()
    bridge.relay.source_lost(bridge.now_s)
    bridge.open_source()
    bridge.relay.consume("ct", 1000, bridge.now_s)
    bridge.relay.stop()
    assert bridge.to_source() == b""
    bridge.relay.consuming()
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.source_drained


def test_a_stop_without_a_consumer_cancels_nothing() -> None:
    lost = Bridge()
    lost.source(frames.CANCEL)
    off = Bridge()
    off.relay.source_lost(off.now_s)
    for bridge in (lost, off):
        bridge.relay.stop()
        assert bridge.to_source() == b""
        assert bridge.relay.source_drained


def test_when_time_is_up_the_published_are_given_back_too_and_late_confirms_are_not_heard() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.relay.stop()
    bridge.source(frames.CANCEL_OK)
    bridge.to_source()
    bridge.relay.abandon()
    assert bridge.to_source() == requeue(3, multiple=True)
    assert bridge.books.requeued == {"shutdown": 3}
    assert bridge.books.duplicates_possible == 3
    bridge.destination(confirm(3, multiple=True))
    assert bridge.to_source() == b""
    assert bridge.relay.source_drained


def test_what_is_held_too_long_is_given_back_and_consumed_again_when_the_destination_is_ready() -> None:
    bridge = Bridge(HOLD)
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.destination(frames.BLOCKED)
    bridge.wait(59.0)
    assert bridge.to_source() == b"", "invariant 6: hold first"
    bridge.wait(1.0)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(3, multiple=True)
    assert bridge.books.requeued == {"hold-timeout": 3}
    assert bridge.relay.wanted_prefetch == 0
    bridge.destination(frames.UNBLOCKED)
    assert bridge.relay.wanted_prefetch == 1, "a single message tries whether it takes them again"
    bridge.consume()
    bridge.source(deliver(4, M, redelivered=1))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(4, multiple=True) + CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.wanted_prefetch == 10
    bridge.consume()
    assert bridge.to_source() == b""


def test_a_probe_that_is_taken_after_the_consumer_was_lost_cancels_nothing() -> None:
    bridge = Bridge(HOLD)
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    bridge.source(frames.CANCEL_OK)
    bridge.destination(frames.UNBLOCKED)
    bridge.consume()
    bridge.source(deliver(2, M), frames.CANCEL)
    bridge.to_destination()
    bridge.to_source()
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(2, multiple=True)


def test_while_some_are_published_the_held_are_given_back_one_by_one() -> None:
    bridge = Bridge(HOLD)
    bridge.source(*(deliver(tag, content(b"x" * 100)) for tag in range(1, 4)))
    bridge.window.publish_window = 1
    bridge.to_destination()
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == CANCEL + requeue(2, multiple=False) + requeue(3, multiple=False)
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)


def test_with_memory_full_the_held_are_given_back_before_the_cancel_ok_which_could_not_be_read() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0, max_in_flight_bytes=100))
    bridge.source(deliver(1, content(b"x" * 100)))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    assert bridge.to_source() == CANCEL + requeue(1, multiple=True)
    assert not bridge.relay.paused
    bridge.source(deliver(2, M))
    assert bridge.to_source() == requeue(2, multiple=True), "what still comes goes back, too"
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.consumer is OFF


# --- The quarantine ------------------------------------------------------------------------------------------

COUNTED = PERSISTENT | {"headers": table({"x-delivery-count": b"l" + pack(">q", 17), "k": b"V"})}


def reasons(reason: str = "delivery-limit", code: int = 0, why: str = "", key: str = "key") -> dict[str, bytes]:
    return {
        "x-bridge-reason": text(reason),
        "x-bridge-reply-code": b"I" + pack(">I", code),
        "x-bridge-reply-text": text(why),
        "x-bridge-exchange": text("ex"),
        "x-bridge-routing-key": text(key),
        "x-bridge-time": b"T" + pack(">Q", 1_700_000_000),
    }


def condemned(bridge: Bridge, *delivery_tags: int) -> bytes:
    """Deliveries that came back too often; what the quarantine gets for the first of them."""
    bridge.source(*(deliver(tag, content(b"m", COUNTED), redelivered=1) for tag in delivery_tags))
    message = content(b"m", PERSISTENT | {"headers": table({"k": b"V"} | reasons())}, channel=2)
    return publish("sq.quarantine", channel=2) + message


def quarantining(*delivery_tags: int) -> Bridge:
    """The first of some condemned deliveries has been published to the quarantine."""
    bridge = Bridge()
    expected = condemned(bridge, *delivery_tags)
    bridge.relay.quarantine_opened()
    bridge.wait(0.1)
    assert bridge.to_source() == expected
    return bridge


def test_a_condemned_message_is_acked_when_the_quarantine_has_confirmed_it() -> None:
    bridge = Bridge()
    expected = condemned(bridge, 1, 2)
    assert bridge.relay.quarantine_wanted
    bridge.wait(0.1)
    assert bridge.to_source() == b""
    bridge.relay.quarantine_opened()
    assert not bridge.relay.quarantine_wanted
    bridge.wait(0.1)
    assert bridge.to_source() == expected
    bridge.wait(0.1)
    assert bridge.to_source() == b"", "one at a time"
    bridge.source(confirm(1, channel=2))
    assert bridge.to_source() == ack(1, multiple=False)
    bridge.wait(0.1)
    assert bridge.to_source() == expected
    bridge.source(confirm(2, channel=2))
    assert bridge.to_source() == ack(2, multiple=False)
    assert [q.delivery.delivery_tag for q in bridge.relay.quarantined] == [1, 2]
    assert bridge.books.quarantined == {"delivery-limit": 2}


def test_the_reply_of_the_destination_goes_along() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M, routing_key="a.key"))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, "PRECONDITION_FAILED - why"))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.relay.quarantine_opened()
    bridge.wait(0.1)
    headers = table(reasons("poison", 406, "PRECONDITION_FAILED - why", "a.key"))
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + content(
        b"m", PERSISTENT | {"headers": headers}, channel=2
    )


@pytest.mark.parametrize(
    "answer",
    (
        (confirm(1, channel=2, accepted=False),),
        (returned(content(b"m", channel=2), channel=2), confirm(1, channel=2)),
        (frames.close(2, 404, "no queue"),),
    ),
    ids=("nack", "return", "close"),
)
def test_what_the_quarantine_refuses_is_held(answer: tuple[bytes, ...]) -> None:
    """It came back too often: its best chance is to be forwarded."""
    bridge = quarantining(1)
    bridge.source(*answer)
    assert bridge.to_source() == b"", "invariant 1"
    assert bridge.to_destination() == publish() + content(b"m", PERSISTENT | {"headers": table({"k": b"V"})})


def test_a_confirm_from_the_quarantine_that_nobody_waits_for_is_nothing() -> None:
    bridge = quarantining(1)
    bridge.source(confirm(1, channel=2))
    bridge.to_source()
    bridge.source(confirm(1, channel=2))
    bridge.relay.quarantine_closed(bridge.now_s)
    assert bridge.to_source() == b""
    assert bridge.books.quarantined == {"delivery-limit": 1}


def test_a_header_that_leaves_no_room_for_the_reasons_is_not_published_to_the_quarantine() -> None:
    """The source would close the connection for a frame larger than agreed."""
    bridge = Bridge(frame_max=(150, 150))
    condemned(bridge, 1)
    bridge.relay.quarantine_opened()
    bridge.wait(0.1)
    assert bridge.to_source() == b""
    assert bridge.to_destination() != b""


def test_a_message_on_its_way_to_the_quarantine_is_not_given_back_meanwhile() -> None:
    """Its confirm would then be taken for that of the next one, which would be acked and lost."""
    bridge = quarantining(1, 2)
    bridge.source(deliver(3, M))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.wait(bridge.window.limits.hold_timeout_s + 1.0)
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == CANCEL + requeue(2, multiple=False) + requeue(3, multiple=False)
    bridge.open_destination()
    bridge.consume()
    condemned(bridge, 4)
    bridge.source(confirm(1, channel=2))
    assert bridge.to_source() == ack(1, multiple=False)
    assert bridge.window.in_flight == 1


def test_a_stop_waits_for_the_quarantine_and_gives_back_what_it_refuses() -> None:
    bridge = quarantining(1)
    bridge.relay.stop()
    bridge.source(frames.CANCEL_OK)
    assert not bridge.relay.source_drained
    assert bridge.to_source() == CANCEL
    bridge.relay.destination_lost(bridge.now_s)
    bridge.source(confirm(1, channel=2, accepted=False))
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.relay.source_drained


def test_when_time_is_up_the_quarantine_is_not_waited_for() -> None:
    bridge = quarantining(1)
    bridge.relay.stop()
    bridge.source(frames.CANCEL_OK)
    bridge.to_source()
    bridge.relay.abandon()
    assert bridge.to_source() == requeue(1, multiple=True)
    bridge.source(confirm(1, channel=2))
    assert bridge.to_source() == b""


def test_with_memory_full_the_quarantines_answer_is_read() -> None:
    """It comes on the connection that is paused: the memory that it would free would be held for ever."""
    bridge = Bridge(WindowLimits(max_in_flight_bytes=10))
    condemned(bridge, 1)
    assert bridge.relay.paused
    bridge.relay.quarantine_opened()
    bridge.wait(0.1)
    assert not bridge.relay.paused
    bridge.source(confirm(1, channel=2))
    assert bridge.books.quarantined == {"delivery-limit": 1}
