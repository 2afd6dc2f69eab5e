"""What a queue was last known to hold, as far as its answers can be believed.

1. Nothing is shown that is not known: a question that failed or was not answered leaves no figure behind.
2. A passive declare of a quorum queue whose leader is slow answers 0 messages and 0 consumers. A single such answer is
   not believed, and none is while a consumer of ours is known to be there.
3. A stream's figure is what it keeps, read or not, and never says how many messages wait.

It asks nothing itself: that is `connection/counting`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.relay.queue import QueueState

NOT_ASKED = "not asked yet"


@dataclass(slots=True)
class Backlog:
    """One queue's length and consumers; both are None where they are not known."""

    messages: int | None = None
    consumers: int | None = None
    stream: bool = False
    """Whether `messages` is what a stream keeps; otherwise they are ready, and wait for a consumer."""
    unknown: str = NOT_ASKED
    """Reason for knowing nothing; empty otherwise."""
    asked_s: float | None = None
    """Unix time of the last answer that was believed."""
    _was_empty: bool = False
    """Whether the last answer was 0 messages and 0 consumers."""

    def answered(self, found: QueueState, unix_s: float, *, stream: bool = False, consumed: bool = False) -> bool:
        """Take an answer; return whether it is believed. `consumed`: a consumer of ours counts in it."""
        empty = not found.ready and not found.consumers
        if empty and not stream and (consumed or not self._was_empty):
            self._was_empty = True
            if consumed or self.messages != 0:
                self._forget("it answered 0 messages and 0 consumers, as a queue does whose leader is slow")
            return False
        self._was_empty = empty
        self.messages, self.consumers, self.stream = found.ready, found.consumers, stream
        self.unknown, self.asked_s = "", unix_s
        return True

    def failed(self, reason: str) -> None:
        """A question was refused or not answered in time, or nobody can be asked."""
        self._was_empty = False
        self._forget(reason)

    def _forget(self, reason: str) -> None:
        self.messages = self.consumers = None
        self.unknown = reason
