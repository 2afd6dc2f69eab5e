"""The steering: messages that are requeued while a bridge runs, since the destination accepts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.relay.queue import QueueFacts
from bridge.relay.state import State
from bridge.relay.steering import PROBE_AGAIN_MAX_S, PROBE_AGAIN_S
from bridge.window.limits import HELD_MOST_S, WindowLimits
from bridge.window.pace import REMEMBERED_S
from tests.support import frames
from tests.support.frames import close, confirm, content, deliver, returned
from tests.support.relay_scene import (
    AUTO_DELETE,
    CANCEL,
    CLASSIC,
    QUORUM,
    QUORUM_3,
    UNKNOWN,
    Bridge,
    M,
    ack,
    condemned,
    publish,
    quarantining,
    requeue,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HOLD = WindowLimits(prefetch=10, hold_timeout_s=60.0)


def requeue_held(bridge: Bridge) -> None:
    """One message is held for too long and requeued; the destination is ready again."""
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(bridge.window.limits.hold_timeout_s)
    bridge.source(frames.CANCEL_OK)
    bridge.destination(frames.UNBLOCKED)
    bridge.wait(PROBE_AGAIN_MAX_S)
    assert bridge.consume() == 1
    bridge.to_source()


# --- The hold timeout ----------------------------------------------------------------------------------------


def test_what_is_held_too_long_is_requeued_and_consumed_again_when_the_destination_is_ready() -> None:
    bridge = Bridge(HOLD)
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.destination(frames.BLOCKED)
    bridge.wait(59.0)
    assert bridge.to_source() == b"", "invariant 6: hold first"
    bridge.wait(1.0)
    assert bridge.state() is State.REQUEUEING
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(3, multiple=True), "in one go, so that its order stays"
    assert bridge.books.requeued == {"hold-timeout": 3}
    assert bridge.state() is State.PROBING
    bridge.wait(PROBE_AGAIN_S)
    assert bridge.wanted_prefetch == 0, "it is blocked"
    bridge.destination(frames.UNBLOCKED)
    assert bridge.consume() == 1, "a single message tries whether it accepts them again"
    bridge.source(deliver(4, M, redelivered=1))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.to_source() == b""
    bridge.widen()
    assert bridge.to_source() == CANCEL + ack(4, multiple=True)


def test_what_comes_while_the_consumer_is_being_cancelled_is_requeued_too() -> None:
    bridge = Bridge(HOLD)
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    bridge.source(deliver(2, M))
    assert bridge.to_source() == CANCEL, "what is requeued before the cancel-ok comes straight back"
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(2, multiple=True)


def test_while_some_are_published_the_held_are_requeued_one_by_one() -> None:
    bridge = Bridge(HOLD)
    bridge.source(*(deliver(tag, content(b"x" * 100)) for tag in range(1, 4)))
    bridge.window._destination.publish_window.narrow(1)
    bridge.to_destination()
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == CANCEL + requeue(2, multiple=False) + requeue(3, multiple=False)
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)


def test_with_memory_full_the_held_are_requeued_before_the_cancel_ok_which_could_not_be_read() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=5.0, max_in_flight_bytes=100))
    bridge.source(deliver(1, content(b"x" * 100)))
    bridge.destination(frames.BLOCKED)
    bridge.wait(5.0)
    assert bridge.to_source() == CANCEL + requeue(1, multiple=True)
    assert not bridge.relay.paused
    bridge.source(deliver(2, M))
    assert bridge.to_source() == requeue(2, multiple=True), "what still comes goes back, too"
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PROBING


def test_a_source_that_is_lost_during_requeueing_leaves_nothing_to_requeue() -> None:
    bridge = Bridge(HOLD)
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    bridge.lose_source()
    assert bridge.state() is State.PROBING
    assert bridge.to_source() == b""
    bridge.destination(frames.UNBLOCKED)
    bridge.wait(PROBE_AGAIN_S)
    assert bridge.consume() == 1


def test_the_hold_timeout_runs_again_after_each_time() -> None:
    bridge = Bridge(HOLD)
    requeue_held(bridge)
    bridge.source(deliver(2, M, redelivered=1))
    bridge.destination(frames.BLOCKED)
    bridge.wait(59.0)
    assert bridge.to_source() == b""
    bridge.wait(1.0)
    assert bridge.to_source() == CANCEL


@pytest.mark.parametrize("facts", (AUTO_DELETE, UNKNOWN, QueueFacts("classic")))
def test_a_queue_that_a_cancel_may_delete_is_never_given_up(facts: QueueFacts) -> None:
    """It would be deleted with all its messages: they are held until the destination accepts them."""
    bridge = Bridge(HOLD, facts=facts)
    bridge.source(deliver(1, M), deliver(2, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(10_000.0)
    assert bridge.to_source() == b""
    bridge.destination(frames.UNBLOCKED)
    assert bridge.to_destination() == publish() + M + publish() + M


def test_where_requeueing_counts_a_probe_is_held_for_longer_than_all_others() -> None:
    """Before RabbitMQ 4.3 each requeue brings a message nearer to the delivery limit."""
    bridge = Bridge(HOLD, facts=QUORUM_3)
    requeue_held(bridge)
    bridge.source(deliver(2, M, redelivered=1))
    bridge.destination(frames.BLOCKED)
    bridge.wait(HELD_MOST_S - 1.0)
    assert bridge.to_source() == b""
    bridge.wait(1.0)
    assert bridge.to_source() == CANCEL


def test_a_hold_timeout_that_is_longer_still_counts_for_a_probe() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=2 * HELD_MOST_S), probing=True, facts=QUORUM_3)
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(2 * HELD_MOST_S - 1.0)
    assert bridge.to_source() == b""
    bridge.wait(1.0)
    assert bridge.to_source() == CANCEL


# --- A probe that is refused ---------------------------------------------------------------------------------


def refuse_probe(bridge: Bridge, delivery_tag: int, publish_seqno: int) -> None:
    """The one message that is consumed comes, and the destination refuses it."""
    bridge.source(deliver(delivery_tag, M, redelivered=1))
    while not bridge.to_destination():
        bridge.wait(0.05)
    bridge.destination(confirm(publish_seqno, accepted=False))


@pytest.mark.parametrize("facts", (QUORUM, CLASSIC))
def test_a_refused_probe_is_requeued_at_once_and_probed_again_after_a_pause_that_doubles(facts: QueueFacts) -> None:
    """So that no connection that is lost meanwhile counts for it."""
    bridge = Bridge(probing=True, facts=facts)
    pauses: list[float] = []
    for number in range(1, 12):
        refuse_probe(bridge, number, number)
        assert bridge.state() is State.REQUEUEING
        assert bridge.to_source() == CANCEL
        bridge.source(frames.CANCEL_OK)
        assert bridge.to_source() == requeue(number, multiple=True)
        began_s = bridge.now_s
        while not bridge.wanted_prefetch:
            bridge.wait(PROBE_AGAIN_S)
        pauses.append(bridge.now_s - began_s)
        assert bridge.consume() == 1
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0], abs=0.01)
    assert bridge.books.requeued == {"probe": 11}
    assert bridge.books.imbalance == 0


def test_after_a_message_that_was_accepted_the_pause_after_a_refused_probe_is_short_again() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0), probing=True)
    for number in (1, 2, 3):
        refuse_probe(bridge, number, number)
        bridge.source(frames.CANCEL_OK)
        bridge.wait(PROBE_AGAIN_MAX_S)
        bridge.consume()
    bridge.source(deliver(4, M, redelivered=1))
    bridge.to_destination()
    bridge.destination(confirm(4))
    assert bridge.state() is State.WIDENING
    bridge.lose_source()
    bridge.lose_source()
    assert bridge.consume() == 1
    refuse_probe(bridge, 1, 5)
    bridge.source(frames.CANCEL_OK)
    bridge.wait(PROBE_AGAIN_S)
    assert bridge.wanted_prefetch == 1


def test_a_probe_is_requeued_also_long_after_the_refusals_before_it() -> None:
    """A quiet minute makes the destination's refusals be forgotten, and their count begins again."""
    bridge = Bridge(probing=True)
    for number in (1, 2, 3):
        refuse_probe(bridge, number, number)
        bridge.source(frames.CANCEL_OK)
        bridge.wait(PROBE_AGAIN_MAX_S)
        bridge.consume()
    bridge.wait(REMEMBERED_S)
    bridge.wait(REMEMBERED_S)
    refuse_probe(bridge, 4, 4)
    assert bridge.state() is State.REQUEUEING


@pytest.mark.parametrize("facts", (QUORUM_3, AUTO_DELETE, UNKNOWN))
def test_a_refused_probe_is_held_where_its_requeue_would_count_or_the_cancel_would_delete_the_queue(
    facts: QueueFacts,
) -> None:
    bridge = Bridge(probing=True, facts=facts)
    refuse_probe(bridge, 1, 1)
    assert bridge.to_source() == b""
    assert bridge.state() is State.PROBING
    while not bridge.to_destination():
        bridge.wait(0.05)
    bridge.destination(confirm(2))
    assert bridge.state() is State.WIDENING


def test_a_message_that_is_refused_while_the_bridge_runs_is_held() -> None:
    """The destination is full: it is tried again and again, without being requeued."""
    bridge = Bridge()
    refuse_probe(bridge, 1, 1)
    assert bridge.to_source() == b""
    assert bridge.state() is State.RUNNING


def has_no_route(bridge: Bridge) -> None:
    bridge.destination(returned(M, routing_key="dq"), confirm(1))


def is_poison(bridge: Bridge) -> None:
    bridge.destination(close(1, 406, "poison"))
    bridge.lose_destination()


@pytest.mark.parametrize("fault", (has_no_route, is_poison))
def test_a_probe_that_is_itself_at_fault_is_set_aside_and_the_next_one_tries(fault: Callable[[Bridge], None]) -> None:
    """Requeued it would come first again, for ever; and it says nothing of the destination."""
    limits = WindowLimits(prefetch=10, hold_timeout_s=60.0, quarantine=False)
    bridge = Bridge(limits)
    requeue_held(bridge)
    bridge.source(deliver(2, M, redelivered=1))
    bridge.to_destination()
    fault(bridge)
    assert bridge.state() is State.PROBING, "a return ends no probe"
    assert bridge.consume("ct-2") == 1
    assert bridge.to_source() == CANCEL


def test_a_destination_that_closes_its_channel_over_itself_refuses_the_probe_too() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(close(1, 404, "NOT_FOUND - no exchange"))
    bridge.lose_destination()
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(1, multiple=True)
    assert bridge.books.requeued == {"probe": 1}


def test_a_refused_probe_beside_one_that_is_parked_is_held() -> None:
    """To requeue only the one would bring the other nothing but a new place."""
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(returned(M, routing_key="dq"), confirm(1))
    bridge.consume("ct-2")
    bridge.source(frames.CANCEL_OK)
    bridge.to_source()
    bridge.source(deliver(2, M, consumer_tag="ct-2"))
    bridge.to_destination()
    bridge.destination(confirm(2, accepted=False))
    assert bridge.state() is State.PROBING
    assert bridge.to_source() == b""


# --- The quarantine meanwhile --------------------------------------------------------------------------------


def test_a_message_on_its_way_to_the_quarantine_is_not_requeued_meanwhile() -> None:
    """It would be there and in the queue."""
    bridge = quarantining(1, 2)
    bridge.source(deliver(3, M))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.wait(bridge.window.limits.hold_timeout_s + 1.0)
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == CANCEL + requeue(3, multiple=False)
    bridge.open_destination()
    bridge.now_s += PROBE_AGAIN_S
    bridge.consume()
    assert condemned(bridge, 4) == bridge.to_source()
    bridge.source(confirm(1, channel=2))
    assert bridge.to_source() == ack(1, multiple=False)
    assert bridge.window.in_flight == 2


def test_with_memory_full_the_quarantines_answers_are_read() -> None:
    """They come on the connection that is paused: the memory that they would free would be held for ever."""
    bridge = Bridge(WindowLimits(max_in_flight_bytes=10))
    condemned(bridge, 1)
    assert bridge.relay.paused, "until its channel is being opened the limit holds"
    bridge.open_quarantine()
    assert bridge.relay.paused
    bridge.wait(0.1)
    assert not bridge.relay.paused
    bridge.source(confirm(1, channel=2))
    assert bridge.books.quarantined == {"delivery-limit": 1}


def test_with_memory_full_the_answers_to_opening_the_quarantine_are_read() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=10))
    condemned(bridge, 1)
    assert bridge.relay.decide(bridge.now_s) is not None
    assert not bridge.relay.paused
    bridge.steering.quarantine_opened()
    assert bridge.relay.paused
