"""The reporter logs what an operator acts on, each change once: it looks at the bridge from time to time.

What becomes of a side's connections is logged by its keeper, which knows the reason.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from bridge.amqp.content import message_id
from bridge.connection.news import News
from bridge.relay.consumer import Consumer
from bridge.relay.queue import QueueFacts
from bridge.relay.state import State

if TYPE_CHECKING:
    from bridge.amqp.events import Delivery
    from bridge.observe.status import Status
    from bridge.relay.relay import Relay
    from bridge.settings.settings import Settings
    from bridge.window.blame import Verdict

log = logging.getLogger(__name__)

MOST_LINES = 5
"""About so many single messages at a time: where thousands a second are quarantined, they are in the quarantine to be
looked at, and a line for each would cost more than to forward it."""


class Reporter:
    """What has been logged of one bridge, and what is new."""

    def __init__(self, relay: Relay, status: Status, settings: Settings) -> None:
        self._relay = relay
        self._status = status
        self._source_queue = settings.source_queue
        self._quarantine_queue = settings.quarantine_queue_name
        self._consumer = Consumer.OFF
        self._paused = self._braked = False
        self._brake_news = News()
        self._consuming = (0, 0)
        """The source generation that consumes, and its prefetch."""
        self._facts = QueueFacts(queue_type=settings.stated_source_type)
        self._troubled = False
        self._max_in_flight_bytes = settings.max_in_flight_bytes
        self._oversized_told = False
        self._missed = 0

    def tell(self, source_generation: int) -> None:
        """Log what is new; `source_generation` is the present one, or 0 as long as nothing was said of it."""
        self._tell_messages()
        self._tell_source(source_generation)
        self._tell_destination()

    def _tell_messages(self) -> None:
        confirmed = self._relay.quarantine.take_confirmed()
        for delivery, verdict in confirmed[:MOST_LINES]:
            extra = _described(delivery, verdict) | {"queue": self._quarantine_queue}
            log.warning("message quarantined: %s", verdict.reason, extra=extra)
        if (more := len(confirmed) - MOST_LINES) > 0:
            log.warning("%d more messages quarantined", more, extra={"queue": self._quarantine_queue})
        for delivery, verdict in self._relay.window.take_kept():
            why = verdict.held_text or verdict.reply_text or verdict.reason
            log.warning(
                "message held; neither the destination nor a quarantine accepts it: %s",
                why,
                extra=_described(delivery, verdict),
            )

        if (missed := self._relay.window.books.offsets_missed) > self._missed:
            log.warning(
                "%d offsets of stream %s were deleted before they were forwarded (retention); their messages are lost",
                missed - self._missed,
                self._source_queue,
            )
            self._missed = missed
        if (size := self._relay.window.take_oversized()) and not self._oversized_told:
            self._oversized_told = True
            log.warning(
                "a message is larger than BRIDGE_MAX_IN_FLIGHT_BYTES; it is forwarded, and is in memory whole",
                extra={"size_bytes": size, "max_in_flight_bytes": self._max_in_flight_bytes},
            )

    def _tell_source(self, generation: int) -> None:
        steering = self._relay.steering
        if steering.state is State.PAUSED and not self._paused and not steering.braked:
            self._paused = True
            log.info("paused: nothing is consumed until SIGUSR2 or %s", "`amqp-bridge resume`")
        elif self._paused and (steering.braked or not steering.pausing):
            self._paused = False
            if not steering.stopping:
                log.info("resumed")
        self._tell_brake()
        if steering.consumer is Consumer.ON and generation and (generation, steering.prefetch) != self._consuming:
            self._consuming = generation, steering.prefetch
            log.info("consuming", extra={"queue": self._source_queue, "prefetch": steering.prefetch})
        if steering.consumer is not self._consumer:
            self._consumer = steering.consumer
            if self._consumer is Consumer.LOST:
                log.warning(
                    "the source cancelled the consumer (queue %s was deleted or has moved, or the consumer timeout is "
                    "over); forwarding what is held",
                    self._source_queue,
                )
        if self._status.source.up and steering.facts != self._facts:
            self._facts = steering.facts
            if self._facts.advice:
                log.warning("source queue %s %s", self._source_queue, self._facts.advice)

    def _tell_brake(self) -> None:
        """Log the first of a state, and not each time that a queue fills and empties again."""
        steering = self._relay.steering
        if steering.braked is self._braked:
            return
        self._braked = steering.braked
        brake = steering.brake
        if not self._braked:
            if not self._brake_news.repeated:
                log.info("no longer braked")
        elif self._brake_news.note(brake.trouble or str(brake.reason), time.monotonic()):
            if brake.trouble:
                log.warning("braked, and nothing is forwarded: destination: %s", brake.trouble)
            else:
                log.info("braked: destination: %s", brake.text)

    def _tell_destination(self) -> None:
        status, window = self._status.destination, self._relay.window
        blocked = status.up and window.blocked
        if blocked is not status.blocked:
            if blocked:
                status.block(self._relay.destination.blocked_reason, time.time())
                log.warning("destination blocked by the broker (an alarm)")
            else:
                status.unblock()
                if status.up:
                    log.info("destination no longer blocked")
        trouble = window.hindrance or ", ".join(window.degraded)
        if bool(trouble) is not self._troubled:
            self._troubled = bool(trouble)
            if trouble:
                log.warning("destination %s", trouble)
            else:
                log.info("destination accepts messages again")


def _described(delivery: Delivery, verdict: Verdict) -> dict[str, object]:
    return {
        "message_id": message_id(delivery.content),
        "reason": verdict.reason,
        "reply_code": verdict.reply_code,
        "reply_text": verdict.reply_text,
        "size_bytes": delivery.body_size,
    }
