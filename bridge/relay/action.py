"""What the steering wants done: each action is carried out by the caller, who then reports what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.words import EndReason, SideName


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume from the source; then call `starting` and `started`, or `not_started`."""

    prefetch: int
    offset: int | None = None
    """Where to begin in a stream; None to begin where the settings say."""


@dataclass(frozen=True, slots=True)
class OpenQuarantine:
    """Open the quarantine's channel; then call `quarantine_opened` or `quarantine_unavailable`."""


@dataclass(frozen=True, slots=True)
class AskQueue:
    """Ask the source queue for its state; then call `queue_answered`."""


@dataclass(frozen=True, slots=True)
class AskFirstOffset:
    """Ask which offset the source stream's first message has; then call `first_offset_answered`."""


@dataclass(frozen=True, slots=True)
class AskDestination:
    """Have the destination's queue counted; its answers go to the `brake`."""


@dataclass(frozen=True, slots=True)
class AskExchange:
    """Ask the destination whether an exchange accepts messages; the window's `exchanges` take the answer."""

    exchange: bytes


@dataclass(frozen=True, slots=True)
class EndGeneration:
    """End this side's generation."""

    side: SideName
    reason: EndReason
    """For `/metrics`."""
    text: str
    drop: bool = True
    """Whether to drop the connection without a word, since its broker does not answer."""


@dataclass(frozen=True, slots=True)
class Stop:
    """All is settled, or time is up: write what is to be written, close both sides and end."""


AskSource = Consume | OpenQuarantine | AskQueue | AskFirstOffset
"""What the source's broker is asked, one at a time."""
Action = AskSource | AskDestination | AskExchange | EndGeneration | Stop
