"""What is seen of a bridge that drains."""

from __future__ import annotations

from bridge.drain.watch import Watch
from bridge.observe.backlog import Backlog
from bridge.relay.queue import QueueState
from bridge.window.limits import WindowLimits
from bridge.window.terms import Terms
from tests.support.frames import deliver
from tests.support.relay_scene import Bridge, M


class Nothing:
    """Admits no message."""

    def began(self) -> None:
        """Forget nothing."""

    def consuming(self, admitted: int) -> None:
        """Count nothing."""

    def admits(self, _: object) -> bool:
        """Decide: no."""
        return False


def backlog(ready: int, answered_s: float) -> Backlog:
    found = Backlog()
    found.answered(QueueState(ready, 1), answered_s)
    return found


def test_what_is_moved_is_under_way_and_what_is_not_is_held_since_it_was_first_seen() -> None:
    bridge = Bridge(WindowLimits(prefetch=2), terms=Terms(most=5, metered=False, selection=Nothing()))
    watch = Watch(bridge.window, bridge.steering)
    first = watch.look(backlog(5, 7.0), 10.0, source_up=True, destination_up=False)
    assert (first.room, first.underway, first.withheld, first.full, first.oldest_s) == (5, 0, 0, False, None)
    assert (first.ready, first.answered_s, first.source_up, first.destination_up) == (5, 7.0, True, False)
    bridge.source(deliver(1, M) + deliver(2, M))
    held = watch.look(backlog(3, 8.0), 11.0, source_up=True, destination_up=True)
    assert (held.room, held.underway, held.withheld, held.full, held.oldest_s) == (3, 0, 2, True, 11.0)
    assert watch.look(backlog(3, 8.0), 12.0, source_up=True, destination_up=True).oldest_s == 11.0
    bridge.lose_source()
    again = watch.look(backlog(3, 8.0), 13.0, source_up=True, destination_up=True)
    assert (again.withheld, again.oldest_s, again.ready) == (0, None, None), "it does not consume"


def test_what_is_parked_is_held_since_it_was_received() -> None:
    bridge = Bridge(WindowLimits(prefetch=9))
    watch = Watch(bridge.window, bridge.steering)
    bridge.source(deliver(1, M))
    assert watch.look(backlog(0, 0.0), 9.0, source_up=True, destination_up=True).underway == 1
