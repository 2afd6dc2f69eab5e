"""The steering: a pause, which drains as a shutdown does, and what follows when it ends."""

from __future__ import annotations

from math import inf

import pytest

from bridge.relay.action import AskQueue, Consume, EndGeneration, Stop
from bridge.relay.consumer import Consumer
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.state import State
from tests.support import frames
from tests.support.frames import confirm, deliver
from tests.support.relay_scene import (
    AUTO_DELETE,
    CANCEL,
    EMPTY_QUEUE,
    QUORUM_3,
    STREAM,
    UNKNOWN,
    Bridge,
    M,
    ack,
    cancel,
    cancel_ok,
    publish,
    quarantining,
    requeue,
)


def pause(bridge: Bridge) -> None:
    """Pause, and let the time pass in which deliveries may still come."""
    bridge.pause()
    bridge.wait(0.05)
    bridge.wait(0.05)


def paused(bridge: Bridge) -> Bridge:
    """Pause a bridge that holds nothing."""
    pause(bridge)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSED
    return bridge


def test_a_pause_forwards_cancels_and_only_then_acks() -> None:
    bridge = Bridge(facts=QUORUM_3)
    bridge.source(*(deliver(tag, M) for tag in range(1, 3)))
    bridge.to_destination()
    bridge.pause()
    assert bridge.steering.pausing
    assert bridge.to_source() == b""
    bridge.source(deliver(3, M))
    assert bridge.to_destination() == publish() + M, "it was under way, and the destination accepts it"
    bridge.destination(confirm(3, multiple=True))
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL + ack(3, multiple=True)
    assert bridge.state() is State.PAUSING
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSED
    assert bridge.wanted_prefetch == 0
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.steering.quiet_until_s == inf
    assert bridge.books.requeued == {}


def test_a_hundred_pauses_at_a_healthy_destination_requeue_nothing() -> None:
    """So that they use up no delivery limit where RabbitMQ counts what is requeued."""
    bridge = Bridge(facts=QUORUM_3)
    tags = {"ct"}
    for number in range(1, 101):
        bridge.source(deliver(number, M, consumer_tag=next(iter(tags))))
        bridge.to_destination()
        bridge.pause()
        bridge.destination(confirm(number))
        bridge.wait(0.05)
        bridge.wait(0.05)
        assert bridge.to_source() == b"".join(map(cancel, tags)) + ack(number, multiple=True)
        bridge.source(*map(cancel_ok, tags))
        assert bridge.state() is State.PAUSED
        bridge.resume()
        assert bridge.state() is State.PROBING
        tags = {f"ct-{number}"}
        assert bridge.consume(*tags) == 1, "a single message first"
    assert bridge.books.requeued == {}
    assert bridge.books.forwarded == 100
    assert bridge.books.imbalance == 0


def test_a_pause_with_the_destination_away_requeues_what_is_held() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.pause()
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(3, multiple=True)
    assert bridge.books.requeued == {"pause": 3}
    assert bridge.state() is State.PAUSED


def test_a_pause_requeues_after_the_shutdown_timeout_and_waits_for_what_is_published() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 41)))
    assert bridge.to_destination()  # the publish window lets 16 through
    bridge.pause()
    bridge.wait(10.0)
    assert bridge.to_source() == CANCEL, "at half-time"
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == b""
    bridge.wait(9.9)
    assert bridge.books.requeued == {}
    bridge.wait(0.1)
    assert bridge.books.requeued == {"pause": 24}
    assert bridge.state() is State.PAUSING, "the confirms may still come, and requeued they would be there twice"
    bridge.destination(confirm(16, multiple=True))
    assert bridge.state() is State.PAUSED
    assert bridge.books.forwarded == 16
    assert bridge.books.duplicates_possible == 0


def test_a_pause_waits_for_the_quarantine() -> None:
    bridge = quarantining(1)
    pause(bridge)
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSING
    bridge.source(confirm(1, channel=2))
    assert bridge.state() is State.PAUSED
    assert bridge.books.quarantined == {"delivery-limit": 1}


def test_a_pause_while_consuming_begins_cancels_when_it_has_begun() -> None:
    bridge = Bridge(consuming=False)
    bridge.start()
    bridge.pause()
    assert bridge.to_source() == b""
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSED


def test_a_pause_while_consuming_begins_and_the_destination_is_away_cancels_at_once_then() -> None:
    bridge = Bridge(consuming=False)
    bridge.start()
    bridge.relay.destination.lost(bridge.now_s)
    bridge.pause()
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    assert bridge.to_source() == CANCEL


def test_a_pause_before_consuming_has_begun_begins_nothing() -> None:
    bridge = Bridge(consuming=False)
    assert bridge.relay.decide(bridge.now_s) == Consume(1000)
    bridge.pause()
    assert not bridge.steering.starting("ct", bridge.now_s)
    bridge.steering.not_started()
    assert bridge.state() is State.PAUSED
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_pause_of_a_probing_bridge_forwards_its_message() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.pause()
    bridge.destination(confirm(1))
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL + ack(1, multiple=True)


def test_a_pause_while_it_widens_cancels_both_consumers() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.consume("ct-2")
    pause(bridge)
    assert bridge.to_source() == CANCEL + cancel("ct-2") + ack(1, multiple=True)
    bridge.source(frames.CANCEL_OK, cancel_ok("ct-2"))
    assert bridge.state() is State.PAUSED


def test_a_pause_while_requeueing_ends_in_a_pause_and_not_in_a_probe() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.wait(300.0)
    assert bridge.state() is State.REQUEUEING
    assert bridge.to_source() == CANCEL
    bridge.pause()
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.state() is State.PAUSED


def test_a_pause_of_a_bridge_that_stops_or_has_stopped_changes_nothing() -> None:
    bridge = Bridge()
    bridge.stop()
    bridge.pause()
    assert bridge.state() is State.STOPPING
    bridge.time_is_up()
    bridge.pause()
    bridge.resume()
    assert bridge.state() is State.ABANDONED


def test_a_stop_of_a_paused_bridge_is_decided_at_once() -> None:
    bridge = paused(Bridge())
    bridge.stop()
    assert not bridge.steering.pausing
    assert bridge.relay.decide(bridge.now_s) == Stop()


def test_a_stop_while_pausing_drains_as_any_other() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.pause()
    bridge.stop()
    bridge.destination(confirm(1))
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL + ack(1, multiple=True)
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.decide(bridge.now_s) == Stop()


def test_a_bridge_that_starts_paused_consumes_when_it_is_resumed() -> None:
    bridge = Bridge(start_paused=True, consuming=False)
    assert bridge.state() is State.PAUSED
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.resume()
    bridge.resume()
    assert bridge.relay.decide(bridge.now_s) == Consume(1)


def test_a_pause_outlives_the_source_and_the_destination() -> None:
    bridge = paused(Bridge())
    bridge.lose_source()
    bridge.lose_destination()
    assert bridge.state() is State.PAUSED
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.steering.quiet_until_s == inf
    bridge.open_source()
    bridge.resume()
    assert bridge.relay.decide(bridge.now_s) == Consume(1)


def test_a_source_that_is_lost_while_pausing_completes_the_pause() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.pause()
    bridge.lose_source()
    assert bridge.state() is State.PAUSING
    bridge.wait(0.05)
    assert bridge.state() is State.PAUSED
    bridge.destination(confirm(1))
    bridge.resume()
    bridge.consume()
    bridge.source(deliver(1, M, redelivered=1))
    assert bridge.to_destination() == publish() + M, "without a message id nobody can tell that it is the same"


def test_an_operator_who_resumes_before_the_pause_is_complete_has_it_end_then() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.pause()
    bridge.resume()
    assert bridge.state() is State.PAUSING
    bridge.destination(confirm(1))
    bridge.wait(0.05)
    bridge.wait(0.05)
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PROBING
    assert bridge.wanted_prefetch == 1
    assert bridge.books.requeued == {}


def test_an_operator_who_pauses_resumes_and_pauses_has_a_paused_bridge() -> None:
    bridge = Bridge()
    bridge.pause()
    bridge.resume()
    bridge.pause()
    bridge.wait(0.05)
    bridge.wait(0.05)
    bridge.source(frames.CANCEL_OK)
    bridge.pause()
    assert bridge.state() is State.PAUSED


# --- A queue that a cancel may delete ------------------------------------------------------------------------


@pytest.mark.parametrize("facts", (AUTO_DELETE, UNKNOWN, QueueFacts("quorum", auto_delete=False, expires=True)))
def test_a_queue_that_a_cancel_may_delete_keeps_its_consumer_and_publishing_stops(facts: QueueFacts) -> None:
    bridge = Bridge(facts=facts)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.pause()
    bridge.source(deliver(2, M))
    assert bridge.to_destination() == b""
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    assert bridge.state() is State.PAUSED
    assert bridge.steering.consumer is Consumer.ON
    bridge.wait(3000.0)
    assert bridge.relay.decide(bridge.now_s) in {None, AskQueue()}, "no watchdog and no hold timeout runs"
    bridge.resume()
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(2))
    assert bridge.books.forwarded == 2
    assert bridge.books.requeued == {}


def test_a_queue_that_a_cancel_may_delete_keeps_a_consumer_that_has_just_begun() -> None:
    bridge = Bridge(facts=AUTO_DELETE, consuming=False)
    bridge.start()
    bridge.pause()
    assert bridge.state() is State.PAUSING
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    assert bridge.to_source() == b""
    assert bridge.state() is State.PAUSED


def test_a_stop_of_a_paused_bridge_that_has_kept_its_consumer_forwards_what_it_holds() -> None:
    bridge = Bridge(facts=AUTO_DELETE)
    bridge.pause()
    bridge.wait(0.05)
    assert bridge.state() is State.PAUSED
    bridge.source(deliver(1, M))
    bridge.stop()
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(1))
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(EMPTY_QUEUE, bridge.now_s)
    assert bridge.to_source() == ack(1, multiple=True)


def test_what_a_lost_consumer_has_delivered_is_forwarded_although_the_bridge_is_paused() -> None:
    """It may exist nowhere else any more."""
    bridge = Bridge()
    bridge.source(deliver(1, M), frames.CANCEL)
    bridge.pause()
    bridge.wait(30.0)
    assert bridge.to_source() == b"", "requeued to a queue that is gone, it would be lost"
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(QueueState(0, 0, exists=False), bridge.now_s)
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert ending.reason == "consumer-cancelled"
    bridge.lose_source()
    bridge.wait(0.05)
    assert bridge.state() is State.PAUSED


# --- A stream ------------------------------------------------------------------------------------------------


def test_what_of_a_stream_is_not_accepted_in_time_ends_its_generation() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.source(*(deliver(tag, M) for tag in range(1, 3)))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.pause()
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason, ending.drop) == ("source", "paused", False)
    bridge.lose_source()
    bridge.wait(0.05)
    assert bridge.state() is State.PAUSED
    assert bridge.books.requeued == {}
