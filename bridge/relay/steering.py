"""The steering, sans-I/O: what a bridge does next, decided in one place.

Events of both sides come in, and `decide` says what follows: consume with so many, open the quarantine, ask the
queue, end a generation, stop. The supervisor does it with sockets, the simulation without; neither decides anything.

Whether and how the bridge consumes is one state. Every pair that is not in the table is a bug and raises:

| event          | PROBING     | WIDENING    | RUNNING     | GIVING_BACK | SHEDDING    | STOPPING  | ABANDONED |
|----------------|-------------|-------------|-------------|-------------|-------------|-----------|-----------|
| accepted       | WIDENING    |             |             |             |             |           |           |
| widened        |             | RUNNING     |             |             |             |           |           |
| give back      | GIVING_BACK | GIVING_BACK | GIVING_BACK |             | GIVING_BACK |           |           |
| given back     |             |             |             | PROBING     |             |           |           |
| memory full    | SHEDDING    | SHEDDING    | SHEDDING    |             |             |           |           |
| shed           |             |             |             |             | RUNNING     |           |           |
| lost in use    | PROBING     | RUNNING     | RUNNING     | PROBING     | RUNNING     | STOPPING  | ABANDONED |
| lost in vain   | PROBING     | PROBING     | PROBING     | PROBING     | PROBING     | STOPPING  | ABANDONED |
| stop           | STOPPING    | STOPPING    | STOPPING    | STOPPING    | STOPPING    | STOPPING  | ABANDONED |
| time is up     |             |             |             |             |             | ABANDONED |           |

*Probing*: the bridge consumes with a prefetch of 1, since it has not yet seen a message through. On a quorum queue each
lost connection, and each crash, counts for all that the broker had set out, read or not; with one message it falls on
the guilty alone. A new process begins so, and a source generation after one that ended without an ack ("in vain"). The
broker's own count is the memory across restarts: while messages come that have returned `RETURNED_OFTEN` times or more,
the bridge stays with one. *Widening*: a second consumer with the whole prefetch has been asked for, and the first is
being cancelled; the acks wait, so that the first is sent nothing more. The queue never is without a consumer, since
that would delete an auto-delete queue. *Running*: it consumes with the whole prefetch. *Giving back*: the destination
accepts nothing; the consumer is being cancelled and what is held requeued. *Shedding*: memory has been full for
`MEMORY_FULL_S`; the consumer is being cancelled, and what still comes is read without its bodies and requeued, since a
broker that cannot write for 30 s drops the connection. *Stopping*: what a healthy destination accepts is still
forwarded, the rest requeued. *Abandoned*: time was up, and what is published was requeued too; what the destination
still answers has nobody to hear it.

What it does not do: settle deliveries, which is `window`'s; encode and connect, which is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from bridge.amqp.content import stream_offset
from bridge.relay.consumer import Consumer, ConsumerEvent
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.watchdog import Ending, Watchdog
from bridge.window.window import LIMIT_MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.amqp.events import Close, Delivery
    from bridge.relay.backoff import Backoff
    from bridge.relay.plan import Plan
    from bridge.relay.quarantine import Quarantine
    from bridge.window.window import Window
    from bridge.words import SideName

QUARANTINE_AGAIN_S = 300.0
"""How long a quarantine that did not answer is left alone: a publish to a broker with an alarm stops the connection."""
RETURNED_OFTEN = 3
"""From this delivery count on a message may be the one that ends generations or processes."""
PROBE_AGAIN_S, PROBE_AGAIN_MAX_S = 0.2, 30.0
"""Pause after a refused probe: doubles from the one up to the other."""
IN_VAIN_S = 0.25
"""Pause after the second generation in a row that ended in vain: doubles up to `hold_timeout`."""
PROBE_HOLD_S = 1500.0
"""How long a refused probe is held where requeueing counts towards a delivery limit: well below the consumer timeout of
30 minutes."""
MEMORY_FULL_S = 10.0
"""How long reading may be paused before the bridge sheds: RabbitMQ's send timeout is 30 s."""
UNREADABLE_AFTER = 3
"""Closes with an internal error in a row, nothing delivered, after which the head of the queue is called unreadable."""
INTERNAL_ERROR = 541
ASK_AGAIN_S = 1.0
"""How often a queue that our exit deletes is asked, during a shutdown, whether it is empty."""


class State(Enum):
    """Whether and how the bridge consumes."""

    PROBING = "probing"
    WIDENING = "widening"
    RUNNING = "running"
    GIVING_BACK = "giving back"
    SHEDDING = "shedding"
    STOPPING = "stopping"
    ABANDONED = "abandoned"

    def after(self, event: StateEvent) -> State:
        """Return the state that follows. Raises `ValueError` for an event that cannot happen now."""
        state = TRANSITIONS[event].get(self)
        if state is None:
            message = f"{event.value} cannot happen to a bridge that is {self.value}"
            raise ValueError(message)
        return state


class StateEvent(Enum):
    """What changes the state."""

    ACCEPTED = "accepted"
    WIDENED = "widened"
    GIVE_BACK = "give back"
    GIVEN_BACK = "given back"
    MEMORY_FULL = "memory full"
    SHED = "shed"
    LOST_IN_USE = "lost in use"
    LOST_IN_VAIN = "lost in vain"
    STOP = "stop"
    TIME_IS_UP = "time is up"


_ACTIVE = (State.PROBING, State.WIDENING, State.RUNNING)
_ENDING = {State.STOPPING: State.STOPPING, State.ABANDONED: State.ABANDONED}

TRANSITIONS: dict[StateEvent, dict[State, State]] = {
    StateEvent.ACCEPTED: {State.PROBING: State.WIDENING},
    StateEvent.WIDENED: {State.WIDENING: State.RUNNING},
    StateEvent.GIVE_BACK: dict.fromkeys((*_ACTIVE, State.SHEDDING), State.GIVING_BACK),
    StateEvent.GIVEN_BACK: {State.GIVING_BACK: State.PROBING},
    StateEvent.MEMORY_FULL: dict.fromkeys(_ACTIVE, State.SHEDDING),
    StateEvent.SHED: {State.SHEDDING: State.RUNNING},
    StateEvent.LOST_IN_USE: {
        State.PROBING: State.PROBING,
        State.GIVING_BACK: State.PROBING,
        **dict.fromkeys((State.WIDENING, State.RUNNING, State.SHEDDING), State.RUNNING),
        **_ENDING,
    },
    StateEvent.LOST_IN_VAIN: {**dict.fromkeys((*_ACTIVE, State.GIVING_BACK, State.SHEDDING), State.PROBING), **_ENDING},
    StateEvent.STOP: {**dict.fromkeys(State, State.STOPPING), State.ABANDONED: State.ABANDONED},
    StateEvent.TIME_IS_UP: {State.STOPPING: State.ABANDONED},
}


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume from the source; then call `starting` and `started`, or `not_started`."""

    prefetch: int
    offset: int | None = None
    """Where to begin in a stream; None to begin where the settings say."""


@dataclass(frozen=True, slots=True)
class OpenQuarantine:
    """Open the quarantine's channel; then call `quarantine_opened` or `quarantine_unavailable`."""


@dataclass(frozen=True, slots=True)
class AskQueue:
    """Ask the source queue for its state; then call `queue_answered`."""


@dataclass(frozen=True, slots=True)
class EndGeneration:
    """End this side's generation."""

    side: SideName
    reason: str
    """A short fixed word, for `/metrics`."""
    text: str
    drop: bool = True
    """Whether to drop the connection without a word, since its broker does not answer."""


@dataclass(frozen=True, slots=True)
class Stop:
    """All is settled, or time is up: write what is to be written, close both sides and end."""


Action = Consume | OpenQuarantine | AskQueue | EndGeneration | Stop


class Steering:
    """Decides for one bridge, over all its generations."""

    def __init__(
        self,
        window: Window,
        quarantine: Quarantine,
        plan: Plan,
        quarantine_backoff: Backoff,
        unfinished: Callable[[], tuple[int, ...]],
    ) -> None:
        """`unfinished` returns numbers that change while a delivery arrives."""
        self.window = window
        self.state = State.PROBING
        self.consumer = Consumer.OFF
        self.facts = QueueFacts(queue_type=plan.queue_type)
        self.last_found: QueueState | None = None
        """What the queue said of itself last."""
        self.watchdog = Watchdog(self)
        self._plan = plan
        self._unfinished = unfinished

        self._quarantine = quarantine
        self._quarantine_backoff = quarantine_backoff
        self._quarantine_at_s = 0.0

        # The source's generation.
        self._source_open = False
        self._asking = False
        """Whether an action that the source's broker must answer is under way."""
        self._tags: list[str] = []
        """Consumers that have been asked for and are not known to be gone, the newest last."""
        self._cancelled: set[str] = set()
        """Those of them that we have cancelled."""
        self._cancels: list[str] = []
        """Consumers whose cancel is to be written."""
        self._prefetch = 0
        self._room_until = 0
        """Deliveries in flight up to which the source may still deliver."""
        self._received_before = 0
        """How many had been received when it was decided to consume."""
        self._acked_before = 0
        """How many had been acked when the generation began."""
        self._consumed = False
        """Whether the generation has consumed from a queue that had something."""
        self._kind_told = False
        """Whether the deliveries have told whether they are a stream's."""
        self._gone = False
        """Whether the consumer's queue does not exist any more."""
        self._ending_source: Ending | None = None
        self._lost_since_s: float | None = None
        """Since when the consumer has been lost."""
        self._fitting = window.limits.prefetch
        """As many as memory has room for, as far as this generation has shown."""

        self._accepted_before = 0
        """How many messages the destination had accepted when the bridge began to probe."""
        self._consume_at_s = 0.0
        self._probes_refused = 0
        self._refusals_before = 0
        """Refusals of the destination when the consumer began."""
        self._in_vain = 0
        """Source generations in a row that had something to deliver and ended without an ack."""
        self._unreadable = 0
        self._full_since_s: float | None = None
        self._giving_back_for = ""

        self._shutdown_timeout_s = plan.shutdown_timeout_s
        self._stop_at_s = 0.0
        self._ask_at_s = 0.0
        self._last_call = False
        """Whether a shutdown is about to end: what is published is still waited for."""
        self._received_by_tick = -1
        """How many had been received at the last tick of a shutdown."""

    # --- What can be asked -------------------------------------------------------------------------------

    @property
    def stream(self) -> bool:
        """Whether the source is known to be a stream: nothing can be requeued there."""
        return self.facts.queue_type == "stream"

    @property
    def stopping(self) -> bool:
        """Whether a shutdown has begun."""
        return self.state in {State.STOPPING, State.ABANDONED}

    @property
    def abandoned(self) -> bool:
        """Whether time is up."""
        return self.state is State.ABANDONED

    @property
    def shedding(self) -> bool:
        """Whether the bodies of deliveries are to be dropped."""
        return self.state is State.SHEDDING

    @property
    def publishes(self) -> bool:
        """Whether to publish what is held.

        Not while it is unknown whether it still is ours (see `cancelled`), and not at the very end of a shutdown.
        """
        return (self.consumer is not Consumer.LOST or self._gone) and not self._last_call

    @property
    def hindrance(self) -> str:
        """What keeps the source from delivering although its channel is open, for an operator."""
        if self._unreadable < UNREADABLE_AFTER:
            return ""
        text = "the broker closes the channel (541) at the message at the head of the queue, which it cannot read"
        return f"{text}; consuming has stopped before its delivery limit" if self._spares_the_unreadable else text

    @property
    def received(self) -> tuple[int, ...]:
        """How much has been received from the source, in numbers that change whenever more comes."""
        return self.window.books.received, *self._unfinished()

    @property
    def expects_deliveries(self) -> bool:
        """Whether the source would deliver if it had something: consuming, with room in the prefetch and in memory."""
        return self.consumer is Consumer.ON and not self.paused and self.window.in_flight < self._room_until

    @property
    def source_drained(self) -> bool:
        """Whether the generation holds nothing more and expects nothing: it can be closed without loss."""
        in_flight = self.window.books.published if self.stream and self.stopping else self.window.in_flight
        return self.consumer in {Consumer.OFF, Consumer.LOST} and not in_flight

    @property
    def paused(self) -> bool:
        """Whether the source must not be read from: memory is full (invariant 4).

        Not while an answer of its broker is awaited, which comes on the same connection.
        """
        awaits = self._asking or self.shedding or self.consumer is Consumer.LOST
        return self.window.full and not awaits

    @property
    def withholds(self) -> bool:
        """Whether acks and requeues wait for a cancel.

        A consumer whose deliveries are not acked is sent no more than its prefetch. In a shutdown, a standby begins
        where the cancelled consumer ends, and what it publishes may overtake what is not confirmed yet (4.3.6). A
        message that is set out for a consumer that is gone ends up behind all others in a quorum queue of 4.3.
        """
        if self.consumer is not Consumer.ON:
            return False
        if self.state is State.STOPPING:
            return self._lingers and not self.facts.deletes_itself
        return self.state is State.WIDENING or len(self._tags) > 1

    @property
    def _lingers(self) -> bool:
        """Whether a shutdown still forwards: the destination is healthy, or its answers are to come."""
        window = self.window
        healthy = window.destination_ready and not window.trouble.lasts
        return healthy or window.books.published > 0

    @property
    def _spares_the_unreadable(self) -> bool:
        limit = self.window.limits.delivery_limit
        return self.facts.queue_type != "classic" and 0 < limit <= self._unreadable + LIMIT_MARGIN

    def wanted(self, now_s: float) -> Consume | None:
        """Return how to consume, when a consumer should be started now."""
        window = self.window
        idle = self._source_open and not self._asking and not self.stopping
        if not idle or not window.destination_ready or window.orphans or now_s < self._consume_at_s:
            return None
        if self.consumer is Consumer.OFF:
            if window.full or self._spares_the_unreadable or self.state is State.GIVING_BACK:
                return None
        elif (
            self.consumer is not Consumer.ON
            or len(self._tags) > 1
            or not (self.state is State.WIDENING or self._stands_behind_parked)
        ):
            return None
        narrow = self.state is State.PROBING and not self.stream
        return Consume(1 if narrow else min(window.limits.prefetch, self._fitting), window.resume_offset)

    @property
    def _stands_behind_parked(self) -> bool:
        """Whether the one message that is consumed is set aside: another is needed to see one through."""
        window = self.window
        used = window.in_flight >= self._room_until and window.in_flight == window.parked
        return self.state is State.PROBING and used and not window.everything_returned

    # --- The next action ---------------------------------------------------------------------------------

    def decide(self, now_s: float, unsent_bytes: int = 0) -> Action | None:
        """Return what is to be done next, None for nothing; to be called until it returns None, and after each tick.

        `unsent_bytes` are in the destination's socket.
        """
        if self.state is State.ABANDONED:
            return None
        if self.state is State.STOPPING and (self.source_drained or now_s >= self._stop_at_s):
            self._abandon()
            return Stop()
        if (ending := self._ending(now_s, unsent_bytes)) is not None or not self._source_open or self._asking:
            return ending
        return self._ask(now_s)

    def _ending(self, now_s: float, unsent_bytes: int) -> EndGeneration | None:
        """Return the generation that must end, if one must."""
        if (ending := self.watchdog.destination(now_s, unsent_bytes)) is not None:
            return EndGeneration("destination", *ending)
        if not self._source_open:
            return None
        if (ending := self.watchdog.source(now_s)) is not None:
            if self.window.quarantining:
                self._quarantine_at_s = now_s + QUARANTINE_AGAIN_S
            return EndGeneration("source", *ending)
        if self._ending_source is not None:
            return EndGeneration("source", *self._ending_source, drop=self._ending_source.reason == "stalled")
        if self._gone and self._lost_for_good(now_s):
            return EndGeneration("source", "consumer-cancelled", "the queue was deleted", drop=False)
        return None

    def _lost_for_good(self, now_s: float) -> bool:
        """Whether the generation of a deleted queue can end: what it holds may exist nowhere else any more."""
        since_s = self._lost_since_s
        return since_s is not None and (self.source_drained or now_s - since_s >= self.window.limits.hold_timeout_s)

    def _ask(self, now_s: float) -> Action | None:
        action: Action | None = None
        lost = self.consumer is Consumer.LOST and not self._gone
        if (consume := self.wanted(now_s)) is not None:
            self._prefetch = consume.prefetch
            self._received_before = self.window.books.received
            action = consume
        elif lost or now_s >= self._ask_at_s > 0.0:
            self._ask_at_s = now_s + ASK_AGAIN_S if self._ask_at_s else 0.0
            action = AskQueue()
        elif self._quarantine.wanted and now_s >= self._quarantine_at_s:
            self._quarantine.open()
            action = OpenQuarantine()
        elif self.watchdog.look_due(now_s):
            action = AskQueue()
        self._asking = action is not None
        return action

    # --- The source's answers ----------------------------------------------------------------------------

    def source_opened(self, facts: QueueFacts | None = None) -> None:
        """The source's channel is open: a generation begins; `facts` are what its broker said of the queue."""
        self._source_open = True
        if facts is not None:
            self.facts = facts
        self._acked_before = self.window.books.acked
        self._accepted_before = self.window.accepted
        if self.stream:
            self.window.read_stream()

    def source_lost(self, close: Close | None, now_s: float) -> None:
        """The source's generation ended: nothing that was asked will be answered."""
        in_use = self.window.books.acked > self._acked_before
        received = self.window.books.received > self._received_before
        if in_use:
            self._in_vain = 0
        elif self._consumed:
            self._in_vain += 1
            if self._in_vain > 1:
                pause_s = min(self.window.limits.hold_timeout_s, IN_VAIN_S * 2.0 ** min(self._in_vain, 16))
                self._consume_at_s = max(self._consume_at_s, now_s + pause_s)
        unreadable = close is not None and close.reply_code == INTERNAL_ERROR and self._consumed and not received
        self._unreadable = self._unreadable + 1 if unreadable else 0
        self.state = self.state.after(StateEvent.LOST_IN_USE if in_use else StateEvent.LOST_IN_VAIN)
        self.consumer = self.consumer.after(ConsumerEvent.SOURCE_LOST)
        self._source_open = self._asking = self._consumed = self._gone = self._kind_told = False
        self._tags, self._cancels, self._cancelled = [], [], set()
        self._lost_since_s = self._ending_source = self._full_since_s = None
        self._fitting = self.window.limits.prefetch

    def delivered(self, first: Delivery) -> None:
        """Deliveries have come, this one first: only those of a stream have an offset among their headers."""
        if self.facts.queue_type is None and not self._kind_told:
            self._kind_told = True
            if stream_offset(first.content) is not None:
                self.facts = replace(self.facts, queue_type="stream")
                self.window.read_stream()

    def starting(self, consumer_tag: str, now_s: float) -> bool:
        """`basic.consume` is about to be sent; return whether it still should be."""
        wanted = self.state in {State.PROBING, State.WIDENING, State.RUNNING}
        if not wanted or self.consumer not in {Consumer.OFF, Consumer.ON}:
            return False
        if self.consumer is Consumer.OFF:
            self.consumer = self.consumer.after(ConsumerEvent.START)
        self._tags.append(consumer_tag)
        self._room_until = self.window.in_flight + self._prefetch
        self._refusals_before = self.window.trouble.refusals
        self.window.memory.consuming(now_s)
        return True

    def not_started(self) -> None:
        """It was not sent, since it was no longer wanted."""
        self._asking = False

    def started(self, before: QueueState) -> None:
        """`consume-ok` has come; `before` is what the queue said of itself right before."""
        self._asking = False
        self.last_found = before
        self._consumed |= before.ready > 0
        if self.consumer is Consumer.STARTING:
            self.consumer = self.consumer.after(ConsumerEvent.STARTED)
            self.watchdog.consuming(before, self._received_before)
        if self.consumer is Consumer.ON:
            self._cancel_each(self._tags[:-1])
            lingers = self.state is State.STOPPING and (self._lingers or self.facts.deletes_itself)
            if self.state not in _ACTIVE and not lingers:
                self._cancel()

    def cancelled(self, consumer_tag: str, now_s: float, *, by_us: bool) -> None:
        """A consumer is gone: our cancel was answered, or the broker cancelled it.

        The broker does that when the queue is deleted or moves, and since 4.3 when a delivery was held for longer than
        the consumer timeout: then it has requeued what we hold. So nothing more is published until the queue answered.
        """
        if not by_us:
            self.consumer = self.consumer.after(ConsumerEvent.CANCELLED_BY_BROKER)
            self._lost_since_s = now_s if self._lost_since_s is None else self._lost_since_s
            return
        if consumer_tag in self._tags:
            self._tags.remove(consumer_tag)
        if not self._tags:
            self.consumer = self.consumer.after(ConsumerEvent.CANCEL_OK)
            if self.state is State.SHEDDING:
                self.state = self.state.after(StateEvent.SHED)
        elif self.state is State.WIDENING and len(self._tags) == 1:
            self.state = self.state.after(StateEvent.WIDENED)

    def quarantine_opened(self) -> None:
        """The quarantine's queue exists, and its channel is open."""
        self._asking = False
        self._quarantine.opened()
        self._quarantine_backoff.reset()

    def quarantine_unavailable(self, now_s: float) -> None:
        """The quarantine could not be opened."""
        self._asking = False
        self._quarantine_at_s = now_s + self._quarantine_backoff.delay_s(now_s)
        self._quarantine.closed(now_s)

    def queue_answered(self, found: QueueState | None, now_s: float) -> None:
        """The queue answered, or (None) did not."""
        self._asking = False
        self.last_found = found or self.last_found
        if self.consumer is Consumer.LOST:
            if found is not None and found.exists:
                text = "the broker cancelled the consumer and requeued what it held (consumer timeout, or a move)"
                self._ending_source = Ending("consumer-cancelled", text)
            else:
                self._gone = True
                if found is None:
                    self.window.doubt()
        elif self.state is not State.STOPPING:
            self._ending_source = self.watchdog.looked(found, now_s)
        elif found is not None and not found.ready and not self.window.in_flight and self.consumer is Consumer.ON:
            self._cancel()

    # --- Shutting down -----------------------------------------------------------------------------------

    def stop(self, now_s: float) -> None:
        """Shut down: forward what a healthy destination accepts, stop consuming, requeue the rest."""
        self._stop_at_s = now_s + self._shutdown_timeout_s
        self.state = self.state.after(StateEvent.STOP)
        if self.facts.deletes_itself:
            self._ask_at_s = now_s
        elif self.consumer is Consumer.ON and not self.withholds:
            self._cancel()

    def _abandon(self) -> None:
        if self.consumer is Consumer.ON:
            self._cancel()
        self.state = self.state.after(StateEvent.TIME_IS_UP)
        self.window.release_published("shutdown")
        self.window.release("shutdown")

    # --- Before what is settled is written ---------------------------------------------------------------

    def settle(self, now_s: float) -> None:
        """Decide what is to go with the acks and requeues that are about to be written: a cancel, or more requeues."""
        if self.state is State.PROBING:
            self._judge_probe(now_s)
        if self.state is State.GIVING_BACK:
            self._release(self._giving_back_for, draining=False)
        elif self.state is State.STOPPING:
            self._release("shutdown", draining=self._draining)

    def _judge_probe(self, now_s: float) -> None:
        window = self.window
        if window.accepted > self._accepted_before:
            self._accepted_before = window.accepted
            self._probes_refused = 0
            last = window.last_accepted
            if self.consumer is Consumer.ON and last is not None and last.delivery_count < RETURNED_OFTEN:
                self.state = self.state.after(StateEvent.ACCEPTED)
                if self._prefetch >= window.limits.prefetch:
                    self.state = self.state.after(StateEvent.WIDENED)
        elif window.trouble.refusals > self._refusals_before and window.held_only and self._gives_probes_back:
            self._give_back("probe", now_s)

    @property
    def _gives_probes_back(self) -> bool:
        """Whether a refused probe is requeued at once, so that no lost connection counts for it."""
        return not (self.facts.requeues_counted or self.facts.deleted_by_cancel or self.stream)

    @property
    def _draining(self) -> bool:
        """Whether a shutdown still forwards.

        A quorum queue of RabbitMQ 3.10 puts what is requeued behind all others (measured), and counts it towards its
        delivery limit.
        """
        window = self.window
        return window.books.published > 0 or window.publishable or window.quarantining

    def _give_back(self, reason: str, now_s: float) -> None:
        """Cancel the consumer and requeue what is held; then probe, after a pause."""
        self.window.give_up(now_s)
        self._giving_back_for = reason
        pause_s = min(PROBE_AGAIN_MAX_S, PROBE_AGAIN_S * 2.0 ** min(self._probes_refused, 16))
        self._probes_refused += 1
        self._consume_at_s = max(self._consume_at_s, now_s + pause_s)
        self._accepted_before = self.window.accepted
        self.state = self.state.after(StateEvent.GIVE_BACK)
        if self.consumer is Consumer.ON:
            self._cancel()

    def _release(self, reason: str, *, draining: bool) -> None:
        """Requeue what is held, once the consumer is gone: in one go, which keeps its order where the queue does.

        When memory is full, nothing more can be read, the answer to the cancel neither: then at once, one by one.
        """
        if draining or self.stream:
            return
        gone = self.consumer in {Consumer.OFF, Consumer.LOST}
        if gone or (self.window.full and self.consumer is Consumer.CANCELLING):
            self.window.release(reason)
        if gone:
            self.window.released()
            if self.state is State.GIVING_BACK:
                self.state = self.state.after(StateEvent.GIVEN_BACK)

    def take_cancels(self) -> list[str]:
        """Hand over the consumers whose cancel is to be written now, before acks and requeues."""
        cancels, self._cancels = self._cancels, []
        return cancels

    def _cancel(self) -> None:
        self.consumer = self.consumer.after(ConsumerEvent.CANCEL)
        self._cancel_each(self._tags)

    def _cancel_each(self, consumer_tags: list[str]) -> None:
        new = [tag for tag in consumer_tags if tag not in self._cancelled]
        self._cancels += new
        self._cancelled.update(new)

    # --- Time --------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Let time pass."""
        if self.stopping:
            if self.state is State.STOPPING and self.consumer is Consumer.ON:
                self._end_lingering(now_s)
            return
        if self._source_open and self.window.books.held and self._held_for_too_long(now_s):
            if self.stream:
                text = f"the destination accepted nothing for {self.window.limits.hold_timeout_s:g} s"
                self._ending_source = Ending("hold-timeout", text)
                self.window.give_up(now_s)
            else:
                self._give_back("hold-timeout", now_s)
        full = self.window.full and self.consumer is Consumer.ON and self.state in _ACTIVE
        if not full or self.facts.deleted_by_cancel or self.stream:
            self._full_since_s = None
        elif self._full_since_s is None:
            self._full_since_s = now_s
        elif now_s - self._full_since_s >= MEMORY_FULL_S:
            self._full_since_s = None
            self._fitting = max(1, self.window.in_flight)
            self.state = self.state.after(StateEvent.MEMORY_FULL)
            self._cancel()

    def _held_for_too_long(self, now_s: float) -> bool:
        if self.state not in {*_ACTIVE, State.SHEDDING} or (self.facts.deleted_by_cancel and not self.stream):
            return False
        hold_s = self.window.limits.hold_timeout_s
        if self.state is State.PROBING and self.facts.requeues_counted and not self.stream:
            hold_s = max(hold_s, PROBE_HOLD_S)
        return self.window.trouble.seconds(now_s) >= hold_s

    def _end_lingering(self, now_s: float) -> None:
        """Cancel the consumer once all is forwarded and no delivery has come since the last tick, or at half-time.

        A queue that the cancel deletes is emptied first, as far as time allows (see `queue_answered`).
        """
        if self.facts.deletes_itself:
            self._last_call = now_s >= self._stop_at_s - self._shutdown_timeout_s / 10
            return
        books = self.window.books
        drained = not (books.published or self.window.publishable) and books.received == self._received_by_tick
        self._received_by_tick = books.received
        if drained or not self.withholds or now_s >= self._stop_at_s - self._shutdown_timeout_s / 2:
            self._cancel()
