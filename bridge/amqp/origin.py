"""Where a message came from, sans-I/O: the queue that it was dead-lettered from, or quarantined at, and the way back.

RabbitMQ notes each dead-lettering in the header `x-death`, the latest first (3.10.8, 4.3.6); the bridge notes where it
took a message that it quarantined. Whichever happened last names the origin. Anybody who may publish can forge these
headers.

A message goes back as it was: without what named its origin, with its `expiration`, which dead-lettering and the
quarantine take away, and with two headers of the bridge: `x-bridge-redriven` counts how often it went back, and
`x-bridge-drain` names the drain that did it last, so that a drain knows its own messages when they return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from bridge.amqp.content import (
    EMPTY_TABLE,
    EXPIRATION,
    HEADERS,
    header_frame_size,
    join_properties,
    long_string,
    table_fields,
    table_with,
)
from bridge.amqp.fields import Value, number, properties, raw, read_table, string
from bridge.amqp.frames import short_string
from bridge.amqp.target import Target
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.amqp.events import Delivery

By = Literal["queue", "exchange"]

REDRIVEN, MARK = "x-bridge-redriven", "x-bridge-drain"
_DEATH = ("x-death", "x-first-death-", "x-last-death-")
"""What dead-lettering adds: a header, and those that begin so."""
_QUARANTINE = (
    *("x-bridge-reason", "x-bridge-queue", "x-bridge-exchange", "x-bridge-routing-key", "x-bridge-reply-code"),
    *("x-bridge-reply-text", "x-bridge-time", "x-bridge-delivery-count", "x-bridge-expiration"),
)
"""What the bridge's quarantine adds."""
LONGEST = 255
"""Bytes of a name (AMQP 0-9-1, short string)."""


class Origin(NamedTuple):
    """Where a message came from."""

    queue: str
    exchange: str
    routing_key: str
    reason: str
    """Why it left: `rejected`, `expired`, `maxlen`, `delivery_limit`, or a reason of the quarantine."""
    unix_s: int | None
    """When it left."""
    expiration: str
    """What it was published with; empty for none."""
    quarantined: bool
    """Whether the bridge's quarantine names it, and not a dead-lettering."""


def origin_of(found: Mapping[str, Value], but: str = "") -> Origin | None:
    """Return where a message with these headers came from; None where they do not say.

    A queue that a message was dead-lettered from to itself is no origin: `but` is the queue that it is in.
    """
    death, quarantine = _death(found, but), _quarantine(found)
    if death is None or quarantine is None:
        return death or quarantine
    return death if (death.unix_s or 0) > (quarantine.unix_s or 0) else quarantine


def _death(found: Mapping[str, Value], but: str) -> Origin | None:
    deaths = found.get("x-death")
    events = [event for event in deaths if isinstance(event, dict)] if isinstance(deaths, list) else []
    expirations = [text for event in events if (text := string(event, "original-expiration"))]
    for event in events:
        queue, keys = string(event, "queue"), event.get("routing-keys")
        if queue and queue != but:
            first = keys[0] if isinstance(keys, list) and keys else ""
            return Origin(
                queue,
                string(event, "exchange"),
                first if isinstance(first, str) else "",
                string(event, "reason"),
                number(event, "time"),
                expirations[0] if expirations else "",
                quarantined=False,
            )
    return None


def _quarantine(found: Mapping[str, Value]) -> Origin | None:
    queue = string(found, "x-bridge-queue")
    if not queue:
        return None
    return Origin(
        queue,
        string(found, "x-bridge-exchange"),
        string(found, "x-bridge-routing-key"),
        string(found, "x-bridge-reason"),
        number(found, "x-bridge-time"),
        string(found, "x-bridge-expiration"),
        quarantined=True,
    )


@dataclass(frozen=True, slots=True)
class Origins(Target):
    """The target that is, for each message, where it came from."""

    by: By = "queue"
    """The queue itself, or the exchange and the key that it was published with: every queue bound there gets a copy."""
    source: str = ""
    """The queue that is drained."""
    mark: str = ""
    """The drain's own."""

    @classmethod
    def back(cls, by: By, source: str, mark: str) -> Origins:
        """Return the target of a drain of a queue."""
        return cls("", None, by, source, mark)

    @property
    def may_fan_out(self) -> bool:
        """Whether a message may reach several queues."""
        return self.by == "exchange"

    @property
    def exchanges_differ(self) -> bool:
        """Whether a missing or forbidden exchange is a matter of the message."""
        return self.by == "exchange"

    @property
    def without_route(self) -> str:
        """What is wrong when no message has a route, for an operator."""
        return "the queues that the messages came from are gone"

    def origin(self, content: bytes) -> Origin | None:
        """Return where a message came from; None where it does not say, or cannot be read."""
        try:
            table = properties(content).get(HEADERS, EMPTY_TABLE)  # of which it is made again on its way back
            found = origin_of(read_table(table), self.source)
        except MalformedFrameError:
            return None
        names = () if found is None else (found.queue, found.exchange, found.routing_key, found.expiration)
        return None if any(len(raw(name)) > LONGEST for name in names) else found

    def named(self, origin: Origin) -> str:
        """Return the queue or the exchange that a message of this origin goes back to."""
        return origin.queue if self.by == "queue" else origin.exchange

    def exchanges(self, batch: list[Delivery]) -> list[bytes]:
        """Return the exchange that each message goes back to."""
        return [delivery.route[: 1 + delivery.route[0]] for delivery in self.addressed(batch)]

    def routes(self, delivered: list[bytes]) -> list[bytes]:
        """Return the routes, which are the messages' own."""
        return delivered

    def distinguishing_key(self, route: bytes) -> bytes:  # noqa: ARG002 - as a target's
        """Return nothing: what was delivered has another route than what was published."""
        return b""

    def addressed(self, batch: list[Delivery]) -> list[Delivery]:
        """Return the messages as they go back. Their origins must be known."""
        return [self._readdressed(delivery) for delivery in batch]

    def _readdressed(self, delivery: Delivery) -> Delivery:
        origin = self.origin(delivery.content)
        assert origin is not None  # noqa: S101 - the selection admits no other
        exchange, key = ("", origin.queue) if self.by == "queue" else (origin.exchange, origin.routing_key)
        route = short_string(raw(exchange)) + short_string(raw(key))
        return delivery._replace(route=route, content=restored(delivery.content, origin, self.mark))


def restored(content: bytes, origin: Origin, mark: str) -> bytes:
    """Return the content as it was before it left its origin, and marked."""
    found = properties(content)
    table = found.get(HEADERS, EMPTY_TABLE)
    redriven = number(read_table(table), REDRIVEN) or 0
    kept = [(name, value) for name, value in table_fields(table) if not _names_origin(name, origin)]
    body = b"".join(b"%c%b%b" % (len(name), name, value) for name, value in kept)
    marks = {
        REDRIVEN.encode(): b"l" + (min(max(redriven, 0), (1 << 62)) + 1).to_bytes(8, "big"),
        MARK.encode(): long_string(mark.encode()),
    }
    found[HEADERS] = table_with(len(body).to_bytes(4, "big") + body, marks)
    if origin.expiration:
        found[EXPIRATION] = short_string(raw(origin.expiration))
    size = header_frame_size(content)
    return join_properties(content[:size], found) + content[size:]


def _names_origin(name: bytes, origin: Origin) -> bool:
    """Whether it is a header that named this origin, or another one before it."""
    header = name.decode("utf-8", "replace")
    return header in _QUARANTINE if origin.quarantined else header.startswith(_DEATH)
