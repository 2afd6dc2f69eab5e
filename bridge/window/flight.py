"""What is in flight, sans-I/O: the deliveries of the present generations, what may be asked of them, and each move.

Life of a delivery: received → held → published → confirmed → acked. A message that the destination alone refuses is set
*aside*, or *condemned* to the quarantine. A source generation that ends makes all of it stale; a publish whose confirm
is pending is then an *orphan*: one that was made for another source generation than the present one.

What belongs to one life of a side's channel is in `generations`, and is dropped with it. What a side has *taught*
outlives it, and is here. Each move keeps the books balanced (invariant 3 of `window`).

What it does not do: decide which move an event asks for. That is `confirms`' for the destination's answers, and
`window`'s for all else.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from bridge.amqp.content import stream_offset
from bridge.window.age import Age
from bridge.window.blame import Blame, SizeLimit
from bridge.window.books import count
from bridge.window.generations import DestinationGeneration, SourceGeneration
from bridge.window.pace import Trouble
from bridge.window.parked import Parked
from bridge.window.quota import Quota
from bridge.window.rate import Rate
from bridge.window.terms import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bridge.amqp.events import Close, Delivery
    from bridge.amqp.target import Target
    from bridge.window.blame import Verdict
    from bridge.window.books import Books
    from bridge.window.exchanges import Exchanges
    from bridge.window.limits import WindowLimits
    from bridge.window.memory import Memory
    from bridge.window.offsets import Offsets
    from bridge.window.settlement import Settlement
    from bridge.window.terms import Terms
    from bridge.words import RequeueReason


class Flight:
    """Deliveries in flight, and the moves that `confirms` and `window` make with them."""

    def __init__(  # noqa: PLR0913 - what a window is made of
        self,
        limits: WindowLimits,
        target: Target,
        books: Books,
        memory: Memory,
        chance: Callable[[], float],
        *,
        terms: Terms = UNLIMITED,
    ) -> None:
        """`target` is what is published to; `chance` returns a number from 0 to 1, for the jitter of backoffs."""
        self.limits, self.target, self.books, self.memory = limits, target, books, memory
        self.terms, self._chooses = terms, terms.choose
        self._asks_exchanges = target.exchanges_differ
        self.age = Age(books)

        self._rate: Rate | None = None
        if limits.max_rate or limits.max_bytes_per_s:
            self._rate = Rate(limits.max_rate, limits.max_bytes_per_s, books)
        self.quota = Quota(limits.destination_max_ready or inf) if limits.destination_counted else None
        """What may be published before the destination's queue is counted again; None for no limit."""
        self._limited = self._rate is not None or self.quota is not None

        # What the destination has shown: it outlives the generations.
        self.trouble = Trouble(chance)
        self._size_limit = SizeLimit()
        self.accepted = 0
        """Messages that it has accepted, orphans included."""
        self._accepted_again = 0
        """Of these, orphans whose redelivery cannot be recognised: it will be forwarded, and accepted again."""
        self.last_accepted_count: int | None = None
        """How often the delivery whose publish it accepted last had come back."""
        self.last_forward_s: float | None = None
        """Monotonic time at which it last accepted a message; None before the first."""
        self._kept: list[tuple[Delivery, Verdict]] = []
        """Messages that neither the destination nor a quarantine accepts, until they are taken to be logged."""
        self._oversized_bytes = 0
        """Size of a message that alone is more than may be in flight, until it is taken to be logged."""
        self._offsets: Offsets | None = None
        """Set when the source is a stream."""
        self._surplus_after = inf
        """How many of the deliveries that are looked at are still within the number to be taken."""

        self._source = self._source_generation()
        self._destination = self._destination_generation()

    def _source_generation(self, frame_max: int = 0) -> SourceGeneration:
        limits = self.limits
        return SourceGeneration(
            frame_max or inf,
            Parked(self.trouble, self.target, limits.prefetch),
            Blame(self._size_limit, self.target, quarantine=limits.quarantine),
        )

    def _destination_generation(self) -> DestinationGeneration:
        most = int(min(self.limits.prefetch, self.terms.most_published))
        return DestinationGeneration(most, self.books.confirm_seconds, self.target)

    # --- What can be asked ---------------------------------------------------------------------------------------

    @property
    def settlement(self) -> Settlement:
        """What is to be written to the source."""
        return self._source.settlement

    @property
    def condemned(self) -> Sequence[tuple[Delivery, Verdict]]:
        """Deliveries bound for the quarantine, in their order, without those that are on their way."""
        return self._source.condemned

    @property
    def quarantining(self) -> int:
        """How many deliveries are on their way to the quarantine."""
        return len(self._source.quarantining)

    @property
    def first_quarantining(self) -> int | None:
        """Delivery tag of the one that has been on its way to the quarantine for longest."""
        return next(iter(self._source.quarantining), None)

    @property
    def blocked(self) -> bool:
        """Whether the destination's broker said `connection.blocked`."""
        return self._destination.blocked

    @property
    def destination_ready(self) -> bool:
        """Whether a delivery could be published now."""
        return self._destination.open and not self._destination.blocked

    @property
    def frame_limit(self) -> int:
        """The largest frame that the destination reads, in bytes; 0 where every delivery has smaller ones."""
        limit = self._destination.frame_max
        return int(limit) if self._source.frame_max > limit else 0

    @property
    def exchanges(self) -> Exchanges:
        """What the destination has said of its exchanges, and is to be asked."""
        return self._destination.exchanges

    @property
    def publish_window(self) -> int:
        """How many messages may be published at once."""
        return self._destination.publish_window.size

    @property
    def publishable(self) -> bool:
        """Whether something is held that a healthy destination will accept."""
        return bool(self._source.held) and self.destination_ready and not self.trouble.lasts

    @property
    def prefetch(self) -> int:
        """How many messages to consume with at most: what is held for a rate is not held for long."""
        most = self.limits.prefetch
        return most if self._rate is None else int(min(most, self._rate.prefetch(self.limits.paced_s)))

    def throttled(self, now_s: float) -> bool:
        """Whether a rate or a quota lets nothing be published yet."""
        by_rate = self._rate is not None and self._rate.throttles(now_s)
        return by_rate or (self.quota is not None and not self.quota.left)

    @property
    def rate_due_s(self) -> float:
        """When a rate lets the next of what is held be published; `inf` where none holds it back."""
        return self._rate.due_s if self._rate is not None and self.publishable else inf

    @property
    def orphans(self) -> int:
        """Publishes of ended source generations that wait for their confirm."""
        return self._destination.publishes.waiting if self._orphaned else 0

    @property
    def publishing(self) -> bool:
        """Whether publishes wait for their confirms, orphans included."""
        return bool(self._destination.publishes)

    @property
    def unconfirmed(self) -> int:
        """How many publishes wait for their confirms, orphans included."""
        return self._destination.publishes.waiting

    @property
    def in_flight(self) -> int:
        """Deliveries in the window."""
        return self.books.held + self.books.published

    @property
    def done(self) -> int:
        """Messages that the destination has accepted and that need not be taken again."""
        return self.accepted - self._accepted_again

    @property
    def room(self) -> float:
        """How many more messages are to be taken; inf for as many as there are."""
        return max(0.0, self.terms.most - self.done - self.in_flight)

    @property
    def looks_again(self) -> bool:
        """Whether all has been taken, and what the source's last generation may not have heard of may come again.

        It is acked then; the first message that is another shows that there is no more of it.
        """
        return self.terms.numbered and not self.room and bool(self.memory) and not self._source.surplus

    @property
    def withheld(self) -> int:
        """How many deliveries are kept by their delivery tag alone, since they are not to be forwarded."""
        return len(self._source.withheld)

    @property
    def waiting(self) -> int:
        """How many deliveries are held that may be published, now or soon."""
        return len(self._source.held)

    @property
    def full(self) -> bool:
        """Whether reading from the source must pause (invariant 4): not when only its answers can free memory."""
        waits = self._source.releasing or self._source.quarantining
        return self.books.bytes_in_flight >= self.limits.max_in_flight_bytes and not waits

    @property
    def held_only(self) -> bool:
        """Whether there are deliveries in the window, and none is published, parked or bound for the quarantine."""
        return 0 < self.books.held == len(self._source.held) and not self.books.published

    @property
    def parked(self) -> int:
        """How many deliveries are parked."""
        return len(self._source.parked.waiting)

    @property
    def everything_returned(self) -> bool:
        """Whether the destination has no route for anything."""
        return self._source.parked.everything_returned

    @property
    def offsets(self) -> Offsets | None:
        """What is known of the offsets of a stream; None where the source is none, as far as is known."""
        return self._offsets

    @property
    def hindrance(self) -> str:
        """What keeps every message from being forwarded although the destination is open, for an operator."""
        parked = self._source.parked
        if self.trouble.text:
            return self.trouble.text
        # To a queue there is one route: a message without it says the same of all, until another is accepted.
        if parked.unrouted and parked.returns_in_a_row and not self.target.routes_differ:
            return parked.unrouted
        if self.parked >= self.limits.prefetch:  # no other is delivered
            return parked.rejected or parked.unrouted
        return ""

    @property
    def degraded(self) -> list[str]:
        """What keeps single messages from being forwarded while others are, for an operator."""
        parked = self._source.parked
        return [] if self.hindrance else [text for text in (parked.rejected, parked.unrouted) if text]

    @property
    def oldest_received_s(self) -> float | None:
        """When the oldest delivery in the window was received, in monotonic seconds."""
        source = self._source
        candidates = [d.received_s for d in source.parked.deliveries]
        candidates += [d.received_s for d, _ in source.bound]
        if source.held:
            candidates.append(source.held[0].received_s)
        if not self._orphaned:
            candidates += [d.received_s for d in self._destination.publishes]
        return min(candidates, default=None)

    def passed(self, delivery: Delivery) -> bool:
        """Whether others may overtake this delivery: the destination alone refuses it (invariant 5)."""
        source, tag = self._source, delivery.delivery_tag
        aside = tag in source.parked.waiting or tag in source.quarantining
        return aside or any(d is delivery for d, _ in source.condemned)

    @property
    def _orphaned(self) -> bool:
        return self._destination.publishes.orphaned_for(self._source)

    def confirm_overdue(self, now_s: float) -> bool:
        """Whether a publish has been unconfirmed for `confirm_timeout`; time blocked does not count."""
        return self.destination_ready and self._destination.publishes.overdue(now_s, self.limits.confirm_timeout_s)

    @property
    def confirm_overtaken(self) -> bool:
        """Whether the oldest unconfirmed publish has reached the destination for certain."""
        return self._destination.publishes.overtaken

    # --- Moves ---------------------------------------------------------------------------------------------------

    def _forwarded(self, confirmed: list[Delivery], now_s: float) -> None:
        """Enter into the books what the destination has confirmed: it may now be acked (invariant 1)."""
        books = self.books
        content_bytes = body_bytes = 0
        observe = books.residence_seconds.observe
        received_s = confirmed[0].received_s
        number = 0
        for delivery in confirmed:
            content_bytes += len(delivery.content)
            body_bytes += delivery.body_size
            if delivery.received_s != received_s:
                observe(now_s - received_s, number)
                received_s = delivery.received_s
                number = 0
            number += 1
        observe(now_s - received_s, number)
        books.forwarded += len(confirmed)
        books.forwarded_bytes += body_bytes
        books.published -= len(confirmed)
        books.bytes_in_flight -= content_bytes
        self.memory.acked(confirmed, content_bytes)
        self.accepted += len(confirmed)
        if self.terms.proof is not None:
            self.terms.proof.confirmed(confirmed)
        self.last_accepted_count = confirmed[-1].delivery_count
        if self._offsets is not None:
            for delivery in confirmed:
                self._note_offset(delivery)
        self.last_forward_s = now_s
        if now_s >= self.age.due_s:
            self.age.sample(confirmed[0], now_s)
        self.trouble.over()
        if self._source.parked.returns_in_a_row:
            self._source.hold_again(self._source.parked.accepted())

    def _note_offset(self, delivery: Delivery) -> None:
        offset = stream_offset(delivery.content)
        if self._offsets is not None and offset is not None:
            self._offsets.forwarded(offset)

    def _condemn(self, delivery: Delivery, verdict: Verdict, now_s: float) -> None:
        """It is to go to the quarantine; without one it is kept, for an operator."""
        if self.limits.quarantine:
            self._source.condemn((delivery, verdict))
        else:
            self._source.parked.park(delivery, verdict, now_s, inf)
            self._kept.append((delivery, verdict))

    def _refused(self, reason: str, text: str, now_s: float) -> None:
        """The destination as a whole refuses: publish one at a time, after a while."""
        destination = self._destination
        destination.publish_window.narrow(destination.publishes.next_seqno)
        self.trouble.refused(f"refuses messages ({reason}: {text})", now_s)

    def _set_aside(
        self, delivery: Delivery, now_s: float, refusal: Close | None = None, *, closed: bool = True
    ) -> None:
        """The destination has no route for it: try it again later, let the others pass."""
        if self._source.parked.returned(delivery, now_s, refusal, closed=closed):
            if refusal is None:
                self._refused("returned", self.target.without_route, now_s)
            else:
                self._refused("closed" if closed else "no exchange", refusal.reply_text, now_s)
        elif self._source.parked.overfull:
            self._give_up_unroutable(now_s)

    @property
    def _quarantines_unroutable(self) -> bool:
        return self.limits.quarantine and self.limits.unroutable_timeout_s > 0

    def _give_up_unroutable(self, now_s: float) -> None:
        if self._quarantines_unroutable:
            for delivery, verdict in self._source.parked.take_unroutable(
                now_s, self.limits.unroutable_timeout_s, self.last_forward_s
            ):
                self._condemn(delivery, verdict, now_s)

    def _unpublish(self, number: int = 1) -> None:
        self.books.published -= number
        self.books.held += number

    def _leave(self, delivery: Delivery) -> None:
        self.books.held -= 1
        self.books.bytes_in_flight -= len(delivery.content)

    def _ack(self, delivery: Delivery) -> None:
        self._source.settlement.ack(delivery.delivery_tag)
        self._source.parked.settled(delivery.delivery_tag)

    def _requeue(self, delivery: Delivery, reason: RequeueReason) -> None:
        count(self.books.requeued, reason)
        self._leave(delivery)
        self._source.settlement.requeue(delivery.delivery_tag)
        self.memory.requeued(delivery)
        self._source.parked.settled(delivery.delivery_tag)
