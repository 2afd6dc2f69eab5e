"""How many messages may be published before the destination's queue is counted again, sans-I/O.

Between two answers of its broker the bridge counts what it publishes. What the queue may hold by now is what it last
answered, and whatever was published since the question, or was unconfirmed then: that may not be in the answer.

What it does not do: ask, nor judge the answers, which is `relay/brake`'s.
"""

from __future__ import annotations

from math import inf


class Quota:
    """What may still be published to a queue of which the length is limited."""

    def __init__(self, most: float = inf) -> None:
        """`most` messages may wait in the queue; `inf` for any number, once it has been counted."""
        self._most = most
        self._there = 0.0
        """How many may be there by now."""
        self._unseen = 0
        """Of these, how many the answer that is awaited may leave out."""
        self._counted = False
        self._lifted = False

    @property
    def left(self) -> float:
        """How many may be published; 0 while nobody knows how many are there."""
        if self._lifted:
            return inf
        return max(0.0, self._most - self._there) if self._counted else 0.0

    def took(self, messages: int) -> None:
        """So many are published."""
        self._there += messages
        self._unseen += messages

    def asked(self, unconfirmed: int) -> None:
        """The queue is being counted, while so many publishes are unconfirmed."""
        self._unseen = unconfirmed

    def answered(self, ready: int) -> None:
        """It had so many messages at some moment since the question."""
        self._there = ready + self._unseen
        self._counted = True

    def forget(self) -> None:
        """Nobody knows any more how many are there."""
        self._counted = False

    def lift(self, *, on: bool) -> None:
        """Let everything be published, or no longer: what the bridge still holds is forwarded when it stops."""
        self._lifted = on
