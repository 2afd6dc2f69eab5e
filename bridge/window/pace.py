"""The pace at which the destination is published to, sans-I/O: how many at once, and from when on.

The publish window starts small in each destination generation and doubles with every round of confirms; any
trouble sets it to 1, and a refusal adds a backoff. One rule then serves a full queue, a flapping broker and a
message that the broker closes the channel for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PUBLISH_WINDOW = 16
"""Messages published at once in a young destination generation; doubles with every round of confirms."""
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
"""Backoff between publishes to a destination that refuses; the upper bound is what a recovery may cost."""


class Pace:
    """The publish window, the backoff, and the trouble they come from."""

    def __init__(self, most: int, chance: Callable[[], float]) -> None:
        """The publish window grows to `most` messages."""
        self._most = most
        self._chance = chance
        self.publish_window = 0
        """How many may be published at once."""
        self._round_ends_at = 0
        """The publish_seqno whose confirm makes the publish window double."""
        self._resting_until_s = 0.0
        self._refusals = 0
        """Backoffs since the destination last took a message."""
        self.trouble = ""
        """Why an open destination takes nothing, for an operator."""
        self.trouble_since_s: float | None = None
        """Since when the destination has been away, blocked or refusing."""

    def resting(self, now_s: float) -> bool:
        """Whether nothing may be published yet: the destination has refused."""
        return now_s < self._resting_until_s

    def refuses_since(self, now_s: float) -> float:
        """Return for how many seconds the destination has been away, blocked or refusing; 0 while all is well."""
        return 0.0 if self.trouble_since_s is None else now_s - self.trouble_since_s

    def opened(self, *, careful: bool) -> None:
        """A destination generation begins; `careful`: one at a time, whatever came before."""
        self.publish_window = 1 if careful or self._refusals else FIRST_PUBLISH_WINDOW
        self._round_ends_at = 0

    def lost(self, now_s: float) -> None:
        """The destination's generation ended."""
        self.publish_window = 0
        self.hindered(now_s)

    def confirmed(self, until_seqno: int, next_seqno: int) -> None:
        """All is well with publishes before `until_seqno`: widen when that is a whole round."""
        if until_seqno > self._round_ends_at:
            self.publish_window = min(self._most, self.publish_window * 2)
            self._round_ends_at = next_seqno

    def narrow(self, next_seqno: int) -> None:
        """Something is wrong: one at a time until what was published before `next_seqno` is confirmed."""
        self.publish_window = min(1, self.publish_window)
        self._round_ends_at = next_seqno

    def refused(self, trouble: str, now_s: float, next_seqno: int) -> None:
        """The destination as a whole refuses: publish one at a time, after a while."""
        self.narrow(next_seqno)
        self.trouble = trouble
        self.hindered(now_s)
        if not self.resting(now_s):
            self._resting_until_s = now_s + self.delay_s(self._refusals, RETRY_MAX_S)
            self._refusals += 1

    def hindered(self, now_s: float) -> None:
        """The destination takes nothing, from now on if not before."""
        if self.trouble_since_s is None:
            self.trouble_since_s = now_s

    def taken(self) -> None:
        """The destination took a message: the next refusal is the first."""
        self._refusals = 0
        self.well()

    def well(self) -> None:
        """The trouble is over."""
        self.trouble_since_s = None
        self.trouble = ""

    def delay_s(self, attempts: int, at_most_s: float) -> float:
        """Return how long to wait after so many attempts before: doubling, with jitter."""
        delay_s: float = min(at_most_s, RETRY_MIN_S * 2 ** min(attempts, 16))
        return delay_s * (0.5 + self._chance() / 2)
