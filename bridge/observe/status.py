"""The bridge's state as one value: what the supervisor says, and `/readyz`, `/metrics` and `/status` repeat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from bridge.observe.backlog import Backlog
from bridge.window.books import count

if TYPE_CHECKING:
    from bridge.words import BrakeReason, Outcome, SideName


class LastEnd(NamedTuple):
    """How a side's last generation ended."""

    generation: int
    reason: str
    """A short fixed word."""
    text: str
    unix_s: float


@dataclass(slots=True)
class SideStatus:
    """One side: its connection, its generation and how the generations before it ended."""

    name: SideName
    up: bool = False
    """The channel is open and what it needs is verified."""
    since_s: float | None = None
    """Unix time since which it has been up, or down; None before the first attempt has ended."""
    blocked: bool = False
    """The broker said `connection.blocked`."""
    blocked_since_s: float | None = None
    """Unix time."""
    blocked_reason: str = ""
    """The broker's words."""
    reason: str = "not connected yet"
    """Reason for not being up: a sentence for an operator, without secrets; empty when all is well."""
    url: str = ""
    """What it is connected to, without the password; empty while it is not."""
    generation: int = 0
    last_end: LastEnd | None = None
    generations_ended: dict[Outcome, int] = field(default_factory=dict)
    """By reason, a short fixed word."""
    connect_attempts: dict[Outcome, int] = field(default_factory=dict)
    """By result: `ok`, or a short fixed word for what failed."""
    backlog: Backlog = field(default_factory=Backlog)
    """Of the side's queue."""
    token_trouble: str = ""
    """Reason for which a new token is not used, while the present one is still good; empty when all is well."""

    def opened(self, url: str, unix_s: float) -> None:
        """A generation has begun."""
        self.generation += 1
        count(self.connect_attempts, "ok")
        self.up, self.reason, self.url, self.since_s = True, "", url, unix_s

    def failed(self, result: Outcome, text: str, unix_s: float) -> None:
        """An attempt to connect has failed."""
        count(self.connect_attempts, result)
        self.reason = text
        self.since_s = unix_s if self.since_s is None else self.since_s

    def ended(self, reason: Outcome, text: str, unix_s: float) -> None:
        """The generation has ended."""
        count(self.generations_ended, reason)
        self.last_end = LastEnd(self.generation, reason, text, unix_s)
        self.up = False
        self.reason, self.url, self.since_s = text, "", unix_s
        self.unblock()

    def block(self, reason: str, unix_s: float) -> None:
        """The broker has blocked the connection, with these words."""
        self.blocked, self.blocked_since_s, self.blocked_reason = True, unix_s, reason

    def token_refused(self, text: str) -> None:
        """A new token is not used, for this reason."""
        self.token_trouble = text

    def token_settled(self) -> None:
        """No new token waits."""
        self.token_trouble = ""

    def unblock(self) -> None:
        """The connection is not blocked any more."""
        self.blocked, self.blocked_since_s, self.blocked_reason = False, None, ""


@dataclass(slots=True)
class TrackingStatus:
    """The offset of a stream that the broker keeps."""

    name: str = ""
    """The name that it is kept under; empty where none is."""
    stored: int | None = None
    """What the broker had when it was asked last."""
    failures: int = 0
    """Times that it could not be stored, or asked for."""
    trouble: str = ""
    """Reason for which it is not stored; empty when all is well."""
    others: str = ""
    """Who else was seen to store it, in a sentence; empty for nobody."""

    def kept(self, offset: int | None) -> None:
        """The broker has this offset."""
        self.stored, self.trouble = offset, ""

    def failed(self, text: str) -> None:
        """It was not stored, for this reason."""
        self.failures += 1
        self.trouble = text

    def shared(self, text: str) -> None:
        """Another bridge was seen, or (empty) has not been seen for long."""
        self.others = text


@dataclass(slots=True)
class Status:
    """Both sides and what the consumer does."""

    source: SideStatus = field(default_factory=lambda: SideStatus("source"))
    destination: SideStatus = field(default_factory=lambda: SideStatus("destination"))
    tracking: TrackingStatus = field(default_factory=TrackingStatus)
    consuming: bool = False
    state: str = "probing"
    """The steering's state, in a word."""
    prefetch: int = 0
    """What is consumed with now; 0 while nothing is."""
    stopping: bool = False
    paused: bool = False
    """An operator has paused it; what it holds may still be on its way."""
    resting: bool = False
    """It is paused or braked, or ends that."""
    braked: BrakeReason | None = None
    """It rests, since the destination's queue is in this state."""
    brake: str = ""
    """That state, in a sentence."""
    trouble: str = ""
    """What keeps every message from being forwarded although both sides are up, such as a refusing destination."""
    trouble_s: float = 0.0
    """For how long the destination has been away, blocked or refusing."""
    degraded: list[str] = field(default_factory=list)
    """What keeps single messages from being forwarded while others are; it does not hinder readiness."""
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
        """Reasons why nothing can be forwarded; empty when the bridge is ready, or rests as it was told to."""
        if self.stopping:
            return [*self._obstacles, "stopping"]
        if self.paused:
            return []
        return self._obstacles or ([] if self.consuming or self.resting else ["not consuming yet"])

    @property
    def reservations(self) -> list[str]:
        """What does not hinder readiness: what is degraded, a token, a brake, what a paused bridge would meet."""
        braked = [f"braked: destination: {self.brake}"] if self.braked else []
        tokens = [
            f"{side.name}: {side.token_trouble}" for side in (self.source, self.destination) if side.token_trouble
        ]
        tracking = self.tracking
        offsets = [f"source: the offset is not stored: {tracking.trouble}"] if tracking.trouble else []
        offsets += [f"source: {tracking.others}"] if tracking.others else []
        obstacles = self._obstacles if self.paused and not self.stopping else []
        return [*self.degraded, *tokens, *offsets, *braked, *obstacles]

    @property
    def _obstacles(self) -> list[str]:
        """What is wrong with either side, or with the queue, so that nothing can be forwarded."""
        found = [f"{side.name}: {side.reason}" for side in (self.source, self.destination) if not side.up]
        if self.destination.up and self.destination.blocked:
            why = self.destination.blocked_reason
            found.append("destination: blocked by the broker" + (f" ({why})" if why else ""))
        if self.trouble:
            found.append(f"destination: {self.trouble}")
        if self.unreadable:
            found.append(f"source: {self.unreadable}")
        if self.stuck:
            found.append(self.stuck)
        return found
