"""The relay, sans-I/O: bytes of both sides in, bytes of both sides out.

`window` decides about messages and `steering` about the bridge. The relay owns what joins them to the brokers: a port
for each connection (`source`, `destination`), which cuts what comes and encodes what follows. The caller (`connection`
with sockets, the simulation without) carries bytes, lets time pass, and carries out what `decide` returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.relay.backoff import Backoff
from bridge.relay.destination import Destination
from bridge.relay.quarantine import Quarantine
from bridge.relay.source import Source
from bridge.relay.steering import Steering

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.amqp.events import Close
    from bridge.relay.action import Action
    from bridge.relay.plan import Plan
    from bridge.relay.port import Closed
    from bridge.relay.queue import QueueState
    from bridge.window.window import Window


class Relay:
    """Both sides' data planes around one window."""

    def __init__(self, window: Window, plan: Plan, chance: Callable[[], float]) -> None:
        """`chance` returns a number from 0 to 1, for the jitter of backoffs."""
        self.window = window
        self._policy = plan.policy
        backoff = Backoff(plan.reconnect_min_s, plan.reconnect_max_s, chance)
        added = plan.policy.additions.names if plan.policy.additions is not None else ()
        self.quarantine = Quarantine(window, plan.quarantine_queue, backoff, plan.source_queue, added)
        self.steering = Steering(window, self.quarantine, plan, lambda: self.source.unfinished)
        self.source = self._new_source(_not_connected)
        """The port of the newest connection; before the first one, a port that nothing comes from."""
        self.destination = self._new_destination(_not_connected)
        """As `source`."""

    # --- Ports -------------------------------------------------------------------------------------------

    def connect_source(self, closed: Closed) -> Source:
        """A connection to the source begins: return its port, which calls `closed` when the broker closes it."""
        self.source = self._new_source(closed)
        return self.source

    def connect_destination(self, closed: Closed) -> Destination:
        """A connection to the destination begins: return its port, which calls `closed` when the broker closes it."""
        self.destination = self._new_destination(closed)
        self.window.destination_connecting()
        return self.destination

    def _new_source(self, closed: Closed) -> Source:
        return Source(self.window, self.steering, self.quarantine, self._policy, closed)

    def _new_destination(self, closed: Closed) -> Destination:
        return Destination(self.window, self.steering, self._present_source, closed)

    def _present_source(self) -> Source:
        return self.source

    @property
    def paused(self) -> bool:
        """Whether the source must not be read from."""
        return self.steering.paused

    # --- What comes next ---------------------------------------------------------------------------------

    def decide(self, now_s: float, unsent_bytes: int = 0) -> Action | None:
        """As `Steering.decide`; what is not given to the socket yet is not sent either."""
        action = self.steering.decide(now_s, unsent_bytes + self.destination.unwritten_bytes)
        self.source.settle(now_s)
        return action

    def started(self, before: QueueState, now_s: float) -> None:
        """As `Steering.started`."""
        self.steering.started(before)
        self.source.settle(now_s)

    def stop(self, now_s: float) -> None:
        """As `Steering.stop`."""
        self.steering.stop(now_s)
        self.source.settle(now_s)

    def pause(self, now_s: float) -> None:
        """As `Steering.pause`."""
        self.steering.pause(now_s)
        self.source.settle(now_s)

    def resume(self) -> None:
        """As `Steering.resume`."""
        self.steering.resume()

    def tick(self, now_s: float, unix_s: float) -> None:
        """Let time pass; ten times a second is often enough."""
        self.quarantine.tick(now_s, unix_s)
        self.window.age.wall_clock(unix_s - now_s)
        self.window.tick(now_s)
        self.steering.tick(now_s)
        self.source.shed()
        self.source.settle(now_s)


def _not_connected(_: Close, __: float) -> None:
    """Nothing comes before the first connection, and so no close."""
