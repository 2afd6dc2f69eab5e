"""What a look at a queue has seen, sans-I/O: its first messages in groups, with examples that nothing obeys."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from bridge.amqp.fields import Value, text
from bridge.amqp.origin import origin_of
from bridge.drain.filter import left_at
from bridge.observe.sentence import duration, number
from bridge.observe.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.check.inquiry import Glimpse

EXAMPLES = 3
SHOWN_BYTES = 80
"""Of a body this much is shown."""
LIMIT_MARGIN = 3
"""A message that would come within so many returns of its delivery limit ends the look."""


class Kind(NamedTuple):
    """What the messages of a group have in common."""

    reason: str
    queue: str
    """That it came from; empty where it names none."""
    exchange: str
    routing_key: str


@dataclass(slots=True)
class Group:
    """Messages of one kind."""

    kind: Kind
    messages: int = 0
    youngest_s: float | None = None
    oldest_s: float | None = None
    """Ages; None where no message says."""
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, seen: Glimpse, age_s: float | None) -> None:
        """One more."""
        self.messages += 1
        if age_s is not None:
            self.youngest_s = age_s if self.youngest_s is None else min(self.youngest_s, age_s)
            self.oldest_s = age_s if self.oldest_s is None else max(self.oldest_s, age_s)
        if len(self.examples) < EXAMPLES:
            shown = printable(seen.body[:SHOWN_BYTES].decode("utf-8", "replace"))
            more = len(seen.body) - SHOWN_BYTES
            self.examples.append(
                {"id": printable(seen.message_id), "body": shown + (f"… and {more:,} bytes" if more > 0 else "")}
            )


def plain(value: object) -> Value:
    """Return a header's value as `fields` has it, of what the library has made of it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return int(value.timestamp())
        case bytes() | bytearray():
            return text(bytes(value))
        case list():
            return [plain(each) for each in value]
        case dict():
            return {str(name): plain(each) for name, each in value.items()}
        case _:
            return str(value)


def delivery_count(seen: Glimpse) -> int:
    """Return how often a quorum queue says that the message has come back."""
    count = seen.headers.get("x-delivery-count")
    return count if isinstance(count, int) else 0


def groups(found: Iterable[Glimpse], unix_s: float, but: str = "") -> list[Group]:
    """Return the messages in groups, the largest first; `but` is the queue that they are in."""
    by_kind: dict[Kind, Group] = {}
    for seen in found:
        headers = {name: plain(value) for name, value in seen.headers.items()}
        origin = origin_of(headers, but)
        kind = Kind("", "", seen.exchange, seen.routing_key)
        if origin is not None:
            kind = Kind(origin.reason, origin.queue, origin.exchange, origin.routing_key)
        left_s = left_at(headers, None if seen.timestamp is None else int(seen.timestamp.timestamp()))
        by_kind.setdefault(kind, Group(kind)).add(seen, None if left_s is None else unix_s - left_s)
    return sorted(by_kind.values(), key=lambda group: -group.messages)


def as_json(found: list[Group], looked: int, ready: int | None) -> str:
    """Return what was seen for machines."""
    listed = [
        {
            **group.kind._asdict(),
            "messages": group.messages,
            "youngest_s": group.youngest_s,
            "oldest_s": group.oldest_s,
            "examples": group.examples,
        }
        for group in found
    ]
    return json.dumps({"looked_at": looked, "ready": ready, "groups": listed}, indent=2) + "\n"


def as_text(found: list[Group], looked: int, ready: int | None) -> str:
    """Return what was seen for people."""
    lines = [f"looked at {number(looked)} of {number(ready or 0)} messages, and returned them"]
    for group in found:
        kind = group.kind
        where = f'from queue "{printable(kind.queue)}"' if kind.queue else "naming no queue that they came from"
        why = f", {printable(kind.reason)}" if kind.reason else ""
        route = f'exchange "{printable(kind.exchange)}", key "{printable(kind.routing_key)}"'
        lines.append(f"{number(group.messages)} messages {where}{why}: {route}{_ages(group)}")
        lines += [f"  {example['id'] or '(no id)'}  {example['body']}" for example in group.examples]
    return "\n".join(lines) + "\n"


def _ages(group: Group) -> str:
    if group.youngest_s is None or group.oldest_s is None:
        return ""
    youngest, oldest = duration(max(0.0, group.youngest_s)), duration(max(0.0, group.oldest_s))
    return f", {oldest} old" if youngest == oldest else f", {youngest} to {oldest} old"
