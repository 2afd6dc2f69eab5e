"""What the bridge remembers to recognise a redelivery of what it has already forwarded, sans-I/O.

When a source generation ends, some messages are at the destination and not (for certain) acked at the
source: *orphans*, whose confirm comes after the loss, and those acked shortly before it, since a broker that
is killed may forget acks. The source delivers them again; remembered ones are acked and not published twice.

Why this cannot lose a message whose `message_id` is its own: a message is remembered only after the
destination confirmed a copy of it; what is remembered covers as many redeliveries as there were confirmed
copies, is looked up only for deliveries with the redelivered flag, and is forgotten after a while. The flag proves
little: a classic queue that was killed gives it to every ready message. So the identity covers all that a publisher
can set, routing key and headers included (see `identity`): a retry under the same id with another header is another
message, and so is one that was dead-lettered. Only messages that agree in all of it are one, and what was received
again and not forwarded when the generation ended is not covered even then. Where two that differ could be taken for
one, the answer is a duplicate, which is counted, never a message that is missing.

Messages without a `message_id` are never remembered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.amqp.identity import IDENTITY_BYTES, has_identity, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.amqp.events import Delivery

ACKED_S = 10.0
"""An ack that was written so many seconds ago, pauses shortened (see `PAUSE_S`), is not forgotten any more."""
PAUSE_S = 1.0
"""What a pause between deliveries adds to the age of the acks before it. A connection may be dead for minutes before
that is noticed, and no ack of that time has arrived; while memory is full, its end is not even read.
"""
KEPT_BYTES = 640
"""Contents larger than this on average are kept as identities, for memory's sake: to keep one whole costs no time."""
DELIVERY_BYTES, KEY_BYTES = 300, 60 + IDENTITY_BYTES
"""What a delivery takes besides its content, and what an identity takes: Python's objects around the bytes."""
REMEMBERED_S = 300.0
"""Redeliveries come right after consuming has begun again; later ones are not suppressed."""


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """How much is kept."""

    acked_messages: int = 40_000
    """Of the acked, in case the source's broker forgets the acks of the last `ACKED_S`.

    Measured: a classic queue of RabbitMQ 3.10 under full load, SIGKILLed, forgets the last 15,000 to 17,000 acks; its
    journal holds 32,768 entries before it is written (`queue_index_max_journal_entries`), and is written at once when
    the queue has nothing else to do.
    """
    acked_bytes: int = 16 << 20
    """The memory that these may take: of messages of `KEPT_BYTES`, 18,000."""
    remembered_messages: int = 65_536
    """Of those that may be redelivered."""


LIMITS = MemoryLimits()


class Memory:
    """Recent acks of this source generation, and what may be redelivered from the generations before."""

    def __init__(
        self,
        *,
        enabled: bool,
        limits: MemoryLimits = LIMITS,
        identify: Callable[[bytes, bytes], bytes | None] = identity,
    ) -> None:
        """`identify` takes route and content and returns what tells a message from others, None for nothing."""
        self.enabled = enabled
        self._limits = limits
        self._identify = identify
        self._acked: deque[tuple[float, list[Delivery], list[bytes], int]] = deque()
        """(seconds heard, deliveries or their identities, bytes that these take) by batch."""
        self._acked_bytes = 0
        self._acked_messages = 0
        self._heard_s = self._last_heard_s = 0.0
        """For how long deliveries have come, a pause counted for `PAUSE_S` at most, and when they last came."""
        self._overflowed_s: float | None = None
        """When, in seconds heard, the last ack was dropped that could still have been forgotten by the broker."""
        self._remembered: dict[bytes, int] = {}
        """Confirmed copies at the destination, by identity, that cover a redelivery each."""
        self._requeued: dict[bytes, int] = {}
        """Deliveries that were requeued and have not been forwarded since, by identity."""
        self._known: dict[int, tuple[Delivery, bytes | None]] = {}
        """Identities of redeliveries in the window, by delivery tag: each is worked out once. The delivery stands
        beside it, since another generation's has the same tag."""
        self._expires_s: float | None = None
        self._ticked_s = 0.0
        """When time was last let pass."""
        self._losses = 0
        """How often the source may have lost acks."""
        self._complete = True
        """Whether every publish of this process that may be redelivered is remembered."""
        self._forgot = False
        """Whether something was forgotten that has not been redelivered in this generation."""

    def __len__(self) -> int:
        return len(self._remembered)

    def heard(self, now_s: float) -> None:
        """Deliveries have come from the source."""
        self._heard_s += min(now_s - self._last_heard_s, PAUSE_S)
        self._last_heard_s = now_s

    def acked(self, deliveries: list[Delivery], size_bytes: int) -> None:
        """Note deliveries as forwarded and acked just now; `size_bytes` is the size of their contents together.

        The list is kept: it must not be changed afterwards.
        """
        if not self.enabled:
            return
        if self._known or self._requeued:
            keys = [self._take_key(delivery) for delivery in deliveries if delivery.redelivered]
            for key in keys:
                _use_up(self._requeued, key)
            self._note_keys(keys)
            deliveries = [delivery for delivery in deliveries if not delivery.redelivered]
            size_bytes = sum(len(delivery.content) for delivery in deliveries)
        number = len(deliveries)
        if size_bytes <= KEPT_BYTES * number:
            self._note(deliveries, [], size_bytes + DELIVERY_BYTES * number)
        else:
            self._note_keys(self._identify(d.route, d.content) for d in deliveries)

    def suppressed(self, delivery: Delivery) -> None:
        """Note a redelivery as acked and not forwarded: this ack may be forgotten like the one before it."""
        self._note_keys([self._take_key(delivery)])

    def quarantined(self, delivery: Delivery) -> None:
        """Note that a delivery has left the window and was not forwarded."""
        self._known.pop(delivery.delivery_tag, None)

    def _note_keys(self, keys: Iterable[bytes | None]) -> None:
        identified = [key for key in keys if key is not None]
        self._note([], identified, len(identified) * KEY_BYTES)

    def _note(self, deliveries: list[Delivery], keys: list[bytes], size_bytes: int) -> None:
        if not size_bytes:
            return
        limits = self._limits
        self._acked.append((self._heard_s, deliveries, keys, size_bytes))
        self._acked_messages += len(deliveries) + len(keys)
        self._acked_bytes += size_bytes
        while self._acked_messages > limits.acked_messages or self._acked_bytes > limits.acked_bytes:
            dropped_s, deliveries, keys, size_bytes = self._acked.popleft()
            self._acked_messages -= len(deliveries) + len(keys)
            self._acked_bytes -= size_bytes
            if self._heard_s - dropped_s < ACKED_S:
                self._overflowed_s = self._heard_s

    def _take_key(self, delivery: Delivery) -> bytes | None:
        """Hand over the identity of a delivery that leaves the window."""
        known = self._known.pop(delivery.delivery_tag, None)
        if known is not None and known[0] is delivery:
            return known[1]
        return self._identify(delivery.route, delivery.content)

    def requeued(self, delivery: Delivery) -> None:
        """Note a delivery that returns to the queue and was not forwarded for certain: nothing covers its like now."""
        key = self._take_key(delivery) if self.enabled else None
        if key is not None:
            self._add(self._requeued, key)
            self._uncover(key)

    def acks_lost(self, unforwarded: Iterable[Delivery]) -> None:
        """The source generation ended, or the broker cancelled its consumer: its last acks may have been lost.

        Since 4.3 a consumer timeout requeues what a consumer holds, ignores the acks on the way, and may set all out
        again on the same channel. `unforwarded` are the deliveries that the destination has not for certain. They,
        and what was requeued, will be redelivered; the like of them that was acked perhaps. A redelivery could then be
        either, so none is covered.
        """
        self._losses += 1
        self._expires_s = None
        self._forgot = False
        if self._overflowed_s is not None and self._heard_s - self._overflowed_s < ACKED_S:
            self._complete = False
        for acked_s, deliveries, keys, _ in self._acked:
            if self._heard_s - acked_s >= ACKED_S:
                continue
            for key in (*keys, *(self._identify(d.route, d.content) for d in deliveries)):
                if key is not None and not self._add(self._remembered, key):
                    self._complete = False
        self._acked.clear()
        self._acked_messages = self._acked_bytes = 0
        if self._remembered:
            for key in (*map(self._take_key, unforwarded), *self._requeued):
                self._uncover(key)

    def consuming(self, now_s: float) -> None:
        """Consuming begins (again): from now on the redeliveries can be expected."""
        if self._expires_s is None:
            self._expires_s = now_s + REMEMBERED_S

    def remember(self, delivery: Delivery) -> None:
        """Remember that the destination confirmed this message, where it has an identity to know it by."""
        key = self._take_key(delivery) if self.enabled else None
        if key is not None and not self._add(self._remembered, key):
            self._complete = False

    def _uncover(self, key: bytes | None) -> None:
        if key is not None and self._remembered.pop(key, 0):
            self._complete = False

    def _add(self, counts: dict[bytes, int], key: bytes) -> bool:
        """Count one more; return whether there was room for all: otherwise the oldest is forgotten."""
        counts[key] = counts.pop(key, 0) + 1
        if len(counts) <= self._limits.remembered_messages:
            return True
        del counts[next(iter(counts))]
        return False

    def recall(self, delivery: Delivery) -> bool:
        """Use up the copy at the destination that covers this redelivery; return whether there is one."""
        if not self._remembered:
            return False
        key = self._identify(delivery.route, delivery.content)
        self._known[delivery.delivery_tag] = delivery, key
        return _use_up(self._remembered, key)

    def vouches_for(self, delivery: Delivery) -> bool:
        """Whether a redelivery that is not remembered is known not to be this process's own publish."""
        knows = self.enabled and self._complete and not self._forgot
        return not self._losses or (knows and has_identity(delivery.content))

    def expire(self, now_s: float, *, taking: bool = True) -> None:
        """Forget what is too old. No time counts while the destination accepts nothing: nothing is redelivered then."""
        if self._expires_s is not None and not taking:
            self._expires_s += now_s - self._ticked_s
        self._ticked_s = now_s
        if self._expires_s is not None and now_s >= self._expires_s:
            self._forgot = bool(self._remembered)
            self._remembered.clear()
            self._complete = True
            self._expires_s = None


def _use_up(counts: dict[bytes, int], key: bytes | None) -> bool:
    """Count one less; return whether there was one."""
    if key is None or key not in counts:
        return False
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
    return True
