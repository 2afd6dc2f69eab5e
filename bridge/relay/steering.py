"""The steering, sans-I/O: what a bridge does next, decided in one place.

Events of both sides come in, and `decide` says what follows: consume with so many, open the quarantine, ask the
queue, end a generation, stop. The supervisor does it with sockets, the simulation without; neither decides anything.
Whether and how the bridge consumes is one state (see `state`); the consumers of a source generation are an object that
is dropped with it (see `consumption`).

What it does not do: settle deliveries, which is `window`'s; encode and connect, which is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from bridge.amqp.content import stream_offset
from bridge.relay.brake import Brake
from bridge.relay.consumer import Consumer
from bridge.relay.consumption import Consumption
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.state import ACTIVE, State, StateEvent
from bridge.relay.watchdog import Watchdog
from bridge.window.limits import LIMIT_MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.amqp.events import Close, Delivery
    from bridge.relay.plan import Plan
    from bridge.relay.quarantine import Quarantine
    from bridge.window.window import Window
    from bridge.words import EndReason, RequeueReason, SideName

RETURNED_OFTEN = 3
"""From this delivery count on a message may be the one that ends generations or processes."""
PROBE_AGAIN_S, PROBE_AGAIN_MAX_S = 0.2, 30.0
"""Pause after a refused probe: doubles from the one up to the other."""
PROBE_HOLD_S = 1500.0
"""How long a refused probe is held where requeueing counts towards a delivery limit: well below the consumer timeout of
30 minutes."""
UNREADABLE_AFTER = 3
"""Closes with an internal error in a row, nothing delivered, after which the head of the queue is called unreadable."""
INTERNAL_ERROR = 541
UNREADABLE = (
    "the broker closes the channel or the connection (541) at the message at the head of the queue, which it cannot "
    "read: take it out of the queue at the broker"
)
LAST_CALL = 0.1
"""Share of the shutdown timeout, at its end, in which nothing more is published: only confirms are waited for."""
BRAKED = {State.PAUSING: "braking", State.PAUSED: "braked"}
"""What these are called where it is the brake that asks for them."""
ASK_AGAIN_S = 1.0
"""How often a queue that our exit deletes is asked, during a shutdown, whether it is empty."""


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
class AskDestination:
    """Have the destination's queue counted; its answers go to the `brake`."""


@dataclass(frozen=True, slots=True)
class EndGeneration:
    """End this side's generation."""

    side: SideName
    reason: EndReason
    """For `/metrics`."""
    text: str
    drop: bool = True
    """Whether to drop the connection without a word, since its broker does not answer."""


@dataclass(frozen=True, slots=True)
class Stop:
    """All is settled, or time is up: write what is to be written, close both sides and end."""


Action = Consume | OpenQuarantine | AskQueue | AskDestination | EndGeneration | Stop


class Steering:
    """Decides for one bridge, over all its generations."""

    def __init__(
        self,
        window: Window,
        quarantine: Quarantine,
        plan: Plan,
        unfinished: Callable[[], tuple[int, ...]],
    ) -> None:
        """`unfinished` returns numbers that change while a delivery arrives."""
        self.window = window
        self.state = State.PAUSED if plan.start_paused else State.PROBING
        self.facts = QueueFacts(queue_type=plan.queue_type)
        self.last_found: QueueState | None = None
        """What the queue said of itself last."""
        self.watchdog = Watchdog(self, plan.ask_every_s)
        self.brake = Brake(window, plan.destination_max_ready, plan.destination_min_consumers)
        self._unused_pause_s = plan.unused_pause_s
        self._unfinished = unfinished

        self._quarantine = quarantine

        self._source = Consumption(window, opened=False)
        self.publishes = True
        """Whether to publish what is held.

        Not while it is unknown whether it still is ours (see `cancelled`), not in a pause that keeps its consumer, and
        not at the very end of a shutdown.
        """

        self._kind_told = False
        """Whether this generation's deliveries have told whether they are a stream's."""
        self._returned_often = False
        """Whether this generation was sent a message that has been returned `RETURNED_OFTEN` times."""
        self._accepted_before = 0
        """How many messages the destination had accepted when the bridge began to probe."""
        self._consume_at_s = 0.0
        self._probes_refused = 0
        self._unused = 0
        """Source generations in a row that had something to deliver and ended without an ack."""
        self._unreadable = 0
        self._requeueing_for: RequeueReason = "probe"

        self._shutdown_timeout_s = plan.shutdown_timeout_s
        self._stop_at_s = 0.0
        """Until when a shutdown or a rest forwards."""
        self._linger_until_s = 0.0
        """Until when its consumer stays for what is still to be confirmed."""
        self.told_to_pause = plan.start_paused
        """Whether an operator wants the bridge to be paused, whatever of it has been done."""
        self._ask_at_s = 0.0
        self._received_by_tick = -1
        """How many had been received at the last tick of a shutdown or a pause."""

    # --- What can be asked -------------------------------------------------------------------------------

    @property
    def consumer(self) -> Consumer:
        """Whether the source delivers."""
        return self._source.consumer

    @property
    def prefetch(self) -> int:
        """What is consumed with now; 0 while nothing is."""
        return self._source.prefetch if self.consumer is Consumer.ON else 0

    @property
    def cancelling(self) -> bool:
        """Whether a consumer is being cancelled: all, or the one that is replaced."""
        return self._source.cancelling

    @property
    def stream(self) -> bool:
        """Whether the source is known to be a stream: nothing can be requeued there."""
        return self.facts.queue_type == "stream"

    @property
    def stopping(self) -> bool:
        """Whether a shutdown has begun."""
        return self.state in {State.STOPPING, State.ABANDONED}

    @property
    def pausing(self) -> bool:
        """Whether the bridge rests, for an operator or by its brake; what is held may still be on its way."""
        return self.state in {State.PAUSING, State.PAUSED}

    @property
    def rests(self) -> bool:
        """Whether the bridge is to rest, whatever of it has been done."""
        return self.told_to_pause or self.brake.rests

    @property
    def braked(self) -> bool:
        """Whether the bridge rests by its brake alone."""
        return self.brake.rests and not self.told_to_pause and not self.stopping

    @property
    def paused_by_operator(self) -> bool:
        """Whether an operator has paused the bridge, or has just resumed it and the pause is not complete."""
        return self.pausing and (self.told_to_pause or (not self.brake.rests and self._stop_at_s < inf))

    @property
    def told_state(self) -> str:
        """The state in a word, for an operator."""
        return BRAKED.get(self.state, self.state.value) if self.braked else self.state.value

    @property
    def abandoned(self) -> bool:
        """Whether time is up."""
        return self.state is State.ABANDONED

    @property
    def shedding(self) -> bool:
        """Whether the bodies of deliveries are to be dropped."""
        return self.state is State.SHEDDING

    @property
    def hindrance(self) -> str:
        """What keeps the source from delivering although its channel is open, for an operator."""
        if self._unreadable < UNREADABLE_AFTER:
            return ""
        if self._spares_the_unreadable:
            return f"{UNREADABLE}; consuming has stopped before its delivery limit"
        return UNREADABLE

    @property
    def received(self) -> tuple[int, ...]:
        """How much has been received from the source, in numbers that change whenever more comes."""
        return self.window.books.received, *self._unfinished()

    @property
    def expects_deliveries(self) -> bool:
        """Whether the source would deliver if it had something: consuming, with room in the prefetch and in memory."""
        return self.consumer is Consumer.ON and not self.paused and self.window.in_flight < self._source.room_until

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
        awaits = self._source.awaits_answer or self.shedding or self.consumer is Consumer.LOST
        return self.window.full and not awaits

    @property
    def withholds(self) -> bool:
        """Whether acks and requeues wait for a cancel.

        A consumer whose deliveries are not acked is sent no more than its prefetch. In a shutdown or a pause, a standby
        begins where the cancelled consumer ends, and what it publishes may overtake what is not confirmed yet (4.3.6).
        A message that is set out for a consumer that is gone ends up behind all others in a quorum queue of 4.3.
        """
        if self.consumer is not Consumer.ON:
            return False
        if self.state is State.STOPPING:
            return self._lingers and not self.facts.deletes_itself
        if self.state is State.PAUSING:
            return self._lingers and not self._kept_by_pause
        widens = self.state is State.WIDENING and self._has_room
        return widens or self._source.replaces or self._source.adds

    @property
    def _has_room(self) -> bool:
        """Whether what another consumer delivers could be forwarded."""
        window = self.window
        return window.destination_ready and not window.orphans and not window.full

    @property
    def _lingers(self) -> bool:
        """Whether a shutdown or a pause still forwards: the destination is healthy, or its answers are to come."""
        window = self.window
        healthy = window.destination_ready and not window.trouble.lasts
        return healthy or window.books.published > 0

    @property
    def _kept_by_pause(self) -> bool:
        """Whether a pause keeps the consumer, since a cancel might delete the queue."""
        delivers = self.consumer in {Consumer.STARTING, Consumer.ON}
        return delivers and self.facts.deleted_by_cancel and not self.stream

    @property
    def _spares_the_unreadable(self) -> bool:
        limit = self.window.limits.delivery_limit
        return self.facts.queue_type != "classic" and 0 < limit <= self._unreadable + LIMIT_MARGIN

    def wanted(self, now_s: float) -> Consume | None:
        """Return how to consume, when a consumer should be started now."""
        window, source = self.window, self._source
        idle = source.opened and not source.asking and not self.stopping and not self.pausing
        if not idle or not self._has_room or now_s < self._consume_at_s or self.brake.rests or self.brake.holds:
            return None
        if self.consumer is Consumer.OFF:
            if self._spares_the_unreadable or self.state is State.REQUEUEING:
                return None
        elif self.consumer is not Consumer.ON or source.replaces or not self._replaces(now_s):
            return None
        prefetch = self._whole_prefetch
        if self.state is State.PROBING and not self.stream and self.facts.replaceable:
            # What is parked was seen through as far as it goes: as many again may be looked at.
            prefetch = 1 if self._returned_often else min(prefetch - window.in_flight, max(1, window.parked))
        return Consume(max(1, prefetch), window.resume_offset)

    @property
    def _whole_prefetch(self) -> int:
        return min(self.window.prefetch, self._source.fitting)

    def _replaces(self, now_s: float) -> bool:
        """Whether the consumer is to be replaced by another."""
        return self.state is State.WIDENING or self._stands_behind_others(now_s)

    def _stands_behind_others(self, now_s: float) -> bool:
        """Whether all that is consumed is parked, or waits for a quarantine that is left alone for now.

        Then one more is needed to see one through.
        """
        window = self.window
        waiting = window.parked + (len(window.condemned) if self._quarantine.rests(now_s) else 0)
        used = window.in_flight >= self._source.room_until and window.in_flight == waiting
        room = window.in_flight < window.limits.prefetch and not window.everything_returned
        return self.state is State.PROBING and used and room

    # --- The next action ---------------------------------------------------------------------------------

    def decide(self, now_s: float, unsent_bytes: int = 0) -> Action | None:
        """Decide what is to be done next, None for nothing; to be called until it returns None, and after each tick.

        `unsent_bytes` are in the destination's socket.
        """
        if self.state is State.ABANDONED:
            return None
        if self.state is State.STOPPING and (self.source_drained or now_s >= self._stop_at_s):
            self._abandon()
            return Stop()
        if self.brake.question_due_s <= now_s and self.state is not State.STOPPING:
            self.brake.ask(now_s)
            return AskDestination()
        if (ending := self._ending(now_s, unsent_bytes)) is not None or not self._source.opened or self._source.asking:
            return ending
        return self._ask(now_s)

    @property
    def quiet_until_s(self) -> float:
        """Until when there is nothing to decide unless something comes; to be asked after `decide`. -inf for now.

        Nothing is in flight, and the bridge either consumes, is paused or has no source. All else has times of its own.
        """
        window, source = self.window, self._source
        idle = not (window.in_flight or window.publishing or window.trouble.refusals or source.asking)
        if not idle or self.state not in {State.PROBING, State.RUNNING, State.PAUSED}:
            return -inf
        if not source.opened or (self.state is State.PAUSED and self.consumer is Consumer.OFF):
            return self.brake.question_due_s
        settled = window.destination_ready and not window.trouble.lasts and not source.replaces
        if not settled or self.consumer is not Consumer.ON:
            return -inf
        due_s = self.watchdog.question_due_s if self.facts.answers else inf
        return min(due_s, self.brake.question_due_s)

    def _ending(self, now_s: float, unsent_bytes: int) -> EndGeneration | None:
        """Return the generation that must end, if one must."""
        if (ending := self.watchdog.watch_destination(now_s, unsent_bytes)) is not None:
            self.window.destination_unconfirmed(now_s)
            return EndGeneration("destination", *ending)
        if not self._source.opened:
            return None
        if (ending := self.watchdog.watch_source(now_s)) is not None:
            if ending.reason == "quarantine-timeout":
                self._quarantine.unanswered(now_s)
            return EndGeneration("source", *ending)
        if (ending := self._source.ending) is not None:
            return EndGeneration("source", *ending, drop=ending.reason == "stalled")
        if self._source.deleted and self._lost_for_good(now_s):
            return EndGeneration("source", "consumer-cancelled", "the broker cancelled the consumer", drop=False)
        return None

    def _lost_for_good(self, now_s: float) -> bool:
        """Whether the generation of a deleted queue can end: what it holds may exist nowhere else any more."""
        since_s = self._source.lost_s
        return since_s is not None and (self.source_drained or now_s - since_s >= self.window.limits.hold_timeout_s)

    def _ask(self, now_s: float) -> Action | None:
        action: Action | None = None
        lost = self.consumer is Consumer.LOST and not self._source.deleted
        consume = self.wanted(now_s)
        if consume is not None and self.consumer is Consumer.ON and self.facts.replaced_by_cancel_first:
            self._source.cancel()
            return None
        if consume is not None:
            self._source.ask(consume.prefetch)
            action = consume
        elif lost or now_s >= self._ask_at_s > 0.0:
            self._ask_at_s = now_s + ASK_AGAIN_S if self._ask_at_s else 0.0
            action = AskQueue()
        elif self._quarantine.wanted(now_s):
            self._quarantine.open()
            action = OpenQuarantine()
        elif self.facts.answers and self.watchdog.question_due(now_s):
            action = AskQueue()
        if action is not None:
            self._source.wait()
        return action

    # --- The source's answers ----------------------------------------------------------------------------

    def source_opened(self, facts: QueueFacts | None = None) -> None:
        """The source's channel is open: a generation begins; `facts` are what its broker said of the queue."""
        self._source = Consumption(self.window, opened=True)
        self._kind_told = self._returned_often = False
        if facts is not None:
            self.facts = facts
        self._accepted_before = self.window.accepted
        if self.stream:
            self.window.read_stream()

    def source_lost(self, close: Close | None, now_s: float) -> None:
        """The source's generation ended: nothing that was asked will be answered."""
        lost, self._source = self._source, Consumption(self.window, opened=False)
        self.publishes = True
        if lost.in_use:
            self._unused = 0
        elif lost.offered:
            self._unused += 1
            if self._unused > 1:
                pause_s = min(self.window.limits.hold_timeout_s, self._unused_pause_s * 2.0 ** min(self._unused, 16))
                self._consume_at_s = max(self._consume_at_s, now_s + pause_s)
        if lost.received:
            self._unreadable = 0
        elif lost.offered and close is not None and close.reply_code == INTERNAL_ERROR:
            self._unreadable += 1
        well = lost.in_use and not self._returned_often
        self.state = self.state.after(StateEvent.LOST_IN_USE if well else StateEvent.LOST_UNUSED)

    def delivered(self, first: Delivery) -> None:
        """Deliveries have come, this one first: what has been returned stands at the head of a queue.

        Only those of a stream have an offset among their headers.
        """
        if first.delivery_count >= RETURNED_OFTEN:
            self._returned_often = True
        if self.facts.queue_type is None and not self._kind_told:
            self._kind_told = True
            if stream_offset(first.content) is not None:
                self.facts = replace(self.facts, queue_type="stream")
                self.window.read_stream()

    def starting(self, consumer_tag: str, now_s: float, ready: int = 0) -> bool:
        """`basic.consume` is about to be sent; return whether it still should be.

        `ready` is how many messages the queue has: a broker that fails at the first of them may never answer.
        """
        wanted = self.state in ACTIVE and not self.brake.rests
        if self.state is State.WIDENING and self._source.prefetch < self._whole_prefetch:
            return False  # it was asked for as a probe, and is to be one with the whole prefetch by now
        if not wanted or not (
            self.consumer is Consumer.OFF or (self.consumer is Consumer.ON and self._replaces(now_s))
        ):
            return False
        self._source.start(consumer_tag)
        self._source.found(ready)
        self.window.memory.consuming(now_s)
        return True

    def not_started(self) -> None:
        """It was not sent, since it was no longer wanted."""
        self._source.answered()

    def started(self, before: QueueState) -> None:
        """`consume-ok` has come; `before` is what the queue said of itself right before."""
        source = self._source
        source.answered()
        self.last_found = before
        source.found(before.ready)
        if not before.ready:
            self._unreadable = 0
        if self.consumer is Consumer.STARTING:
            self.watchdog.consuming(before, source.received_before)
        source.started()
        if self.consumer is Consumer.ON:
            lingers = self.state is State.STOPPING and (self._lingers or self.facts.deletes_itself)
            lingers |= self.pausing and (self._lingers or self._kept_by_pause)
            if self.state not in ACTIVE and not lingers:
                source.cancel()

    def cancelled(self, consumer_tag: str, now_s: float, *, by_us: bool) -> None:
        """A consumer is gone: our cancel was answered, or the broker cancelled it.

        The broker does that when the queue is deleted or moves, and since 4.3 when a delivery was held for longer than
        the consumer timeout: then it has requeued what we hold. So nothing more is published until the queue answered.
        """
        if not by_us:
            self._source.cancelled_by_broker(now_s)
            self.window.consumer_lost()
            self.publishes = False
            return
        self._source.cancelled(consumer_tag)
        if self.state is State.SHEDDING and self.consumer is Consumer.OFF:
            self.state = self.state.after(StateEvent.SHED)
        elif self.state is State.WIDENING and not self._source.replaces:
            self.state = self.state.after(StateEvent.WIDENED)

    def quarantine_opened(self) -> None:
        """The quarantine's queue exists, and its channel is open."""
        self._source.answered()
        self._quarantine.opened()

    def quarantine_unavailable(self, now_s: float) -> None:
        """The quarantine could not be opened."""
        self._source.answered()
        self._quarantine.unavailable(now_s)

    def queue_answered(self, found: QueueState | None, now_s: float) -> None:
        """The queue answered, or (None) did not."""
        self._source.answered()
        self.last_found = found or self.last_found
        if self.consumer is Consumer.LOST:
            if found is not None and found.exists and found.ready >= self.window.in_flight:
                text = "the broker cancelled the consumer and requeued what it held (consumer timeout, or a move)"
                self._source.end("consumer-cancelled", text)
            else:
                self._source.gone()
                self.publishes = True
                if found is None or found.exists:
                    self.window.doubt()
        elif self.state is not State.STOPPING:
            answer = found if found is not None and found.exists else None
            if (ending := self.watchdog.answered(answer, now_s)) is not None:
                self._source.end(*ending)
        elif found is not None and not found.ready and not self.window.in_flight and self.consumer is Consumer.ON:
            self._source.cancel()

    # --- Shutting down -----------------------------------------------------------------------------------

    def stop(self, now_s: float) -> None:
        """Shut down: forward what a healthy destination accepts, stop consuming, requeue the rest."""
        self.publishes = self.publishes or (self.pausing and self.consumer is not Consumer.LOST)
        self._begin_to_drain(now_s, self._shutdown_timeout_s)
        self.state = self.state.after(StateEvent.STOP)
        if self.facts.deletes_itself:
            self._ask_at_s = now_s
        elif self.consumer is Consumer.ON and not self.withholds:
            self._source.cancel()

    def _abandon(self) -> None:
        if self.consumer is Consumer.ON:
            self._source.cancel()
        self.state = self.state.after(StateEvent.TIME_IS_UP)
        if not self.stream:
            self.window.release_published("shutdown")
            self.window.release("shutdown")

    # --- Resting -----------------------------------------------------------------------------------------

    def pause(self, now_s: float) -> None:
        """Pause: forward what a healthy destination accepts, stop consuming, requeue the rest, until `resume`."""
        self.told_to_pause = True
        self._begin_to_rest(now_s, self._shutdown_timeout_s)

    def resume(self) -> None:
        """End a pause, at once or as soon as it is complete."""
        self.told_to_pause = False
        if self.state is State.PAUSED and not self.rests:
            self._go_on()

    def _obey_brake(self, now_s: float) -> None:
        """Rest for as long as the destination's queue asks for it.

        What is held is forwarded, however long that takes: to requeue it would use up a delivery limit.
        """
        if self.brake.rests:
            self._begin_to_rest(now_s, inf)
        elif self.state is State.PAUSED and not self.rests:
            self._go_on()

    def _begin_to_rest(self, now_s: float, timeout_s: float) -> None:
        """Cancel and drain, unless that has been begun; a pause is in a hurry also where the brake has begun it.

        A queue that a cancel may delete keeps its consumer: there what is held stays held.
        """
        if self.stopping or self.state is State.PAUSED:
            return
        if self.state is State.PAUSING:
            self._stop_at_s = min(self._stop_at_s, now_s + timeout_s)
            return
        self._begin_to_drain(now_s, timeout_s)
        self.state = self.state.after(StateEvent.PAUSE)
        if self._kept_by_pause:
            self.publishes = False
        elif self.consumer is Consumer.ON and not self.withholds:
            self._source.cancel()

    def _begin_to_drain(self, now_s: float, timeout_s: float) -> None:
        self._stop_at_s = now_s + timeout_s
        self._linger_until_s = now_s + self._shutdown_timeout_s / 2
        self._received_by_tick = -1
        if self.window.quota is not None:
            self.window.quota.lift(on=True)

    def _go_on(self) -> None:
        """Consume again, a single message first: the destination may be another by now."""
        self.state = self.state.after(StateEvent.RESUME)
        self.publishes = self.consumer is not Consumer.LOST or self._source.deleted
        self._accepted_before = self.window.accepted
        if self.window.quota is not None:
            self.window.quota.lift(on=False)

    def _come_to_rest(self, now_s: float) -> None:
        """Requeue what the destination has not accepted in time; note when nothing is left to do.

        What a lost consumer has delivered may exist nowhere else any more: it is held until its generation ends.
        """
        window, consumer = self.window, self.consumer
        draining = now_s < self._stop_at_s and (self._draining or self._waits_out(now_s))
        if consumer is not Consumer.LOST:
            self._release("pause" if self._stop_at_s < inf else "brake", draining=draining)
        if self.stream and consumer is Consumer.OFF and window.books.held and not draining:
            self._source.end("paused", "the bridge rests, and what it holds of a stream cannot be requeued")
        if consumer is Consumer.OFF:
            left = window.in_flight
        elif consumer is Consumer.ON and not self.publishes:
            left = window.books.published + window.quarantining
        else:
            return
        if left:
            return
        self.state = self.state.after(StateEvent.AT_REST)
        if not self.rests:
            self._go_on()

    def _waits_out(self, now_s: float) -> bool:
        """Whether a brake holds on until a destination is well again that broke on the way, as ever."""
        window = self.window
        trouble = window.trouble.lasts or not window.destination_ready
        held = window.books.held > window.parked
        return self._stop_at_s == inf and trouble and held and not self._held_out(now_s)

    def _held_out(self, now_s: float) -> bool:
        return self.window.trouble.seconds(now_s) >= self.window.limits.hold_timeout_s

    # --- Before what is settled is written ---------------------------------------------------------------

    def settle(self, now_s: float) -> bool:
        """Decide what is to go with the acks and requeues that are about to be written: a cancel, or more requeues.

        Return whether the caller must look at `take_cancels`, `shedding` and `withholds`: rarely, and never on the hot
        path.
        """
        if self.state is State.RUNNING and not self._source.replaces:
            return False
        if self.state is State.PROBING:
            self._judge_probe(now_s)
        if self.state is State.REQUEUEING:
            self._release(self._requeueing_for, draining=False)
        elif self.state is State.STOPPING:
            self._release("shutdown", draining=self._draining)
        elif self.state is State.PAUSING:
            self._come_to_rest(now_s)
        return True

    def _judge_probe(self, now_s: float) -> None:
        if self.consumer is Consumer.STARTING or self._source.replaces:
            return  # its message may be accepted before its start, or the end of the one it replaces, is known
        window = self.window
        if window.accepted > self._accepted_before:
            self._accepted_before = window.accepted
            self._probes_refused = 0
            count = window.last_accepted_count
            if self.consumer is Consumer.ON and count is not None and count < RETURNED_OFTEN:
                self.state = self.state.after(StateEvent.ACCEPTED)
                if self._source.prefetch >= window.prefetch:
                    self.state = self.state.after(StateEvent.WIDENED)
        elif self._source.refused and window.held_only and self._requeues_probes:
            self._requeue_held("probe", now_s)

    @property
    def _requeues_probes(self) -> bool:
        """Whether a refused probe is requeued at once, so that no lost connection counts for it."""
        return not (self.facts.requeues_counted or self.facts.deleted_by_cancel or self.stream)

    @property
    def _draining(self) -> bool:
        """Whether a shutdown or a pause still forwards.

        A quorum queue of RabbitMQ 3.10 puts what is requeued behind all others (measured), and counts it towards its
        delivery limit.
        """
        window = self.window
        return window.books.published > 0 or window.publishable or window.quarantining > 0

    def _requeue_held(self, reason: RequeueReason, now_s: float) -> None:
        """Cancel the consumer and requeue what is held; then probe, after a pause."""
        self.window.give_up(now_s)
        self._requeueing_for = reason
        pause_s = min(PROBE_AGAIN_MAX_S, PROBE_AGAIN_S * 2.0 ** min(self._probes_refused, 16))
        self._probes_refused += 1
        self._consume_at_s = max(self._consume_at_s, now_s + pause_s)
        self._accepted_before = self.window.accepted
        self.state = self.state.after(StateEvent.REQUEUE)
        if self.consumer is Consumer.ON:
            self._source.cancel()

    def _release(self, reason: RequeueReason, *, draining: bool) -> None:
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
            if self.state is State.REQUEUEING:
                self.state = self.state.after(StateEvent.REQUEUED)

    def take_cancels(self) -> list[str]:
        """Hand over the consumers whose cancel is to be written now, before acks and requeues."""
        return self._source.take_cancels()

    # --- Time --------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Let time pass."""
        if self.stopping:
            if self.state is State.STOPPING and self.consumer is Consumer.ON:
                self._end_lingering(now_s, keeps=self.facts.deletes_itself)
            return
        self._obey_brake(now_s)
        if self.pausing:
            if self.state is State.PAUSING and self.consumer is Consumer.ON:
                self._end_lingering(now_s, keeps=self._kept_by_pause)
            return
        if self._source.opened and self.window.books.held and self._held_for_too_long(now_s):
            if self.stream:
                text = f"the destination accepted nothing for {self.window.limits.hold_timeout_s:g} s"
                self._source.end("hold-timeout", text)
                self.window.give_up(now_s)
            else:
                self._requeue_held("hold-timeout", now_s)
        if self._source.watch_memory(now_s) and not self.facts.deleted_by_cancel and not self.stream:
            self._source.shed()
            self.state = self.state.after(StateEvent.MEMORY_FULL)

    def _held_for_too_long(self, now_s: float) -> bool:
        if self.state not in {*ACTIVE, State.SHEDDING} or (self.facts.deleted_by_cancel and not self.stream):
            return False
        hold_s = self.window.limits.hold_timeout_s
        if self.state is State.PROBING and self.facts.requeues_counted and not self.stream:
            hold_s = max(hold_s, PROBE_HOLD_S)
        return self.window.trouble.seconds(now_s) >= hold_s

    def _end_lingering(self, now_s: float, *, keeps: bool) -> None:
        """Cancel the consumer once all is forwarded and no delivery has come since the last tick, or at half-time.

        A queue that the cancel deletes `keeps` its consumer: in a shutdown it is emptied first, as far as time allows
        (see `queue_answered`).
        """
        if keeps:
            if now_s >= self._stop_at_s - self._shutdown_timeout_s * LAST_CALL:
                self.publishes = False
            return
        books = self.window.books
        drained = not (books.published or self.window.publishable) and books.received == self._received_by_tick
        self._received_by_tick = books.received
        if drained or not self.withholds or now_s >= self._linger_until_s:
            self._source.cancel()
