"""The course of a bridge, sans-I/O: its state over all generations, what may be asked of it, and when to consume.

What belongs to one life of the source's channel is in `consumption`, and is dropped with it; what the bridge has seen
of its queue and its destination outlives that, and is here. A query changes nothing.

What it does not do: decide what an event asks for. That is `halt`'s for whatever ends the consumer to empty the
window, and `steering`'s for all else.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from bridge.relay.action import Consume
from bridge.relay.brake import Brake
from bridge.relay.consumer import Consumer
from bridge.relay.consumption import Consumption
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.state import State, StateEvent
from bridge.relay.watchdog import Watchdog
from bridge.window.limits import LIMIT_MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.relay.plan import Plan
    from bridge.relay.quarantine import Quarantine
    from bridge.window.window import Window
    from bridge.words import RequeueReason

UNREADABLE_AFTER = 3
"""Closes with an internal error in a row, nothing delivered, after which the head of the queue is called unreadable."""
UNREADABLE = (
    "the broker closes the channel or the connection (541) before it delivers anything: it cannot read the message at "
    "the head of the queue, which is to be taken out there, or it fails at BRIDGE_SOURCE_CONSUMER_ARGUMENTS"
)
BRAKED = {State.PAUSING: "braking", State.PAUSED: "braked"}
"""What these are called where it is the brake that asks for them."""


class Course:
    """The state of one bridge."""

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
        self._written_at_s = 0.0
        """Before then the source's channel is not to be closed."""
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
        unacked = self.window.in_flight
        if self.window.terms.numbered:
            unacked += self.window.settlement.unacked
        return self.consumer is Consumer.ON and not self.paused and unacked < self._source.room_until

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
        room = window.room or int(window.looks_again)
        if not room or (window.terms.numbered and self.expects_deliveries):
            # What is set out for a consumer that is being cancelled ends up behind all others in a quorum queue: it is
            # waited for until nothing can be.
            return None
        prefetch = self._whole_prefetch
        if self.state is State.PROBING and not self.stream and self.facts.replaceable and not self._keeps_its_consumer:
            # What is parked was seen through as far as it goes: as many again may be looked at.
            passed = window.parked + window.withheld
            prefetch = 1 if self._returned_often else min(prefetch - window.in_flight, max(1, passed))
        offset = None if window.offsets is None else window.offsets.read_at
        return Consume(int(max(1, min(prefetch, room))), offset)

    @property
    def _replaces_by_cancel_first(self) -> bool:
        """Whether a consumer is cancelled before the next one begins; always where the deliveries are numbered."""
        return self.facts.replaced_by_cancel_first or self.window.terms.numbered

    @property
    def _keeps_its_consumer(self) -> bool:
        """Whether the first consumer must stay: the next could only begin after its cancel, which may delete the queue.

        A bridge that takes a number of messages from such a queue takes them with one consumer, and does not probe.
        """
        return self.window.terms.numbered and self.facts.deleted_by_cancel

    @property
    def _whole_prefetch(self) -> int:
        return min(self.window.prefetch, self._source.fitting)

    def _replaces(self, now_s: float) -> bool:
        """Whether the consumer is to be replaced by another."""
        if self._keeps_its_consumer:
            return False
        return self.state is State.WIDENING or self._stands_behind_others(now_s)

    def _stands_behind_others(self, now_s: float) -> bool:
        """Whether all that is consumed is parked, or waits for a quarantine that is left alone for now.

        Then one more is needed to see one through.
        """
        window = self.window
        waiting = window.parked + window.withheld + (len(window.condemned) if self._quarantine.rests(now_s) else 0)
        used = window.in_flight >= self._source.room_until and window.in_flight == waiting
        room = window.in_flight < window.limits.prefetch and not window.everything_returned
        return self.state is State.PROBING and used and room

    @property
    def _draining(self) -> bool:
        """Whether a shutdown or a pause still forwards.

        A quorum queue of RabbitMQ 3.10 puts what is requeued behind all others (measured), and counts it towards its
        delivery limit.
        """
        window = self.window
        return window.books.published > 0 or window.publishable or window.quarantining > 0

    # --- A move ------------------------------------------------------------------------------------------

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
