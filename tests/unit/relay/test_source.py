"""The source's port: deliveries in; acks, requeues, cancels and publishes to the quarantine out."""

from __future__ import annotations

import pytest

from bridge.amqp.events import Dropped
from bridge.errors import MalformedFrameError
from bridge.relay.consumer import Consumer
from tests.support import frames
from tests.support.frames import confirm, deliver, returned
from tests.support.relay_scene import CANCEL, Bridge, M, ack, publish, quarantining, requeue


def test_what_the_relay_was_about_to_write_is_gone_with_the_source() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.relay.source.lost(bridge.now_s)
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
    bridge.relay.source.take([Dropped(6, redelivered=False), Dropped(7, redelivered=False)], bridge.now_s)
    assert bridge.to_source() == requeue(6, multiple=False) + requeue(7, multiple=False)


def test_a_delivery_that_was_dropped_is_requeued_and_counted() -> None:
    bridge = Bridge()
    bridge.relay.source.take([Dropped(1, redelivered=True)], bridge.now_s)
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.books.requeued == {"memory": 1}
    assert bridge.books.received_redelivered == 1


def test_without_a_large_message_for_the_quarantine_there_is_no_piece_of_one() -> None:
    assert Bridge().relay.source.take_piece() == []


def test_a_delivery_that_memory_had_no_room_for_is_requeued_and_its_size_told() -> None:
    bridge = Bridge()
    assert bridge.relay.source.unfit_bytes == 0
    bridge.relay.source.take([Dropped(1, redelivered=False, unfit_bytes=100), Dropped(2, redelivered=False)], 1.0)
    assert bridge.relay.source.unfit_bytes == 100
    assert bridge.books.requeued == {"memory": 2}


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


def test_a_close_of_the_quarantines_channel_ends_no_more_than_the_quarantine() -> None:
    bridge = quarantining(1)
    bridge.source(frames.close(2, 404, "no queue"))
    assert bridge.relay.source.close is None
    assert not bridge.window.quarantining


@pytest.mark.parametrize("raw", (confirm(1), returned(M)), ids=("confirm", "return"))
def test_the_source_confirms_and_returns_nothing_on_the_data_channel(raw: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="from the source"):
        Bridge().source(raw)


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


def test_a_source_that_is_blocked_forwards_as_before() -> None:
    """It is published to nothing but what goes to the quarantine."""
    bridge = Bridge()
    bridge.source(frames.BLOCKED, deliver(1, M), frames.UNBLOCKED)
    assert bridge.to_destination() == publish() + M


def test_there_is_data_to_send_until_it_has_been_handed_over() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    assert not bridge.relay.source.has_data_to_send
    bridge.destination(confirm(1))
    assert bridge.relay.source.has_data_to_send
    assert bridge.to_source() == ack(1, multiple=True)
    assert not bridge.relay.source.has_data_to_send


def test_the_answer_to_a_cancel_and_a_close_reach_the_steering() -> None:
    bridge = Bridge()
    bridge.source(frames.CANCEL)
    assert bridge.steering.consumer is Consumer.LOST
    bridge.source(frames.close(1, 541, "INTERNAL_ERROR"))
    assert [close.reply_code for close in bridge.closes] == [541]
