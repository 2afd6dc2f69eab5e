"""The publishes of one destination generation that wait for their confirms, sans-I/O.

They stand in the order of their publish_seqno, which starts at 1 in each generation. A confirm may come for one
of them or, with `multiple`, for all up to it, and in any order; a return comes before the confirm of the same
publish (protocol order) and carries no number: it is matched by what it says of the message.

What it does not do: judge what a confirm means for a delivery, which is `window`'s.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING

from bridge.amqp.content import parts
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.amqp.events import Delivery, Return
    from bridge.window.books import Histogram


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
        self._batches: deque[tuple[int, int, float, float, object]] = deque()
        """Of each not wholly confirmed batch: the publish_seqno after it, its messages, when it was published, the same
        less the time blocked before, and the source's generation that it is of."""
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
        return bool(self._batches) and self._batches[0][4] is not source

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
        self._batches.append((self.next_seqno, len(batch), now_s, now_s - self._blocked_s, source))

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
        else:
            if publish_seqno < first:
                return publish_seqno, []
            confirmed = [places[publish_seqno - first]]
            places[publish_seqno - first] = None
            first = publish_seqno
        self._observe(now_s)
        return first, confirmed

    def rise_from(self, publish_seqno: int) -> bool:
        """Whether delivery tags rise from this publish on, so that one ack may cover several."""
        return publish_seqno >= self._rising_from

    def overdue(self, now_s: float, timeout_s: float) -> bool:
        """Whether one has waited for so long, time blocked excepted, whatever else was confirmed since."""
        return bool(self._batches) and now_s - self._blocked_s - self._batches[0][3] >= timeout_s

    @property
    def overtaken(self) -> bool:
        """Whether the oldest has reached the destination for certain: one published after it has been confirmed."""
        return None in self._places

    def _observe(self, now_s: float) -> None:
        batches = self._batches
        while batches and batches[0][0] <= self._first_seqno:
            _, number, published_s, *_ = batches.popleft()
            self._confirm_seconds.observe(now_s - published_s, number)

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
