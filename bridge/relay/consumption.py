"""How one source generation consumes, sans-I/O: its consumers, their cancels, and what they have shown.

Mostly there is one consumer. There are two while it is *replaced*, as a prefetch binds only consumers that are started
after it was set (AMQP 0-9-1, basic.qos; RabbitMQ): the new one is started before the old one is cancelled, so that the
queue never is without.

What it does not do: decide when to consume and when to stop, which is `steering`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.relay.consumer import Consumer, ConsumerEvent
from bridge.relay.watchdog import Ending, Lasting

if TYPE_CHECKING:
    from bridge.window.window import Window
    from bridge.words import EndReason

MEMORY_FULL_S = 10.0
"""How long reading may be paused before the bridge sheds: RabbitMQ's send timeout is 30 s."""

LANDMARK_WITHIN_S = 60.0
"""How long a stream may take to deliver a message that it has had."""


class Consumption:
    """The consumers of one source generation. Between two generations a closed one stands in."""

    def __init__(self, window: Window, *, opened: bool) -> None:
        self._window = window
        self.opened = opened
        """Whether the generation's channel is open."""
        self.consumer = Consumer.OFF
        self.asking = False
        """Whether an action that the source's broker must answer is under way."""
        self.asked_prefetch = 0
        """Of the consumer that was asked for last, whether it has been started or not."""
        self.prefetch = 0
        """Of the newest consumer."""
        self.adds = False
        """Whether another consumer has been asked for beside one that delivers, and is not started yet."""
        self.room_until = 0
        """Deliveries in flight up to which the source may still deliver."""
        self.fitting = window.limits.prefetch
        """As many messages as memory has room for, as far as this generation has shown."""
        self.offered = False
        """Whether a queue that had something was consumed from."""
        self.deleted = False
        """Whether the queue does not exist any more."""
        self.ending: Ending | None = None
        """Reason to end the generation."""
        self.lost_s: float | None = None
        """When the broker cancelled the consumer."""
        self._landmark = Lasting()
        self._full_s: float | None = None
        """When memory became full, while it is."""
        self._tags: list[str] = []
        """Consumers that have been asked for and are not known to be gone, the newest last."""
        self._starting = ""
        """The consumer of which the start is not answered: a cancel might reach the broker before it."""
        self._cancelled: set[str] = set()
        self._cancels: list[str] = []
        """Consumers whose cancel is to be written."""
        self.received_before = window.books.received
        self._acked_before = window.books.acked
        self._refusals_before = 0

    @property
    def replaces(self) -> bool:
        """Whether one consumer is being replaced by another."""
        return len(self._tags) > 1

    @property
    def cancelling(self) -> bool:
        """Whether the answer to a cancel is to come."""
        return self.consumer in {Consumer.ON, Consumer.CANCELLING} and not self._cancelled.isdisjoint(self._tags)

    @property
    def awaits_answer(self) -> bool:
        """Whether an answer is still to be read: that to a consumer is there before its first delivery."""
        return self.asking and not (self._starting and self.received)

    @property
    def in_use(self) -> bool:
        """Whether the generation has acked a message."""
        return self._window.books.acked > self._acked_before

    @property
    def received(self) -> bool:
        """Whether anything has been received since it was decided to consume."""
        return self._window.books.received > self.received_before

    @property
    def refused(self) -> bool:
        """Whether the destination has refused since the newest consumer began; the count falls to 0 in between."""
        return 0 < self._window.trouble.refusals != self._refusals_before

    def wait(self) -> None:
        """The source's broker is asked something."""
        self.asking = True

    def answered(self) -> None:
        """It has answered, or will not."""
        self.asking = self.adds = False

    def end(self, reason: EndReason, text: str) -> None:
        """The generation must end."""
        self.ending = Ending(reason, text)

    def watch_memory(self, now_s: float) -> bool:
        """Note whether memory is full while the consumer delivers; return whether it has been for too long."""
        if not self._window.full or self.consumer is not Consumer.ON:
            self._full_s = None
        elif self._full_s is None:
            self._full_s = now_s
        return self._full_s is not None and now_s - self._full_s >= MEMORY_FULL_S

    def watch_landmark(self, received: tuple[int, ...], now_s: float) -> int | None:
        """Return the offset of a message that a stream has had, and does not deliver; None for none."""
        offsets = self._window.offsets
        awaits = self.consumer is Consumer.ON and not self._window.full
        offset = offsets.awaited if offsets is not None and awaits else None
        waited_s = self._landmark.observe(None if offset is None else received, now_s)
        return offset if waited_s >= LANDMARK_WITHIN_S else None

    def shed(self) -> None:
        """Cancel, and consume later with as many as memory has room for."""
        self._full_s = None
        self.fitting = max(1, self._window.in_flight)
        self.cancel()

    def ask(self, prefetch: int) -> None:
        """A consumer is asked for."""
        self.asked_prefetch = prefetch
        self.adds = self.consumer is Consumer.ON
        if self._window.offsets is not None and not self.adds:
            self._window.offsets.begin()
        self.received_before = self._window.books.received

    def found(self, ready: int) -> None:
        """The queue had so many messages ready right before the consumer began."""
        self.offered |= ready > 0

    def gone(self) -> None:
        """The queue was deleted, or nobody knows: what is held may exist nowhere else any more."""
        self.deleted = True

    def start(self, consumer_tag: str) -> None:
        """`basic.consume` is about to be sent."""
        if self.consumer is Consumer.OFF:
            self.consumer = self.consumer.after(ConsumerEvent.START)
        self.prefetch = self.asked_prefetch
        self._tags.append(consumer_tag)
        self._starting = consumer_tag
        self.room_until = self._window.in_flight + self.prefetch
        self._refusals_before = self._window.trouble.refusals

    def started(self) -> None:
        """`consume-ok` has come: what it replaces is cancelled, or it is itself, when all are being cancelled."""
        self._starting = ""
        if self.consumer is Consumer.STARTING:
            self.consumer = self.consumer.after(ConsumerEvent.STARTED)
        if self.consumer is Consumer.ON:
            self._cancel_each(self._tags[:-1])
        elif self.consumer is Consumer.CANCELLING:
            self._cancel_each(self._tags)

    def cancel(self) -> None:
        """Cancel every consumer."""
        self.consumer = self.consumer.after(ConsumerEvent.CANCEL)
        self._cancel_each(self._tags)

    def cancelled(self, consumer_tag: str) -> None:
        """`cancel-ok` has come."""
        if consumer_tag in self._tags:
            self._tags.remove(consumer_tag)
            self._cancelled.discard(consumer_tag)
        if not self._tags:
            self.consumer = self.consumer.after(ConsumerEvent.CANCEL_OK)

    def cancelled_by_broker(self, now_s: float) -> None:
        """`basic.cancel` has come."""
        self.consumer = self.consumer.after(ConsumerEvent.CANCELLED_BY_BROKER)
        self.lost_s = now_s if self.lost_s is None else self.lost_s

    def take_cancels(self) -> list[str]:
        """Hand over the consumers whose cancel is to be written now, before acks and requeues."""
        cancels, self._cancels = self._cancels, []
        return cancels

    def _cancel_each(self, consumer_tags: list[str]) -> None:
        new = [tag for tag in consumer_tags if tag not in {*self._cancelled, self._starting}]
        self._cancels += new
        self._cancelled.update(new)
