"""Which messages are wanted, sans-I/O: by header, by why and when they left where they were, by key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from bridge.amqp.content import TIMESTAMP
from bridge.amqp.fields import Value, headers, number, properties, text
from bridge.amqp.frames import split_route
from bridge.amqp.origin import origin_of
from bridge.errors import MalformedFrameError
from bridge.observe.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.amqp.events import Delivery

Match = Literal["yes", "no", "undated"]


@dataclass(frozen=True, slots=True)
class Filter:
    """What a message must be; every condition must hold."""

    headers: tuple[tuple[str, str], ...] = ()
    """Names, and values as text."""
    reasons: tuple[str, ...] = ()
    """One of these; `-` and `_` are alike."""
    keys: tuple[str, ...] = ()
    """One of these topic patterns fits the routing key that it was published with."""
    before_unix_s: float | None = None
    """When it left where it was, or was published, at the latest."""

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return bool(self.headers or self.reasons or self.keys or self.before_unix_s is not None)

    @property
    def conditions(self) -> list[str]:
        """The conditions, for people."""
        found = [f"header {printable(name)} is {printable(value)}" for name, value in self.headers]
        if self.reasons:
            found.append(f"reason is {printable(' or '.join(self.reasons))}")
        if self.keys:
            found.append(f"key fits {printable(' or '.join(self.keys))}")
        if self.before_unix_s is not None:
            found.append(f"from before {datetime.fromtimestamp(self.before_unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC")
        return found

    def match(self, delivery: Delivery) -> Match:
        """Return whether a message is wanted; `undated` for one of which the age is asked and not known."""
        try:
            found = headers(delivery.content)
            stamp = properties(delivery.content).get(TIMESTAMP)
        except MalformedFrameError:
            return "no"
        if not self._fits(found, text(split_route(delivery.route)[1])):
            return "no"
        if self.before_unix_s is None:
            return "yes"
        left_s = left_at(found, None if stamp is None else int.from_bytes(stamp, "big"))
        if left_s is None:
            return "undated"
        return "yes" if left_s <= self.before_unix_s else "no"

    def _fits(self, found: Mapping[str, Value], key: str) -> bool:
        """Return whether headers, reason and key are as wanted; `key` is the delivery's."""
        origin = origin_of(found)
        if any(name not in found or as_text(found[name]) != value for name, value in self.headers):
            return False
        if self.reasons and (origin is None or _alike(origin.reason) not in map(_alike, self.reasons)):
            return False
        routing_key = key if origin is None else origin.routing_key
        return not self.keys or any(topic(pattern).fullmatch(routing_key) for pattern in self.keys)


def left_at(found: Mapping[str, Value], timestamp: int | None) -> int | None:
    """Return when a message left where it was, or else was published, in Unix time; None where it does not say."""
    deaths = found.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    death = number(first, "time") if isinstance(first, dict) else None
    if death is not None:
        return death
    quarantined = number(found, "x-bridge-time")
    return timestamp if quarantined is None else quarantined


def as_text(value: Value) -> str:
    """Return a header's value as it would be written on a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return text(value) if isinstance(value, bytes) else str(value)


def _alike(reason: str) -> str:
    return reason.replace("_", "-").lower()


def topic(pattern: str) -> re.Pattern[str]:
    """Return a topic pattern: `*` stands for one word, `#` for any number of them (AMQP 0-9-1, 3.1.3.3)."""
    fits = ""
    for position, word in enumerate(pattern.split(".")):
        dot = r"\." if position else ""
        if word == "#":
            fits += r"(?:\.[^.]*)*" if position else r"(?:[^.]*(?:\.[^.]*)*)?"
        else:
            fits += dot + (r"[^.]*" if word == "*" else re.escape(word))
    if pattern.startswith("#."):
        fits = rf"(?:{fits}|{topic(pattern[2:]).pattern})"
    return re.compile(fits, re.DOTALL)
