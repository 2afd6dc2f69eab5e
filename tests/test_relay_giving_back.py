"""The relay: messages given back to the source, and those that go to the quarantine."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.consumer import Consumer
from bridge.content import HeaderPolicy
from bridge.window import WindowLimits
from tests import frames
from tests.frames import PERSISTENT, confirm, content, deliver, returned, table, text
from tests.relay_scene import CANCEL, Bridge, M, ack, publish, requeue

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
    bridge.relay.source_lost()
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
    off.relay.source_lost()
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
    assert bridge.to_source() == CANCEL + ack(4, multiple=True), "the ack first would bring one more, out of order"
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
    assert bridge.relay.consumer is Consumer.OFF


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


def test_what_must_not_be_published_as_it_is_does_not_go_to_the_quarantine_as_it_is() -> None:
    """Kept for the destination, a foreign `user_id` and `CC` would be refused and routed by the source just as well."""
    bridge = Bridge()
    bridge.relay.policy = HeaderPolicy(user_id="keep", cc="keep")
    bridge.relay.source_lost()
    bridge.open_source()
    bridge.consume()
    copies = b"A" + pack(">I", 6) + text("c")
    message = content(b"m", PERSISTENT | {"headers": table({"CC": copies}), "user_id": b"alice"})
    bridge.source(deliver(1, message))
    assert bridge.to_destination() == publish() + message
    bridge.destination(frames.close(1, 406, "PRECONDITION_FAILED - user_id"))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.relay.quarantine_opened()
    bridge.wait(0.1)
    moved = {"x-bridge-cc": copies, "x-bridge-user-id": text("alice")}
    headers = table(moved | reasons("poison", 406, "PRECONDITION_FAILED - user_id"))
    expected = content(b"m", PERSISTENT | {"headers": headers}, channel=2)
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + expected


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


def test_with_memory_full_the_quarantines_answers_are_read() -> None:
    """They come on the connection that is paused: the memory that they would free would be held for ever."""
    bridge = Bridge(WindowLimits(max_in_flight_bytes=10))
    condemned(bridge, 1)
    assert not bridge.relay.paused, "its channel is to be opened"
    bridge.relay.quarantine_opened()
    assert bridge.relay.paused
    bridge.wait(0.1)
    assert not bridge.relay.paused
    bridge.source(confirm(1, channel=2))
    assert bridge.books.quarantined == {"delivery-limit": 1}
