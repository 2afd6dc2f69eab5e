"""The plan of a drain, sans-I/O: how many messages it takes, what is printed first, and what speaks against it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Self

from bridge.drain.request import WrongUseError
from bridge.observe.sentence import number
from bridge.observe.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge.amqp.origin import By
    from bridge.drain.request import Request
    from bridge.drain.sample import Group
    from bridge.drain.survey import Side


LISTED = 20
"""So many targets are listed."""
NOT_LISTED = (
    "where they go back to is not listed: to look at messages of this queue may count towards its delivery limit and "
    "put them behind others; --allow-target PATTERN bounds it"
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where the first messages go back to."""

    looked: int
    """So many were looked at, and returned."""
    targets: dict[str, int]
    """How many go where, by the name of the queue or the exchange."""
    nameless: int = 0
    """How many name no origin."""

    @classmethod
    def of(cls, groups: Sequence[Group], by: By) -> Self:
        """Return it as these groups of messages have it."""
        targets: Counter[str] = Counter()
        for group in groups:
            if group.kind.queue:
                targets[group.kind.queue if by == "queue" else group.kind.exchange] += group.messages
        looked = sum(group.messages for group in groups)
        return cls(looked, dict(targets), looked - targets.total())


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """What a drain is about to do."""

    source: Side
    destination: Side
    request: Request
    stated: bool = False
    """Whether the settings state the source queue's type, where the broker does not."""
    outlook: Outlook | None = None
    """Where the first messages go back to; None where looking at them is not harmless, or all have one target."""

    @property
    def most(self) -> float:
        """How many messages are taken: those that are ready now, and no more than the limit; inf for no end."""
        limit = inf if self.request.limit is None or self.request.wanted else self.request.limit
        return limit if self.request.until_empty else min(self.source.ready or 0, limit)

    @property
    def most_moved(self) -> float:
        """How many of these are moved at most."""
        return inf if self.request.limit is None else self.request.limit

    @property
    def doubts(self) -> list[str]:
        """Reasons why it is not known that what is taken is what is ready now; empty where it is."""
        source = self.source
        found = []
        if source.queue.priorities:
            found.append("the queue has priorities: a message that arrives later may be delivered before others")
        if source.state is not None and source.state.consumers:
            found.append(f"the queue has {_consumers(source.state.consumers)}, which may take some of them")
        if not source.queue.queue_type:
            found.append("what kind of queue it is the broker tells only to a user who may configure it")
        return found

    def refuse(self) -> None:
        """Raise `WrongUseError` for a queue that cannot be drained."""
        queue, name = self.source.queue, self.source.name
        if queue.queue_type == "stream":
            raise WrongUseError(f'"{name}" is a stream, which keeps what it has delivered: there is nothing to drain')
        deletes = "auto-delete" if queue.auto_delete else "x-expires" if queue.expires else ""
        if deletes and not self.request.yes:
            raise WrongUseError(
                f'queue "{name}" is {deletes}: RabbitMQ deletes it with what is left in it some time after the drain '
                "has gone; say --yes if that may be"
            )
        if not queue.queue_type and not (self.stated or self.request.yes):
            raise WrongUseError(
                f'the broker does not tell this user what queue "{name}" is (it may not configure it): RabbitMQ might '
                "delete it when its last consumer goes; grant that permission, set BRIDGE_SOURCE_QUEUE_TYPE, or say "
                "--yes"
            )

    @property
    def text(self) -> str:
        """The plan, for people."""
        return "\n".join(visible(f"{name:6}{text}") for name, text in self._lines()) + "\n"

    def _lines(self) -> Sequence[tuple[str, str]]:
        lines = [("drain", self._amount), ("from", self._side(self.source)), ("to", self._side(self.destination))]
        lines += [("only", text) for text in self.request.wanted.conditions]
        lines += [("only", f"back to {printable(pattern)}") for pattern in self.request.allowed]
        if self.request.to_original is not None:
            lines += self._ways_back(self.request.to_original)
        lines += [("note", text) for text in self.doubts]
        return lines

    def _ways_back(self, by: By) -> Iterator[tuple[str, str]]:
        """Where messages go back to, as far as was looked: anybody who may publish can forge what says so."""
        outlook = self.outlook
        if outlook is None:
            yield "note", NOT_LISTED
            return
        of = f"of the first {number(outlook.looked)}"
        shown = sorted(outlook.targets.items(), key=lambda target: -target[1])
        for name, messages in shown[:LISTED]:
            stays = "" if self.request.allows(name) else "; --allow-target does not allow it, they stay"
            yield "back", f'to {by} "{printable(name)}": {number(messages)} {of}{stays}'
        if len(shown) > LISTED:
            rest = sum(messages for _, messages in shown[LISTED:])
            yield "back", f"to {number(len(shown) - LISTED)} others: {number(rest)} {of}"
        if outlook.nameless:
            yield "stay", f"{number(outlook.nameless)} {of} name no queue that they came from"
        if outlook.looked < (self.source.ready or 0) and not self.request.allowed:
            yield "note", "the others were not looked at: --allow-target PATTERN bounds where they may go"

    @property
    def _amount(self) -> str:
        if self.request.wanted and not self.request.until_empty:
            most = "" if self.most_moved == inf else f", {number(self.most_moved)} of them at most"
            return f"what matches of the {number(self.source.ready or 0)} messages that are ready now{most}"
        if self.most == inf:
            return "all messages until the queue is empty, those that arrive meanwhile included"
        if self.request.until_empty:
            return f"up to {number(self.most)} messages, those that arrive meanwhile included"
        ready = self.source.ready or 0
        of = "" if self.most == ready else f" of {number(ready)}"
        return f"{number(self.most)}{of} messages, those that are ready now; what arrives meanwhile stays"

    @staticmethod
    def _side(side: Side) -> str:
        kind = f"{side.queue.queue_type} queue" if side.queue.queue_type else "queue"
        if side.state is None:
            return f"{printable(side.name)} at {printable(side.url)}"
        return f'{kind} "{printable(side.name)}" at {printable(side.url)}, {number(side.state.ready)} ready'


def _consumers(count: int) -> str:
    return f"{count} other consumer{'s' * (count != 1)}"
