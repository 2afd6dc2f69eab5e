"""What schedules came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """What a schedule, or many, came to."""

    schedules: int = 0
    events: int = 0
    messages: int = 0
    arrived: int = 0
    duplicates: int = 0
    duplicates_counted: int = 0
    suppressed: int = 0
    quarantined: int = 0
    stale: int = 0
    drains: int = 0
    """That have ended by themselves."""
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, other: Report) -> None:
        """Count another's with this."""
        for name, value in vars(other).items():
            if isinstance(value, int):
                setattr(self, name, getattr(self, name) + value)
        self.faults.update(other.faults)


class ScheduleError(Exception):
    """A schedule broke what must hold; it says which, and how to see it again."""
