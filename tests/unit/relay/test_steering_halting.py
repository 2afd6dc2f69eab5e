"""The steering of a bridge that halts: which of its events and decisions are `halt`'s, and which are none any more."""

from __future__ import annotations

from bridge.relay.action import AskDestination, AskQueue, Stop
from bridge.relay.queue import QueueState
from bridge.relay.state import State
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import confirm, deliver
from tests.support.relay_scene import AUTO_DELETE, CANCEL, EMPTY_QUEUE, Bridge, M, ack


def test_what_holds_nothing_stops_at_once_and_decides_nothing_more() -> None:
    bridge = Bridge(consuming=False)
    bridge.stop()
    assert bridge.relay.decide(bridge.now_s) == Stop()
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.wait(0.1)
    assert bridge.state() is State.ABANDONED


def test_a_shutdown_lets_its_consumer_linger_and_then_cancels() -> None:
    bridge = Bridge()
    bridge.stop()
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.wait(0.05)
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.decide(bridge.now_s) == Stop()


def test_a_pause_comes_to_rest() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.pause()
    bridge.destination(confirm(1))
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL + ack(1, multiple=True)
    bridge.wait(0.05)
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PAUSED
    bridge.wait(1.0)
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_queue_that_the_cancel_deletes_is_emptied_and_then_cancelled() -> None:
    bridge = Bridge(facts=AUTO_DELETE)
    bridge.stop()
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(QueueState(1, 1), bridge.now_s)
    bridge.wait(1.0)
    assert bridge.to_source() == b""
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(EMPTY_QUEUE, bridge.now_s)
    bridge.wait(0.0)
    assert bridge.to_source() == CANCEL


def test_a_queue_that_must_be_counted_is_asked_for_unless_the_bridge_stops() -> None:
    limits = WindowLimits(destination_counted=True, destination_max_ready=10)
    bridge = Bridge(limits, consuming=False)
    bridge.stop()
    assert bridge.relay.decide(bridge.now_s) == Stop()
    bridge = Bridge(limits, consuming=False)
    assert bridge.relay.decide(bridge.now_s) == AskDestination()
