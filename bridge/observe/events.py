"""The last events: what the log said, kept for operators who have no log at hand.

An event is a log line of the bridge at `info` or above, whatever level is logged. Its fields are left out: they may
name a message.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

KEPT = 50


class Event(NamedTuple):
    """One event."""

    unix_s: float
    level: str
    text: str


class EventLog(logging.Handler):
    """Keeps the last `KEPT` events; may be read on any thread."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._events: deque[Event] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an event; called by `logging`, which holds the lock."""
        self._events.append(Event(record.created, record.levelname.lower(), record.getMessage()))

    def events(self) -> list[Event]:
        """Return the events, the latest first."""
        with self.lock:  # type: ignore[union-attr]  # None only before `createLock`
            return [*reversed(self._events)]
