"""The publishes of one destination generation that wait for their confirms, sans-I/O.

They stand in the order of their publish_seqno, which starts at 1 in each generation. A confirm may come for one
of them or, with `multiple`, for all up to it, and in any order.

A return comes before the confirm of the same publish (protocol order) and carries no number, and the broker may have
changed the message (see `likeness`). So it is matched by what brokers leave alone, and where that leaves a doubt, no
message is lost by it: the confirms of *all* that it may be about count for nothing, and those messages are published
again, one at a time, so that the next return can only be about one. Each that had arrived has then arrived twice.

1. Candidates are those unconfirmed whose routing key (where each message keeps its own), `message_id` and body agree.
2. Of several, those remain that a broker is known to make into what came back; if there are none such, all.
3. If nothing fits, all that is unconfirmed is a candidate. This broker changes more than any is known to, and messages
   are published one at a time as long as the generation lasts.
4. Publishes with the same content (and key) are one candidate: the first of them that is confirmed is taken for the
   returned one, since it does not matter which of them it was.

What it does not do: judge what a confirm means for a delivery, which is `window`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Literal

from bridge.amqp.likeness import Traits, Unchanged, required, traits, unchanged
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge.amqp.events import Delivery, Return
    from bridge.amqp.target import Target
    from bridge.window.books import Histogram


Key = tuple[bytes, bytes]
"""Routing key, where each message keeps its own, and content: publishes that agree in it are alike."""
Fate = Literal["accepted", "returned", "doubtful"]
"""What the confirm of a publish means, as far as returns tell."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a return is compared with what was published (see `likeness`)."""

    unchanged: Callable[[bytes], Unchanged | None] = unchanged
    traits: Callable[[bytes], Traits] = traits
    most: int = 1000
    """So many different messages with the same key, id and body are compared with a return; of more, all are
    candidates. A thousand returns before their confirms then take 0.2 s."""


LIKENESS = Comparison()


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

    def confirmed(self, number: int) -> None:
        """So many of it have been confirmed."""
        self.unconfirmed -= number


@dataclass
class Alike:
    """Unconfirmed publishes with the same content."""

    key: Key
    unchanged: Unchanged | None
    """What no broker changes in them."""
    delivery_tags: set[int] = field(default_factory=set)
    returned: int = 0
    """Returns that are about one of them each, and whose confirm is pending."""

    @property
    def may_be_returned(self) -> bool:
        """Whether there is one among them that was not."""
        return len(self.delivery_tags) > self.returned

    def may_have_become(self, returned: Traits) -> bool:
        """Whether the destination can have made them into a message with these traits."""
        return self.required <= returned

    @cached_property
    def required(self) -> Traits:
        """See `likeness`; worked out when it is needed."""
        return required(self.key[1])

    def add(self, delivery_tag: int) -> None:
        """One more has been published."""
        self.delivery_tags.add(delivery_tag)

    def discard(self, delivery_tag: int) -> None:
        """This one is no longer unconfirmed."""
        self.delivery_tags.discard(delivery_tag)

    def return_one(self) -> None:
        """A return is about one of them."""
        self.returned += 1

    def use_up(self, returns: int) -> None:
        """The confirms that follow so many returns have come, or the returns were about none of them."""
        self.returned -= returns


@dataclass(slots=True)
class Candidates:
    """Different publishes that agree in what no broker changes."""

    alike: dict[Key, Alike] = field(default_factory=dict)
    doubtful: bool = False
    """All of them are, and none was published since."""

    def add(self, alike: Alike) -> None:
        """One of these has been published."""
        self.alike[alike.key] = alike
        self.doubtful = False

    def remove(self, alike: Alike) -> None:
        """None of these is unconfirmed any more."""
        del self.alike[alike.key]

    def doubt(self, doubtful: set[int]) -> None:
        """These delivery tags are in doubt."""
        self.doubtful = all(each.delivery_tags <= doubtful for each in self.alike.values())


def _end_seqno(batch: Batch) -> int:
    return batch.end_seqno


class Publishes:
    """A queue of deliveries between publish and confirm.

    Its length counts places: one that is confirmed out of turn keeps its place until those before it are confirmed.
    """

    def __init__(self, confirm_seconds: Histogram, target: Target, comparison: Comparison = LIKENESS) -> None:
        """Publishes go to the `target`; confirms are timed in `confirm_seconds`."""
        self._confirm_seconds = confirm_seconds
        self._target = target
        self._comparison = comparison
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
        # What follows is of the publishes that were unconfirmed when a return came, and of them only: without returns
        # nothing is looked at, and with them each publish once.
        self._alike: dict[Key, Alike] = {}
        self._candidates: dict[tuple[bytes, Unchanged | None], Candidates] = {}
        """By the routing key, where each message keeps its own, and what no broker changes."""
        self._indexed_until = 1
        """The publish_seqno after the last that was looked at."""
        self._returned = 0
        """Returns whose confirm is pending, but for those that leave a doubt."""
        self._doubtful: set[int] = set()
        """Delivery tags of publishes that a return may be about."""
        self.unrecognised = False
        """Whether a return came that fits none of several: the destination changes more than brokers do."""
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

    def successor(self) -> Publishes:
        """Return an empty one to the same target."""
        return Publishes(self._confirm_seconds, self._target, self._comparison)

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

    def publish(self, batch: list[Delivery], now_s: float, source: object) -> None:
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
        """Take out what this confirms; return the publish_seqno of the first of it, and all of it.

        None stands for one that was confirmed before. Raises `MalformedFrameError` for a sequence number that was never
        used.
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
        if self._alike:
            self._forget(confirmed)
        return first, confirmed

    def rise_from(self, publish_seqno: int) -> bool:
        """Whether delivery tags rise from this publish on, so that one ack may cover several."""
        return publish_seqno >= self._rising_from

    def overdue(self, now_s: float, timeout_s: float) -> bool:
        """Whether one has been unconfirmed for `timeout_s`, time blocked excepted, whatever was confirmed since."""
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
            batch.confirmed(confirmed)

    def _time_one(self, publish_seqno: int, now_s: float) -> None:
        """Time the confirm of one that is not the first."""
        batch = self._batches[bisect_right(self._batches, publish_seqno, key=_end_seqno)]
        self._confirm_seconds.observe(now_s - batch.published_s)
        batch.confirmed(1)

    # --- Returns -----------------------------------------------------------------------------------------

    @property
    def unresolved(self) -> bool:
        """Whether there were returns whose confirm is pending."""
        return bool(self._returned or self._doubtful)

    def returned(self, event: Return) -> None:
        """`basic.return`: mark the publishes that it may be about; their confirms follow (protocol order).

        Raises `MalformedFrameError` when nothing is published that it can be about.
        """
        self._index()
        compare = self._comparison
        key = self._target.distinguishing_key(event.route)
        candidates = [
            found
            for what in {compare.unchanged(event.content), None}  # None: of those that cannot be read, anything may be
            if (found := self._candidates.get((key, what))) is not None
        ]
        if candidates and all(found.doubtful for found in candidates):
            return
        alike = [a for found in candidates for a in found.alike.values() if a.may_be_returned]
        if 1 < len(alike) <= compare.most:
            returned = compare.traits(event.content)
            alike = [a for a in alike if a.may_have_become(returned)] or alike
        if not alike:
            alike = [a for a in self._alike.values() if a.may_be_returned]
            self.unrecognised |= len(alike) > 1
        if not alike:
            message = f"a returned message ({event.reply_code} {event.reply_text}) that was not published"
            raise MalformedFrameError(message)
        if len(alike) == 1:
            alike[0].return_one()
            self._returned += 1
        else:
            self._doubtful.update(*(a.delivery_tags for a in alike))
            for found in candidates:
                found.doubt(self._doubtful)

    def resolve(self, delivery: Delivery, *, accepted: bool) -> Fate:
        """The confirm of this one has come: use up the return that it follows, and return what the confirm means."""
        doubtful = delivery.delivery_tag in self._doubtful
        self._doubtful.discard(delivery.delivery_tag)
        alike = self._alike.get(self._key(delivery))
        if alike is not None and alike.returned:
            # One that was refused was not returned: another of them was, or none.
            used_up = 1 if accepted else max(0, alike.returned - len(alike.delivery_tags))
            alike.use_up(used_up)
            self._returned -= used_up
            self._drop_empty(alike)
            if accepted:
                return "returned"
        return "doubtful" if doubtful else "accepted"

    def _index(self) -> None:
        """Look at what was published since the last return and is unconfirmed."""
        number = self.next_seqno - max(self._indexed_until, self._first_seqno)
        self._indexed_until = self.next_seqno
        for delivery in islice(reversed(self._places), number):
            if delivery is None:
                continue
            key = self._key(delivery)
            alike = self._alike.get(key)
            if alike is None:
                alike = self._alike[key] = Alike(key, self._comparison.unchanged(delivery.content))
            alike.add(delivery.delivery_tag)
            self._candidates.setdefault((key[0], alike.unchanged), Candidates()).add(alike)

    def _forget(self, confirmed: list[Delivery | None]) -> None:
        """These are no longer unconfirmed."""
        for delivery in confirmed:
            if delivery is not None and (alike := self._alike.get(self._key(delivery))) is not None:
                alike.discard(delivery.delivery_tag)
                self._drop_empty(alike)

    def _drop_empty(self, alike: Alike) -> None:
        if alike.delivery_tags or alike.returned:
            return
        del self._alike[alike.key]
        where = alike.key[0], alike.unchanged
        candidates = self._candidates[where]
        candidates.remove(alike)
        if not candidates.alike:
            del self._candidates[where]

    def _key(self, delivery: Delivery) -> Key:
        return self._target.distinguishing_key(delivery.route), delivery.content
