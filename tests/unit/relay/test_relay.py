"""The relay: two cutters, one window, and the steering; bytes in, bytes out, no socket."""

from __future__ import annotations

import pytest

from bridge.amqp.events import Close, Dropped
from bridge.errors import MalformedFrameError
from bridge.relay.relay import JOIN_BYTES
from bridge.window.window import WindowLimits
from tests.support import frames
from tests.support.frames import PERSISTENT, confirm, content, deliver, returned, table, text
from tests.support.relay_scene import CANCEL, Bridge, M, ack, publish, quarantining, requeue
from tests.support.targets import OWN_KEYS

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
    bridge = Bridge(target=OWN_KEYS)
    bridge.source(deliver(1, M, routing_key="a"), deliver(2, M, routing_key="", exchange=""))
    assert bridge.to_destination() == publish("a", "out") + M + publish("", "out") + M


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


def test_a_header_too_large_for_the_destination_goes_to_the_quarantine_within_the_call_that_finds_it() -> None:
    """It costs no channel, and stops none of the others."""
    bridge = quarantining(1)
    bridge.source(confirm(1, channel=2))
    bridge.to_source()
    bridge.relay.destination_lost(bridge.now_s)
    bridge.connect_destination()
    bridge.relay.destination_opened(200, bridge.now_s)
    wide = content(b"wide", PERSISTENT | {"headers": table({"o": text("o" * 200)})})
    user = content(b"user", PERSISTENT | {"headers": table({"o": text("o" * 150)}), "user_id": b"alice"})
    bridge.source(deliver(2, wide), deliver(3, user), deliver(4, M))
    small = content(b"user", PERSISTENT | {"headers": table({"o": text("o" * 150)})})
    assert bridge.to_destination() == publish() + small + publish() + M
    assert bridge.to_source().startswith(publish("sq.quarantine", channel=2) + frames.header(4, {}, 2)[:1])
    assert bridge.window.quarantining == 1
    assert bridge.books.headers_left_out == 1


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


def test_all_that_is_requeued_goes_out_as_one_frame_only_when_nothing_else_is_in_flight() -> None:
    """A quorum queue of RabbitMQ 4.3 then puts it back in its order."""
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in (1, 2, 3)))
    bridge.window.release("shutdown")
    bridge.wait(0.0)
    assert bridge.to_source() == requeue(3, multiple=True)
    bridge.source(deliver(4, M))
    bridge.window.released()
    bridge.to_source()
    bridge.source(deliver(5, M))
    bridge.to_destination()
    bridge.relay.source_events([Dropped(6, redelivered=False), Dropped(7, redelivered=False)], bridge.now_s)
    assert bridge.to_source() == requeue(6, multiple=False) + requeue(7, multiple=False)


def test_a_delivery_that_was_dropped_is_requeued_and_counted() -> None:
    bridge = Bridge()
    bridge.relay.source_events([Dropped(1, redelivered=True)], bridge.now_s)
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.books.requeued == {"memory": 1}
    assert bridge.books.received_redelivered == 1


def test_a_gap_in_the_delivery_tags_is_malformed() -> None:
    """What was lost on the way would stay unacknowledged for ever."""
    bridge = Bridge()
    bridge.source(deliver(1, M))
    with pytest.raises(MalformedFrameError, match="delivery 3 where delivery 2 was to come"):
        bridge.source(deliver(3, M))


def test_a_cancel_is_written_before_the_acks_and_requeues_that_waited_for_it() -> None:
    """What is requeued before the cancel is written comes straight back."""
    bridge = Bridge()
    bridge.source(deliver(1, M), deliver(2, M))
    bridge.to_destination()
    bridge.stop()
    bridge.destination(confirm(1))
    bridge.time_is_up()
    assert bridge.to_source() == CANCEL + ack(1, multiple=True) + requeue(2, multiple=True)


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


def test_a_close_of_the_quarantines_channel_ends_no_more_than_the_quarantine() -> None:
    bridge = quarantining(1)
    bridge.source(frames.close(2, 404, "no queue"))
    assert bridge.relay.source_close is None
    assert not bridge.window.quarantining


def test_a_blocked_source_is_no_matter_and_a_blocked_destination_gets_nothing() -> None:
    bridge = Bridge()
    bridge.source(frames.BLOCKED, deliver(1, M), frames.UNBLOCKED)
    bridge.destination(frames.BLOCKED)
    assert bridge.to_destination() == b""
    bridge.destination(frames.UNBLOCKED)
    assert bridge.to_destination() == publish() + M


def test_the_destinations_words_when_it_blocks_are_kept() -> None:
    bridge = Bridge()
    assert bridge.relay.blocked_reason == ""
    bridge.destination(frames.BLOCKED)
    assert bridge.relay.blocked_reason == "low on memory"


def test_a_connection_that_is_blocked_before_it_is_of_use_stays_so_and_the_next_one_is_not() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.connect_destination()
    bridge.destination(frames.BLOCKED)
    bridge.relay.destination_opened(0, bridge.now_s)
    assert bridge.to_destination() == b""
    bridge.destination(frames.UNBLOCKED)
    assert bridge.to_destination() == publish() + M
    bridge.relay.destination_lost(bridge.now_s)
    bridge.connect_destination()
    bridge.destination(frames.BLOCKED)
    bridge.open_destination()
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


def test_what_was_received_changes_with_every_byte_that_comes() -> None:
    bridge = Bridge()
    whole = deliver(1, M)
    seen = [bridge.steering.received]
    for raw in (whole[:9], whole[9:]):
        bridge.source(raw)
        seen.append(bridge.steering.received)
    assert len(set(seen)) == 3


def test_the_quarantines_answers_reach_it() -> None:
    bridge = quarantining(1)
    bridge.source(confirm(1, channel=2))
    assert bridge.books.quarantined == {"delivery-limit": 1}


def test_while_nobody_knows_whether_what_is_held_is_still_ours_nothing_is_published() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M), frames.CANCEL)
    assert bridge.to_destination() == b""


def test_with_memory_full_the_source_is_not_read() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=1))
    assert not bridge.relay.paused
    bridge.source(deliver(1, M))
    assert bridge.relay.paused


def test_what_the_destination_says_after_the_end_has_nobody_to_hear_it() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.stop()
    bridge.time_is_up()
    bridge.destination(confirm(1))
    assert bridge.books.forwarded == 0
