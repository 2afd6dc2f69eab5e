"""The relay, sans-I/O: bytes of both sides in, bytes of both sides out.

`wire` cuts, `window` decides, the relay joins them: it feeds each side's chunks to that side's cutter, hands
the events to the window and encodes what follows. Whoever drives it (`tap` with sockets, the simulation
without) takes the bytes out after every call: `source_output`, `destination_output` and `publishes()`.

It also drives the consumer, since to stop consuming and to give messages back are frames whose order on the
wire matters: a message that is given back before the cancel is written comes straight back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.amqp.content import ContentPreparer, HeaderPolicy, reframe
from bridge.amqp.cutter import Cutter
from bridge.amqp.events import Blocked, Close, Confirm, ConsumerCancelled, Deliveries, Event, Return, Unblocked
from bridge.amqp.frames import DATA_CHANNEL, QUARANTINE_CHANNEL, ack_frame, cancel_frame, publish_frame, requeue_frame
from bridge.errors import MalformedFrameError
from bridge.relay.consumer import Consumer, ConsumerEvent
from bridge.relay.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.window.window import Window

PUBLISH_BATCH_BYTES = 256 << 10
"""About so much is encoded at a time, so that a slow destination's socket holds little of the window."""
JOIN_BYTES = 8 << 10
"""Contents up to this size on average are joined into one buffer; larger ones go to the socket uncopied."""


class Relay:
    """Both sides' data planes around one window."""

    def __init__(
        self, window: Window, policy: HeaderPolicy, *, destination: bytes, own_keys: bool, quarantine: str
    ) -> None:
        """`destination` is the route to publish to (see `frames.route`), only its exchange counts with `own_keys`."""
        self.window = window
        self.policy = policy
        self.quarantine = Quarantine(window, quarantine)
        self.source_output: list[bytes] = []

        self.consumer = Consumer.OFF
        self.from_stream: bool | None = None
        """Whether the source is a stream, which says so in its deliveries; None before the first."""
        self.stopping = False
        self._received_by_tick = -1
        """How many had been received at the last tick of a shutdown."""
        self._abandoned = False
        """Given back although published: what the destination still answers has nobody to hear it."""
        self._giving_back = ""
        """Why the consumer is being cancelled and what is held given back; empty when it is not."""
        self._consumer_tag = ""
        self._consumer_prefetch = 0
        self._probing_since: int | None = None
        """How many verdicts there had been when all was given back, since when a single message tries whether the
        destination takes messages again; None when it is not so."""
        self._source_open = False
        self._source_frame_max = 0
        self._source_cutter = Cutter(ContentPreparer(policy))

        self._own_keys = own_keys
        self._destination = destination
        self._publish = publish_frame(DATA_CHANNEL, destination)
        self._destination_frame_max = 0
        self._destination_cutter = Cutter(ContentPreparer(HeaderPolicy()))
        self.destination_close: Close | None = None
        """The broker's own close of the destination's channel or connection in this generation; the first counts."""

        self.source_close: Close | None = None
        """The broker's own close of the source's channel or connection in this generation; the first counts."""

    # --- Generations -------------------------------------------------------------------------------------

    def source_connecting(self) -> Cutter:
        """A connection to the source begins: return its cutter, to be fed from the first byte on."""
        self._source_cutter = Cutter(ContentPreparer(self.policy))
        self.source_close = None
        return self._source_cutter

    def source_opened(self, frame_max: int) -> None:
        """The source's channel is open: a generation begins."""
        self._source_open = True
        self._source_frame_max = self._source_cutter.frame_max = frame_max
        self.window.source_opened()

    def source_lost(self) -> None:
        """The source's generation ended, however it did."""
        self._source_open = False
        self.quarantine.source_lost()
        self.source_output.clear()
        self.consumer = self.consumer.after(ConsumerEvent.SOURCE_LOST)
        self._giving_back = ""
        self.window.source_lost()

    def destination_connecting(self) -> Cutter:
        """A connection to the destination begins: return its cutter, to be fed from the first byte on."""
        self._destination_cutter = Cutter(ContentPreparer(HeaderPolicy()))
        self.destination_close = None
        self.window.destination_connecting()
        return self._destination_cutter

    def destination_opened(self, frame_max: int, now_s: float) -> None:
        """The destination's channel is open and confirms: a generation begins."""
        self._destination_frame_max = self._destination_cutter.frame_max = frame_max
        self.window.destination_opened(now_s)

    def destination_lost(self, now_s: float) -> None:
        """The destination's generation ended, however it did."""
        self.window.destination_lost(self.destination_close, now_s)

    # --- Bytes in ----------------------------------------------------------------------------------------

    def source_events(self, events: Iterable[Event], now_s: float) -> None:
        """Take what the source's cutter cut. Raises `MalformedFrameError` for what cannot be."""
        for event in events:
            match event:
                case Deliveries(items, notable):
                    if self.from_stream is None:
                        self.from_stream = b"\x0fx-stream-offset" in items[0].content
                    self.window.receive(items, now_s, notable=notable)
                case Confirm(channel=channel) | Return(channel=channel) if channel == QUARANTINE_CHANNEL:
                    self.quarantine.answered(event, now_s)
                case ConsumerCancelled(by_us):
                    cancelled = ConsumerEvent.CANCEL_OK if by_us else ConsumerEvent.CANCELLED_BY_BROKER
                    self.consumer = self.consumer.after(cancelled)
                case Close(channel=channel) if channel == QUARANTINE_CHANNEL:
                    self.quarantine.closed(now_s)
                case Close(channel=channel):
                    if channel in {0, DATA_CHANNEL} and self.source_close is None:
                        self.source_close = event
                case Blocked() | Unblocked():
                    pass  # it publishes nothing but what goes to the quarantine, which waits for its confirm
                case _:
                    message = f"a {type(event).__name__} from the source"
                    raise MalformedFrameError(message)
        self._settle()

    def destination_events(self, events: Iterable[Event], now_s: float) -> None:
        """Take what the destination's cutter cut. Raises `MalformedFrameError` for what cannot be."""
        if self._abandoned:
            return
        window = self.window
        for event in events:
            match event:
                case Confirm(_, publish_seqno, multiple, accepted):
                    window.confirm(publish_seqno, now_s, multiple=multiple, accepted=accepted)
                case Return():
                    window.returned(event, now_s)
                case Blocked():
                    window.destination_blocked(now_s)
                case Unblocked():
                    window.destination_unblocked(now_s)
                case Close(channel=channel):
                    if channel in {0, DATA_CHANNEL} and self.destination_close is None:
                        self.destination_close = event
                case _:
                    message = f"a {type(event).__name__} from the destination"
                    raise MalformedFrameError(message)
        self._settle()

    # --- Bytes out ---------------------------------------------------------------------------------------

    def publishes(self, now_s: float) -> list[bytes]:
        """Return the next frames for the destination, some 256 KiB; empty when there is nothing to write now."""
        batch = self.window.take(PUBLISH_BATCH_BYTES, now_s)
        if not batch:
            return []
        contents = [delivery.content for delivery in batch]
        limit = self._destination_frame_max
        if limit and not 0 < self._source_frame_max <= limit:
            contents = [reframe(c, DATA_CHANNEL, limit) if len(c) > limit else c for c in contents]
        if self._own_keys:
            exchange = self._destination[: 1 + self._destination[0]]
            methods = [publish_frame(DATA_CHANNEL, exchange + d.route[1 + d.route[0] :]) for d in batch]
            return [part for pair in zip(methods, contents, strict=True) for part in pair]
        if len(contents[0]) > JOIN_BYTES or len(contents[-1]) > JOIN_BYTES:
            return [part for content in contents for part in (self._publish, content)]
        # Every publish begins with the same frame: to join by it costs a tenth of interleaving it.
        return [self._publish.join([b"", *contents])]

    def _settle(self) -> None:
        """Encode what the window decided for the source."""
        if self._probing_since is not None and self.window.verdicts != self._probing_since:
            # Before its ack is written: that would have the source set out the next message for a consumer that is
            # gone, and a quorum queue of 4.3 puts such a message behind all that were given back (4.3.6).
            self._end_probe()
        self._release()
        if self._lingers:
            return
        settlement, output = self.window.settlement, self.source_output
        if settlement.acks:
            output += [ack_frame(tag, multiple=multiple) for tag, multiple in settlement.acks]
            settlement.acks.clear()
        if settlement.requeues:
            if self.window.in_flight == 0:
                # All that is unsettled: one frame, and the source puts it back in one go.
                output.append(requeue_frame(max(settlement.requeues), multiple=True))
            else:
                output += [requeue_frame(tag, multiple=False) for tag in settlement.requeues]
            settlement.requeues.clear()

    # --- The consumer ------------------------------------------------------------------------------------

    @property
    def wanted_prefetch(self) -> int:
        """How many messages to consume with, when consuming should begin now; else 0."""
        window = self.window
        ready = self._source_open and self.consumer is Consumer.OFF and not self.stopping
        if not ready or not window.destination_ready or window.orphans:
            return 0
        return window.limits.prefetch if self._probing_since is None else 1

    @property
    def received(self) -> tuple[int, ...]:
        """How much has been received from the source, in numbers that change whenever more comes."""
        return self.window.books.received, *self._source_cutter.unfinished

    @property
    def expects_deliveries(self) -> bool:
        """Whether the source would deliver if it had something: consuming, with room in the prefetch and in memory."""
        return self.consumer is Consumer.ON and not self.paused and self.window.in_flight < self._consumer_prefetch

    @property
    def source_drained(self) -> bool:
        """Whether the generation holds nothing more and expects nothing: it can be closed without loss."""
        return self.consumer in {Consumer.OFF, Consumer.LOST} and not self.window.in_flight

    @property
    def paused(self) -> bool:
        """Whether the source must not be read from: memory is full (invariant 4).

        Not while the quarantine is being opened: the broker's answers come on the same connection.
        """
        return self.window.full and not self.quarantine.opening

    @property
    def _lingers(self) -> bool:
        """Whether a shutdown lets the consumer be for the moment."""
        window = self.window
        healthy = window.destination_ready and window.pace.trouble_since_s is None
        return self.stopping and self.consumer is Consumer.ON and (healthy or window.books.published > 0)

    def _end_lingering(self) -> None:
        """Cancel the consumer once all is forwarded, and no delivery has come since the last tick."""
        books = self.window.books
        drained = not (books.published or self.window.publishable) and books.received == self._received_by_tick
        self._received_by_tick = books.received
        if drained or not self._lingers:
            self._give_back("shutdown")

    def consume(self, consumer_tag: str, prefetch: int, now_s: float) -> None:
        """The control plane is about to send `basic.consume`."""
        self.consumer = self.consumer.after(ConsumerEvent.START)
        self._consumer_tag = consumer_tag
        self._consumer_prefetch = prefetch
        self.window.memory.consuming(now_s)

    def consuming(self) -> None:
        """The broker answered `consume-ok`."""
        self.consumer = self.consumer.after(ConsumerEvent.STARTED)
        if self.stopping:
            self.stop()

    def stop(self) -> None:
        """Shut down: forward what a healthy destination takes, stop consuming, give back the rest.

        In this order, and the acks after the cancel: a standby begins where the cancelled consumer ends, and what it
        publishes may overtake what is not confirmed yet (4.3.6). With the acks withheld, the prefetch ends deliveries.
        """
        self.stopping = True
        self._received_by_tick = -1
        self._giving_back = ""
        if not self._lingers:
            self._give_back("shutdown")
        self._settle()

    def stop_consuming(self) -> None:
        """Deliveries have come for too long since `stop`: end them."""
        self._give_back("shutdown")
        self._settle()

    def abandon(self) -> None:
        """Time is up: give back what is published and not confirmed, too."""
        if self.consumer is Consumer.ON:
            self._cancel()
        self._giving_back = ""
        self._abandoned = True
        self.window.release_published("shutdown")
        self.window.release("shutdown")
        self._settle()

    def _give_back(self, reason: str) -> None:
        if self.consumer is Consumer.ON:
            self._cancel()
        self._giving_back = reason
        self._release()

    def _release(self) -> None:
        """Give back what is held, once the consumer is gone: in one go, which keeps its order where the queue does.

        A shutdown first forwards what a healthy destination still takes: a quorum queue of RabbitMQ 3.10 puts what
        is given back behind all others (measured), and counts it towards its delivery limit. When memory is full,
        nothing more can be read, the answer to the cancel neither: then at once, one by one.
        """
        window = self.window
        if not self._giving_back:
            return
        draining = self.stopping and (window.books.published or window.publishable or window.quarantining)
        gone = self.consumer is not Consumer.CANCELLING and not draining
        if gone or (window.full and not draining):
            window.release(self._giving_back)
            if gone:
                self._giving_back = ""
                window.released()

    def _end_probe(self) -> None:
        """The destination took the single message, or said that it is at fault: consume as before."""
        self._probing_since = None
        if self.consumer is Consumer.ON and self._consumer_prefetch < self.window.limits.prefetch:
            self._cancel()

    def _cancel(self) -> None:
        self.consumer = self.consumer.after(ConsumerEvent.CANCEL)
        self.source_output.append(cancel_frame(self._consumer_tag))

    # --- Time --------------------------------------------------------------------------------------------

    def tick(self, now_s: float, unix_s: float) -> None:
        """Let time pass; ten times a second is often enough."""
        window = self.window
        window.tick(now_s)
        if window.pace.refuses_since(now_s) >= window.limits.hold_timeout_s and self._source_open and window.books.held:
            window.pace.trouble_since_s = now_s
            self._probing_since = window.verdicts
            self._give_back("hold-timeout")
        if self.stopping and self.consumer is Consumer.ON:
            self._end_lingering()
        self.source_output += self.quarantine.publishes(self._source_frame_max, now_s, unix_s)
        self._settle()
