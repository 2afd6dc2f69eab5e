"""The circuit breaker of a drain, sans-I/O: whether what is moved comes straight back.

Consumers that reject a message dead-letter it again, and a drain that goes on would only turn the wheel. Two things
show it: a message with the drain's own mark is delivered; or the queue grows by what was moved, although nobody else
publishes to it, as far as was seen before the first message was moved. AMQP does not tell who published what.
"""

from __future__ import annotations

AT_LEAST = 20
"""Of fewer messages nothing is concluded."""
SHARE = 0.8
"""The queue grew by what was moved when at least this share of it has arrived."""
TWICE = 2
"""So many answers in a row must show it."""


class Breaker:
    """Watches one queue while it is drained."""

    def __init__(self, ready: int | None) -> None:
        """The queue had so many messages ready when the drain was planned; None where that is not known."""
        self._ready = ready
        self._alone: bool | None = None
        """Whether nobody else publishes; None until it is known."""
        self._answered_s: float | None = None
        self._moved = self._taken = 0
        """As of the last look."""
        self._moved_before = 0
        """As of the last answer."""
        self._shown = 0
        """Answers in a row that show that it comes back."""

    def begins(self, ready: int) -> None:
        """The queue had so many messages right before the first was taken: more than planned are somebody's."""
        if self._alone is None:
            self._alone = self._ready is not None and ready <= self._ready

    def look(self, *, moved: int, taken: int, ready: int | None, answered_s: float | None, came_back: int) -> bool:
        """Note how many are moved, and taken from the queue; return whether it is time to stop.

        `ready` is what the queue answered last, and `answered_s` when. `came_back` have the drain's own mark.
        """
        if answered_s != self._answered_s and ready is not None and self._ready is not None:
            self._answered_s = answered_s
            # What was taken by the last look was taken before the answer: so it did not grow by less than this.
            arrived = ready - (self._ready - self._taken)
            comes_back = self._moved_before >= AT_LEAST and arrived >= SHARE * self._moved_before
            self._shown = self._shown + 1 if comes_back else 0
            self._moved_before = self._moved
        self._moved, self._taken = moved, taken
        return came_back > 0 or (self._alone is True and self._shown >= TWICE)
