"""What belongs to one generation of a side: made when it opens, dropped when it is lost.

Whatever is kept here cannot survive its channel, and nobody has to remember to reset it. What a destination has
*taught* (its size limit, that it refuses) outlives its generations and is the window's.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from math import inf
from typing import TYPE_CHECKING

from bridge.errors import MalformedFrameError
from bridge.window.exchanges import Exchanges
from bridge.window.pace import PublishWindow
from bridge.window.publishes import Publishes
from bridge.window.settlement import Settlement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery
    from bridge.amqp.target import Target
    from bridge.window.blame import Blame, Verdict
    from bridge.window.books import Histogram
    from bridge.window.parked import Parked
    from bridge.words import RequeueReason


class SourceGeneration:
    """The deliveries of one life of the source's channel, but for those that are published.

    Between two lives an empty one stands in, for which nothing comes and nothing is settled.
    """

    def __init__(self, frame_max: float, parked: Parked, blame: Blame) -> None:
        self.frame_max = frame_max
        """The largest frame that the connection agreed on, in bytes."""
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
        self.withheld: list[int] = []
        """Delivery tags of what is not to be forwarded; no more of it is kept."""
        self.surplus = False
        """Whether a message came that is beyond the number to be taken."""
        self.releasing: RequeueReason | None = None
        """Reason for requeueing every delivery, when that is what happens."""
        self._next_tag = 1

    @property
    def bound(self) -> list[tuple[Delivery, Verdict]]:
        """Deliveries for the quarantine, those on their way included."""
        return [*self.condemned, *self.quarantining.values()]

    @property
    def unpublished(self) -> list[Delivery]:
        """Deliveries that the destination has not, as far as is known."""
        return [*self.held, *self.parked.deliveries, *(delivery for delivery, _ in self.bound)]

    def expect(self, first_tag: int, number: int) -> None:
        """Note that so many deliveries have come. Raises `MalformedFrameError` for a gap before them."""
        if first_tag != self._next_tag:
            message = f"delivery {first_tag} where delivery {self._next_tag} was to come: some were lost on the way"
            raise MalformedFrameError(message)
        self._next_tag += number

    # --- Held --------------------------------------------------------------------------------------------

    def hold(self, deliveries: list[Delivery]) -> None:
        """Hold deliveries that have just come."""
        self.held.extend(deliveries)

    def hold_again(self, deliveries: list[Delivery]) -> None:
        """Put deliveries back among the held, in the order of the source (invariant 5 of `window`)."""
        if len(deliveries) == 1:
            # A broker may refuse thousands one by one: to sort for each of 8,000 took 2 s.
            insort(self.held, deliveries[0])
        elif deliveries:
            self.held = deque(sorted([*deliveries, *self.held]))

    def take(self, most: int, max_bytes: int) -> tuple[list[Delivery], int]:
        """Hand over the first of the held, at most so many and some `max_bytes` bytes; and how large they are."""
        held = self.held
        popleft = held.popleft
        batch: list[Delivery] = []
        size = 0
        while held and most and size < max_bytes:
            delivery = popleft()
            size += len(delivery.content)
            batch.append(delivery)
            most -= 1
        return batch, size

    def release(self, reason: RequeueReason) -> list[Delivery]:
        """Hand over what is neither published nor on its way to the quarantine; what comes from now on is requeued."""
        self.releasing = reason
        waiting = [*self.held, *self.parked.release(), *(delivery for delivery, _ in self.condemned)]
        self.held, self.condemned = deque(), deque()
        return sorted(waiting)

    def released(self) -> None:
        """The consumer is gone: no delivery follows."""
        self.releasing = None

    def withhold(self, delivery_tag: int) -> None:
        """Keep no more of a delivery than its tag."""
        self.withheld.append(delivery_tag)

    def note_surplus(self) -> None:
        """A message came that is beyond the number to be taken."""
        self.surplus = True

    def take_withheld(self) -> list[int]:
        """Hand over what was withheld, by delivery tag."""
        withheld, self.withheld = self.withheld, []
        return withheld

    def meter(self, allowed: float) -> None:
        """A consumer begins: so many of the deliveries that follow may be acked before it is gone."""
        self.settlement.meter(allowed, self._next_tag - 1)

    # --- Bound for the quarantine ------------------------------------------------------------------------

    def condemn(self, *bound: tuple[Delivery, Verdict]) -> None:
        """Deliveries are to go to the quarantine."""
        self.condemned.extend(bound)

    def send(self) -> tuple[Delivery, Verdict]:
        """The first of the condemned is published to the quarantine: hand it over; its answer is to come."""
        sent = self.condemned.popleft()
        self.quarantining[sent[0].delivery_tag] = sent
        return sent

    def answered(self, delivery_tag: int) -> tuple[Delivery, Verdict] | None:
        """The quarantine has answered: hand this one over; None where it is not waited for, since it was requeued."""
        return self.quarantining.pop(delivery_tag, None)

    def interrupted(self) -> int:
        """Of what is on its way no answer will come: it is condemned again, in its order; return how many."""
        lost, self.quarantining = self.quarantining, {}
        self.condemned.extendleft(reversed(lost.values()))
        return len(lost)

    def take_condemned(self) -> Iterable[tuple[Delivery, Verdict]]:
        """Hand over what is condemned and not on its way."""
        condemned, self.condemned = self.condemned, deque()
        return condemned


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
        self.exchanges = Exchanges()
        """What the broker has said of them, where each message names its own."""

    def opened(self, frame_max: int, *, careful: bool) -> None:
        """The channel is open; `frame_max` is 0 for no limit; `careful`: publish one message at a time."""
        self.open = True
        self.frame_max = frame_max or inf
        self.publish_window.opened(careful=careful)

    def forget_publishes(self) -> None:
        """Nobody waits for confirms any more."""
        self.publishes = self.publishes.successor()

    def block(self, now_s: float) -> None:
        """`connection.blocked`."""
        self.blocked = True
        self.publishes.blocked(now_s)

    def unblock(self, now_s: float) -> None:
        """`connection.unblocked`."""
        self.blocked = False
        self.publishes.unblocked(now_s)
