"""The relay: messages given back to the source, and the quarantine meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bridge.relay.consumer import Consumer
from bridge.window.window import WindowLimits
from tests.support import frames
from tests.support.frames import close, confirm, content, deliver, returned
from tests.support.relay_scene import CANCEL, EMPTY_QUEUE, Bridge, M, ack, condemned, publish, quarantining, requeue

if TYPE_CHECKING:
    from collections.abc import Callable


def stop(bridge: Bridge) -> None:
    """Shut down, and let the time pass in which deliveries may still come."""
    bridge.stop()
    bridge.wait(0.05)
    bridge.wait(0.05)


# --- Giving back ---------------------------------------------------------------------------------------------

HOLD = WindowLimits(prefetch=10, hold_timeout_s=60.0)


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


def test_a_stop_that_deliveries_prolong_cancels_forwards_and_gives_back_the_rest() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.stop()
    bridge.source(deliver(4, M))
    bridge.wait(10.0)  # half of the shutdown timeout
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.wanted_prefetch == 0
    assert bridge.to_source() == b""
    bridge.destination(confirm(3, multiple=True))
    assert bridge.to_destination() == publish() + M, "the destination is well: forwarded, not given back"
    assert not bridge.steering.source_drained
    bridge.destination(confirm(4))
    assert bridge.to_source() == ack(3, multiple=True) + ack(4, multiple=True)
    assert bridge.steering.source_drained


def test_a_stop_with_the_destination_away_gives_back_at_the_cancel_ok() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.stop()
    bridge.source(deliver(4, M))
    assert bridge.to_source() == CANCEL, "what is given back before the cancel comes straight back"
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(4, multiple=True), "in one go, so that its order stays"
    assert bridge.steering.source_drained


def test_a_stop_while_consuming_begins_cancels_when_it_has_begun() -> None:
    bridge = Bridge()
    bridge.relay.source_lost()
    bridge.open_source()
    bridge.start()
    bridge.stop()
    assert bridge.to_source() == b""
    bridge.relay.started(EMPTY_QUEUE)
    bridge.wait(0.05)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.source_drained


def test_a_stop_while_which_the_destination_is_lost_gives_back_what_is_not_confirmed() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.stop()
    bridge.destination(confirm(1))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL + ack(1, multiple=True)
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == requeue(3, multiple=True)
    assert bridge.steering.source_drained


def test_a_stop_without_a_consumer_cancels_nothing() -> None:
    lost = Bridge()
    lost.source(frames.CANCEL)
    off = Bridge()
    off.relay.source_lost()
    for bridge in (lost, off):
        bridge.stop()
        assert bridge.to_source() == b""
        assert bridge.steering.source_drained


def test_when_time_is_up_the_published_are_given_back_too_and_late_confirms_are_not_heard() -> None:
    bridge = Bridge()
    bridge.source(*(deliver(tag, M) for tag in range(1, 4)))
    bridge.to_destination()
    bridge.stop()
    bridge.time_is_up()
    assert bridge.to_source() == CANCEL + requeue(3, multiple=True)
    assert bridge.books.requeued == {"shutdown": 3}
    assert bridge.books.duplicates_possible == 3
    bridge.destination(confirm(3, multiple=True))
    assert bridge.to_source() == b""
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.source_drained


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
    assert bridge.steering.wanted_prefetch == 0
    bridge.destination(frames.UNBLOCKED)
    assert bridge.steering.wanted_prefetch == 1, "a single message tries whether it takes them again"
    bridge.consume()
    bridge.source(deliver(4, M, redelivered=1))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.to_source() == CANCEL + ack(4, multiple=True), "the ack first would bring one more, out of order"
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.wanted_prefetch == 10
    bridge.consume()
    assert bridge.to_source() == b""


def has_no_route(bridge: Bridge) -> None:
    bridge.destination(returned(M), confirm(1))


def is_poison(bridge: Bridge) -> None:
    bridge.destination(close(1, 406, "poison"))
    bridge.lose_destination()


@pytest.mark.parametrize(("fault", "own_keys"), ((has_no_route, True), (is_poison, False)))
def test_a_probe_that_is_itself_at_fault_does_not_keep_the_others_waiting(
    fault: Callable[[Bridge], None], *, own_keys: bool
) -> None:
    """Else it would be given back and come first again, for ever: with the quarantine off, nothing takes it."""
    bridge = Bridge(replace(HOLD, own_keys=own_keys, quarantine=False), own_keys=own_keys)
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    bridge.source(frames.CANCEL_OK)
    bridge.destination(frames.UNBLOCKED)
    bridge.consume()
    bridge.source(deliver(2, M, redelivered=1))
    bridge.to_destination()
    bridge.to_source()
    fault(bridge)
    bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.wanted_prefetch == 10


def test_a_destination_that_refuses_the_probe_as_any_other_message_is_probed_on() -> None:
    bridge = Bridge(HOLD)
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    bridge.source(frames.CANCEL_OK)
    bridge.destination(frames.UNBLOCKED)
    bridge.consume()
    bridge.source(deliver(2, M, redelivered=1))
    bridge.to_destination()
    bridge.to_source()
    bridge.destination(confirm(1, accepted=False))
    bridge.wait(0.05)
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
    bridge.window._destination.publish_window.narrow(1)
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
    assert bridge.steering.consumer is Consumer.OFF


# --- The quarantine ------------------------------------------------------------------------------------------


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
    stop(bridge)
    bridge.source(frames.CANCEL_OK)
    assert not bridge.steering.source_drained
    assert bridge.to_source() == CANCEL
    bridge.relay.destination_lost(bridge.now_s)
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
    bridge.source(confirm(1, channel=2))
    assert bridge.to_source() == b""


def test_with_memory_full_the_quarantines_answers_are_read() -> None:
    """They come on the connection that is paused: the memory that they would free would be held for ever."""
    bridge = Bridge(WindowLimits(max_in_flight_bytes=10))
    condemned(bridge, 1)
    assert bridge.relay.paused, "until its channel is being opened the limit holds"
    bridge.relay.quarantine.opening = True
    assert not bridge.relay.paused
    bridge.open_quarantine()
    assert bridge.relay.paused
    bridge.wait(0.1)
    assert not bridge.relay.paused
    bridge.source(confirm(1, channel=2))
    assert bridge.books.quarantined == {"delivery-limit": 1}
