"""The window, sans-I/O: every delivery that was received and is not settled, in the order of the source.

A sliding window like a TCP sender's. It decides; `relay` turns its decisions into bytes. Time comes in as a
number of monotonic seconds and chance as a function, so that a million schedules can be tried without a
socket.

Life of a delivery: received → held → published → confirmed → acked. A message that the destination alone
refuses is set *aside*, or *condemned* to the quarantine. A source generation that ends makes all of it
stale; a publish whose confirm is pending is then an *orphan*.

Invariants, cited by number in the tests:

1. A delivery is acked only after the destination confirmed it and did not return it (or the quarantine did),
   on the generation that delivered it.
2. Nothing of an ended source generation is published, acked or nacked.
3. The books balance at every instant (see `books`).
4. At most `prefetch` messages (besides those of the consumer before, and one that a replaced one is sent) and
   `max_in_flight_bytes` bytes (one message more at the most) are in memory: past that, `full` asks for reading to
   pause, but for as long as answers of the quarantine are awaited, which come on the same connection.
5. First copies arrive at the destination in the order of the source, destination outages included; a message
   that the destination alone refuses may be overtaken.
6. Messages are requeued by an explicit `nack(requeue)`, never by closing a channel: on RabbitMQ 4 a closed
   channel counts towards a quorum queue's delivery limit.
7. Contents are published as they were prepared (see `content`), byte for byte, but for headers of the bridge's own
   that do not fit the destination's frames (see `fitting`).

Each rule that can stand alone has a file: `settlement` (how much one ack covers), `publishes` (which publish a confirm
or a return is about), `blame` (whom a close of the channel is to be laid on), `pace` (how many may be published at
once, and from when on), `rate` (how many in a second), `quota` (how many
before the destination's queue is counted again), `parked` (when to try again what others pass), `memory` (which
messages are the same), `age` (how old they are). What belongs to one life of a side's channel is in `generations`: an
orphan is a publish made for another source generation than the present one.

What it does not do: connect, consume, encode; that is `relay`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from bridge.amqp.content import header_frame_size, stream_offset
from bridge.amqp.fitting import fit_content
from bridge.window.age import Age
from bridge.window.blame import Blame, SizeLimit, Verdict
from bridge.window.books import Books, count
from bridge.window.generations import DestinationGeneration, SourceGeneration
from bridge.window.offsets import Offsets
from bridge.window.pace import RETRY_MAX_S, Trouble
from bridge.window.parked import Parked
from bridge.window.quota import Quota
from bridge.window.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bridge.amqp.events import Close, Delivery, Return
    from bridge.amqp.target import Target
    from bridge.window.memory import Memory
    from bridge.window.settlement import Settlement
    from bridge.words import RequeueReason

LIMIT_MARGIN = 3
"""A delivery that has come back within so many of the delivery limit is quarantined."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """What the window is held to; see the settings of the same names."""

    prefetch: int = 1000
    max_in_flight_bytes: int = 64 << 20
    confirm_timeout_s: float = 30.0
    hold_timeout_s: float = 300.0
    unroutable_timeout_s: float = 300.0
    """0 for never."""
    retry_max_s: float = RETRY_MAX_S
    """How long the quarantine is left alone that does not accept a message, without a reason of its own."""
    delivery_limit: int = 20
    quarantine: bool = True
    max_rate: float = 0.0
    """Messages per second; 0 for no limit."""
    max_bytes_per_s: float = 0.0
    """0 for no limit."""
    paced_s: float = 60.0
    """The prefetch is at most what these rates forward in so many seconds."""
    destination_counted: bool = False
    """Whether nothing is published before the destination's queue has been counted."""
    destination_max_ready: int = 0
    """How many messages may wait in it; 0 for any number."""


class Window:
    """Deliveries in flight. Every public method is one event; `take` and `settlement` are what comes of them."""

    def __init__(
        self, limits: WindowLimits, target: Target, books: Books, memory: Memory, chance: Callable[[], float]
    ) -> None:
        """`target` is what is published to; `chance` returns a number from 0 to 1, for the jitter of backoffs."""
        self.limits, self.target, self.books, self.memory = limits, target, books, memory
        self.age = Age(books)

        self._rate: Rate | None = None
        if limits.max_rate or limits.max_bytes_per_s:
            self._rate = Rate(limits.max_rate, limits.max_bytes_per_s, books)
        self.quota = Quota(limits.destination_max_ready or inf) if limits.destination_counted else None
        """What may be published before the destination's queue is counted again; None for no limit."""
        self._limited = self._rate is not None or self.quota is not None

        # What the destination has taught: it outlives the generations.
        self.trouble = Trouble(chance)
        self._size_limit = SizeLimit()
        self.accepted = 0
        """Messages that it has accepted, orphans included."""
        self.last_accepted_count: int | None = None
        """How often the delivery whose publish it accepted last had come back."""
        self.last_forward_s: float | None = None
        """When it last took a message, in monotonic seconds."""
        self._kept: list[tuple[Delivery, Verdict]] = []
        """What nobody accepts, since somebody last looked."""
        self._oversized_bytes = 0
        """Size of a message that alone is more than may be in flight, until somebody looks."""
        self._offsets: Offsets | None = None
        """Set when the source is a stream."""

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
        return DestinationGeneration(self.limits.prefetch, self.books.confirm_seconds, self.target)

    # --- What can be asked -------------------------------------------------------------------------------

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
    def publish_window(self) -> int:
        """How many messages may be published at once."""
        return self._destination.publish_window.size

    @property
    def publishable(self) -> bool:
        """Whether something is held that a healthy destination will take."""
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
    def resume_offset(self) -> int | None:
        """Where to read on in a stream; None for where the settings say."""
        return None if self._offsets is None else self._offsets.resume_at

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

    # --- The source --------------------------------------------------------------------------------------

    def source_opened(self, frame_max: int = 0) -> None:
        """A source generation begins: delivery tags start at 1; `frame_max` is 0 for no limit."""
        self._source = self._source_generation(frame_max)

    def read_stream(self) -> None:
        """The source is a stream: what has been forwarded is known by its offsets."""
        self._offsets = self._offsets or Offsets()

    def doubt(self) -> None:
        """Nobody knows whether the source has requeued what is in the window: each may come twice."""
        self.books.duplicates_possible += self.in_flight

    def drop(self, delivery_tag: int, redelivered: int, reason: RequeueReason) -> None:
        """Give back a delivery of which no more was kept than its delivery tag."""
        books = self.books
        self._source.expect(delivery_tag, 1)
        books.received += 1
        books.received_redelivered += redelivered
        books.size_bits[0] += 1
        count(books.requeued, reason)
        self._source.settlement.requeue(delivery_tag)

    def receive(self, deliveries: list[Delivery], now_s: float, *, notable: bool = True) -> None:
        """Take deliveries in; `notable` says that some are redelivered or came back often.

        Raises `MalformedFrameError` for a gap in the delivery tags: what a broker sent was lost on the way, and would
        stay unacknowledged for ever.
        """
        self._source.expect(deliveries[0].delivery_tag, len(deliveries))
        self.memory.heard(now_s)
        books = self.books
        sizes = books.size_bits
        content_bytes = body_bytes = 0
        for delivery in deliveries:
            size = delivery.body_size
            sizes[size.bit_length()] += 1
            body_bytes += size
            content_bytes += len(delivery.content)
        books.received += len(deliveries)
        books.size_bytes_total += body_bytes
        books.held += len(deliveries)
        books.bytes_in_flight += content_bytes
        if content_bytes > self.limits.max_in_flight_bytes:
            largest = max(delivery.body_size for delivery in deliveries)
            if largest > self.limits.max_in_flight_bytes:
                self._oversized_bytes = max(self._oversized_bytes, largest)
        if notable or self._source.releasing or self._offsets is not None or self._size_limit.size_bytes is not inf:
            deliveries = [delivery for delivery in deliveries if self._admit(delivery, now_s)]
        self._source.hold(deliveries)

    def _admit(self, delivery: Delivery, now_s: float) -> bool:
        """Look at a delivery more closely; return whether it is to be held, and not disposed of already."""
        books, limits, source = self.books, self.limits, self._source
        if delivery.redelivered:
            books.received_redelivered += 1
            if self.memory.recall(delivery):
                books.suppressed += 1
                self.memory.suppressed(delivery)
                self._leave(delivery)
                source.settlement.ack(delivery.delivery_tag)
                return False
            if not self.memory.vouches_for(delivery):
                books.duplicates_possible += 1
        if self._offsets is not None:
            offset = stream_offset(delivery.content)
            if offset is not None and self._offsets.received(offset):
                books.suppressed += 1
                self._leave(delivery)
                source.settlement.ack(delivery.delivery_tag)
                return False
        if source.releasing:
            self._requeue(delivery, source.releasing)
        elif limits.quarantine and 0 < limits.delivery_limit <= delivery.delivery_count + LIMIT_MARGIN:
            source.condemn((delivery, Verdict("delivery-limit")))
        elif (verdict := self._size_limit.too_large(delivery, now_s)) is not None:
            source.condemn((delivery, verdict))
        else:
            return True
        return False

    def source_lost(self) -> None:
        """The source's generation ended: all of the window is stale (invariant 2)."""
        books = self.books
        books.stale_held += books.held
        books.stale_published += books.published
        books.held = books.published = books.bytes_in_flight = 0
        books.duplicates_possible += len(self._source.quarantining)
        self.memory.acks_lost(self._source.unpublished)
        self._source = self._source_generation()

    def consumer_lost(self) -> None:
        """The broker cancelled the consumer: it may have requeued what was delivered, acks on the way or not."""
        published = () if self._orphaned else tuple(self._destination.publishes)
        self.memory.acks_lost((*self._source.unpublished, *published))

    def release(self, reason: RequeueReason) -> None:
        """Give back whatever is not published, and what still comes: the consumer is being cancelled.

        What is on its way to the quarantine waits for its answer: requeued, it would be there twice.
        """
        for delivery in self._source.release(reason):
            self._requeue(delivery, reason)

    def released(self) -> None:
        """The consumer is gone: no delivery follows."""
        self._source.released()

    def give_up(self, now_s: float) -> None:
        """The destination has taken nothing for `hold_timeout`; its time begins again."""
        self.trouble.given_back(now_s)

    def release_published(self, reason: RequeueReason) -> None:
        """Give up waiting for answers: what is published is requeued too. Each may be there twice."""
        self.quarantine_interrupted()
        if self._orphaned:
            return
        for delivery in self._destination.publishes:
            self.books.duplicates_possible += 1
            self._unpublish()
            self._requeue(delivery, reason)
        self._destination.forget_publishes()

    # --- The destination ---------------------------------------------------------------------------------

    def destination_connecting(self) -> None:
        """A connection to the destination begins: the broker may block it before a generation begins on it."""
        self._destination = self._destination_generation()

    def destination_opened(self, now_s: float, frame_max: int = 0) -> None:  # noqa: ARG002 - told when it happened
        """A destination generation begins: publish sequence numbers start at 1; `frame_max` is 0 for no limit."""
        self._destination.opened(frame_max, careful=bool(self._source.blame.suspects or self.trouble.refusals))

    def destination_blocked(self, now_s: float) -> None:
        """`connection.blocked`: nothing new is published, and no confirm is expected."""
        self._destination.block(now_s)
        self.trouble.began(now_s)

    def destination_unblocked(self, now_s: float) -> None:
        """`connection.unblocked`."""
        self._destination.unblock(now_s)

    def destination_lost(self, close: Close | None, now_s: float) -> None:
        """The destination's generation ended: what was published is held again, in order.

        `close` is the broker's own `channel.close` or `connection.close`, which may blame a message.
        """
        lost, self._destination = self._destination, self._destination_generation()
        self.trouble.began(now_s)
        published = [*lost.publishes]
        self.books.duplicates_possible += len(published)
        if lost.publishes.orphaned_for(self._source):
            # Whether they arrived will never be known: their redeliveries are forwarded as any message.
            for delivery in published:
                self.memory.given_back(delivery)
            published = []
        if published:
            count(self.books.publish_retries, "destination-lost", len(published))
        self._unpublish(len(published))
        if close is not None:
            published = self._convict(published, close, now_s)
        self._source.hold_again(published)

    def _convict(self, published: list[Delivery], close: Close, now_s: float) -> list[Delivery]:
        """Dispose of those that the broker closed the channel for; return the others."""
        ruling = self._source.blame.convict(published, close, now_s)
        if ruling.destination:
            self._refused("closed", close.reply_text, now_s)
        for delivery in ruling.guilty:
            if ruling.verdict is None:
                self._set_aside(delivery, now_s, close)
            else:
                self._condemn(delivery, ruling.verdict, now_s)
        return ruling.innocent

    def destination_unconfirmed(self, now_s: float) -> None:
        """The destination's generation ends since it did not confirm in time."""
        self.trouble.unconfirmed(now_s, self.limits.confirm_timeout_s, self.limits.hold_timeout_s)

    def take(self, max_bytes: int, now_s: float) -> list[Delivery]:
        """Move what may be published now from held to published and return it: at most some `max_bytes` bytes.

        The publishes take the next sequence numbers in the order of the list. What is returned fits the destination's
        frames: where a header frame is too large, it comes without headers of the bridge's own; what is too large even
        so is condemned before it costs a channel.
        """
        source, destination = self._source, self._destination
        published = destination.publishes
        room = destination.publish_window.size - len(published)
        if room <= 0 or not source.held or not self.destination_ready or self.trouble.resting(now_s) or self._orphaned:
            return []
        if source.parked.everything_returned:
            return []  # until `tick` has put the oldest in front
        if self._limited:
            room, max_bytes = self._allow(room, max_bytes, now_s)
            if not room:
                return []
        # The window goes on with the deliveries as they came: by them it knows their redeliveries.
        batch, size = source.take(room, max_bytes)
        fitting = batch
        if size > destination.frame_max and max(len(d.content) for d in batch) > destination.frame_max:
            pairs = [(delivery, fit) for delivery in batch if (fit := self._fit(delivery, now_s)) is not None]
            if not pairs:
                return self.take(max_bytes, now_s)  # all have been condemned, and others may be held
            batch, fitting = [delivery for delivery, _ in pairs], [fit for _, fit in pairs]
            size = sum(len(fit.content) for fit in fitting)
        published.publish(batch, now_s, source)
        self.books.held -= len(batch)
        self.books.published += len(batch)
        if self._limited:
            self._took(len(batch), size, now_s)
        return fitting

    def _allow(self, room: int, max_bytes: int, now_s: float) -> tuple[int, int]:
        """Return how much of this quota and rate allow."""
        if self.quota is not None:
            room = int(min(room, self.quota.left))
        return (room, max_bytes) if self._rate is None or not room else self._rate.allow(room, max_bytes, now_s)

    def _took(self, messages: int, size_bytes: int, now_s: float) -> None:
        if self.quota is not None:
            self.quota.took(messages)
        if self._rate is not None:
            self._rate.took(messages, size_bytes, now_s)

    def _fit(self, delivery: Delivery, now_s: float) -> Delivery | None:
        """Leave out as many of the bridge's headers as it takes to fit; return None where it cannot fit: condemned."""
        size = header_frame_size(delivery.content)
        if size <= self._destination.frame_max:
            return delivery
        frame_max = int(self._destination.frame_max)
        fitted = fit_content(delivery.content, frame_max)
        if fitted is None:
            text = f"its headers ({size} bytes) are larger than the destination's frame_max ({frame_max})"
            self._condemn(delivery, Verdict("too-large", 0, text), now_s)
            return None
        content, left_out = fitted
        self.books.headers_left_out += left_out
        return delivery._replace(content=content)

    def confirm(self, publish_seqno: int, now_s: float, *, multiple: bool, accepted: bool) -> None:
        """`basic.ack` or `basic.nack` from the destination.

        Raises `MalformedFrameError` for a sequence number that was never used.
        """
        source, destination = self._source, self._destination
        published = destination.publishes
        orphaned = published.orphaned_for(source)
        first, confirmed = published.confirm(publish_seqno, now_s, multiple=multiple)
        if not confirmed:
            return
        blame, parked = source.blame, source.parked
        # One ack may cover all only where none needs a look of its own:
        # - orphaned: they are of an ended source generation, and nothing of it is acked (invariant 2);
        # - unresolved: a return is about one of them, and its confirm counts for nothing;
        # - retried: one of them was parked, and is settled there, too;
        # - suspects: they go one by one, and each confirm acquits one;
        # - strikes: one of them has closed the channel before, and is now acquitted.
        unusual = orphaned or published.unresolved or parked.retried or blame.suspects or blame.strikes
        # Besides, their delivery tags have to rise, and none may have been confirmed out of turn.
        if accepted and not unusual and published.rise_from(first) and None not in confirmed:
            self._forwarded(confirmed, now_s)  # type: ignore[arg-type]  # no None is in it
            source.settlement.ack_rising(confirmed)  # type: ignore[arg-type]
        elif orphaned:
            self._resolve_orphans(confirmed, accepted=accepted)
        else:
            self._confirm_one_by_one(confirmed, now_s, accepted=accepted)
        # The publish window widens only on a confirm that shows that the destination as a whole accepts messages.
        hindered = blame.suspects or parked.returns_in_a_row or self.trouble.resting(now_s) or published.unrecognised
        if accepted and not hindered:
            destination.publish_window.confirmed(first + len(confirmed), published.next_seqno)

    def _forwarded(self, confirmed: list[Delivery], now_s: float) -> None:
        """Write into the books what the destination has taken: it may now be acked (invariant 1)."""
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

    def _resolve_orphans(self, confirmed: Iterable[Delivery | None], *, accepted: bool) -> None:
        for delivery in confirmed:
            if delivery is None:
                continue
            fate = self._destination.publishes.resolve(delivery, accepted=accepted)
            if accepted and fate == "taken":
                # Without an id its redelivery cannot be told from another message; `receive` counts it.
                self.memory.remember(delivery)
                self.accepted += 1
                self._note_offset(delivery)
            else:
                self.books.duplicates_possible += fate == "doubtful" and accepted
                self.memory.given_back(delivery)

    def _confirm_one_by_one(self, confirmed: Iterable[Delivery | None], now_s: float, *, accepted: bool) -> None:
        publishes, blame = self._destination.publishes, self._source.blame
        refused: list[Delivery] = []
        doubtful: list[Delivery] = []
        for delivery in confirmed:
            if delivery is None:
                continue
            blame.judged(delivery.delivery_tag)
            fate = publishes.resolve(delivery, accepted=accepted)
            if not accepted:
                refused.append(delivery)
            elif fate == "returned":
                self._unpublish()
                self._set_aside(delivery, now_s)
            elif fate == "doubtful":
                doubtful.append(delivery)
            else:
                self._forwarded([delivery], now_s)
                self._ack(delivery)
        if doubtful:
            count(self.books.publish_retries, "returned", len(doubtful))
            self.books.duplicates_possible += len(doubtful)
            self._unpublish(len(doubtful))
            self._source.hold_again(doubtful)
            blame.suspect(len(doubtful) + publishes.waiting)
        if refused:
            count(self.books.publish_retries, "nack", len(refused))
            if self.target.may_fan_out:
                self.books.duplicates_possible += len(refused)
            self._unpublish(len(refused))
            self._source.hold_again(refused)
            self._refused("nack", "its queue may be full (reject-publish)", now_s)

    def returned(self, event: Return) -> None:
        """`basic.return`: mark the publishes that it may be about; their confirms follow (protocol order).

        Raises `MalformedFrameError` when nothing is published that it can be about.
        """
        publishes = self._destination.publishes
        publishes.returned(event)
        if not self._orphaned:
            count(self.books.publish_retries, "returned")
        if not self.target.routes_differ:
            self._destination.publish_window.narrow(publishes.next_seqno)

    # --- The quarantine ----------------------------------------------------------------------------------

    def quarantine_asked(self) -> tuple[Delivery, Verdict]:
        """The first of the condemned is published to the quarantine: return it; its answer is to come."""
        return self._source.send()

    def quarantined(self, delivery_tag: int) -> tuple[Delivery, Verdict] | None:
        """The quarantine confirmed this one: ack it. None where it is not waited for, since it was requeued."""
        asked = self._source.answered(delivery_tag)
        if asked is not None:
            delivery, verdict = asked
            count(self.books.quarantined, verdict.reason)
            self._note_offset(delivery)
            self.memory.quarantined(delivery)
            self._leave(delivery)
            self._ack(delivery)
        return asked

    def quarantine_refused(
        self, delivery_tag: int, now_s: float, text: str = "", retry_in_s: float | None = None
    ) -> None:
        """The quarantine does not accept this one, for the reason in `text`: hold it, let the others pass."""
        asked = self._source.answered(delivery_tag)
        if asked is not None:
            delivery, verdict = asked
            wait_s = self.limits.retry_max_s if retry_in_s is None else retry_in_s
            self._stay([(delivery, verdict._replace(held_text=text))], now_s, wait_s)

    def take_kept(self) -> list[tuple[Delivery, Verdict]]:
        """Hand over the messages that neither the destination nor a quarantine accepts, each once a generation."""
        kept, self._kept = self._kept, []
        return kept

    def take_oversized(self) -> int:
        """Hand over the size of the largest message that alone was more than may be in flight; 0 for none."""
        size, self._oversized_bytes = self._oversized_bytes, 0
        return size

    def quarantine_interrupted(self) -> None:
        """Of what is on its way to the quarantine no answer will come: publish it again, it may be there twice."""
        self.books.duplicates_possible += self._source.interrupted()

    def quarantine_unavailable(self, now_s: float) -> None:
        """The quarantine accepts nothing: hold all that is bound for it."""
        self.quarantine_interrupted()
        self._stay(self._source.take_condemned(), now_s, self.limits.retry_max_s)

    def _stay(self, bound: Iterable[tuple[Delivery, Verdict]], now_s: float, retry_in_s: float) -> None:
        """Keep what cannot go to the quarantine now."""
        held: list[Delivery] = []
        for delivery, verdict in bound:
            if verdict.reason == "delivery-limit":
                # Parking it would not help it, and giving it back could lose it: its best chance is to be forwarded.
                held.append(delivery)
            elif self._source.parked.park(delivery, verdict, now_s, retry_in_s) and verdict.held_text:
                self._kept.append((delivery, verdict))
        self._source.hold_again(held)

    def _condemn(self, delivery: Delivery, verdict: Verdict, now_s: float) -> None:
        if self.limits.quarantine:
            self._source.condemn((delivery, verdict))
        else:
            self._source.parked.park(delivery, verdict, now_s, inf)
            self._kept.append((delivery, verdict))

    # --- Time --------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Let time pass: try again what is due, requeue what was aside for too long."""
        self.memory.expire(now_s, taking=not self.trouble.lasts)
        self._size_limit.expire(now_s)
        if self.destination_ready and not self.in_flight and not self.trouble.remembers(now_s):
            # Nothing is held that it could accept: how long it has accepted nothing says nothing any more. A refusal of
            # a moment ago still counts, so that a probe that was requeued does not make it look healthy.
            self.trouble.over()
        source, parked = self._source, self._source.parked
        if not parked.everything_returned:
            self._source.hold_again(parked.take_due(now_s))
        elif self.destination_ready and not self.trouble.resting(now_s) and not self.publishing:
            self._source.hold_again(parked.take_probes(alone=not source.held))
            return
        self._give_up_unroutable(now_s)
        if self._offsets is None:  # nothing of a stream can be requeued
            for delivery, reason in parked.take_given_up(
                now_s, self.limits.hold_timeout_s, returned=not self._quarantines_unroutable
            ):
                self._requeue(delivery, reason)
        source.condemn(*parked.take_offered(now_s))

    def confirm_overdue(self, now_s: float) -> bool:
        """Whether a publish has been unconfirmed for `confirm_timeout`; time blocked does not count."""
        return self.destination_ready and self._destination.publishes.overdue(now_s, self.limits.confirm_timeout_s)

    @property
    def confirm_overtaken(self) -> bool:
        """Whether the oldest unconfirmed publish has reached the destination for certain."""
        return self._destination.publishes.overtaken

    # --- Within ------------------------------------------------------------------------------------------

    def _refused(self, reason: str, text: str, now_s: float) -> None:
        """The destination as a whole refuses: publish one at a time, after a while."""
        destination = self._destination
        destination.publish_window.narrow(destination.publishes.next_seqno)
        self.trouble.refused(f"refuses messages ({reason}: {text})", now_s)

    def _set_aside(self, delivery: Delivery, now_s: float, forbidden: Close | None = None) -> None:
        """The destination has no route for it: try it again later, let the others pass."""
        if self._source.parked.returned(delivery, now_s, forbidden):
            if forbidden is None:
                self._refused("returned", self.target.without_route, now_s)
            else:
                self._refused("closed", forbidden.reply_text, now_s)
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
        self.memory.given_back(delivery)
        self._source.parked.settled(delivery.delivery_tag)
