"""The steering, sans-I/O: what a bridge does next, decided in one place.

Events of both sides come in, and `decide` says what follows: consume with so many, open the quarantine, ask the
queue, end a generation, stop. The supervisor does it with sockets, the simulation without; neither decides anything.
Whether and how the bridge consumes is one state (see `state`); the consumers of a source generation are an object that
is dropped with it (see `consumption`).

It is one object in three files: `course` is the state, with what may be asked; `halt` adds how the bridge stops, pauses
and rests; this file adds all other events.

What it does not do: settle deliveries, which is `window`'s; encode and connect, which is the caller's.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from bridge.amqp.content import stream_offset
from bridge.relay.action import (
    Action,
    AskDestination,
    AskExchange,
    AskFirstOffset,
    AskQueue,
    EndGeneration,
    OpenQuarantine,
    Stop,
)
from bridge.relay.consumer import Consumer
from bridge.relay.consumption import Consumption
from bridge.relay.halt import Halt
from bridge.relay.state import ACTIVE, State, StateEvent
from bridge.window.limits import HELD_MOST_S

if TYPE_CHECKING:
    from bridge.amqp.events import Close, Delivery
    from bridge.relay.queue import QueueFacts, QueueState
    from bridge.words import RequeueReason

RETURNED_OFTEN = 3
"""From this delivery count on a message may be the one that ends generations or processes."""
PROBE_AGAIN_S, PROBE_AGAIN_MAX_S = 0.2, 30.0
"""Pause after a refused probe: doubles from the one up to the other."""
INTERNAL_ERROR = 541
ASK_AGAIN_S = 1.0
"""How often a queue that our exit deletes is asked, during a shutdown, whether it is empty."""
BUFFERED, WRITTEN_S = 32, 0.5
"""A quorum queue takes so many settlements at a time and keeps the others in the channel's process, which forgets them
when it is closed (4.3.6): more of them, the last of a consumer, are given so much time."""


class Steering(Halt):
    """Decides for one bridge, over all its generations."""

    # --- The next action ---------------------------------------------------------------------------------

    def decide(self, now_s: float, unsent_bytes: int = 0) -> Action | None:
        """Decide what is to be done next, None for nothing; to be called until it returns None, and after each tick.

        `unsent_bytes` are in the destination's socket.
        """
        if self.state is State.ABANDONED:
            return None
        drained = self.source_drained and now_s >= self._written_at_s
        if self.state is State.STOPPING and (drained or now_s >= self._stop_at_s):
            self._abandon()
            return Stop()
        if self.brake.question_due_s <= now_s and self.state is not State.STOPPING:
            self.brake.ask(now_s)
            return AskDestination()
        if self.window.destination_ready and (exchange := self.window.exchanges.take_question(now_s)) is not None:
            return AskExchange(exchange)
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
        question_due_s = self.brake.question_due_s
        if window.destination_ready:
            question_due_s = min(question_due_s, window.exchanges.question_due_s)
        if not source.opened or (self.state is State.PAUSED and self.consumer is Consumer.OFF):
            return question_due_s
        settled = window.destination_ready and not window.trouble.lasts and not source.replaces
        if not settled or self.consumer is not Consumer.ON:
            return -inf
        due_s = min(self.watchdog.question_due_s, self._gaps_due_s) if self.facts.answers else inf
        return min(due_s, question_due_s)

    @property
    def _gaps_due_s(self) -> float:
        """When it is to be asked what of a stream was left out; -inf for now, inf for never."""
        offsets = self.window.offsets
        return inf if offsets is None else offsets.gaps.question_due_s

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
        if consume is not None and self.consumer is Consumer.ON and self._replaces_by_cancel_first:
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
        elif self.facts.answers and self._gaps_due_s <= now_s:
            assert self.window.offsets is not None  # noqa: S101 - it has gaps
            self.window.offsets.gaps.ask(now_s)
            action = AskFirstOffset()
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
        if self.state is State.WIDENING and self._source.asked_prefetch < self._whole_prefetch:
            return False  # it was asked for as a probe, and is to be one with the whole prefetch by now
        if not wanted or not (
            self.consumer is Consumer.OFF or (self.consumer is Consumer.ON and self._replaces(now_s))
        ):
            return False
        self._source.start(consumer_tag)
        self._source.found(ready)
        self.window.consuming(self._source.prefetch, now_s)
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
        if self.consumer is Consumer.OFF:
            self.window.consumer_gone()
            if len(self.window.settlement.acks) + self.window.withheld > BUFFERED:
                self._written_at_s = now_s + WRITTEN_S
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

    def first_offset_answered(self, first: int | None) -> None:
        """The broker answered which offset the stream's first message has, or (None) did not."""
        self._source.answered()
        self.window.stream_begins_at(first)

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
                if self._source.prefetch >= window.prefetch or self._keeps_its_consumer:
                    self.state = self.state.after(StateEvent.WIDENED)
        elif self._source.refused and window.held_only and self._requeues_probes:
            self._requeue_held("probe", now_s)

    @property
    def _requeues_probes(self) -> bool:
        """Whether a refused probe is requeued at once, so that no lost connection counts for it."""
        return not (self.facts.requeues_counted or self.facts.deleted_by_cancel or self.stream)

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
        self._watch_landmark(now_s)
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

    def _watch_landmark(self, now_s: float) -> None:
        """End the generation of a stream that lacks a message which it has had: another one has taken its name.

        RabbitMQ delivers nothing from an offset past the end on, neither what is there nor what is published later,
        until the stream has grown to it (3.10.8, 4.3.6). That the queue was missing (404) for a while says less: a
        broker that starts says so of one that it has not found yet (3.10.8).
        """
        offset = self._source.watch_landmark(self.received, now_s)
        if offset is not None and self.window.offsets is not None:
            text = f"the stream delivers nothing from offset {offset} on, where it has had a message: it was deleted "
            self._source.end("stalled", f"{text}and declared again, or cut; it is read from its first message on")
            self.window.offsets.restart()

    def _held_for_too_long(self, now_s: float) -> bool:
        if self.state not in {*ACTIVE, State.SHEDDING} or (self.facts.deleted_by_cancel and not self.stream):
            return False
        hold_s = self.window.limits.hold_timeout_s
        if self.state is State.PROBING and self.facts.requeues_counted and not self.stream:
            hold_s = max(hold_s, HELD_MOST_S)  # each return counts towards its limit
        return self.window.trouble.seconds(now_s) >= hold_s
