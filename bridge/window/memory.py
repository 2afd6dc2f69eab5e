"""What the bridge remembers to recognise a redelivery of what it has already forwarded, sans-I/O.

When a source generation ends, some messages are at the destination and not (for certain) acked at the
source: *orphans*, whose confirm comes after the loss, and those acked shortly before it, since a broker that
is killed may forget acks. The source delivers them again; remembered ones are acked and not published twice.

Why this cannot lose a message whose `message_id` is its own: a message is remembered only after the
destination confirmed a copy of it; what is remembered covers as many redeliveries as there were confirmed
copies, is looked up only for deliveries with the redelivered flag, and is forgotten after a while. A message
that comes round again, as a retry does, is not taken for its own first copy: dead-lettering leaves its mark in the
identity, and what was received again and not forwarded when the generation ended is not covered. Identity is the
`message_id` with all other properties and a hash of the body (see `content.identity`).

Messages without a `message_id` are never remembered.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from bridge.amqp.content import identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery

ACKED_MESSAGES = 40_000
ACKED_S = 10.0
"""How much of what was acked is kept in case that the source's broker forgets the acks.

Measured: a classic queue of RabbitMQ 3.10 under full load, SIGKILLed, forgets the last 15,000 to 17,000 acks; its
journal holds 32,768 entries before it is written (`queue_index_max_journal_entries`), and is written at once
when the queue has nothing else to do.
"""
PAUSE_S = 1.0
"""What a pause between deliveries adds to the age of the acks before it. A connection may be dead for minutes before
that is noticed, and no ack of that time has arrived; while memory is full, its end is not even read.
"""
KEPT_BYTES = 640
"""Contents larger than this on average are kept as identities, for memory's sake: to keep one whole costs no time."""
REMEMBERED_MESSAGES = 65_536
REMEMBERED_S = 300.0
"""Redeliveries come right after consuming began again; after this they are not ours to suppress."""


class Memory:
    """Recent acks of this source generation, and what may be redelivered from the generations before."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._acked: deque[tuple[float, list[bytes], bool]] = deque()
        """(seconds heard, contents or their identities, whether they are identities) by batch."""
        self._acked_messages = 0
        self._heard_s = self._last_heard_s = 0.0
        """For how long deliveries have come, a pause counted for `PAUSE_S` at most, and when they last came."""
        self._overflowed_s: float | None = None
        """When, in seconds heard, the last ack was dropped that could still have been forgotten by the broker."""
        self._remembered: dict[bytes, int] = {}
        """Confirmed copies at the destination, by identity, that cover a redelivery each."""
        self._given_back: dict[bytes, int] = {}
        """Deliveries that were given back and have not been forwarded since, by identity."""
        self._expires_s: float | None = None
        self._looked_s = 0.0
        """When time was last let pass."""
        self._generations = 0
        """Source generations that have ended."""
        self._complete = True
        """Whether every publish of this process that may be redelivered is remembered."""

    def __len__(self) -> int:
        return len(self._remembered)

    def heard(self, now_s: float) -> None:
        """Deliveries have come from the source."""
        self._heard_s += min(now_s - self._last_heard_s, PAUSE_S)
        self._last_heard_s = now_s

    def acked(self, deliveries: list[Delivery], size_bytes: int) -> None:
        """Note deliveries as forwarded and acked just now; `size_bytes` is the size of their contents together."""
        if not self.enabled:
            return
        if self._given_back:
            for delivery in deliveries:
                if delivery.redelivered:
                    _use_up(self._given_back, identity(delivery.content))
        self._note(deliveries, size_bytes)

    def suppressed(self, delivery: Delivery) -> None:
        """Note a redelivery as acked and not forwarded: this ack may be forgotten like the one before it."""
        self._note([delivery], len(delivery.content))

    def _note(self, deliveries: list[Delivery], size_bytes: int) -> None:
        identified = size_bytes > KEPT_BYTES * len(deliveries)
        if identified:
            batch = [key for delivery in deliveries if (key := identity(delivery.content)) is not None]
        else:
            batch = [delivery.content for delivery in deliveries]
        if not batch:
            return
        self._acked.append((self._heard_s, batch, identified))
        self._acked_messages += len(batch)
        while self._acked_messages > ACKED_MESSAGES:
            dropped_s, batch, _ = self._acked.popleft()
            self._acked_messages -= len(batch)
            if self._heard_s - dropped_s < ACKED_S:
                self._overflowed_s = self._heard_s

    def given_back(self, content: bytes) -> None:
        """Note a delivery that returns to the queue and was not forwarded for certain: nothing covers its like now."""
        key = identity(content) if self.enabled else None
        if key is not None:
            _add(self._given_back, key)
            self._uncover(key)

    def source_lost(self, unforwarded: Iterable[bytes]) -> None:
        """The source generation ended: its last acks may have been lost.

        `unforwarded` are the contents of deliveries that were held. They, and what was given back, will be redelivered
        for certain; the like of them that was acked perhaps. A redelivery could then be either, so none is covered.
        """
        self._generations += 1
        self._expires_s = None
        if self._overflowed_s is not None and self._heard_s - self._overflowed_s < ACKED_S:
            self._complete = False
        for acked_s, batch, identified in self._acked:
            if self._heard_s - acked_s >= ACKED_S:
                continue
            for item in batch:
                key = item if identified else identity(item)
                if key is not None and not _add(self._remembered, key):
                    self._complete = False
        self._acked.clear()
        self._acked_messages = 0
        if self._remembered:
            for key in (*map(identity, unforwarded), *self._given_back):
                self._uncover(key)

    def consuming(self, now_s: float) -> None:
        """Consuming begins (again): from now on the redeliveries can be expected."""
        if self._expires_s is None:
            self._expires_s = now_s + REMEMBERED_S

    def remember(self, content: bytes) -> None:
        """Remember that the destination confirmed this message, where it has an identity to know it by."""
        key = identity(content) if self.enabled else None
        if key is not None and not _add(self._remembered, key):
            self._complete = False

    def _uncover(self, key: bytes | None) -> None:
        if key is not None and self._remembered.pop(key, 0):
            self._complete = False

    def recall(self, content: bytes) -> bool:
        """Whether this redelivery is covered by a copy at the destination; uses that copy up."""
        return bool(self._remembered) and _use_up(self._remembered, identity(content))

    def vouches_for(self, content: bytes) -> bool:
        """Whether a redelivery that is not remembered is known not to be this process's own publish."""
        return not self._generations or (self.enabled and self._complete and identity(content) is not None)

    def expire(self, now_s: float, *, taking: bool = True) -> None:
        """Forget what is too old. No time counts while the destination takes nothing: nothing is redelivered then."""
        if self._expires_s is not None and not taking:
            self._expires_s += now_s - self._looked_s
        self._looked_s = now_s
        if self._expires_s is not None and now_s >= self._expires_s:
            self._remembered.clear()
            self._complete = True
            self._expires_s = None


def _add(counts: dict[bytes, int], key: bytes) -> bool:
    """Count one more; return whether there was room for all: else the oldest is forgotten."""
    counts[key] = counts.pop(key, 0) + 1
    if len(counts) <= REMEMBERED_MESSAGES:
        return True
    del counts[next(iter(counts))]
    return False


def _use_up(counts: dict[bytes, int], key: bytes | None) -> bool:
    """Count one less; return whether there was one."""
    if key is None or key not in counts:
        return False
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
    return True
