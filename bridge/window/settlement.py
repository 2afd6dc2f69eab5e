"""Settling at the source, sans-I/O: what is acked and what is requeued, in as few frames as is safe.

An ack with `multiple` covers every delivery tag up to its own, so it may only be written when all below have been
settled already (invariant 1 of `window`). For that the highest settled delivery tag is kept, and the gaps below
it: those are deliveries in flight, so never more than the prefetch, however long one of them lasts.

A bridge that takes a number of messages and no more *meters* its acks: each makes room for another delivery, so that of
the consumer's deliveries only so many may be acked before it is gone. What is acked beyond them is kept until then.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.amqp.events import Delivery


class Settlement:
    """What is settled in one source generation, and not written yet: the source's port takes and encodes it."""

    def __init__(self) -> None:
        self.acks: list[tuple[int, bool]] = []
        """(delivery_tag, multiple)."""
        self.requeues: list[int] = []
        """Delivery tags."""
        self._highest = 0
        """The highest delivery tag that is settled."""
        self._gaps: set[int] = set()
        """Those below it that are not."""
        self._unwritten = 0
        """How many deliveries `acks` cover."""
        self._allowed = inf
        """How many more deliveries may be acked before the consumer is gone."""
        self._metered_after = 0
        """The delivery tag after which acks are counted: those before it are of no consumer that is left."""
        self.kept: deque[int] = deque()
        """Delivery tags of what is acked once the consumer is gone."""

    @property
    def keeps(self) -> int:
        """How many acks wait for the end of the consumer."""
        return len(self.kept)

    @property
    def unacked(self) -> int:
        """How many deliveries are acked as far as the window is concerned, and the broker has not been told."""
        return self._unwritten + len(self.kept)

    def meter(self, allowed: float, after_tag: int) -> None:
        """A consumer begins, and its first delivery follows this tag: so many of its deliveries may be acked."""
        self._allowed, self._metered_after = allowed, after_tag

    def consumer_gone(self) -> None:
        """No delivery follows whatever is acked: what was kept is, in as few frames as is safe.

        One by one, a quorum queue of 4.3.6 forgets most of a hundred when the channel is closed right after them.
        """
        kept, self.kept = sorted(self.kept), deque()
        self._allowed = inf
        self._unwritten += len(kept)
        # What is requeued and not written yet must not be covered.
        lowest = min(self._gaps, default=inf) if not self.requeues else 0
        joined = [delivery_tag for delivery_tag in kept if delivery_tag < lowest]
        self.acks += [(delivery_tag, True) for delivery_tag in joined[-1:]]
        self.acks += [(delivery_tag, False) for delivery_tag in kept[len(joined) :]]

    def take_acks(self) -> list[tuple[int, bool]]:
        """Hand over what is acked: (delivery_tag, multiple)."""
        acks, self.acks, self._unwritten = self.acks, [], 0
        return acks

    def take_requeues(self) -> list[int]:
        """Hand over what is requeued, by delivery tag."""
        requeues, self.requeues = self.requeues, []
        return requeues

    def ack(self, delivery_tag: int, *, again: bool = False) -> None:
        """Ack one delivery; `again`: it is a redelivery of what was counted before."""
        self._settled(delivery_tag)
        if not again and delivery_tag > self._metered_after and self._allowed is not inf:
            if self._allowed <= 0:
                self.kept.append(delivery_tag)
                return
            self._allowed -= 1
        self._unwritten += 1
        self.acks.append((delivery_tag, False))

    def ack_rising(self, deliveries: list[Delivery]) -> None:
        """Ack deliveries whose delivery tags rise: with one ack when no gap is left below the last.

        Acks are written before requeues: one that covers a delivery of which the requeue is to be written loses it.
        """
        first, last = deliveries[0].delivery_tag, deliveries[-1].delivery_tag
        lowest = min(self._gaps) if self._gaps else self._highest + 1
        if (
            first == lowest
            and (not self.requeues or min(self.requeues) > last)
            and last - first == len(deliveries) - 1
            and (self._allowed is inf or self._spend(first, len(deliveries)))
        ):
            if self._gaps:
                self._gaps.difference_update(range(first, last + 1))
            self._highest = max(self._highest, last)
            self._unwritten += len(deliveries)
            self.acks.append((last, True))
        else:
            for delivery in deliveries:
                self.ack(delivery.delivery_tag)

    def _spend(self, first_tag: int, number: int) -> bool:
        """Count so many acks from this tag on where all of them are allowed; return whether they are."""
        if self.kept or first_tag <= self._metered_after or number > self._allowed:
            return False
        self._allowed -= number
        return True

    def requeue(self, delivery_tag: int) -> None:
        """Requeue one delivery."""
        self._settled(delivery_tag)
        self.requeues.append(delivery_tag)

    def _settled(self, delivery_tag: int) -> None:
        if delivery_tag > self._highest:
            self._gaps.update(range(self._highest + 1, delivery_tag))
            self._highest = delivery_tag
        else:
            self._gaps.discard(delivery_tag)
