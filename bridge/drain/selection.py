"""Which of the deliveries a drain moves, sans-I/O, and what it has seen of the others.

What is not moved is kept by its delivery tag alone and returned at the end. A source generation that is lost returns
all of it: what is counted here is of the present generation.
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from math import inf
from typing import TYPE_CHECKING

from bridge.amqp.fields import headers, string
from bridge.amqp.origin import MARK
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.amqp.events import Delivery
    from bridge.amqp.origin import Origins
    from bridge.drain.filter import Filter

Why = str
UNMATCHED, UNDATED, NAMELESS, FORBIDDEN, RETURNED, BEYOND = (
    "do not match",
    "do not say how old they are",
    "name no queue that they came from",
    "came from a queue that --allow-target does not allow",
    "had come back since this drain moved them",
    "match, and are beyond the limit",
)
"""What is said of those that are not moved."""


class Moved:
    """Decides which deliveries are moved."""

    def __init__(
        self,
        wanted: Filter,
        origins: Origins | None = None,
        allowed: Sequence[str] = (),
        most: float = inf,
    ) -> None:
        """`origins` is where each goes back to, None where all have one target; `allowed` are patterns of its name.

        At most `most` are moved.
        """
        self._wanted = wanted
        self._origins = origins
        self._allowed = allowed
        self._most = most
        self._admitted = 0
        """How many are moved already, or are under way."""
        self.kept: Counter[Why] = Counter()
        """What is not moved, by why."""
        self.came_back = 0
        """Deliveries with this drain's own mark."""

    def began(self) -> None:
        """A source generation begins: all that was kept by the one before comes again."""
        self.kept.clear()

    def consuming(self, admitted: int) -> None:
        """A consumer begins; so many are moved already, or are under way."""
        self._admitted = admitted

    def admits(self, delivery: Delivery) -> bool:
        """Decide whether it is moved."""
        why = self._why_not(delivery)
        if why is not None:
            self.kept[why] += 1
            self.came_back += why is RETURNED
            return False
        self._admitted += 1
        return True

    @property
    def nowhere_to_go(self) -> bool:
        """Whether something that is wanted names no origin."""
        return self.kept[NAMELESS] > 0

    def _why_not(self, delivery: Delivery) -> Why | None:
        if self._origins is not None and self._marked(delivery):
            return RETURNED
        match = self._wanted.match(delivery) if self._wanted else "yes"
        if match != "yes":
            return UNMATCHED if match == "no" else UNDATED
        if self._origins is not None:
            origin = self._origins.origin(delivery.content)
            if origin is None:
                return NAMELESS
            target = self._origins.named(origin)
            if self._allowed and not any(fnmatchcase(target, pattern) for pattern in self._allowed):
                return FORBIDDEN
        return BEYOND if self._admitted >= self._most else None

    def _marked(self, delivery: Delivery) -> bool:
        """Whether this drain itself has moved it before."""
        try:
            found = headers(delivery.content)
        except MalformedFrameError:
            return False
        return self._origins is not None and string(found, MARK) == self._origins.mark
