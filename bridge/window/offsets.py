"""Offsets of a stream, sans-I/O: what of it has been forwarded, and where to read on.

A stream keeps what it has delivered, and a new consumer begins at an offset. So nothing is ever requeued: after a lost
generation the bridge reads again from the lowest offset that it has not forwarded, and knows by their offsets those
behind it that it has. Offsets rise; they may have gaps, where a filter leaves messages out, and where the broker has
written something of its own (stored offsets; 3.10.8, 4.3.6).

Because of the gaps nobody can tell from the first offset that comes whether something before it is missing. So a
consumer begins at a *landmark*: a message that was delivered before, the lowest that was not forwarded or else the last
that was. It comes first, unless retention has deleted it, or the stream is another one. What a consumer leaves out
later on is in `gaps`, unless it has been delivered before: that was deleted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from operator import itemgetter

from bridge.window.gaps import Gaps


class Offsets:
    """The offsets of one stream, over all generations of this process."""

    def __init__(self, stored: int | None = None, *, filtered: bool = False) -> None:
        """`stored` is the last offset that an earlier process forwarded, as were all before it.

        Where the deliveries are `filtered`, there are no landmarks: another filter leaves out others.
        """
        self._filtered = filtered
        self._unforwarded: list[int] = []
        """Received and not forwarded, rising; at most as many as are in flight."""
        self._ahead: list[tuple[int, int]] = []
        """Runs of those that were forwarded and are above the lowest that was not, or come again, rising: the first of
        each, and the one after its last. A message that waits for long lets millions pass, in one run."""
        self._here: set[int] = set()
        """Those of `_unforwarded` that the present generation has delivered."""
        self._last = -1
        """Received last: those above it that have been received before come again."""
        self._next: int | None = None if stored is None else stored + 1
        """Above the highest that was received."""
        self._settled = -1 if stored is None else stored
        """The highest message of which is known that it and all before it were forwarded; -1 for none."""
        self._awaited: int | None = None
        """The landmark that the consumer was begun at, until something has come."""
        self._goes_on = False
        """Whether the next message that comes is the one after the last."""
        self.gaps = Gaps()
        self.missed = 0
        """Offsets that were not forwarded and do not exist any more: messages, and what the broker wrote itself."""

    @property
    def resume_at(self) -> int | None:
        """Where to read on; None when nothing was received yet."""
        return self._unforwarded[0] if self._unforwarded else self._next

    @property
    def read_at(self) -> int | None:
        """As `resume_at`, for a consumer that begins while no other delivers: at the landmark, where there is one."""
        return self._landmark if self._landmark is not None else self.resume_at

    @property
    def settled(self) -> int | None:
        """The highest message that was forwarded together with all before it; None where there is none."""
        if self._settled < 0 or (self._unforwarded and self._unforwarded[0] <= self._settled):
            return None
        return self._settled

    @property
    def awaited(self) -> int | None:
        """The landmark that a consumer was begun at, and that has not come yet."""
        return self._awaited

    @property
    def _landmark(self) -> int | None:
        if self._filtered:
            return None
        return self._unforwarded[0] if self._unforwarded else self.settled

    def begin(self) -> None:
        """A consumer is to begin at `read_at`, and no other delivers: all from there on comes again."""
        self._awaited = self._landmark
        self._goes_on = False
        if self.read_at is not None:
            self._last = self.read_at - 1

    def lost(self) -> None:
        """The generation ended: what it has delivered and was not forwarded is to come again."""
        self._here.clear()
        self.gaps.unanswered()

    def restart(self) -> None:
        """The stream was deleted: the next of its name is another one, to be read from its first message on."""
        self._unforwarded, self._ahead = [], []
        self._last = self._settled = -1
        self._next, self._awaited = 0, None
        self._goes_on, self.gaps = False, Gaps()

    def received(self, offset: int) -> bool:
        """Note that it was delivered; return whether it has been forwarded before, or is here already.

        It is where a consumer was cancelled and the next one began while it was held.
        """
        goes_on, self._goes_on = self._goes_on, True
        if self._awaited is not None and self._passed(offset):
            return True
        if goes_on and offset > self._last + 1:
            self._left_out(offset)
        self._last = offset
        if offset in self._here:
            return True
        if self._next is None or offset >= self._next:
            self._next = offset + 1
            self._unforwarded.append(offset)
            self._here.add(offset)
            return False
        run = bisect_right(self._ahead, offset, key=itemgetter(0))
        if run and offset < self._ahead[run - 1][1]:
            return True
        self._here.add(offset)
        at = bisect_left(self._unforwarded, offset)
        if self._unforwarded[at : at + 1] != [offset]:
            insort(self._unforwarded, offset)
        return False

    def unknown(self) -> None:
        """A message was delivered whose offset is lost, and which was not forwarded: above the last one's."""
        self._goes_on = False
        offset = max(self._last, self._settled) + 1
        if offset not in self._unforwarded:
            insort(self._unforwarded, offset)

    def begins_at(self, first: int) -> None:
        """The broker has answered the question about `gaps`: the stream's first message is at this offset."""
        self.missed += self.gaps.answered(first)

    def forwarded(self, offset: int) -> None:
        """Note that the destination or the quarantine has it."""
        at = bisect_left(self._unforwarded, offset)
        if self._unforwarded[at : at + 1] != [offset]:
            return
        del self._unforwarded[at]
        self._here.discard(offset)
        if at == 0:
            self._settle(offset)
        if at > 0 or offset > self._last:
            self._pass(offset)
        if at == 0:
            known = min([self._last, *self._unforwarded[:1]])
            del self._ahead[: bisect_right(self._ahead, known + 1, key=itemgetter(1))]

    def _settle(self, offset: int) -> None:
        """It was the lowest: all is forwarded up to the last one before what is the lowest now."""
        runs = self._ahead
        below = bisect_left(runs, self._unforwarded[0], key=itemgetter(0)) if self._unforwarded else len(runs)
        self._settled = max(offset, self._settled, *(after - 1 for _, after in runs[max(0, below - 1) : below]))

    def _passed(self, first: int) -> bool:
        """Look at what came first of a consumer; return whether it is a landmark that was forwarded."""
        landmark, self._awaited = self._awaited, None
        assert landmark is not None  # noqa: S101 - the caller has looked
        if first == landmark:
            if self._unforwarded[:1] == [landmark]:
                return False
            self._last = landmark
            return True
        if first > landmark:
            # What is between them was deleted, and comes no more; what is here is none the worse for it.
            gone = bisect_left(self._unforwarded, first)
            held = [offset for offset in self._unforwarded[:gone] if offset in self._here]
            self._unforwarded[:gone] = held
            forwarded = sum(min(after, first) - max(start, landmark) for start, after in self._ahead if start < first)
            self.missed += first - landmark - forwarded - len(held) - (landmark == self._settled)
        return False

    def _left_out(self, until: int) -> None:
        """A consumer that goes on has left out what is between the last one and this."""
        first = self._last + 1
        start, stop = bisect_left(self._unforwarded, first), bisect_left(self._unforwarded, until)
        held = [offset for offset in self._unforwarded[start:stop] if offset in self._here]
        self.missed += stop - start - len(held)
        self._unforwarded[start:stop] = held
        assert self._next is not None  # noqa: S101 - something was received
        new = max(first, self._next)
        if until > new and not self._filtered:
            self.gaps.add(new - 1, until - new)

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
