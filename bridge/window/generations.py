"""What belongs to one generation of a side: made when it opens, dropped when it is lost.

Whatever is kept here cannot survive its channel, and nobody has to remember to reset it. What a destination has
*taught* (its size limit, that it refuses) outlives its generations and is the window's.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from bridge.errors import MalformedFrameError
from bridge.window.pace import PublishWindow
from bridge.window.publishes import Publishes
from bridge.window.settlement import Settlement

if TYPE_CHECKING:
    from bridge.amqp.events import Delivery
    from bridge.amqp.target import Target
    from bridge.window.blame import Blame, Verdict
    from bridge.window.books import Histogram
    from bridge.window.parked import Parked


class SourceGeneration:
    """The deliveries of one life of the source's channel, but for those that are published.

    Between two lives an empty one stands in, for which nothing comes and nothing is settled.
    """

    def __init__(self, parked: Parked, blame: Blame) -> None:
        self.settlement = Settlement()
        """What is to be written to the source."""
        self.held: deque[Delivery] = deque()
        """In the order of the source."""
        self.parked = parked
        self.condemned: deque[tuple[Delivery, Verdict]] = deque()
        """Bound for the quarantine, and not on their way yet."""
        self.quarantining: dict[int, tuple[Delivery, Verdict]] = {}
        """On their way to the quarantine, by delivery tag, in the order of their publishes."""
        self.blame = blame
        self.releasing = ""
        """Reason for requeueing every delivery; empty otherwise."""
        self._next_tag = 1

    def expect(self, first_tag: int, number: int) -> None:
        """Note that so many deliveries have come. Raises `MalformedFrameError` for a gap before them."""
        if first_tag != self._next_tag:
            message = f"delivery {first_tag} where delivery {self._next_tag} was to come: some were lost on the way"
            raise MalformedFrameError(message)
        self._next_tag += number


class DestinationGeneration:
    """The publishes of one life of the destination's channel, from connecting on."""

    def __init__(self, most: int, confirm_seconds: Histogram, target: Target) -> None:
        """At most `most` messages are published to the `target` at once."""
        self.open = False
        """The channel is open and publishes."""
        self.blocked = False
        """The broker said `connection.blocked`, perhaps before the channel was open."""
        self.frame_max = inf
        """The largest frame that the connection agreed on, in bytes."""
        self.publishes = Publishes(confirm_seconds, target)
        self.publish_window = PublishWindow(most)
