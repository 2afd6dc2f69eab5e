"""Gaps in what a stream's consumer delivers, sans-I/O: what of them was lost to retention.

Offsets are left out for two reasons that look alike: retention deleted messages before the consumer came to them, or
the broker wrote something of its own. Retention deletes from the stream's beginning on. So messages are lost where
the last one before a gap does not exist any more, and the broker is asked which message is the stream's first.

The broker's own count as lost where they lie among what was, and where the question comes late: rather too many are
counted than too few.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

ASK_AGAIN_S = 10.0
"""Between two questions: each stored offset leaves a gap, and some are stored every second."""
MOST_OPEN = 1000
"""Of more gaps, the newest are taken for one."""


class Gap(NamedTuple):
    """Offsets that were left out."""

    after: int
    """The offset of the last message before it."""
    width: int
    """How many they are."""


class Gaps:
    """The gaps of one stream of which it is not known yet what they are."""

    def __init__(self) -> None:
        self._open: list[Gap] = []
        self._asked = 0
        """So many of them, from the first on, are what the present question is about."""
        self._ask_at_s = -inf

    @property
    def question_due_s(self) -> float:
        """When the broker is to be asked; -inf for now, inf for never."""
        return self._ask_at_s if self._open and not self._asked else inf

    def add(self, after: int, width: int) -> None:
        """Behind the message at `after`, the consumer has left out so many offsets."""
        if len(self._open) - self._asked >= MOST_OPEN:
            before = self._open.pop()
            after, width = before.after, before.width + width
        self._open.append(Gap(after, width))

    def ask(self, now_s: float) -> None:
        """The broker is being asked; then call `answered`, or `unanswered`."""
        self._asked = len(self._open)
        self._ask_at_s = now_s + ASK_AGAIN_S

    def unanswered(self) -> None:
        """There was no answer, or none will come."""
        self._asked = 0

    def answered(self, first: int) -> int:
        """The stream's first message is at this offset; return how many offsets were lost."""
        asked, self._open = self._open[: self._asked], self._open[self._asked :]
        self._asked = 0
        return sum(gap.width for gap in asked if gap.after < first)
