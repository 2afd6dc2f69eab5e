"""The steering: memory that is full, and shedding, so that no connection is lost since reading was paused for long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.amqp.events import Dropped
from bridge.relay.consumer import Consumer
from bridge.relay.consumption import MEMORY_FULL_S
from bridge.relay.state import State
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import confirm, content, deliver
from tests.support.relay_scene import (
    AUTO_DELETE,
    CANCEL,
    CLASSIC,
    QUORUM,
    QUORUM_3,
    STREAM,
    UNKNOWN,
    Bridge,
    M,
    ack,
    cancel,
    publish,
    requeue,
)

if TYPE_CHECKING:
    from bridge.relay.queue import QueueFacts

LARGE = content(b"x" * 100)
LIMITS = WindowLimits(prefetch=10, max_in_flight_bytes=3 * len(LARGE))


def filled(facts: QueueFacts = QUORUM) -> Bridge:
    """Memory is full of messages that a blocked destination does not accept."""
    bridge = Bridge(LIMITS, facts=facts)
    bridge.destination(frames.BLOCKED)
    bridge.source(*(deliver(tag, LARGE) for tag in (1, 2, 3)))
    assert bridge.relay.paused
    bridge.wait(0.0)
    return bridge


def test_reading_pauses_when_memory_is_full() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=100))
    bridge.source(deliver(1, M))
    assert not bridge.relay.paused
    bridge.source(deliver(2, LARGE))
    assert bridge.relay.paused


def test_memory_that_fills_before_the_start_of_the_consumer_is_known_pauses_reading() -> None:
    """Its answer was read before its first delivery, and the whole prefetch may come behind it (invariant 4)."""
    bridge = Bridge(LIMITS, consuming=False)
    bridge.start()
    bridge.source(*(deliver(tag, LARGE) for tag in (1, 2, 3)))
    assert bridge.relay.paused


@pytest.mark.parametrize("facts", (CLASSIC, QUORUM_3, QUORUM))
def test_when_memory_is_full_for_ten_seconds_the_consumer_is_cancelled_and_reading_goes_on(facts: QueueFacts) -> None:
    """RabbitMQ drops a connection that it cannot write to for 30 s, and each counts for all that was set out."""
    bridge = filled(facts)
    bridge.wait(MEMORY_FULL_S - 0.1)
    assert bridge.state() is State.RUNNING
    assert bridge.to_source() == b""
    bridge.wait(0.1)
    assert bridge.state() is State.SHEDDING
    assert bridge.steering.shedding
    assert not bridge.relay.paused
    assert bridge.to_source() == CANCEL


def test_what_still_comes_while_it_sheds_is_requeued_and_what_is_held_stays() -> None:
    bridge = filled()
    bridge.wait(MEMORY_FULL_S)
    bridge.to_source()
    bridge.relay.source.take([Dropped(4, redelivered=False), Dropped(5, redelivered=True)], bridge.now_s)
    assert bridge.to_source() == requeue(4, multiple=False) + requeue(5, multiple=False)
    assert bridge.books.requeued == {"memory": 2}
    assert (bridge.window.in_flight, bridge.books.imbalance) == (3, 0)


def test_after_shedding_it_consumes_again_when_there_is_room_with_as_many_as_fit() -> None:
    bridge = filled()
    bridge.wait(MEMORY_FULL_S)
    bridge.to_source()
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.RUNNING
    assert bridge.steering.consumer is Consumer.OFF
    assert not bridge.steering.shedding
    bridge.destination(frames.UNBLOCKED)
    assert bridge.wanted_prefetch == 0, "there is no room yet"
    assert bridge.to_destination() == (publish() + LARGE) * 3
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    assert bridge.consume("ct-2") == 3
    bridge.destination(confirm(3, multiple=True))
    bridge.lose_source()
    assert bridge.consume("ct-3") == 10, "another generation begins with all"


def test_memory_that_was_full_for_less_than_ten_seconds_again_and_again_sheds_nothing() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=len(LARGE)))
    for tag in range(1, 5):
        bridge.source(deliver(tag, LARGE))
        bridge.wait(0.0)
        bridge.wait(MEMORY_FULL_S - 0.1)
        bridge.to_destination()
        bridge.destination(confirm(tag))
        bridge.wait(0.05)
    assert bridge.state() is State.RUNNING


@pytest.mark.parametrize("facts", (AUTO_DELETE, UNKNOWN, STREAM))
def test_a_queue_that_a_cancel_may_delete_and_a_stream_are_not_shed(facts: QueueFacts) -> None:
    """Nothing of a stream can be requeued, and no broker counts its deliveries."""
    bridge = filled(facts)
    bridge.wait(100.0)
    assert bridge.state() is State.RUNNING
    assert bridge.to_source() == b""
    assert bridge.relay.paused


def test_shedding_while_it_widens_cancels_both_consumers() -> None:
    bridge = Bridge(LIMITS, probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.consume("ct-2")
    bridge.destination(frames.BLOCKED)
    bridge.source(*(deliver(tag, LARGE, consumer_tag="ct-2") for tag in (2, 3, 4)))
    bridge.wait(0.0)
    bridge.wait(MEMORY_FULL_S)
    assert bridge.state() is State.SHEDDING
    assert bridge.to_source() == CANCEL + cancel("ct-2") + ack(1, multiple=True)


def test_a_hold_timeout_while_it_sheds_requeues_all_that_is_held() -> None:
    bridge = Bridge(WindowLimits(prefetch=10, max_in_flight_bytes=len(LARGE), hold_timeout_s=12.0))
    bridge.destination(frames.BLOCKED)
    bridge.source(deliver(1, LARGE))
    bridge.wait(0.0)
    bridge.wait(MEMORY_FULL_S)
    assert bridge.state() is State.SHEDDING
    bridge.wait(2.0)
    assert bridge.state() is State.REQUEUEING
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == CANCEL + requeue(1, multiple=True)
    assert bridge.books.requeued == {"hold-timeout": 1}
    assert bridge.state() is State.PROBING


def test_a_stop_while_it_sheds_requeues_the_rest() -> None:
    bridge = filled()
    bridge.wait(MEMORY_FULL_S)
    bridge.stop()
    assert bridge.state() is State.STOPPING
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == CANCEL + requeue(3, multiple=True)


@pytest.mark.parametrize("acked", (True, False))
def test_a_source_that_is_lost_while_it_sheds_is_consumed_as_after_any_other_loss(*, acked: bool) -> None:
    bridge = Bridge(LIMITS)
    if acked:
        bridge.source(deliver(1, M))
        bridge.to_destination()
        bridge.destination(confirm(1))
    bridge.destination(frames.BLOCKED)
    bridge.source(*(deliver(tag, LARGE) for tag in range(1 + acked, 4 + acked)))
    bridge.wait(0.0)
    bridge.wait(MEMORY_FULL_S)
    assert bridge.state() is State.SHEDDING
    bridge.lose_source()
    assert bridge.steering.state is (State.RUNNING if acked else State.PROBING)
