"""The rate at which the destination is published to at most, sans-I/O: messages and bytes per second.

A token bucket for each, kept as the time until which all that was taken has been paid for. What may be published is
what has been saved up since, at least `STEP_S` and at most `BURST_S` of it. A message may be taken as soon as a step
has been saved: one that is larger than the bucket passes, too, and is paid back before the next. So over any span the
pace is exact but for one burst and one message, as long as somebody looks more often than every `BURST_S`.

What it does not do: count messages that others publish, nor those that go to the quarantine, which is on the source's
broker.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.window.books import Books
    from bridge.words import ThrottleReason

STEP_S = 0.01
"""Seconds of the rate that are published at once: one message each time something comes costs the brokers more than
its forwarding."""
BURST_S = 0.1
"""Seconds of the rate that may be saved up."""
LOOKED_AGAIN_S = 1.0
"""After a longer pause between two looks, something else held the messages back: at most so much is counted."""


class Bucket:
    """What may be taken at a rate."""

    def __init__(self, per_second: float) -> None:
        """`inf` for no limit."""
        self.per_second = per_second
        self._paid_until_s = -inf

    def change(self, per_second: float) -> None:
        """From now on so much may be taken in a second."""
        self.per_second = per_second

    @property
    def due_s(self) -> float:
        """When something may be taken."""
        return self._paid_until_s + STEP_S

    def empty(self, now_s: float) -> bool:
        """Whether nothing may be taken yet."""
        return now_s < self.due_s

    def saved(self, now_s: float) -> float:
        """Return how much has been saved up; what is taken may exceed it by less than one message."""
        return min(BURST_S, now_s - self._paid_until_s) * self.per_second

    def take(self, amount: float, now_s: float) -> None:
        """So much is taken."""
        self._paid_until_s = max(self._paid_until_s, now_s - BURST_S) + amount / self.per_second


class Rate:
    """Both buckets, and for how long they have held messages back."""

    def __init__(self, messages_per_s: float, bytes_per_s: float, books: Books) -> None:
        """0 for no limit."""
        self._messages = Bucket(messages_per_s or inf)
        self._bytes = Bucket(bytes_per_s or inf)
        self._books = books
        self._taken = self._taken_bytes = 0
        self._throttled: tuple[ThrottleReason, float] | None = None
        """Why nothing may be published, and since when this has not been counted."""

    def change(self, messages_per_s: float) -> None:
        """From now on so many messages may be published in a second."""
        self._messages.change(messages_per_s)

    def allow(self, most: int, max_bytes: int, now_s: float) -> tuple[int, int]:
        """Note that so many messages could be published; return how many of them, and bytes, may be: 0 for none yet."""
        if self._throttled is not None:
            reason, since_s = self._throttled
            self._books.throttled(reason, min(LOOKED_AGAIN_S, now_s - since_s))
            self._throttled = None
        if self._messages.empty(now_s):
            self._throttled = "messages", now_s
        elif self._bytes.empty(now_s):
            self._throttled = "bytes", now_s
        if self._throttled is not None:
            return 0, 0
        return (
            ceil(min(most, self._messages.saved(now_s))),
            ceil(min(max_bytes, self._bytes.saved(now_s))),
        )

    def took(self, messages: int, size_bytes: int, now_s: float) -> None:
        """So much is published."""
        self._taken += messages
        self._taken_bytes += size_bytes
        self._messages.take(messages, now_s)
        self._bytes.take(size_bytes, now_s)

    @property
    def due_s(self) -> float:
        """When something may be published."""
        return max(self._messages.due_s, self._bytes.due_s)

    def throttles(self, now_s: float) -> bool:
        """Whether nothing may be published yet."""
        return now_s < self.due_s

    def prefetch(self, seconds: float) -> float:
        """Return how many messages it forwards in so many seconds, at least 1, by the mean size published so far."""
        by_bytes = self._bytes.per_second * seconds * self._taken / self._taken_bytes if self._taken_bytes else inf
        return max(1.0, min(self._messages.per_second * seconds, by_bytes))
