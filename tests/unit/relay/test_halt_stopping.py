"""The steering: a shutdown, and what it still forwards, acks and requeues."""

from __future__ import annotations

import pytest

from bridge.relay.action import AskQueue, Consume, Stop
from bridge.relay.consumer import Consumer
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.state import State
from bridge.relay.steering import ASK_AGAIN_S
from tests.support import frames
from tests.support.frames import confirm, deliver
from tests.support.relay_scene import (
    AUTO_DELETE,
    CANCEL,
    EMPTY_QUEUE,
    STREAM,
    Bridge,
    M,
    ack,
    cancel,
    cancel_ok,
    publish,
    quarantining,
    requeue,
)


def stop(bridge: Bridge) -> None:
    """Shut down, and let the time pass in which deliveries may still come."""
    bridge.stop()
    bridge.wait(0.05)
    bridge.wait(0.05)


def test_a_stop_is_decided_once_when_all_is_settled() -> None:
    bridge = Bridge()
    bridge.relay.source.lost(bridge.now_s)
    bridge.stop()
    bridge.stop()
    assert bridge.steering.stopping
    assert not bridge.steering.abandoned
    assert bridge.relay.decide(bridge.now_s) == Stop()
    assert bridge.steering.abandoned
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.stop()
    bridge.wait(0.05)
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_stop_forwards_cancels_and_only_then_acks() -> None:
    """A standby begins at the cancel: what it publishes must not overtake what is on its way."""
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.stop()
    assert bridge.to_source() == b""
    bridge.destination(confirm(2, multiple=True))
    bridge.source(deliver(4, M))
    bridge.wait(0.05)
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(3) + confirm(4))
    bridge.source(deliver(5, M))
    bridge.to_destination()
    bridge.destination(confirm(5))
    bridge.wait(0.05)
    assert bridge.to_source() == b"", "more may come: without acks a prefetch ends the deliveries"
    bridge.wait(0.05)
    acks = ack(2, multiple=True) + ack(3, multiple=True) + ack(4, multiple=True) + ack(5, multiple=True)
    assert bridge.to_source() == CANCEL + acks
    assert not bridge.steering.source_drained
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.source_drained


def test_a_stop_that_deliveries_prolong_cancels_forwards_and_requeues_the_rest() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.stop()
    bridge.source(deliver(4, M))
    bridge.wait(10.0)  # half of the shutdown timeout
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.wanted_prefetch == 0
    assert bridge.to_source() == b""
    bridge.destination(confirm(3, multiple=True))
    assert bridge.to_destination() == publish() + M, "the destination is well: forwarded, not requeued"
    assert not bridge.steering.source_drained
    bridge.destination(confirm(4))
    assert bridge.to_source() == ack(3, multiple=True) + ack(4, multiple=True)
    assert bridge.steering.source_drained


def test_a_stop_with_the_destination_away_requeues_at_the_cancel_ok() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.stop()
    bridge.source(deliver(4, M))
    assert bridge.to_source() == CANCEL, "what is requeued before the cancel comes straight back"
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(4, multiple=True), "in one go, so that its order stays"
    assert bridge.steering.source_drained


def test_a_stop_while_consuming_begins_cancels_when_it_has_begun() -> None:
    bridge = Bridge(consuming=False)
    bridge.start()
    bridge.stop()
    assert bridge.to_source() == b""
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.source_drained


def test_a_stop_while_consuming_begins_and_the_destination_is_away_cancels_at_once_then() -> None:
    bridge = Bridge(consuming=False)
    bridge.start()
    bridge.relay.destination.lost(bridge.now_s)
    bridge.stop()
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    assert bridge.to_source() == CANCEL


def test_a_stop_before_consuming_has_begun_begins_nothing() -> None:
    bridge = Bridge(consuming=False)
    assert bridge.relay.decide(bridge.now_s) == Consume(1000)
    bridge.stop()
    assert not bridge.steering.starting("ct", bridge.now_s)
    bridge.steering.not_started()
    assert bridge.relay.decide(bridge.now_s) == Stop()


def test_when_the_destination_is_lost_during_a_stop_what_is_not_confirmed_is_requeued() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.stop()
    bridge.destination(confirm(1))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL + ack(1, multiple=True)
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(3, multiple=True)
    assert bridge.steering.source_drained


def test_a_stop_without_a_consumer_cancels_nothing() -> None:
    lost = Bridge()
    lost.source(frames.CANCEL)
    off = Bridge()
    off.relay.source.lost(off.now_s)
    for bridge in (lost, off):
        bridge.stop()
        assert bridge.to_source() == b""
        assert bridge.steering.source_drained


def test_a_stop_while_it_widens_cancels_both_consumers_and_then_acks() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.consume("ct-2")
    bridge.stop()
    assert bridge.to_source() == CANCEL
    bridge.source(deliver(2, M, consumer_tag="ct-2"), frames.CANCEL_OK)
    bridge.to_destination()
    bridge.destination(confirm(2))
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == cancel("ct-2") + ack(1, multiple=True) + ack(2, multiple=True)
    bridge.source(cancel_ok("ct-2"))
    assert bridge.relay.decide(bridge.now_s) == Stop()


def test_a_stop_while_the_queue_of_a_lost_consumer_is_asked_waits_for_its_answer() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M), frames.CANCEL)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.stop()
    bridge.wait(0.05)
    assert bridge.to_source() == b"", "what would be forwarded is not yet known to be ours"
    bridge.steering.queue_answered(QueueState(0, 0, exists=False), bridge.now_s)
    assert bridge.to_destination() == publish() + M, "it may exist nowhere else any more"
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    assert bridge.relay.decide(bridge.now_s) == Stop()


# --- When time is up -----------------------------------------------------------------------------------------


def test_when_time_is_up_the_published_are_requeued_too_and_late_confirms_are_not_heard() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.stop()
    bridge.time_is_up()
    assert bridge.steering.state is State.ABANDONED
    assert bridge.to_source() == CANCEL + requeue(3, multiple=True)
    assert bridge.books.requeued == {"shutdown": 3}
    assert bridge.books.duplicates_possible == 3
    bridge.destination(confirm(3, multiple=True))
    assert bridge.to_source() == b""
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.source_drained


def test_a_side_that_is_lost_after_time_was_up_changes_nothing() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.stop()
    bridge.time_is_up()
    bridge.relay.source.lost(bridge.now_s)
    bridge.relay.destination.lost(bridge.now_s)
    assert bridge.steering.state is State.ABANDONED
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_source_that_is_lost_during_a_shutdown_ends_it() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.stop()
    bridge.lose_source()
    assert bridge.steering.state is State.STOPPING
    assert bridge.wanted_prefetch == 0
    assert bridge.relay.decide(bridge.now_s) == Stop()


def test_a_stop_waits_for_the_quarantine_and_requeues_what_it_refuses() -> None:
    bridge = quarantining(1)
    stop(bridge)
    bridge.source(frames.CANCEL_OK)
    assert not bridge.steering.source_drained
    assert bridge.to_source() == CANCEL
    bridge.relay.destination.lost(bridge.now_s)
    bridge.source(confirm(1, channel=2, accepted=False))
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.steering.source_drained


def test_when_time_is_up_the_quarantine_is_not_waited_for() -> None:
    bridge = quarantining(1)
    stop(bridge)
    bridge.source(frames.CANCEL_OK)
    bridge.to_source()
    bridge.time_is_up()
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.books.duplicates_possible == 1
    bridge.source(confirm(1, channel=2))
    assert bridge.to_source() == b""


# --- A queue that deletes itself when it is left -------------------------------------------------------------


@pytest.mark.parametrize("facts", (AUTO_DELETE, QueueFacts("quorum", auto_delete=False, expires=True)))
def test_a_queue_that_deletes_itself_is_emptied_before_its_consumer_is_cancelled(facts: QueueFacts) -> None:
    bridge = Bridge(facts=facts)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.stop()
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(QueueState(ready=1, consumers=1), bridge.now_s)
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True), "so that more comes"
    bridge.source(deliver(2, M))
    bridge.to_destination()
    bridge.wait(ASK_AGAIN_S / 2)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.wait(ASK_AGAIN_S / 2)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(EMPTY_QUEUE, bridge.now_s)
    assert bridge.steering.consumer is Consumer.ON, "one is still under way"
    bridge.destination(confirm(2))
    assert bridge.to_source() == ack(2, multiple=True)
    bridge.wait(ASK_AGAIN_S)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(None, bridge.now_s)
    assert bridge.steering.consumer is Consumer.ON, "it did not say"
    bridge.wait(ASK_AGAIN_S)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(EMPTY_QUEUE, bridge.now_s)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.decide(bridge.now_s) == Stop()
    assert bridge.books.requeued == {}


def test_a_queue_that_deletes_itself_and_cannot_be_emptied_in_time_is_left_when_time_is_up() -> None:
    bridge = Bridge(facts=AUTO_DELETE)
    bridge.stop()
    bridge.wait(17.9)
    bridge.source(deliver(1, M))
    assert bridge.to_destination() == publish() + M
    bridge.wait(0.1)
    bridge.source(deliver(2, M))
    assert bridge.to_destination() == b"", "its confirm might come too late"
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    bridge.now_s += 2.0
    assert bridge.relay.decide(bridge.now_s) == Stop()
    assert bridge.to_source() == CANCEL + requeue(2, multiple=True)


def test_a_queue_that_deletes_itself_is_consumed_on_where_consuming_has_just_begun() -> None:
    bridge = Bridge(facts=AUTO_DELETE, consuming=False)
    bridge.start()
    bridge.relay.destination.lost(bridge.now_s)
    bridge.stop()
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    assert bridge.to_source() == b""
    assert bridge.steering.consumer is Consumer.ON


# --- A stream ------------------------------------------------------------------------------------------------


def test_a_stop_waits_for_what_of_a_stream_is_published_and_gives_nothing_back() -> None:
    """Nothing can be requeued there; whoever reads it next knows where to begin."""
    bridge = Bridge(facts=STREAM)
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.window._destination.publish_window.narrow(1)
    assert bridge.to_destination() == publish() + M
    bridge.stop()
    bridge.wait(10.0)
    bridge.source(frames.CANCEL_OK)
    assert not bridge.steering.source_drained
    bridge.destination(frames.BLOCKED)
    bridge.destination(confirm(1))
    assert bridge.to_source() == CANCEL + ack(1, multiple=True)
    assert bridge.relay.decide(bridge.now_s) == Stop()
    assert bridge.to_source() == b""
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.books.requeued == {}
    assert bridge.books.stale_held == 2


def test_when_time_is_up_nothing_of_a_stream_is_requeued_either() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.source(deliver(1, M), deliver(2, M))
    bridge.to_destination()
    bridge.stop()
    bridge.time_is_up()
    assert bridge.to_source() == CANCEL
    bridge.destination(confirm(2, multiple=True))
    assert bridge.to_source() == b""
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.books.requeued == {}
    assert bridge.books.stale_published == 2
