"""What the destination's answers mean for the deliveries that were published, sans-I/O.

A confirm acks at the source, in one frame where that is safe; a nack or a return holds the message again. Which publish
an answer is about is known by `publishes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.amqp.identity import has_identity
from bridge.window.books import count
from bridge.window.flight import Flight

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery, Return


class Confirms(Flight):
    """A flight to which the destination's answers come."""

    def confirm(self, publish_seqno: int, now_s: float, *, multiple: bool, accepted: bool) -> None:
        """`basic.ack` or `basic.nack` from the destination.

        Raises `MalformedFrameError` for a sequence number that was never used.
        """
        source, destination = self._source, self._destination
        published = destination.publishes
        orphaned = published.orphaned_for(source)
        first, confirmed = published.confirm(publish_seqno, now_s, multiple=multiple)
        if not confirmed:
            return
        blame, parked = source.blame, source.parked
        # One ack may cover all only where none needs a look of its own:
        # - orphaned: they are of an ended source generation, and nothing of it is acked (invariant 2);
        # - unresolved: a return is about one of them, and its confirm counts for nothing;
        # - retried: one of them was parked, and is settled there, too;
        # - suspects: they go one by one, and each confirm acquits one;
        # - strikes: one of them has closed the channel before, and is now acquitted.
        unusual = orphaned or published.unresolved or parked.retried or blame.suspects or blame.strikes
        # Besides, their delivery tags have to rise, and none may have been confirmed out of turn.
        if accepted and not unusual and published.rise_from(first) and None not in confirmed:
            self._forwarded(confirmed, now_s)  # type: ignore[arg-type]  # no None is in it
            source.settlement.ack_rising(confirmed)  # type: ignore[arg-type]
        elif orphaned:
            self._resolve_orphans(confirmed, accepted=accepted)
        else:
            self._confirm_one_by_one(confirmed, now_s, accepted=accepted)
        # The publish window widens only on a confirm that shows that the destination as a whole accepts messages.
        hindered = blame.suspects or parked.returns_in_a_row or self.trouble.resting(now_s) or published.unrecognised
        if accepted and not hindered:
            destination.publish_window.confirmed(first + len(confirmed), published.next_seqno)

    def _resolve_orphans(self, confirmed: Iterable[Delivery | None], *, accepted: bool) -> None:
        for delivery in confirmed:
            if delivery is None:
                continue
            fate = self._destination.publishes.resolve(delivery, accepted=accepted)
            if accepted and fate == "accepted":
                # Without an id its redelivery cannot be told from another message; `receive` counts it.
                self.memory.remember(delivery)
                self.accepted += 1
                self._accepted_again += not (self.memory.enabled and has_identity(delivery.content))
                if self.terms.proof is not None:
                    self.terms.proof.confirmed([delivery])
                self._note_offset(delivery)
            else:
                self.books.duplicates_possible += fate == "doubtful" and accepted
                self.memory.requeued(delivery)

    def _confirm_one_by_one(self, confirmed: Iterable[Delivery | None], now_s: float, *, accepted: bool) -> None:
        publishes, blame = self._destination.publishes, self._source.blame
        refused: list[Delivery] = []
        doubtful: list[Delivery] = []
        for delivery in confirmed:
            if delivery is None:
                continue
            blame.judged(delivery.delivery_tag)
            fate = publishes.resolve(delivery, accepted=accepted)
            if not accepted:
                refused.append(delivery)
            elif fate == "returned":
                self._unpublish()
                self._set_aside(delivery, now_s)
            elif fate == "doubtful":
                doubtful.append(delivery)
            else:
                self._forwarded([delivery], now_s)
                self._ack(delivery)
        if doubtful:
            count(self.books.publish_retries, "returned", len(doubtful))
            self.books.duplicates_possible += len(doubtful)
            self._unpublish(len(doubtful))
            self._source.hold_again(doubtful)
            blame.suspect(len(doubtful) + publishes.waiting)
        if refused:
            count(self.books.publish_retries, "nack", len(refused))
            if self.target.may_fan_out:
                self.books.duplicates_possible += len(refused)
            self._unpublish(len(refused))
            self._source.hold_again(refused)
            self._refused("nack", "its queue may be full (reject-publish)", now_s)

    def returned(self, event: Return) -> None:
        """`basic.return`: mark the publishes that it may be about; their confirms follow (protocol order).

        Raises `MalformedFrameError` when nothing is published that it can be about.
        """
        publishes = self._destination.publishes
        publishes.returned(event)
        if not self._orphaned:
            count(self.books.publish_retries, "returned")
        if not self.target.routes_differ:
            self._destination.publish_window.narrow(publishes.next_seqno)
