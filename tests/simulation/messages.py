"""Messages at the source: what their deliveries look like, and what a copy at the destination must look like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from struct import pack
from typing import TYPE_CHECKING, Any, Literal

from pamqp import decode

from tests.support import frames

if TYPE_CHECKING:
    from random import Random

    from pamqp.common import FieldTable

Key = tuple[bytes, bytes, bytes, str]
"""Message id, body, headers, and what each message keeps of its route: what makes copies of one message the same. Twins
share theirs on purpose."""
Keeps = Literal["nothing", "key", "exchange and key"]
"""What of its own route a message arrives with; otherwise copies do not show which was theirs."""

BODY_SIZES = (0, 0, 1, 20, 20, 20, 100, 300, 900)
ROUTING_KEYS = ("red", "green", "blue")
EXCHANGES = ("", "orders", "events")
"""Where messages have been published to at the source."""
NARROW_FRAME_MAX = 256
"""The smallest `frame_max` of a destination."""
COUNTS = {"x-delivery-count", "x-acquired-count"}
MOVED = {"CC": "x-bridge-cc", "BCC": "x-bridge-bcc"}
"""Headers that a copy has under another name."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What the destination's broker does to a message before it returns it."""

    sorts: bool = False
    """The header table, as RabbitMQ 4.x does."""
    normalises: bool = False
    """One form for integers, booleans and the expiration, one of two headers of a name, no `BCC`: 4.x, too."""
    stamps: bool = False
    """An interceptor adds or overwrites headers and the timestamp."""
    mangles: bool = False
    """More than any broker is known to change."""


FRESH: dict[str, Any] = {"redelivered": False, "delivery_count": 0, "acquired_count": 0, "expires_s": inf}
"""What has happened to a message that was published just now."""


@dataclass(slots=True, eq=False)
class Message:
    """One message at the source, over all its deliveries."""

    number: int
    body: bytes
    properties: frames.Properties
    """All but the headers and the delivery mode that a copy must have."""
    fields: dict[str, bytes]
    """The header table's raw values; of a name that stands twice, the second has an apostrophe after it."""
    delivery_mode: bytes
    exchange: str
    routing_key: str
    keeps: Keeps = "nothing"
    expires_s: float = inf
    poison: bool = False
    spoils: bool = False
    """Whether it is poison for the quarantine, too."""
    redelivered: bool = False
    delivery_count: int = 0
    """Returns that count towards the delivery limit."""
    acquired_count: int = 0

    @property
    def has_large_header(self) -> bool:
        """Whether its header frame is larger than the frames that some brokers agree on."""
        return "large" in self.fields

    @property
    def key(self) -> Key:
        """What copies of it are known by."""
        headers = _table(dict(sorted(self.fields.items())))
        return self.properties.get("message_id", b""), self.body, headers, self.route

    @property
    def route(self) -> str:
        """What of its route copies of it arrive with (see `kept`)."""
        return kept(self.keeps, self.exchange, self.routing_key)

    def delivered(self, fields: dict[str, bytes], frame_max: int) -> bytes:
        """Its content as the source sends it, with the fields that the queue adds."""
        step = frame_max - 8 if frame_max else 1 << 20
        return frames.content(
            self.body, self._properties(self.delivery_mode, {**self.fields, **fields}, self.properties), step=step
        )

    @property
    def narrow(self) -> bool:
        """Whether only what the bridge adds makes its header frame larger than `NARROW_FRAME_MAX`."""
        return "narrow" in self.fields

    def stands_in(self, headers: FieldTable) -> bool:
        """Whether all its headers are among these, decoded ones; `CC` and the counts, which change, need not be."""
        (_, own) = decode.field_table(_table(self.fields))
        return all(headers.get(name) == value for name, value in own.items() if name not in {*MOVED, *COUNTS})

    def expected(self, *, left_out: bool = False) -> bytes:
        """Payload of the header frame that the destination must see (invariant 7).

        `left_out`: without what the bridge moved, where that does not fit.
        """
        fields, rest = self._expected(left_out=left_out)
        return frames.header(len(self.body), self._properties(b"\2", fields, rest))[7:-1]

    def returned(self, changes: Changes, now_s: float, *, left_out: bool) -> bytes:
        """Payload of the header frame that comes back."""
        fields, rest = self._expected(left_out=left_out)
        if changes.normalises:
            fields = {name: _normal(value) for name, value in fields.items() if not name.endswith("'")}
            if "expiration" in rest:
                rest["expiration"] = b"%d" % int(rest["expiration"])
        if changes.stamps:
            fields |= {"timestamp_in_ms": b"l" + pack(">q", int(now_s * 1000)), "x-routed-by": frames.text("node")}
            rest["timestamp"] = pack(">Q", int(now_s))
        if changes.sorts:
            fields = dict(sorted(fields.items()))
        if changes.mangles:
            rest["message_id"] = b"mangled"
        return frames.header(len(self.body), self._properties(b"\2", fields, rest))[7:-1]

    def _expected(self, *, left_out: bool) -> tuple[dict[str, bytes], frames.Properties]:
        """The headers and the other properties that the destination must see."""
        fields = {MOVED.get(name, name): value for name, value in self.fields.items() if name not in COUNTS}
        rest = dict(self.properties)
        if "user_id" in rest:
            user = rest.pop("user_id").decode()
            fields |= {} if left_out else {"x-bridge-user-id": frames.text(user)}
        return fields, rest

    @staticmethod
    def _properties(mode: bytes, fields: dict[str, bytes], rest: frames.Properties) -> frames.Properties:
        properties = dict(rest)
        if mode:
            properties["delivery_mode"] = mode
        if fields:
            properties["headers"] = _table(fields)
        return properties


def kept(keeps: Keeps, exchange: str, routing_key: str) -> str:
    """Return what tells a route from others where messages keep so much of their own; empty where all are alike."""
    return {"nothing": "", "key": routing_key, "exchange and key": f"{exchange} {routing_key}"}[keeps]


def _table(fields: dict[str, bytes]) -> bytes:
    body = b"".join(frames.short(name.rstrip("'")) + value for name, value in fields.items())
    return pack(">I", len(body)) + body


def _normal(value: bytes) -> bytes:
    if value[:1] == b"t":
        return b"t" + bytes([value[1] > 0])
    return b"l" + value[1:] if value[:1] == b"L" else value


def _body(number: int, size: int) -> bytes:
    body = (b"%d." % number).ljust(size, b"x")
    return body[:size] if size <= 1 else body


def make_message(rng: Random, number: int, *, with_id: bool, keeps: Keeps, kinds: frozenset[str]) -> Message:
    """A message of some kind; a body tells its number as far as it is long enough.

    Its header frame may be larger than a frame of either side where `large` is among the `kinds`; with `wide`, it is
    larger than `NARROW_FRAME_MAX`.
    """
    body = _body(number, rng.choice(BODY_SIZES))
    properties: frames.Properties = {"message_id": b"id-%d" % number} if with_id else {}
    fields: dict[str, bytes] = {}
    mode = b"\2"
    kind = rng.random()
    if "wide" in kinds:
        fields = {"wide": frames.text("w" * 260)}
    elif kind < 0.1:
        mode = rng.choice((b"", b"\1"))
    elif kind < 0.3:
        fields = {"zone": frames.text("eu"), "attempt": b"I" + pack(">i", number)}
        properties["content_type"] = b"text/plain"
    elif kind < 0.35:
        fields = {"CC": b"A" + pack(">I", 8) + frames.text("abc"), "a": b"t\1", "BCC": frames.text("abc")}
    elif kind < 0.4:
        properties["user_id"] = b"alice"
    elif kind < 0.43:
        # Copied by a shovel or an application: it is not this queue's, which overwrites it where it counts itself.
        fields = {"x-delivery-count": b"l" + pack(">q", 99), "zone": frames.text("us")}
    elif kind < 0.46:
        properties["user_id"] = b"alice"
        fields = {"narrow": frames.text("n" * 195)}
    elif kind < 0.5:
        # In other forms than RabbitMQ 4.x has them, and as a broker with an interceptor has stamped it.
        fields = {"big": b"L" + pack(">Q", number), "flag": b"t\5", "zone": frames.text("a"), "zone'": frames.text("b")}
        fields |= {"timestamp_in_ms": b"l" + pack(">q", number)} if kind < 0.48 else {}
        properties["expiration"] = b"00600000"
    elif kind < 0.52 and "large" in kinds:
        body, fields = body[:9], {"large": frames.text("." * 600)}
    return Message(number, body, properties, fields, mode, rng.choice(EXCHANGES), rng.choice(ROUTING_KEYS), keeps)


def make_twin(message: Message, number: int) -> Message:
    """Another message that cannot be told from this one."""
    return replace(message, number=number, **FRESH)


def make_retry(rng: Random, message: Message, number: int) -> Message:
    """Another message under the same id and with the same body, as an application publishes one to be tried again.

    Its header or its routing key is like that of no other.
    """
    other = f"retry-{number}"
    retry = b"I" + pack(">i", number)
    own = {name: value for name, value in message.fields.items() if name != "narrow"}  # which one more would not fit
    fields, routing_key = rng.choice(
        (
            ({**own, "x-retry": retry}, message.routing_key),
            ({**own, "timestamp_in_ms": b"l" + pack(">q", number)}, message.routing_key),
            (own, other),
            ({"x-retry": retry}, other),
        )
    )
    return replace(message, number=number, fields=fields, routing_key=routing_key, **FRESH)
