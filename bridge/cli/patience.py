"""Patience at the start: what may pass by itself is waited for, for a limited time, and told once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.errors import NotYetError


class Patience:
    """Counts from its making, once the process has imported what it needs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._told: tuple[str, ...] = ()

    def endure(self, error: NotYetError, timeout_s: float) -> bool:
        """Wait for it to pass; return whether the error is news, to be logged. Raises it when the time is up."""
        if self._clock() - self._began_s >= timeout_s:
            raise error
        news = error.problems != self._told
        self._told = error.problems
        return news
