"""Contents: properties and header tables that nobody has checked yet, through all that reads and rewrites them.

Input: an octet of options, the property flags, and the properties. What the preparer lets pass can be published, told
from other messages and returned without an exception; what it changes, and nothing else, is changed; and where pamqp
and pika read the same, so does the bridge.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from struct import pack
from typing import Any

import pika.frame
from pamqp.frame import unmarshal

from bridge.amqp import content as c
from bridge.amqp import fields
from bridge.amqp.additions import Additions, hops_of
from bridge.amqp.fitting import fit
from bridge.amqp.identity import has_identity, identity
from bridge.amqp.likeness import required, traits, unchanged
from bridge.amqp.origin import Origins
from bridge.amqp.pieces import Pieces
from bridge.amqp.preparer import COPIES, COUNTS, ContentPreparer, HeaderPolicy
from bridge.errors import MalformedFrameError
from tests.support import frames

MAX_BYTES = 400
"""Of an input."""
ROUTE = b"\x02ex\x03key"
USER = b"bridge"
ADDED = Additions.of({"region": "eu", "n": 1}, "source")
POLICIES = (
    HeaderPolicy(user_id="keep", cc="keep", delivery_count="keep"),
    HeaderPolicy(destination_user=USER),
    HeaderPolicy(destination_user=USER, user_id="drop", cc="drop"),
    HeaderPolicy(destination_user=USER, additions=ADDED),
)
PREPARERS = [ContentPreparer(policy) for policy in POLICIES]
BODIES = (b"", b"body", b"x" * 30, b"y" * 30)
COMPARES = 16
GONE = {*COUNTS, *COPIES}
NAMES = {
    c.CONTENT_TYPE: "content_type",
    c.CONTENT_ENCODING: "content_encoding",
    c.CORRELATION_ID: "correlation_id",
    c.REPLY_TO: "reply_to",
    c.EXPIRATION: "expiration",
    c.MESSAGE_ID: "message_id",
    c.TYPE: "type",
    c.USER_ID: "user_id",
    c.APP_ID: "app_id",
    c.CLUSTER_ID: "cluster_id",
}
"""Short strings, as both other libraries call them."""


def run(data: bytes) -> None:
    """Take a message through all that reads it."""
    if len(data) < 3:
        return
    options, body = data[0], BODIES[data[0] >> 2 & 3]
    header = frames.frame(2, 1, pack(">HHQ", 60, 0, len(body)) + data[1:])
    parts = [body[:7], body[7:]] if len(body) > 7 else [body] if body else []
    whole = header + b"".join(frames.frame(3, 1, part) for part in parts)
    properties = read(header)
    prepare(options & 3, header, whole, properties)
    try:
        assert fit(header, 64) is None or len(fit(header, 64).header) <= 64  # type: ignore[union-attr] # asked before
    except MalformedFrameError:
        assert properties is None or table_of(properties) is None
    if properties is not None and options & COMPARES:
        ask_others(header, properties)


def read(header: bytes) -> dict[int, bytes] | None:
    """Return the properties; None where they cannot be read."""
    try:
        properties = c.split_properties(header)
    except MalformedFrameError:
        return None
    assert c.join_properties(header, properties) == header, "taken apart and joined, it is another"
    return properties


def table_of(properties: dict[int, bytes]) -> dict[bytes, bytes] | None:
    """Return the header table; None where it cannot be read."""
    try:
        return dict(c.table_fields(properties.get(c.HEADERS, c.EMPTY_TABLE)))
    except MalformedFrameError:
        return None


def prepare(number: int, header: bytes, whole: bytes, properties: dict[int, bytes] | None) -> None:
    """Make it ready to be published, as the cutter does, and use it as the window does."""
    policy, preparer = POLICIES[number], PREPARERS[number]
    try:
        prepared = preparer.prepare(header)
    except MalformedFrameError:
        assert properties is None or table_of(properties) is None, "refused, though it can be read"
        return
    after = header if prepared is None else prepared.header
    content = after + whole[len(header) :]
    used(content)
    result = read(after)
    assert (result is None) == (properties is None), "made readable, or unreadable"
    if properties is None or result is None:
        return
    assert result[c.DELIVERY_MODE] == b"\x02", "not persistent"
    for flag in {*properties, *result} - {c.DELIVERY_MODE, c.HEADERS, c.USER_ID}:
        assert properties[flag] == result[flag], f"property {flag:#06x} has changed"
    if policy.user_id != "keep":
        assert result.get(c.USER_ID, b"\x06" + USER)[1:] == USER, "somebody else's user_id"
    before, table = table_of(properties), table_of(result)
    if before is None or table is None:
        return
    if policy.cc != "keep":
        assert GONE.isdisjoint(table), f"stays: {GONE & {*table}}"
    changed = {name for name in {*before, *table} if before.get(name) != table.get(name)}
    for name in changed:
        assert name.startswith(b"x-bridge-") or name in GONE | set(ADDED.names if policy.additions else ()), name  # type: ignore[union-attr] # there are some
    if policy.additions is None:
        again = preparer.prepare(after)
        assert again is None or again.header == after, "prepared again, it is another"


def used(content: bytes) -> None:
    """Ask all that is asked of a message that is forwarded. None of it may raise."""
    assert c.table_place(content)[1] <= c.header_frame_size(content), "a table beyond its frame"
    c.stream_offset(content)
    c.timestamp_ms(content)
    c.message_id(content)
    again = c.reframe(content, 1, 4096)
    payload = b"".join(c.body_payloads(content))
    assert b"".join(c.body_payloads(again)) == payload, "another body"
    assert (identity(ROUTE, content) is None) is not has_identity(content)
    assert identity(ROUTE, content) == identity(ROUTE, again), "another message by its frames"
    assert unchanged(content) == unchanged(again)
    assert required(content) <= traits(again), "a message that is not like itself"
    pieces = b"".join(iter(Pieces(content, 2, 4096).take, b""))
    assert c.header_frame(pieces) == c.header_frame(c.reframe(content, 2, 4096)), "another header in pieces"
    assert b"".join(c.body_payloads(pieces)) == payload, "another body in pieces"
    for ask in (hops_of, lambda each: c.with_headers(each, {b"k": b"V"}), c.without_expiration, fields.headers):
        try:
            ask(content)
        except MalformedFrameError:
            continue
    origins = Origins.back("exchange", "q", "mark")
    if origins.origin(content) is not None:
        restored = origins.addressed([frames.delivery(1)._replace(content=content)])[0]
        assert len(restored.route) <= 512
        c.split_properties(c.header_frame(restored.content))


def ask_others(header: bytes, properties: dict[int, bytes]) -> None:
    """Complain where both others read something that the bridge reads in another way."""
    try:
        _, _, theirs = unmarshal(header)
        _, others = pika.frame.decode_frame(header)
    except Exception:  # noqa: BLE001 - they raise all kinds of a damaged frame
        return
    first, second = theirs.properties, others.properties  # type: ignore[union-attr] # a content header, in both
    for flag, name in NAMES.items():
        one, other = getattr(first, "message_type" if name == "type" else name), getattr(second, name)
        if flag in properties and one == other and one is not None:
            assert fields.text(properties[flag][1:]) == one, f"{name}: {properties[flag]!r}, where both say {one!r}"
    compare_tables(properties, first.headers, second.headers)


def compare_tables(properties: dict[int, bytes], one: Any, other: Any) -> None:  # noqa: ANN401 - whatever they read
    """Complain where both have read another table."""
    if c.HEADERS not in properties or one is None or other is None:
        return
    try:
        mine = normal(fields.read_table(properties[c.HEADERS]))
    except MalformedFrameError:
        return
    one, other = normal(one), normal(other)
    for name in {*mine} & {*one} & {*other}:
        if one[name] == other[name]:
            assert mine[name] == one[name], f"{name}: {mine[name]!r}, where both say {one[name]!r}"


def normal(value: Any) -> Any:  # noqa: ANN401 - whatever a table holds
    """Return a value in the form that all three have in common."""
    if isinstance(value, dict):
        return {normal(name): normal(each) for name, each in value.items()}
    if isinstance(value, list):
        return [normal(each) for each in value]
    return scalar(value)


def scalar(value: object) -> object:
    """As `normal`, of what is no table and no array."""
    match value:
        case str():
            return value.encode("utf-8", "surrogateescape")
        case bytearray():
            return bytes(value)
        case datetime():
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        case int() if not isinstance(value, bool):
            return value % (1 << 64)  # the two read type L as signed, RabbitMQ and the bridge as unsigned
        case float() | Decimal():
            return "no number" if math.isnan(value) else f"{float(value):.6g}"
        case _:
            return value
