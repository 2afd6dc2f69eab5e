"""The window, sans-I/O: every delivery that was received and is not settled, in the order of the source.

A sliding window like a TCP sender's. It decides; `relay` turns its decisions into bytes. Time comes in as a
number of monotonic seconds and chance as a function, so that a million schedules can be tried without a
socket.

It is one object in four files: `flight` is what is in flight, with what may be asked and each move; `confirms` adds
what the destination's answers mean, `quarantining` what goes to the quarantine; this file adds all other events.

Invariants, cited by number in the tests:

1. A delivery is acked only after the destination confirmed it and did not return it (or the quarantine did),
   on the generation that delivered it.
2. Nothing of an ended source generation is published, acked or nacked.
3. The books balance at every instant (see `books`).
4. At most `prefetch` messages (besides those of the consumer before, and one that a replaced one is sent) and
   `max_in_flight_bytes` bytes (besides what one read completes: 512 KiB, or one message) are in memory: past that,
   `full` asks for reading to pause, but for as long as answers of the quarantine are awaited, which come on the same
   connection.
5. First copies arrive at the destination in the order of the source, destination outages included; a message
   that the destination alone refuses may be overtaken.
6. Messages are requeued by an explicit `nack(requeue)`, never by closing a channel: on RabbitMQ 4 a closed
   channel counts towards a quorum queue's delivery limit.
7. Contents are published as they were prepared (see `preparer`), byte for byte, but for headers of the bridge's own
   that do not fit the destination's frames (see `fitting`).

Each rule that can stand alone has a file: `settlement` (how much one ack covers), `publishes` (which publish a confirm
or a return is about), `blame` (whom a close of the channel is to be laid on), `pace` (how many may be published at
once, and from when on), `rate` (how many in a second), `quota` (how many before the destination's queue is counted
again), `parked` (when to try again what others pass), `memory` (which messages are the same), `age` (how old they are).

What it does not do: connect, consume, encode; that is `relay`'s.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from bridge.amqp.additions import hops_of
from bridge.amqp.content import header_frame_size, stream_offset
from bridge.amqp.fitting import fit_content
from bridge.window.blame import Verdict
from bridge.window.books import count
from bridge.window.limits import LIMIT_MARGIN
from bridge.window.offsets import Offsets
from bridge.window.quarantining import Quarantining

if TYPE_CHECKING:
    from bridge.amqp.events import Close, Delivery
    from bridge.words import RequeueReason


class Window(Quarantining):
    """Deliveries in flight. Every public method is one event; `take` and `settlement` are what comes of them."""

    # --- The source --------------------------------------------------------------------------------------

    def source_opened(self, frame_max: int = 0) -> None:
        """A source generation begins: delivery tags start at 1; `frame_max` is 0 for no limit."""
        self._source = self._source_generation(frame_max)
        if self.terms.selection is not None:
            self.terms.selection.began()

    def consuming(self, prefetch: int, now_s: float) -> None:
        """A consumer begins with this prefetch, and no other is left."""
        self.memory.consuming(now_s)
        if self.terms.selection is not None:
            self.terms.selection.consuming(self.done + self.in_flight - self.withheld)
        if self.terms.numbered and self.terms.metered:
            self._source.meter(max(0.0, self.room - prefetch))

    def pace(self, share: float) -> None:
        """Publish at this share of the rate of the limits, where there is one."""
        if self._rate is not None and self.limits.max_rate:
            self._rate.change(self.limits.max_rate * share)

    def consumer_gone(self) -> None:
        """No consumer is left: whatever is acked makes room for nothing."""
        self._source.settlement.consumer_gone()

    def read_stream(self, stored: int | None = None) -> None:
        """The source is a stream: what has been forwarded is known by its offsets.

        `stored` is the last one that an earlier process has forwarded; it counts where this one knows of none.
        """
        self._offsets = self._offsets or Offsets(stored, filtered=self.limits.stream_filtered)

    def doubt(self) -> None:
        """Nobody knows whether the source has requeued what is in the window: each may come twice."""
        self.books.duplicates_possible += self.in_flight

    def drop(self, delivery_tag: int, redelivered: int, reason: RequeueReason) -> None:
        """Requeue a delivery of which only the delivery tag was kept."""
        books = self.books
        self._source.expect(delivery_tag, 1)
        if self._offsets is not None:
            self._offsets.unknown()
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
        if self._chooses:
            self._surplus_after = self.terms.most - self.done - (self.in_flight - len(deliveries))
            notable = True
        closely = self._offsets is not None or self._size_limit.size_bytes is not inf or self.limits.max_hops
        if notable or self._source.releasing or closely:
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
                source.settlement.ack(delivery.delivery_tag, again=True)
                return False
            if not self.memory.vouches_for(delivery):
                books.duplicates_possible += 1
        if self._offsets is not None:
            offset = stream_offset(delivery.content)
            known = offset is not None and self._offsets.received(offset)
            books.offsets_missed = self._offsets.missed
            if known:
                books.suppressed += 1
                self._leave(delivery)
                source.settlement.ack(delivery.delivery_tag)
                return False
        if source.releasing:
            self._requeue(delivery, source.releasing)
        elif limits.quarantine and 0 < limits.delivery_limit <= delivery.delivery_count + LIMIT_MARGIN:
            source.condemn((delivery, Verdict("delivery-limit")))
        elif self._chooses and not self._chosen(delivery):
            self._withhold(delivery)
        elif (verdict := self._unwanted(delivery, now_s)) is not None:
            self._condemn(delivery, verdict, now_s)
        else:
            return True
        return False

    def _unwanted(self, delivery: Delivery, now_s: float) -> Verdict | None:
        """Return the verdict on a message that is not to be published: it is too large, or has come round too often."""
        most = self.limits.max_hops
        if most and (hops := hops_of(delivery.content)) > most:
            return Verdict("max-hops", 0, f"it has passed {hops} bridges with this one, and BRIDGE_MAX_HOPS is {most}")
        return self._size_limit.too_large(delivery, now_s)

    def _chosen(self, delivery: Delivery) -> bool:
        """Decide whether a delivery is to be forwarded: it is within the number, and of those that are wanted."""
        self._surplus_after -= 1
        if self._surplus_after < 0:
            self._source.note_surplus()
            return False
        selection = self.terms.selection
        return selection is None or selection.admits(delivery)

    def _withhold(self, delivery: Delivery) -> None:
        """Keep no more of it than its delivery tag, until all is released."""
        self._source.withhold(delivery.delivery_tag)
        self.books.bytes_in_flight -= len(delivery.content)
        self.memory.requeued(delivery)

    def stream_begins_at(self, first: int | None) -> None:
        """The broker has answered which offset the stream's first message has; None where it has not."""
        assert self._offsets is not None  # noqa: S101 - only a stream is asked
        if first is None:
            self._offsets.gaps.unanswered()
        else:
            self._offsets.begins_at(first)
            self.books.offsets_missed = self._offsets.missed

    def source_lost(self) -> None:
        """The source's generation ended: all of the window is stale (invariant 2)."""
        books = self.books
        books.stale_held += books.held
        books.stale_published += books.published
        books.held = books.published = books.bytes_in_flight = 0
        books.duplicates_possible += len(self._source.quarantining)
        self.memory.acks_lost(self._source.unpublished)
        self._source = self._source_generation()
        if self._offsets is not None:
            self._offsets.lost()

    def consumer_lost(self) -> None:
        """The broker cancelled the consumer: it may have requeued what was delivered, acks on the way or not."""
        published = () if self._orphaned else tuple(self._destination.publishes)
        self.memory.acks_lost((*self._source.unpublished, *published))
        self.consumer_gone()

    def release(self, reason: RequeueReason) -> None:
        """Requeue whatever is not published, and what still comes: the consumer is being cancelled.

        What is on its way to the quarantine waits for its answer: requeued, it would be there twice.
        """
        for delivery in self._source.release(reason):
            self._requeue(delivery, reason)
        for delivery_tag in self._source.take_withheld():
            self.books.held -= 1
            count(self.books.requeued, reason)
            self._source.settlement.requeue(delivery_tag)

    def released(self) -> None:
        """The consumer is gone: no delivery follows."""
        self._source.released()

    def give_up(self, now_s: float) -> None:
        """The destination has accepted nothing for `hold_timeout`; its time begins again."""
        self.trouble.requeued(now_s)

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

    def take_oversized(self) -> int:
        """Hand over the size of the largest message that alone was more than may be in flight; 0 for none."""
        size, self._oversized_bytes = self._oversized_bytes, 0
        return size

    # --- The destination ---------------------------------------------------------------------------------

    def destination_connecting(self) -> None:
        """A connection to the destination begins: the broker may block it before a generation begins on it."""
        self._destination = self._destination_generation()

    def destination_opened(self, frame_max: int = 0) -> None:
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
                self.memory.requeued(delivery)
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
        so is condemned before it costs a channel, and what an exchange refuses is set aside likewise.
        """
        while (batch := self._take(max_bytes, now_s)) is None:
            pass
        return batch

    def _take(self, max_bytes: int, now_s: float) -> list[Delivery] | None:
        """As `take`; None where nothing of what was looked at can be published, and others may be held."""
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
        if self._asks_exchanges and not destination.exchanges.accept_all(self.target.exchanges(batch), now_s):
            batch, waits = self._accepted_by_exchanges(batch, now_s)
            if not batch:
                return [] if waits else None
            size = sum(len(delivery.content) for delivery in batch)
        fitting = batch
        if size > destination.frame_max and max(len(d.content) for d in batch) > destination.frame_max:
            pairs = [(delivery, fit) for delivery in batch if (fit := self._fit(delivery, now_s)) is not None]
            if not pairs:
                return None  # all have been condemned
            batch, fitting = [delivery for delivery, _ in pairs], [fit for _, fit in pairs]
            size = sum(len(fit.content) for fit in fitting)
        published.publish(batch, now_s, source)
        self.books.held -= len(batch)
        self.books.published += len(batch)
        if self._limited:
            self._took(len(batch), size, now_s)
        return fitting

    def _accepted_by_exchanges(self, batch: list[Delivery], now_s: float) -> tuple[list[Delivery], bool]:
        """Return those whose exchange accepts them, and whether others, held again, wait for the broker's answer.

        What an exchange refuses is set aside. What comes after one that waits waits, too (invariant 5).
        """
        accepted, refused, waiting = self.exchanges.part(self.target.exchanges(batch), batch, now_s)
        self._source.hold_again(waiting)
        for delivery, refusal in refused:
            self._source.blame.judged(delivery.delivery_tag)
            self._set_aside(delivery, now_s, refusal, closed=False)
        return accepted, bool(waiting)

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
        stream = self._offsets is not None
        for delivery, reason in parked.take_given_up(
            now_s, self.limits.hold_timeout_s, returned=not (stream or self._quarantines_unroutable)
        ):
            if not stream:
                self._requeue(delivery, reason)
            elif (verdict := self._unwanted(delivery, now_s)) is None:
                source.hold_again([delivery])  # nothing of a stream can be requeued: it is tried again here
            else:
                self._condemn(delivery, verdict, now_s)
        source.condemn(*parked.take_offered(now_s))
