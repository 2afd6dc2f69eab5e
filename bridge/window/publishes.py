"""The publishes of one destination generation that wait for their confirms, sans-I/O.

They stand in the order of their publish_seqno, which starts at 1 in each generation. A confirm may come for one
of them or, with `multiple`, for all up to it, and in any order; a return comes before the confirm of the same
publish (protocol order) and carries no number: it is matched by what it says of the message.

What it does not do: judge what a confirm means for a delivery, which is `window`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from bridge.amqp.content import parts
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.amqp.events import Delivery, Return
    from bridge.window.books import Histogram


@dataclass(slots=True)
class Batch:
    """Messages that were published at once, of which some are not confirmed."""

    end_seqno: int
    """The publish_seqno after it."""
    unconfirmed: int
    """How many of its messages wait for their confirms."""
    published_s: float
    waiting_since_s: float
    """When it was published, less the time blocked before."""
    source: object
    """The source's generation that it is of."""


def _end_seqno(batch: Batch) -> int:
    return batch.end_seqno


class Publishes:
    """A queue of deliveries between publish and confirm.

    Its length counts places: one that is confirmed out of turn keeps its place until those before it are confirmed.
    """

    def __init__(self, confirm_seconds: Histogram, *, own_keys: bool) -> None:
        """`own_keys` as in `WindowLimits`; confirms are timed in `confirm_seconds`."""
        self._confirm_seconds = confirm_seconds
        self._own_keys = own_keys
        self._places: deque[Delivery | None] = deque()
        """From `_first_seqno` on; None where a confirm came out of turn."""
        self._first_seqno = 1
        self.next_seqno = 1
        self._last_tag = 0
        """The delivery tag of the last publish."""
        self._rising_from = 0
        """The publish_seqno from which on delivery tags only rise."""
        self._batches: deque[Batch] = deque()
        """Those that are not wholly confirmed, or stand after one that is not."""
        self.returns: dict[tuple[bytes, bytes], int] = {}
        """By what makes publishes alike (see `_alike`): returns of which the confirm is still to come. Which of several
        that are alike was returned nobody can tell: each return counts for the first of them that is confirmed."""
        self._returned_until = 1
        """The publish_seqno after the last that was found for a return: brokers return in the order of publishing, so
        the next is looked for from there. From the first each time, 8,000 returns before their confirms took 17 s."""
        self._blocked_s = 0.0
        """How long the destination has been blocked in all, up to the last time that it was unblocked."""
        self._blocked_since_s: float | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Delivery]:
        """Those that wait for their confirms."""
        return (delivery for delivery in self._places if delivery is not None)

    @property
    def waiting(self) -> int:
        """How many wait for their confirms."""
        return len(self._places) - self._places.count(None)

    def orphaned_for(self, source: object) -> bool:
        """Whether what waits was published for another source generation than this one."""
        return bool(self._batches) and self._batches[0].source is not source

    def blocked(self, now_s: float) -> None:
        """The destination does not read publishes from now on: no confirm is expected."""
        if self._blocked_since_s is None:
            self._blocked_since_s = now_s

    def unblocked(self, now_s: float) -> None:
        """It reads again: what waits has as much time left as when it was blocked."""
        if self._blocked_since_s is not None:
            self._blocked_s += now_s - self._blocked_since_s
            self._blocked_since_s = None

    def add(self, batch: list[Delivery], now_s: float, source: object) -> None:
        """Publish a batch of one source generation, which takes the next sequence numbers in its order.

        The delivery tags in it rise. Nothing is published while what waits is of another source generation.
        """
        if batch[0].delivery_tag < self._last_tag:
            self._rising_from = self.next_seqno
        self._last_tag = batch[-1].delivery_tag
        self._places.extend(batch)
        self.next_seqno += len(batch)
        self._batches.append(Batch(self.next_seqno, len(batch), now_s, now_s - self._blocked_s, source))

    def confirm(self, publish_seqno: int, now_s: float, *, multiple: bool) -> tuple[int, list[Delivery | None]]:
        """Return what this confirms, and the publish_seqno of the first of it; None is what was confirmed before.

        Raises `MalformedFrameError` for a sequence number that was never used.
        """
        first = self._first_seqno
        if publish_seqno >= self.next_seqno or publish_seqno < 0:
            message = f"a confirm of publish {publish_seqno}, and only {self.next_seqno - 1} were made"
            raise MalformedFrameError(message)
        places = self._places
        if multiple or publish_seqno == first:
            number = (publish_seqno or self.next_seqno - 1) - first + 1
            if number <= 0:
                return first, []
            popleft = places.popleft
            confirmed = [popleft() for _ in range(number)]
            self._first_seqno = first + number
            while places and places[0] is None:
                popleft()
                self._first_seqno += 1
            self._time(number - confirmed.count(None), now_s)
        else:
            if publish_seqno < first:
                return publish_seqno, []
            confirmed = [places[publish_seqno - first]]
            places[publish_seqno - first] = None
            first = publish_seqno
            if confirmed[0] is not None:
                self._time_one(publish_seqno, now_s)
        return first, confirmed

    def rise_from(self, publish_seqno: int) -> bool:
        """Whether delivery tags rise from this publish on, so that one ack may cover several."""
        return publish_seqno >= self._rising_from

    def overdue(self, now_s: float, timeout_s: float) -> bool:
        """Whether one has waited for so long, time blocked excepted, whatever else was confirmed since."""
        return bool(self._batches) and now_s - self._blocked_s - self._batches[0].waiting_since_s >= timeout_s

    @property
    def overtaken(self) -> bool:
        """Whether the oldest has reached the destination for certain: one published after it has been confirmed."""
        return None in self._places

    def _time(self, confirmed: int, now_s: float) -> None:
        """Time so many confirms, each by its own batch: all that was unconfirmed before `_first_seqno`."""
        batches, observe = self._batches, self._confirm_seconds.observe
        while batches and batches[0].end_seqno <= self._first_seqno:
            batch = batches.popleft()
            if batch.unconfirmed:
                observe(now_s - batch.published_s, batch.unconfirmed)
                confirmed -= batch.unconfirmed
        if confirmed:
            batch = batches[0]
            observe(now_s - batch.published_s, confirmed)
            batch.unconfirmed -= confirmed

    def _time_one(self, publish_seqno: int, now_s: float) -> None:
        """Time the confirm of one that is not the first."""
        batch = self._batches[bisect_right(self._batches, publish_seqno, key=_end_seqno)]
        self._confirm_seconds.observe(now_s - batch.published_s)
        batch.unconfirmed -= 1

    # --- Returns -----------------------------------------------------------------------------------------

    def returned(self, event: Return) -> None:
        """`basic.return`: mark the publish that it is about; its confirm follows (protocol order).

        Raises `MalformedFrameError` when it is none of ours: one unknown message may then have no route, and
        to ack it would lose it.
        """
        alike = self._find(event)
        if alike is None:
            message = f"a returned message ({event.reply_code} {event.reply_text}) that was not published"
            raise MalformedFrameError(message)
        self.returns[alike] = self.returns.get(alike, 0) + 1

    def was_returned(self, delivery: Delivery) -> bool:
        """Whether the confirm is that of a returned message, or may be; uses the return up."""
        alike = self._alike(delivery)
        returns = self.returns.pop(alike, 0)
        if returns > 1:
            self.returns[alike] = returns - 1
        return returns > 0

    def _find(self, event: Return) -> tuple[bytes, bytes] | None:
        """Return which publishes the returned message may be one of; None when there are none."""
        key = event.route[1 + event.route[0] :] if self._own_keys else b""
        wanted = parts(event.content)
        places, start = self._places, max(0, self._returned_until - self._first_seqno)
        for index in chain(range(start, len(places)), range(start)):
            delivery = places[index]
            if delivery is None or delivery.body_size != event.body_size:
                continue
            alike = self._alike(delivery)
            # From `start` on none has been found for a return; before it, one that was is not to be found again.
            if alike[0] == key and (index >= start or alike not in self.returns) and parts(delivery.content) == wanted:
                self._returned_until = max(self._returned_until, self._first_seqno + index + 1)
                return alike
        return next((alike for alike in self.returns if alike[0] == key and parts(alike[1]) == wanted), None)

    def _alike(self, delivery: Delivery) -> tuple[bytes, bytes]:
        """Return what publishes of one message have in common: the routing key where it is their own, the content."""
        return delivery.route[1 + delivery.route[0] :] if self._own_keys else b"", delivery.content
