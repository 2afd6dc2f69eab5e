"""Offsets of a stream, sans-I/O: what of it has been forwarded, and where to read on.

A stream keeps what it has delivered, and a new consumer begins at an offset. So nothing is ever requeued: after a lost
generation the bridge reads again from the lowest offset that it has not forwarded, and knows by their offsets those
behind it that it has. Offsets rise; they may have gaps, where a filter leaves messages out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from operator import itemgetter


class Offsets:
    """The offsets of one stream, over all generations of this process."""

    def __init__(self) -> None:
        self._unforwarded: list[int] = []
        """Received and not forwarded, rising; at most as many as are in flight."""
        self._ahead: list[tuple[int, int]] = []
        """Runs of those that were forwarded and are above the lowest that was not, or come again, rising: the first of
        each, and the one after its last. A message that waits for long lets millions pass, in one run."""
        self._last = -1
        """Received last: those above it that have been received before come again."""
        self._next: int | None = None
        """Above the highest that was received."""

    @property
    def resume_at(self) -> int | None:
        """Where to read on; None when nothing was received yet."""
        return self._unforwarded[0] if self._unforwarded else self._next

    def received(self, offset: int) -> bool:
        """Note that it was delivered; return whether it has been forwarded before."""
        self._last = offset
        if self._next is None or offset >= self._next:
            self._next = offset + 1
            self._unforwarded.append(offset)
            return False
        run = bisect_right(self._ahead, offset, key=itemgetter(0))
        if run and offset < self._ahead[run - 1][1]:
            return True
        at = bisect_left(self._unforwarded, offset)
        if self._unforwarded[at : at + 1] != [offset]:
            insort(self._unforwarded, offset)
        return False

    def forwarded(self, offset: int) -> None:
        """Note that the destination or the quarantine has it."""
        at = bisect_left(self._unforwarded, offset)
        if self._unforwarded[at : at + 1] != [offset]:
            return
        del self._unforwarded[at]
        if at == 0:
            known = min([self._last, *self._unforwarded[:1]])
            del self._ahead[: bisect_right(self._ahead, known + 1, key=itemgetter(1))]
        else:
            self._pass(offset)

    def _pass(self, offset: int) -> None:
        """Add it to the runs, and join those that it lies between."""
        runs = self._ahead
        first, after = offset, offset + 1
        start = stop = bisect_right(runs, offset, key=itemgetter(0))
        if start and runs[start - 1][1] == offset:
            start -= 1
            first = runs[start][0]
        if stop < len(runs) and runs[stop][0] == after:
            after = runs[stop][1]
            stop += 1
        runs[start:stop] = [(first, after)]
