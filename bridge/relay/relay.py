"""The relay, sans-I/O: bytes of both sides in, bytes of both sides out.

`cutter` cuts, `window` decides about messages and `steering` about the bridge; the relay joins them: it hands the
events that were cut to the window and the steering and encodes what follows. The caller (`tap` with sockets, the
simulation without) takes the bytes out after every call: `source_output` and `publishes()`.

It writes the consumer's cancel, too, since its place on the wire matters: a message that is requeued before the cancel
is written comes straight back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.amqp.content import ContentPreparer, HeaderPolicy, reframe
from bridge.amqp.cutter import Cutter
from bridge.amqp.events import Blocked, Close, Confirm, ConsumerCancelled, Deliveries, Dropped, Event, Return, Unblocked
from bridge.amqp.frames import DATA_CHANNEL, QUARANTINE_CHANNEL, ack_frame, cancel_frame, publish_frame, requeue_frame
from bridge.errors import MalformedFrameError
from bridge.relay.backoff import Backoff
from bridge.relay.quarantine import Quarantine
from bridge.relay.steering import Action, Steering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.relay.plan import Plan
    from bridge.relay.queue import QueueFacts, QueueState
    from bridge.window.window import Window

PUBLISH_BATCH_BYTES = 256 << 10
"""About so much is encoded at a time, so that a slow destination's socket holds little of the window."""
JOIN_BYTES = 8 << 10
"""Contents up to this size on average are joined into one buffer; larger ones go to the socket uncopied."""


class Relay:
    """Both sides' data planes around one window."""

    def __init__(self, window: Window, plan: Plan, chance: Callable[[], float]) -> None:
        """`chance` returns a number from 0 to 1, for the jitter of backoffs."""
        self.window = window
        self.policy = plan.policy
        backoff = Backoff(plan.reconnect_min_s, plan.reconnect_max_s, chance)
        self.quarantine = Quarantine(window, plan.quarantine_queue, backoff)
        self.steering = Steering(window, self.quarantine, plan, lambda: self._source_cutter.unfinished)
        self.source_output: list[bytes] = []
        self._unix_ahead_s = 0.0
        """What the wall clock is ahead of the monotonic one, as of the last tick."""

        self._source_frame_max = 0
        self._preparer = ContentPreparer(plan.policy)
        self._source_cutter = Cutter(self._preparer)

        self._publish = publish_frame(DATA_CHANNEL, window.target.route)
        self._destination_frame_max = 0
        self._destination_cutter = Cutter(ContentPreparer(HeaderPolicy()))
        self.destination_close: Close | None = None
        """The broker's own close of the destination's channel or connection in this generation; the first counts."""

        self.blocked_reason = ""
        """The destination's words when it last blocked."""

        self.source_close: Close | None = None
        """The broker's own close of the source's channel or connection in this generation; the first counts."""

    # --- Generations -------------------------------------------------------------------------------------

    def source_connecting(self) -> Cutter:
        """A connection to the source begins: return its cutter, to be fed from the first byte on."""
        self._preparer = ContentPreparer(self.policy)
        self._source_cutter = Cutter(self._preparer)
        self.source_close = None
        return self._source_cutter

    def source_opened(self, frame_max: int, facts: QueueFacts | None = None) -> None:
        """The source's channel is open: a generation begins; `facts` are what its broker said of the queue."""
        self._source_frame_max = frame_max
        self._source_cutter.agree(frame_max)
        self.window.source_opened()
        self.steering.source_opened(facts)
        self._preparer.believe(self.steering.facts.counts)

    def source_lost(self, now_s: float) -> None:
        """The source's generation ended, however it did."""
        self.quarantine.source_lost()
        self.source_output.clear()
        self.steering.source_lost(self.source_close, now_s)
        self.window.source_lost()

    def destination_connecting(self) -> Cutter:
        """A connection to the destination begins: return its cutter, to be fed from the first byte on."""
        self._destination_cutter = Cutter(ContentPreparer(HeaderPolicy()))
        self.destination_close = None
        self.window.destination_connecting()
        return self._destination_cutter

    def destination_opened(self, frame_max: int, now_s: float) -> None:
        """The destination's channel is open and confirms: a generation begins."""
        self._destination_frame_max = frame_max
        self._destination_cutter.agree(frame_max)
        self.window.destination_opened(now_s, frame_max)

    def destination_lost(self, now_s: float) -> None:
        """The destination's generation ended, however it did."""
        self.window.destination_lost(self.destination_close, now_s)
        self._quarantine(now_s)

    # --- Bytes in ----------------------------------------------------------------------------------------

    def source_events(self, events: Iterable[Event], now_s: float) -> None:
        """Take what the source's cutter cut. Raises `MalformedFrameError` for what cannot be."""
        for event in events:
            match event:
                case Deliveries(items, notable):
                    self.steering.delivered(items[0])
                    self.window.receive(items, now_s, notable=notable)
                case Dropped(_, redelivered):
                    self.window.drop(event.delivery_tag, redelivered, "memory")
                case Confirm(channel=channel) | Return(channel=channel) if channel == QUARANTINE_CHANNEL:
                    self.quarantine.answered(event, now_s)
                case ConsumerCancelled(by_us, consumer_tag):
                    self.steering.cancelled(consumer_tag, now_s, by_us=by_us)
                    self._source_cutter.drop(on=self.steering.shedding)
                case Close(channel=channel) if channel == QUARANTINE_CHANNEL:
                    self.quarantine.closed(event, now_s)
                case Close(channel=channel):
                    if channel in {0, DATA_CHANNEL} and self.source_close is None:
                        self.source_close = event
                case Blocked() | Unblocked():
                    pass  # it publishes nothing but what goes to the quarantine, which waits for its confirms
                case _:
                    message = f"a {type(event).__name__} from the source"
                    raise MalformedFrameError(message)
        self._settle(now_s)

    def destination_events(self, events: Iterable[Event], now_s: float) -> None:
        """Take what the destination's cutter cut. Raises `MalformedFrameError` for what cannot be."""
        if self.steering.abandoned:
            return
        window = self.window
        for event in events:
            match event:
                case Confirm(_, publish_seqno, multiple, accepted):
                    window.confirm(publish_seqno, now_s, multiple=multiple, accepted=accepted)
                case Return():
                    window.returned(event)
                case Blocked(reason):
                    self.blocked_reason = reason
                    window.destination_blocked(now_s)
                case Unblocked():
                    window.destination_unblocked(now_s)
                case Close(channel=channel):
                    if channel in {0, DATA_CHANNEL} and self.destination_close is None:
                        self.destination_close = event
                case _:
                    message = f"a {type(event).__name__} from the destination"
                    raise MalformedFrameError(message)
        self._settle(now_s)

    # --- Bytes out ---------------------------------------------------------------------------------------

    def publishes(self, now_s: float) -> list[bytes]:
        """Return the next frames for the destination, some 256 KiB; empty when there is nothing to write now."""
        if not self.steering.publishes:
            return []
        batch = self.window.take(PUBLISH_BATCH_BYTES, now_s)
        if self.window.condemned:
            self._quarantine(now_s)
        if not batch:
            return []
        contents = [delivery.content for delivery in batch]
        limit = self._destination_frame_max
        if limit and not 0 < self._source_frame_max <= limit:
            contents = [reframe(c, DATA_CHANNEL, limit) if len(c) > limit else c for c in contents]
        target = self.window.target
        if target.keeps_keys:
            methods = [publish_frame(DATA_CHANNEL, route) for route in target.routes([d.route for d in batch])]
            return [part for pair in zip(methods, contents, strict=True) for part in pair]
        if len(contents[0]) > JOIN_BYTES or len(contents[-1]) > JOIN_BYTES:
            return [part for content in contents for part in (self._publish, content)]
        # Every publish begins with the same frame: to join by it costs a tenth of interleaving it.
        return [self._publish.join([b"", *contents])]

    def take_source_output(self) -> list[bytes]:
        """Hand over the frames for the source."""
        output, self.source_output = self.source_output, []
        return output

    def _quarantine(self, now_s: float) -> None:
        """Publish what has been condemned, as far as the quarantine is open and has room."""
        self.source_output += self.quarantine.take_publishes(self._source_frame_max, now_s, now_s + self._unix_ahead_s)

    def _settle(self, now_s: float) -> None:
        """Encode what was decided for the source."""
        self._quarantine(now_s)
        window, output = self.window, self.source_output
        if self.steering.settle(now_s):
            output += map(cancel_frame, self.steering.take_cancels())
            if self.steering.withholds:
                return
        settlement = window.settlement
        if settlement.acks:
            output += [ack_frame(tag, multiple=multiple) for tag, multiple in settlement.take_acks()]
        if settlement.requeues:
            requeues = settlement.take_requeues()
            if window.in_flight == 0:
                # All that is unsettled: one frame, and the source puts it back in one go.
                output.append(requeue_frame(max(requeues), multiple=True))
            else:
                output += [requeue_frame(tag, multiple=False) for tag in requeues]

    # --- What comes next ---------------------------------------------------------------------------------

    def decide(self, now_s: float, unsent_bytes: int = 0) -> Action | None:
        """As `Steering.decide`."""
        action = self.steering.decide(now_s, unsent_bytes)
        self._settle(now_s)
        return action

    def started(self, before: QueueState, now_s: float) -> None:
        """As `Steering.started`."""
        self.steering.started(before)
        self._settle(now_s)

    def stop(self, now_s: float) -> None:
        """As `Steering.stop`."""
        self.steering.stop(now_s)
        self._settle(now_s)

    @property
    def paused(self) -> bool:
        """Whether the source must not be read from."""
        return self.steering.paused

    # --- Time --------------------------------------------------------------------------------------------

    def tick(self, now_s: float, unix_s: float) -> None:
        """Let time pass; ten times a second is often enough."""
        self._unix_ahead_s = unix_s - now_s
        self.window.age.wall_clock(self._unix_ahead_s)
        self.window.tick(now_s)
        self.steering.tick(now_s)
        self._source_cutter.drop(on=self.steering.shedding)
        self._settle(now_s)
