"""What of the window goes to the quarantine, sans-I/O: the condemned, one by one, and the answers about them.

A condemned message is acked once the quarantine has confirmed it, as one that was forwarded. What the quarantine
refuses, or what is bound for one that does not answer, stays in the window, beside the others.

What it does not do: condemn; that is each rule's that finds a message wanting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.window.books import count
from bridge.window.confirms import Confirms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery
    from bridge.window.blame import Verdict


class Quarantining(Confirms):
    """A window that knows a quarantine."""

    def quarantine_asked(self) -> tuple[Delivery, Verdict]:
        """The first of the condemned is published to the quarantine: return it; its answer is to come."""
        return self._source.send()

    def quarantined(self, delivery_tag: int) -> tuple[Delivery, Verdict] | None:
        """The quarantine confirmed this one: ack it. None where it is not waited for, since it was requeued."""
        asked = self._source.answered(delivery_tag)
        if asked is not None:
            delivery, verdict = asked
            count(self.books.quarantined, verdict.reason)
            self._note_offset(delivery)
            self.memory.quarantined(delivery)
            self._leave(delivery)
            self._ack(delivery)
        return asked

    def quarantine_refused(
        self, delivery_tag: int, now_s: float, text: str = "", retry_in_s: float | None = None
    ) -> None:
        """The quarantine does not accept this one, for the reason in `text`: hold it, let the others pass."""
        asked = self._source.answered(delivery_tag)
        if asked is not None:
            delivery, verdict = asked
            wait_s = self.limits.retry_max_s if retry_in_s is None else retry_in_s
            self._stay([(delivery, verdict._replace(held_text=text))], now_s, wait_s)

    def take_kept(self) -> list[tuple[Delivery, Verdict]]:
        """Hand over the messages that neither the destination nor a quarantine accepts, each once a generation."""
        kept, self._kept = self._kept, []
        return kept

    def quarantine_interrupted(self) -> None:
        """Of what is on its way to the quarantine no answer will come: publish it again, it may be there twice."""
        self.books.duplicates_possible += self._source.interrupted()

    def quarantine_unavailable(self, now_s: float) -> None:
        """The quarantine accepts nothing: hold all that is bound for it."""
        self.quarantine_interrupted()
        self._stay(self._source.take_condemned(), now_s, self.limits.retry_max_s)

    def _stay(self, bound: Iterable[tuple[Delivery, Verdict]], now_s: float, retry_in_s: float) -> None:
        """Keep what cannot go to the quarantine now."""
        held: list[Delivery] = []
        for delivery, verdict in bound:
            if verdict.reason == "delivery-limit":
                # Parking it would not help it, and requeueing it could lose it: its best chance is to be forwarded.
                held.append(delivery)
            elif self._source.parked.park(delivery, verdict, now_s, retry_in_s) and verdict.held_text:
                self._kept.append((delivery, verdict))
        self._source.hold_again(held)
