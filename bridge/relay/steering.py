"""The steering, sans-I/O: what a bridge does next, decided in one place.

Events of both sides come in, and `decide` says what follows: consume with so many, open the quarantine, ask the
queue, end a generation, stop. The supervisor does it with sockets, the simulation without; neither decides anything.

Whether and how the bridge consumes is one state. Every pair that is not in the table is a bug and raises:

| event        | RUNNING     | PROBING     | GIVING_BACK | STOPPING  | ABANDONED |
|--------------|-------------|-------------|-------------|-----------|-----------|
| hold timeout | GIVING_BACK | GIVING_BACK | GIVING_BACK | STOPPING  |           |
| given back   |             |             | PROBING     |           |           |
| judged       | RUNNING     | RUNNING     | GIVING_BACK | STOPPING  |           |
| source lost  | RUNNING     | PROBING     | PROBING     | STOPPING  | ABANDONED |
| stop         | STOPPING    | STOPPING    | STOPPING    | STOPPING  | ABANDONED |
| time is up   |             |             |             | ABANDONED |           |

*Running*: it consumes with the whole prefetch. *Giving back*: the destination took nothing for `hold_timeout`; the
consumer is cancelled and all that is held is requeued. *Probing*: a single message tries whether the destination
takes messages again. *Stopping*: what a healthy destination takes is still forwarded, the rest is requeued.
*Abandoned*: time was up, and what is published is requeued too; what the destination still answers has nobody to hear
it.

What it does not do: settle deliveries, which is `window`'s; encode and connect, which is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from bridge.relay.consumer import Consumer, ConsumerEvent
from bridge.relay.watchdog import Ending, QueueState, Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.relay.backoff import Backoff
    from bridge.relay.plan import Plan
    from bridge.relay.quarantine import Quarantine
    from bridge.window.window import Window
    from bridge.words import SideName

QUARANTINE_AGAIN_S = 300.0
"""How long a quarantine that did not answer is left alone: a publish to a broker with an alarm stops the connection."""


class State(Enum):
    """Whether and how the bridge consumes."""

    RUNNING = "running"
    PROBING = "probing"
    GIVING_BACK = "giving back"
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

    HOLD_TIMEOUT = "hold timeout"
    GIVEN_BACK = "given back"
    JUDGED = "judged"
    SOURCE_LOST = "source lost"
    STOP = "stop"
    TIME_IS_UP = "time is up"


TRANSITIONS: dict[StateEvent, dict[State, State]] = {
    StateEvent.HOLD_TIMEOUT: {
        State.RUNNING: State.GIVING_BACK,
        State.PROBING: State.GIVING_BACK,
        State.GIVING_BACK: State.GIVING_BACK,
        State.STOPPING: State.STOPPING,
    },
    StateEvent.GIVEN_BACK: {State.GIVING_BACK: State.PROBING},
    StateEvent.JUDGED: {
        State.RUNNING: State.RUNNING,
        State.PROBING: State.RUNNING,
        State.GIVING_BACK: State.GIVING_BACK,
        State.STOPPING: State.STOPPING,
    },
    StateEvent.SOURCE_LOST: {
        State.RUNNING: State.RUNNING,
        State.PROBING: State.PROBING,
        State.GIVING_BACK: State.PROBING,
        State.STOPPING: State.STOPPING,
        State.ABANDONED: State.ABANDONED,
    },
    StateEvent.STOP: {
        State.RUNNING: State.STOPPING,
        State.PROBING: State.STOPPING,
        State.GIVING_BACK: State.STOPPING,
        State.STOPPING: State.STOPPING,
        State.ABANDONED: State.ABANDONED,
    },
    StateEvent.TIME_IS_UP: {State.STOPPING: State.ABANDONED},
}


@dataclass(frozen=True, slots=True)
class Consume:
    """Consume from the source with this prefetch; then call `starting` and `started`."""

    prefetch: int


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
        self.watchdog = Watchdog(self, stream=plan.stream)
        self.state = State.RUNNING
        self.consumer = Consumer.OFF
        self.consumer_tag = ""
        self.from_stream: bool | None = None
        """Whether the source is a stream, which says so in its deliveries; None before the first."""
        self._unfinished = unfinished

        self._quarantine = quarantine
        self._quarantine_backoff = quarantine_backoff
        self._quarantine_at_s = 0.0

        self._source_open = False
        self._asking = False
        """Whether an action that the source's broker must answer is under way."""
        self._prefetch = 0
        self._received_before = 0
        """How many had been received when it was decided to consume."""
        self._stalled: Ending | None = None
        """Reason to end the generation that the queue's last answer gave."""
        self._lost_since_s: float | None = None
        """Since when the consumer has been lost."""
        self._cancels = False
        """Whether the cancel is to be written."""
        self._verdicts_before = 0
        """How many verdicts there had been when all was given back."""

        self._shutdown_timeout_s = plan.shutdown_timeout_s
        self._stop_at_s = 0.0
        self._received_by_tick = -1
        """How many had been received at the last tick of a shutdown."""

    # --- What can be asked -------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether a shutdown has begun."""
        return self.state in {State.STOPPING, State.ABANDONED}

    @property
    def abandoned(self) -> bool:
        """Whether time is up."""
        return self.state is State.ABANDONED

    @property
    def wanted_prefetch(self) -> int:
        """How many messages to consume with, when consuming should begin now; otherwise 0."""
        window = self.window
        ready = self._source_open and self.consumer is Consumer.OFF and not self.stopping
        if not ready or not window.destination_ready or window.orphans:
            return 0
        return 1 if self.state is State.PROBING else window.limits.prefetch

    @property
    def received(self) -> tuple[int, ...]:
        """How much has been received from the source, in numbers that change whenever more comes."""
        return self.window.books.received, *self._unfinished()

    @property
    def expects_deliveries(self) -> bool:
        """Whether the source would deliver if it had something: consuming, with room in the prefetch and in memory."""
        return self.consumer is Consumer.ON and not self.paused and self.window.in_flight < self._prefetch

    @property
    def source_drained(self) -> bool:
        """Whether the generation holds nothing more and expects nothing: it can be closed without loss."""
        return self.consumer in {Consumer.OFF, Consumer.LOST} and not self.window.in_flight

    @property
    def paused(self) -> bool:
        """Whether the source must not be read from: memory is full (invariant 4).

        Not while the quarantine is being opened: the broker's answers come on the same connection.
        """
        return self.window.full and not self._quarantine.opening

    @property
    def withholds(self) -> bool:
        """Whether acks and requeues wait for the cancel of a shutdown.

        A standby begins where the cancelled consumer ends, and what it publishes may overtake what is not confirmed yet
        (4.3.6). With the acks withheld, the prefetch ends deliveries.
        """
        window = self.window
        healthy = window.destination_ready and not window.trouble.lasts
        return self.state is State.STOPPING and self.consumer is Consumer.ON and (healthy or window.books.published > 0)

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
        if self._stalled is not None:
            return EndGeneration("source", *self._stalled)
        if self._lost_for_good(now_s):
            return EndGeneration("source", "consumer-cancelled", "the broker cancelled the consumer", drop=False)
        return None

    def _lost_for_good(self, now_s: float) -> bool:
        """Whether a lost consumer's generation can end: what it holds can still be forwarded and acked until then.

        It may exist nowhere else any more.
        """
        since_s = self._lost_since_s
        return since_s is not None and (self.source_drained or now_s - since_s >= self.window.limits.hold_timeout_s)

    def _ask(self, now_s: float) -> Action | None:
        action: Action | None = None
        if prefetch := self.wanted_prefetch:
            self._prefetch = prefetch
            self._received_before = self.window.books.received
            action = Consume(prefetch)
        elif self._quarantine.wanted and now_s >= self._quarantine_at_s:
            self._quarantine.open()
            action = OpenQuarantine()
        elif self.watchdog.look_due(now_s):
            action = AskQueue()
        self._asking = action is not None
        return action

    # --- The source's answers ----------------------------------------------------------------------------

    def source_opened(self) -> None:
        """The source's channel is open: a generation begins."""
        self._source_open = True

    def source_lost(self) -> None:
        """The source's generation ended: nothing that was asked will be answered."""
        self._source_open = self._asking = self._cancels = False
        self._lost_since_s = self._stalled = None
        self.consumer = self.consumer.after(ConsumerEvent.SOURCE_LOST)
        self.state = self.state.after(StateEvent.SOURCE_LOST)

    def starting(self, consumer_tag: str, now_s: float) -> None:
        """`basic.consume` is about to be sent."""
        self.consumer = self.consumer.after(ConsumerEvent.START)
        self.consumer_tag = consumer_tag
        self.window.memory.consuming(now_s)

    def started(self, before: QueueState) -> None:
        """`consume-ok` has come; `before` is what the queue said of itself right before."""
        self._asking = False
        self.consumer = self.consumer.after(ConsumerEvent.STARTED)
        self.watchdog.consuming(before, self._received_before)
        if self.state is State.GIVING_BACK or (self.state is State.STOPPING and not self.withholds):
            self._cancel()

    def cancelled(self, now_s: float, *, by_us: bool) -> None:
        """The consumer is gone: our cancel was answered, or the broker cancelled it."""
        self.consumer = self.consumer.after(ConsumerEvent.CANCEL_OK if by_us else ConsumerEvent.CANCELLED_BY_BROKER)
        if self.consumer is Consumer.LOST and self._lost_since_s is None:
            self._lost_since_s = now_s

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
        self._stalled = self.watchdog.looked(found, now_s)

    # --- Shutting down -----------------------------------------------------------------------------------

    def stop(self, now_s: float) -> None:
        """Shut down: forward what a healthy destination takes, stop consuming, requeue the rest."""
        self._stop_at_s = now_s + self._shutdown_timeout_s
        self.state = self.state.after(StateEvent.STOP)
        if self.consumer is Consumer.ON and not self.withholds:
            self._cancel()

    def _abandon(self) -> None:
        if self.consumer is Consumer.ON:
            self._cancel()
        self.state = self.state.after(StateEvent.TIME_IS_UP)
        self.window.release_published("shutdown")
        self.window.release("shutdown")

    # --- Before what is settled is written ---------------------------------------------------------------

    def settle(self) -> None:
        """Decide what is to go with the acks and requeues that are about to be written: a cancel, or more requeues."""
        if self.state is State.PROBING and self.window.verdicts != self._verdicts_before:
            # Before its ack is written: that would have the source set out the next message for a consumer that is
            # gone, and a quorum queue of 4.3 puts such a message behind all that were given back (4.3.6).
            self.state = self.state.after(StateEvent.JUDGED)
            if self.consumer is Consumer.ON and self._prefetch < self.window.limits.prefetch:
                self._cancel()
        if self.state is State.GIVING_BACK:
            self._release("hold-timeout", draining=False)
        elif self.state is State.STOPPING:
            self._release("shutdown", draining=self._draining)

    @property
    def _draining(self) -> bool:
        """Whether a shutdown still forwards.

        A quorum queue of RabbitMQ 3.10 puts what is requeued behind all others (measured), and counts it towards its
        delivery limit.
        """
        window = self.window
        return window.books.published > 0 or window.publishable or window.quarantining

    def _release(self, reason: str, *, draining: bool) -> None:
        """Requeue what is held, once the consumer is gone: in one go, which keeps its order where the queue does.

        When memory is full, nothing more can be read, the answer to the cancel neither: then at once, one by one.
        """
        if draining:
            return
        gone = self.consumer in {Consumer.OFF, Consumer.LOST}
        if gone or (self.window.full and self.consumer is Consumer.CANCELLING):
            self.window.release(reason)
        if gone:
            self.window.released()
            if self.state is State.GIVING_BACK:
                self.state = self.state.after(StateEvent.GIVEN_BACK)

    def take_cancel(self) -> bool:
        """Whether the cancel is to be written now, before acks and requeues; handed over once."""
        cancels, self._cancels = self._cancels, False
        return cancels

    def _cancel(self) -> None:
        self.consumer = self.consumer.after(ConsumerEvent.CANCEL)
        self._cancels = True

    # --- Time --------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Let time pass."""
        window = self.window
        if (
            window.trouble.seconds(now_s) >= window.limits.hold_timeout_s
            and self._source_open
            and window.books.held
            and not self.stopping
        ):
            window.give_up(now_s)
            self._verdicts_before = window.verdicts
            self.state = self.state.after(StateEvent.HOLD_TIMEOUT)
            if self.consumer is Consumer.ON:
                self._cancel()
        if self.state is State.STOPPING and self.consumer is Consumer.ON:
            self._end_lingering(now_s)

    def _end_lingering(self, now_s: float) -> None:
        """Cancel the consumer once all is forwarded and no delivery has come since the last tick, or at half-time."""
        books = self.window.books
        drained = not (books.published or self.window.publishable) and books.received == self._received_by_tick
        self._received_by_tick = books.received
        if drained or not self.withholds or now_s >= self._stop_at_s - self._shutdown_timeout_s / 2:
            self._cancel()
