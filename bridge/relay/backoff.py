"""When to try again: exponential in the age of the trouble, with full jitter, sans-I/O.

The delay is drawn from zero up to a sixteenth of how long the trouble has lasted, within bounds. It grows
exponentially with every try, as doubling does, but stays in proportion to the outage: after a broker's
restart of eight seconds the next try comes within half a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE = 1 / 16
"""Of the trouble's age, the longest delay."""
STABLE_S = 10.0
"""A generation that lives this long, or that makes progress, ends the trouble before it."""


class Backoff:
    """Delays between the tries of one side."""

    def __init__(self, min_s: float, max_s: float, chance: Callable[[], float]) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._chance = chance
        self._since_s: float | None = None

    def begin_delay_s(self, now_s: float) -> float:
        """Draw how long to wait before the next try; the first call since `reset` begins the trouble."""
        if self._since_s is None:
            self._since_s = now_s
        longest_s = max(self._min_s, (now_s - self._since_s) * SHARE)
        return min(self._max_s, longest_s) * self._chance()

    def reset(self) -> None:
        """All was well: the next trouble is a new one."""
        self._since_s = None
