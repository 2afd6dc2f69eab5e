"""The pace at which the destination is published to, sans-I/O: how many at once, and from when on.

The publish window starts small in each destination generation and doubles with every round of confirms; any
trouble sets it to 1, and a refusal adds a backoff. One rule then serves a full queue, a flapping broker and a
message that the broker closes the channel for. The window belongs to a generation of the destination; the trouble
outlives it, since a destination that comes back may refuse as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PUBLISH_WINDOW = 16
"""Messages published at once in a young destination generation; doubles with every round of confirms."""
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
"""Backoff between publishes to a destination that refuses; the upper bound is what a recovery may cost."""

REMEMBERED_S = 60.0
"""How long a refusal is remembered when nothing is in flight."""


class PublishWindow:
    """How many messages one generation of the destination may be sent before they are confirmed."""

    def __init__(self, most: int) -> None:
        """It grows to `most` messages; closed until `opened`."""
        self._most = most
        self.size = 0
        """Messages that may be published at once."""
        self._round_ends_at = 0
        """The publish_seqno whose confirm makes the window double."""

    def opened(self, *, careful: bool) -> None:
        """The generation begins; `careful`: one at a time."""
        self.size = 1 if careful else FIRST_PUBLISH_WINDOW

    def confirmed(self, until_seqno: int, next_seqno: int) -> None:
        """All is well with publishes before `until_seqno`: widen when that is a whole round."""
        if until_seqno > self._round_ends_at:
            self.size = min(self._most, self.size * 2)
            self._round_ends_at = next_seqno

    def narrow(self, next_seqno: int) -> None:
        """Something is wrong: one at a time until what was published before `next_seqno` is confirmed."""
        self.size = min(1, self.size)
        self._round_ends_at = next_seqno


class Trouble:
    """The time for which the destination accepts nothing: its reason, its beginning, and how long to leave it alone."""

    def __init__(self, chance: Callable[[], float]) -> None:
        """`chance` returns a number from 0 to 1."""
        self._chance = chance
        self._resting_until_s = 0.0
        self.refusals = 0
        """Backoffs since the destination last accepted a message."""
        self._unconfirmed = 0
        """Confirm timeouts since the destination last accepted a message."""
        self.text = ""
        """Reason for which an open destination accepts nothing, for an operator; empty otherwise."""
        self._since_s: float | None = None
        """Monotonic time from which the destination has been away, blocked or refusing; None while all is well."""

    @property
    def lasts(self) -> bool:
        """Whether the destination is away, blocked or refusing."""
        return self._since_s is not None

    def seconds(self, now_s: float) -> float:
        """Return for how many seconds the destination has been away, blocked or refusing; 0 while all is well."""
        return 0.0 if self._since_s is None else now_s - self._since_s

    def resting(self, now_s: float) -> bool:
        """Whether nothing may be published yet: the destination has refused."""
        return now_s < self._resting_until_s

    def remembers(self, now_s: float) -> bool:
        """Whether the destination refused not long ago, although nothing is in flight that it could refuse now."""
        return self.refusals > 0 and now_s < self._resting_until_s + REMEMBERED_S

    def began(self, now_s: float) -> None:
        """The destination accepts nothing, from now on if not before."""
        if self._since_s is None:
            self._since_s = now_s

    def refused(self, text: str, now_s: float) -> None:
        """The destination as a whole refuses: leave it alone for a while."""
        self.text = text
        self.began(now_s)
        if not self.resting(now_s):
            self._resting_until_s = now_s + self.delay_s(self.refusals, RETRY_MAX_S)
            self.refusals += 1

    def unconfirmed(self, now_s: float, confirm_timeout_s: float, hold_timeout_s: float) -> None:
        """The destination accepted messages and did not confirm them: leave it alone for longer each time.

        Each publish that it gets meanwhile may be another copy of the same message.
        """
        self.text = "does not confirm what it is sent"
        self.began(now_s)
        self.refusals += 1
        self._unconfirmed += 1
        rest_s = min(hold_timeout_s, confirm_timeout_s * 2.0 ** min(self._unconfirmed, 16))
        self._resting_until_s = max(self._resting_until_s, now_s + rest_s)

    def explained(self) -> None:
        """The queue or exchange is gone that did not confirm: once there is another, it need not be left alone."""
        self._unconfirmed = 0
        self._resting_until_s = 0.0

    def requeued(self, now_s: float) -> None:
        """What was held is requeued: the hold timeout begins again."""
        self._since_s = now_s

    def over(self) -> None:
        """Nothing hinders the destination any more."""
        self._since_s = None
        self.refusals = self._unconfirmed = 0
        self.text = ""

    def delay_s(self, attempts: int, at_most_s: float) -> float:
        """Return how long to wait after so many attempts before: doubling, with jitter."""
        delay_s: float = min(at_most_s, RETRY_MIN_S * 2 ** min(attempts, 16))
        return delay_s * (0.5 + self._chance() / 2)
