"""The halt, sans-I/O: how a bridge ends its consumer and empties its window, to stop, to pause, or by its brake.

All three forward what a healthy destination accepts, and requeue what is left. They differ in the time they have, in
whether something follows, and in the queue that a cancel may delete: a shutdown empties it, as far as time allows; a
rest keeps its consumer.

What it does not do: judge the destination's queue, which is `brake`'s.
"""

from __future__ import annotations

from math import inf

from bridge.relay.consumer import Consumer
from bridge.relay.course import Course
from bridge.relay.state import State, StateEvent

LAST_CALL = 0.1
"""Share of the shutdown timeout, at its end, in which nothing more is published: only confirms are waited for."""


class Halt(Course):
    """A bridge that can stop and rest."""

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
        self.window.consumer_gone()  # what is acked after the cancel lets nothing in
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
        unheard = consumer is Consumer.CANCELLING and window.full  # the answer to the cancel is not read then
        if self.stream and (consumer is Consumer.OFF or unheard) and window.books.held and not draining:
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
