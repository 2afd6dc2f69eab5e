"""The steering: every state and event, and what is decided in between."""

from __future__ import annotations

import pytest

from bridge.relay.steering import TRANSITIONS, AskQueue, Consume, EndGeneration, OpenQuarantine, State, StateEvent, Stop
from bridge.relay.watchdog import LOOK_EVERY_S, QueueState
from bridge.window.window import WindowLimits
from tests.support import frames
from tests.support.frames import confirm, deliver
from tests.support.relay_scene import EMPTY_QUEUE, Bridge, M, condemned, publish


@pytest.mark.parametrize("event", StateEvent)
@pytest.mark.parametrize("state", State)
def test_every_pair_of_state_and_event_is_in_the_table_or_raises(state: State, event: StateEvent) -> None:
    if state in TRANSITIONS[event]:
        assert state.after(event) is TRANSITIONS[event][state]
    else:
        with pytest.raises(ValueError, match=f"{event.value} cannot happen to a bridge that is {state.value}"):
            state.after(event)


def test_consuming_is_wanted_once_until_it_is_answered_or_the_generation_ends() -> None:
    bridge = Bridge()
    bridge.relay.source_lost()
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.open_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1000)
    assert bridge.relay.decide(bridge.now_s) is None, "it is being asked"
    bridge.relay.source_lost()
    bridge.open_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1000), "nobody answers for the generation that ended"


def test_a_quarantine_that_cannot_be_opened_is_tried_again_later() -> None:
    bridge = Bridge()
    condemned(bridge, 1)
    assert bridge.relay.decide(bridge.now_s) == OpenQuarantine()
    bridge.steering.quarantine_unavailable(bridge.now_s)
    assert bridge.to_destination().startswith(publish()), "its best chance is to be forwarded"
    bridge.source(deliver(2, frames.content(b"m")))
    condemned(bridge, 3)
    assert bridge.relay.decide(bridge.now_s) is None, "it was not available just now"
    assert bridge.relay.decide(bridge.now_s + 1.0) == OpenQuarantine()


def test_a_queue_that_delivers_nothing_is_asked_and_ends_the_generation_when_it_is_not_empty() -> None:
    bridge = Bridge()
    found = QueueState(ready=7, consumers=1)
    assert bridge.relay.decide(bridge.now_s) is None
    for _ in range(2):
        bridge.wait(LOOK_EVERY_S)
        assert bridge.relay.decide(bridge.now_s) == AskQueue()
        assert bridge.relay.decide(bridge.now_s) is None, "it is being asked"
        bridge.steering.queue_answered(found, bridge.now_s)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason, ending.drop) == ("source", "stalled", True)
    bridge.relay.source_lost()
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_destination_that_does_not_confirm_is_ended() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.wait(bridge.window.limits.confirm_timeout_s)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason) == ("destination", "confirm-timeout")


def test_a_quarantine_that_does_not_answer_ends_the_source_and_is_left_alone_for_a_while() -> None:
    bridge = Bridge()
    condemned(bridge, 1)
    bridge.open_quarantine()
    bridge.wait(0.1)
    bridge.to_source()
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.source(deliver(2, M))
    bridge.wait(bridge.window.limits.confirm_timeout_s + 0.1)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason) == ("source", "quarantine-timeout")
    bridge.relay.source_lost()
    bridge.open_source()
    bridge.consume()
    condemned(bridge, 1)
    assert bridge.relay.decide(bridge.now_s + 299.0) is None
    assert bridge.relay.decide(bridge.now_s + 300.0) == OpenQuarantine()


@pytest.mark.parametrize("drained", (True, False))
def test_a_lost_consumer_ends_its_generation_when_nothing_is_held_or_for_too_long(*, drained: bool) -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0))
    bridge.source(deliver(1, M), frames.CANCEL)
    bridge.source(frames.CANCEL)
    bridge.to_destination()
    assert bridge.relay.decide(bridge.now_s) is None, "what is held can still be forwarded"
    if drained:
        bridge.destination(confirm(1))
    else:
        bridge.destination(frames.BLOCKED)
        bridge.now_s += 60.0
    gone = EndGeneration("source", "consumer-cancelled", "the broker cancelled the consumer", drop=False)
    assert bridge.relay.decide(bridge.now_s) == gone


def test_a_stop_is_decided_once_when_all_is_settled() -> None:
    bridge = Bridge()
    bridge.relay.source_lost()
    bridge.stop()
    bridge.stop()
    assert bridge.relay.decide(bridge.now_s) == Stop()
    assert bridge.relay.decide(bridge.now_s) is None


def test_giving_back_while_consuming_begins_cancels_when_it_has_begun() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0))
    bridge.relay.source_lost()
    bridge.open_source()
    bridge.start()
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    assert bridge.to_source() == b""
    bridge.relay.started(EMPTY_QUEUE)
    assert bridge.to_source() == frames.method(1, 60, 30, frames.short("ct") + b"\0")
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.state is State.PROBING
