"""The course of a drain, sans-I/O: when it is over, and why.

It is looked at a few times a second. It ends when all that was asked for has been taken and settled; when the queue
answers twice, a second apart, that it is empty, since messages that expire never come; or when it gets no further: what
is left is refused, more is held than a consumer may hold, or a side is away for too long.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from bridge.window.limits import HELD_MOST_S

EMPTY_APART_S = 0.9
"""So long after the first answer of none ready the second counts: they are asked for every second."""
SETTLES_S = 5.0
"""What is refused is tried again for so long after all else is done."""


class Conclusion(Enum):
    """Why a drain is over."""

    COMPLETE = "complete"
    EMPTY = "empty"
    STAYED = "stayed"
    REFUSED = "refused"
    CROWDED = "crowded"
    HELD = "held"
    REFUSING = "refusing"
    UNREACHABLE = "unreachable"
    RETURNS = "returns"
    FAILED = "failed"
    SIGNAL = "signal"


class Look(NamedTuple):
    """What is seen of the bridge at one moment."""

    now_s: float
    """Monotonic seconds."""
    room: float
    """How many more are to be taken."""
    looks_again: bool
    """Whether what the source may not have heard of is looked for."""
    underway: int
    """Deliveries that are published, or may be."""
    parked: int
    """Deliveries that the destination refuses."""
    withheld: int
    """Deliveries that are not to be forwarded."""
    full: bool
    """Whether the consumer may be sent no more."""
    ready: int | None
    """What the queue answered last; None where that is not known."""
    answered_s: float | None
    """When that was."""
    oldest_s: float | None
    """Since when the oldest of what is parked or withheld is held."""
    trouble_s: float
    """For how long the destination has been away, blocked or refusing."""
    source_up: bool
    destination_up: bool


class Finish:
    """Decides when a drain is over."""

    def __init__(self, patience_s: float) -> None:
        """A side may be away, or refuse, for `patience_s`."""
        self._patience_s = patience_s
        self._empty_s: float | None = None
        """When the queue first answered that it is empty, if it has not answered otherwise since."""
        self._still: tuple[int, int] | None = None
        """What was parked and withheld when nothing else was left to do."""
        self._still_s = 0.0
        self._down_s: float | None = None
        """Since when the source has been away."""

    def look(self, look: Look) -> Conclusion | None:
        """Take note of what is seen; return why the drain is over, None where it is not."""
        empty = self._is_empty(look)
        still_s = self._stands_still(look)
        if (ending := self._gives_up(look)) is not None or look.underway or not look.source_up:
            return ending
        # Where the consumer may be sent no more, nothing can come again, either.
        taken = not look.room and not (look.looks_again and not (look.full and still_s >= SETTLES_S))
        if taken or empty:
            if look.parked:
                return Conclusion.REFUSED if still_s >= SETTLES_S else None
            return Conclusion.COMPLETE if taken else Conclusion.EMPTY
        if look.full and still_s >= SETTLES_S:
            return Conclusion.CROWDED if look.withheld else Conclusion.REFUSED
        return None

    def _gives_up(self, look: Look) -> Conclusion | None:
        """Note whether the source is away; return why the drain ends without getting further."""
        if look.source_up:
            self._down_s = None
        elif self._down_s is None:
            self._down_s = look.now_s
        if self._down_s is not None:
            return Conclusion.UNREACHABLE if look.now_s - self._down_s >= self._patience_s else None
        if look.trouble_s >= self._patience_s:
            return Conclusion.REFUSING if look.destination_up else Conclusion.UNREACHABLE
        if look.oldest_s is not None and look.now_s - look.oldest_s >= HELD_MOST_S:
            return Conclusion.HELD
        return None

    def _is_empty(self, look: Look) -> bool:
        """Note the queue's answer; return whether it has been empty twice, nothing being under way."""
        if look.ready != 0 or look.answered_s is None or look.underway:
            self._empty_s = None
            return False
        if self._empty_s is None:
            self._empty_s = look.answered_s
        return look.answered_s - self._empty_s >= EMPTY_APART_S

    def _stands_still(self, look: Look) -> float:
        """Note what is held; return for how many seconds nothing has changed in it, nothing being under way.

        What is parked is under way for the moment of each new try, which changes nothing.
        """
        still = look.parked + look.underway, look.withheld
        if still != self._still:
            self._still, self._still_s = still, look.now_s
        return look.now_s - self._still_s
