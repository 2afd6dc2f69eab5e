"""The bridge's state as one value: what the supervisor says, and `/readyz`, `/healthz` and `/metrics` repeat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.window.books import count

if TYPE_CHECKING:
    from bridge.words import Outcome, SideName


@dataclass(slots=True)
class SideStatus:
    """One side: its connection, its generation and how the generations before it ended."""

    name: SideName
    up: bool = False
    """The channel is open and what it needs is verified."""
    blocked: bool = False
    """The broker said `connection.blocked`."""
    reason: str = "not connected yet"
    """Why it is not up, or what hinders it: a sentence for an operator, without secrets; empty when all is well."""
    generation: int = 0
    generations_ended: dict[Outcome, int] = field(default_factory=dict)
    """By reason, a short fixed word."""
    connect_attempts: dict[Outcome, int] = field(default_factory=dict)
    """By result: `ok`, or a short fixed word for what failed."""

    def opened(self) -> None:
        """A generation has begun."""
        self.generation += 1
        count(self.connect_attempts, "ok")
        self.up = True
        self.reason = ""

    def failed(self, result: Outcome, text: str) -> None:
        """An attempt to connect has failed."""
        count(self.connect_attempts, result)
        self.reason = text

    def ended(self, reason: Outcome, text: str) -> None:
        """The generation has ended."""
        self.up = self.blocked = False
        self.reason = text
        count(self.generations_ended, reason)

    def block(self, *, blocked: bool) -> None:
        """The broker has blocked or unblocked the connection."""
        self.blocked = blocked


@dataclass(slots=True)
class Status:
    """Both sides and what the consumer does."""

    source: SideStatus = field(default_factory=lambda: SideStatus("source"))
    destination: SideStatus = field(default_factory=lambda: SideStatus("destination"))
    consuming: bool = False
    stopping: bool = False
    trouble: str = ""
    """What keeps messages from being forwarded although both sides are up, such as a refusing destination."""
    unreadable: str = ""
    """What keeps the source from delivering although its channel is open."""
    stuck: str = ""
    """What the watchdog could not mend; empty while there is progress, or a reason for none."""
    publish_window: int = 0
    oldest_received_s: float | None = None
    """Monotonic time at which the oldest delivery in the window was received."""
    last_forward_s: float | None = None
    """Unix time of the last confirmed publish."""

    @property
    def hindrances(self) -> list[str]:
        """Why the bridge is not ready; empty when it is."""
        found = [f"{side.name}: {side.reason}" for side in (self.source, self.destination) if not side.up]
        if self.destination.up and self.destination.blocked:
            found.append("destination: blocked by the broker")
        if self.trouble:
            found.append(f"destination: {self.trouble}")
        if self.unreadable:
            found.append(f"source: {self.unreadable}")
        if self.stuck:
            found.append(self.stuck)
        if self.stopping:
            found.append("stopping")
        elif not self.consuming and not found:
            found.append("not consuming yet")
        return found
