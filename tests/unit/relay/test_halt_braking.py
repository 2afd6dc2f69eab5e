"""The steering under a brake: it cancels, forwards what is in the window, rests, and goes on without an operator."""

from __future__ import annotations

from math import inf

from bridge.relay.action import AskDestination, Consume, Stop
from bridge.relay.consumer import Consumer
from bridge.relay.queue import QueueState
from bridge.relay.state import State
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import confirm, deliver
from tests.support.relay_scene import AUTO_DELETE, CANCEL, QUORUM_3, Bridge, M, ack, publish, requeue

BRAKED = WindowLimits(destination_counted=True, destination_max_ready=10)
LONELY = WindowLimits(destination_counted=True)


def braked(bridge: Bridge) -> Bridge:
    """The destination's queue is full, and the bridge holds nothing."""
    bridge.count(10)
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSED
    return bridge


def running(limits: WindowLimits = BRAKED, **how: object) -> Bridge:
    """A bridge that consumes from its source; the destination's queue is empty."""
    bridge = Bridge(limits, consuming=False, **how)  # type: ignore[arg-type]  # as `Bridge` has them
    assert bridge.relay.decide(bridge.now_s) == AskDestination()
    bridge.count(0, 5)
    assert bridge.consume() > 0
    return bridge


def test_nothing_is_consumed_before_the_destination_has_been_counted() -> None:
    bridge = Bridge(BRAKED, consuming=False)
    assert bridge.wanted_prefetch == 0
    assert bridge.relay.decide(bridge.now_s) == AskDestination()
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.count(10)
    assert bridge.wanted_prefetch == 0
    assert bridge.state() is State.PAUSED, "it holds nothing"
    bridge.count(5)
    assert bridge.state() is State.PROBING
    assert bridge.wanted_prefetch == 1


def test_when_by_what_was_published_the_queue_may_be_full_it_is_counted_before_more_is_published() -> None:
    bridge = running()
    bridge.source(*(deliver(tag, M) for tag in range(1, 13)))
    assert bridge.to_destination() == (publish() + M) * 10
    bridge.destination(confirm(10, multiple=True))
    assert bridge.to_destination() == b""
    assert bridge.relay.decide(bridge.now_s) is None, "it was counted less than a tenth of a second ago"
    bridge.wait(0.1)
    assert bridge.relay.decide(bridge.now_s) == AskDestination()
    bridge.count(8, 1)
    assert bridge.state() is State.RUNNING
    assert bridge.to_destination() == (publish() + M) * 2
    assert bridge.books.held == 0


def test_a_brake_forwards_what_is_in_the_window_and_only_then_cancels_and_acks() -> None:
    """A standby of the source begins where the consumer ends, and may not overtake."""
    bridge = running()
    bridge.source(*(deliver(tag, M) for tag in range(1, 13)))
    assert bridge.to_destination() == (publish() + M) * 10
    bridge.count(10)
    assert bridge.steering.braked
    assert bridge.steering.told_state == "braking"
    assert bridge.to_destination() == (publish() + M) * 2, "N and what is in the window"
    bridge.destination(confirm(12, multiple=True))
    assert bridge.to_source() == b""
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL + ack(12, multiple=True)
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.told_state == "braked"
    assert not bridge.steering.paused_by_operator
    assert bridge.books.requeued == {}
    assert bridge.window.in_flight == 0
    assert bridge.steering.quiet_until_s == 1001.0, "a second after the answer"
    assert bridge.relay.decide(bridge.now_s) is None


def test_it_goes_on_at_half_with_a_single_message_first() -> None:
    bridge = braked(running())
    bridge.count(6)
    assert bridge.state() is State.PAUSED
    bridge.count(5)
    assert bridge.state() is State.PROBING
    assert not bridge.steering.braked
    assert bridge.relay.decide(bridge.now_s) == Consume(1)


def test_a_hundred_brakes_requeue_nothing() -> None:
    """Where RabbitMQ counts what is requeued, they use up no delivery limit."""
    bridge = running(facts=QUORUM_3)
    tag = "ct"
    for number in range(1, 101):
        bridge.source(deliver(number, M, consumer_tag=tag))
        bridge.to_destination()
        bridge.count(10)
        bridge.destination(confirm(number))
        bridge.wait(0.05)
        bridge.wait(0.05)
        bridge.source(frames.method(1, 60, 31, frames.short(tag)))
        assert bridge.state() is State.PAUSED
        bridge.count(0, 1)
        tag = f"ct-{number}"
        bridge.to_source()
        assert bridge.consume(tag) == 1
    assert bridge.books.requeued == {}
    assert bridge.books.forwarded == 100
    assert bridge.books.imbalance == 0


def test_too_few_consumers_brake_as_well() -> None:
    bridge = running(LONELY, min_consumers=1)
    bridge.source(deliver(1, M))
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(1))
    bridge.to_source()
    bridge.count(0, 0)
    assert bridge.steering.braked
    assert bridge.steering.brake.reason == "min-consumers"
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    bridge.count(7, 1)
    assert bridge.wanted_prefetch == 1


def test_on_a_queue_that_a_cancel_would_delete_it_stops_publishing_instead() -> None:
    bridge = running(facts=AUTO_DELETE)
    bridge.source(deliver(1, M))
    bridge.count(10)
    bridge.wait(400.0)
    assert bridge.to_source() == b""
    assert bridge.to_destination() == b""
    assert bridge.steering.told_state == "braked"
    assert bridge.steering.consumer is Consumer.ON
    bridge.count(5)
    assert bridge.to_destination() == publish() + M


def test_a_destination_that_breaks_on_the_way_is_waited_for_and_nothing_requeued() -> None:
    bridge = running(facts=QUORUM_3)
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.count(10)
    bridge.relay.destination.lost(bridge.now_s)
    bridge.wait(10.0)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSING
    bridge.wait(100.0)
    assert bridge.books.requeued == {}
    bridge.open_destination()
    bridge.wait(0.1)
    assert bridge.to_destination() == (publish() + M) * 3
    bridge.destination(confirm(3, multiple=True))
    assert bridge.state() is State.PAUSED
    assert bridge.books.forwarded == 3


def test_a_destination_that_stays_away_on_the_way_is_held_for_no_longer_than_the_hold_timeout() -> None:
    bridge = running()
    bridge.source(deliver(1, M))
    bridge.count(10)
    bridge.relay.destination.lost(bridge.now_s)
    bridge.wait(1.0)
    bridge.source(frames.CANCEL_OK)
    bridge.to_source()
    bridge.wait(299.0)
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.books.requeued == {"brake": 1}
    assert bridge.state() is State.PAUSED


def test_a_queue_that_cannot_be_counted_is_published_to_no_more_and_goes_on_when_it_can() -> None:
    bridge = running()
    bridge.source(deliver(1, M))
    bridge.steering.brake.uncounted("ACCESS_REFUSED")
    bridge.wait(0.0)
    assert bridge.steering.braked
    assert bridge.to_destination() == publish() + M, "what is in the window"
    bridge.destination(confirm(1))
    bridge.wait(0.05)
    bridge.wait(0.05)
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSED
    bridge.count(0, 1)
    assert bridge.wanted_prefetch == 1


def test_pause_and_brake_end_when_both_have_ended() -> None:
    bridge = braked(running())
    bridge.pause()
    assert not bridge.steering.braked
    assert bridge.steering.paused_by_operator
    assert bridge.steering.told_state == "paused"
    bridge.count(0)
    assert bridge.state() is State.PAUSED
    bridge.count(10)
    bridge.resume()
    assert bridge.state() is State.PAUSED
    assert bridge.steering.braked
    bridge.count(0)
    assert bridge.state() is State.PROBING


def test_an_operator_who_pauses_a_bridge_that_brakes_waits_no_longer_than_the_shutdown_timeout() -> None:
    bridge = running()
    bridge.source(*(deliver(tag, M) for tag in range(1, 30)))
    assert bridge.to_destination()
    bridge.count(10)
    bridge.pause()
    bridge.wait(10.0)
    bridge.source(frames.CANCEL_OK)
    assert bridge.books.requeued == {}
    bridge.wait(10.0)
    assert bridge.books.requeued == {"pause": 19}


def test_a_brake_that_is_released_on_the_way_ends_as_soon_as_the_window_is_empty() -> None:
    bridge = running()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.count(10)
    bridge.count(0, 1)
    assert bridge.state() is State.PAUSING
    assert not bridge.steering.braked
    assert not bridge.steering.paused_by_operator
    bridge.destination(confirm(1))
    bridge.wait(0.05)
    bridge.wait(0.05)
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PROBING


def test_a_braked_bridge_stops_at_once_and_one_that_waits_for_an_answer_forwards_what_it_holds() -> None:
    bridge = braked(running())
    bridge.stop()
    assert not bridge.steering.braked
    assert bridge.relay.decide(bridge.now_s) == Stop()
    bridge = running()
    bridge.source(*(deliver(tag, M) for tag in range(1, 13)))
    assert bridge.to_destination() == (publish() + M) * 10
    bridge.stop()
    assert bridge.to_destination() == (publish() + M) * 2


def test_a_consumer_that_was_asked_for_before_the_brake_is_not_started() -> None:
    bridge = Bridge(BRAKED, consuming=False)
    bridge.count(0)
    assert isinstance(bridge.relay.decide(bridge.now_s), Consume)
    bridge.steering.brake.answered(QueueState(10, 0))
    assert not bridge.steering.starting("ct", bridge.now_s)


def test_while_a_question_is_due_the_bridge_does_not_rest() -> None:
    bridge = running()
    assert bridge.steering.quiet_until_s > bridge.now_s
    assert bridge.window.quota is not None
    bridge.window.quota.took(10)
    assert bridge.steering.quiet_until_s == bridge.now_s + 0.1
    assert bridge.steering.brake.question_due_s < inf
