"""A drain in a schedule: how many messages, which of them, and when it is over, as `amqp-bridge drain` decides it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Self

from bridge.drain.filter import Filter
from bridge.drain.finish import Conclusion, Finish
from bridge.drain.selection import Moved
from bridge.drain.watch import Watch
from bridge.observe.backlog import Backlog
from bridge.relay.consumer import Consumer
from bridge.window.terms import Terms
from tests.simulation.messages import ROUTING_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from bridge.amqp.events import Delivery
    from bridge.relay.queue import QueueState
    from tests.simulation.process import Process
    from tests.simulation.source import Source

COUNTED_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Errand:
    """What is asked of a drain."""

    limit: float = inf
    until_empty: bool = False
    keys: tuple[str, ...] = ()
    """Only messages with these routing keys; empty for all."""

    @classmethod
    def draw(cls, rng: Random) -> Self:
        """Return some errand."""
        keys = tuple(rng.sample(ROUTING_KEYS, rng.choice((0, 0, 1, 2))))
        return cls(rng.choice((inf, inf, 1, 5, 20)), rng.random() < 0.2, keys)

    def wants(self, routing_key: str) -> bool:
        """Whether a message with this routing key is to be moved."""
        return not self.keys or routing_key in self.keys

    @property
    def exact(self) -> bool:
        """Whether nothing is to be taken that is not moved."""
        return not self.keys


class Confirmed:
    """Counts what the destination has confirmed."""

    def __init__(self) -> None:
        self.copies = 0

    def confirmed(self, deliveries: Iterable[Delivery]) -> None:
        """Copies of these."""
        self.copies += len([*deliveries])


class Drainage:
    """One drain: its terms, its end, and what must be so then."""

    def __init__(self, errand: Errand, source: Source) -> None:
        self.errand = errand
        self._source = source
        self.numbers = [message.number for message in (*source.returned, *source.ready)]
        """What is ready at the start."""
        self._alone = not source.unsettled
        """Whether nobody else had some of it, to be returned later."""
        limit = inf if errand.keys else errand.limit
        self._most = limit if errand.until_empty else min(len(self.numbers), limit)
        self._moved = Moved(Filter(keys=errand.keys), most=errand.limit) if errand.keys else None
        self._confirmed = Confirmed()
        self.terms = Terms(self._most, metered=errand.exact, selection=self._moved, proof=self._confirmed)
        self._finish = Finish(60.0)
        self._watch: Watch | None = None
        self._backlog = Backlog()
        self._answer: QueueState | None = None
        """What the queue has answered, and the bridge has not read."""
        self._asked_s = -inf
        self.ending: Conclusion | None = None
        self._aside = 0
        """What was withheld or parked when it was over."""

    def look(self, process: Process, now_s: float) -> bool:
        """Look whether the drain is over, once; what the queue answers is read a look later."""
        if self._watch is None:
            self._watch = Watch(process.window, process.steering)
        source, destination = process.source, process.destination
        source_up = source is not None and source.opened
        destination_up = destination is not None and destination.opened
        if source is None or not source_up:
            self._answer = None
            self._backlog.failed("not connected")
        elif not source.link.frozen and self._answer is not None:
            consumed = process.steering.consumer is Consumer.ON
            self._backlog.answered(self._answer, now_s, consumed=consumed)
            self._answer = None
        elif not source.link.frozen and now_s - self._asked_s >= COUNTED_EVERY_S:
            self._asked_s, self._answer = now_s, self._source.state
        look = self._watch.look(self._backlog, now_s, source_up=source_up, destination_up=destination_up)
        self.ending = self._finish.look(look)
        self._aside = look.withheld + look.parked
        return self.ending is not None

    def audit(self, process: Process) -> None:
        """Hold an ended drain to what it was asked for."""
        window, books = process.window, process.books
        surplus = self._confirmed.copies - self._most - books.duplicates_possible
        assert surplus <= 0, f"cut-off: {self._confirmed.copies} moved where {self._most} were asked for"
        if self.errand.keys:
            assert self._confirmed.copies <= self.errand.limit + books.duplicates_possible, "more moved than the limit"
        if self.ending is Conclusion.COMPLETE and process.source_generations == 1:
            taken = books.received - sum(books.requeued.values())
            assert self.errand.keys or taken == self._most, f"cut-off: {taken} taken, {self._most} asked for"
        if self.ending is Conclusion.CROWDED:
            assert self.errand.keys, "crowded by what is wanted"
            assert self._aside >= min(window.prefetch, 1 if process.pressed else inf), "crowded too early"

    def audit_undisturbed(self, process: Process) -> None:
        """Hold a drain to it that nothing has disturbed: what was there is moved, all else is as if untouched."""
        if not self._alone:
            return
        books = process.books
        left = [*self._source.returned, *self._source.ready]
        later = [message for message in left if message.number not in self.numbers]
        if self.errand.exact and self.ending is Conclusion.COMPLETE:
            moved = self.numbers[: int(min(len(self.numbers), self.errand.limit))]
            assert self.errand.until_empty or {m.number for m in left}.isdisjoint(moved), "not all of the start"
            assert books.received == self._most, f"cut-off: {books.received} delivered, {self._most} asked for"
            assert not any(message.redelivered for message in later), "took what had arrived later"
        if self.errand.keys and self.ending in {Conclusion.COMPLETE, Conclusion.EMPTY}:
            missed = [m.number for m in left if m.number in self.numbers and self.errand.wants(m.routing_key)]
            assert not missed or self._confirmed.copies == self.errand.limit, f"{missed} match, and were not moved"
