"""Settling at the source, sans-I/O: what is acked and what is requeued, in as few frames as is safe.

An ack with `multiple` covers every delivery tag up to its own, so it may only be written when all below have been
settled already (invariant 1 of `window`). For that the highest settled delivery tag is kept, and the gaps below
it: those are deliveries in flight, so never more than the prefetch, however long one of them lasts.
"""

from __future__ import annotations

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

    def take_acks(self) -> list[tuple[int, bool]]:
        """Hand over what is acked: (delivery_tag, multiple)."""
        acks, self.acks = self.acks, []
        return acks

    def take_requeues(self) -> list[int]:
        """Hand over what is requeued, by delivery tag."""
        requeues, self.requeues = self.requeues, []
        return requeues

    def ack(self, delivery_tag: int) -> None:
        """Ack one delivery."""
        self._settled(delivery_tag)
        self.acks.append((delivery_tag, False))

    def ack_rising(self, deliveries: list[Delivery]) -> None:
        """Ack deliveries whose delivery tags rise: with one ack when no gap is left below the last."""
        first, last = deliveries[0].delivery_tag, deliveries[-1].delivery_tag
        lowest = min(self._gaps) if self._gaps else self._highest + 1
        if first == lowest and last - first == len(deliveries) - 1:
            if self._gaps:
                self._gaps.difference_update(range(first, last + 1))
            self._highest = max(self._highest, last)
            self.acks.append((last, True))
        else:
            for delivery in deliveries:
                self.ack(delivery.delivery_tag)

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
