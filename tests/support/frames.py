"""AMQP 0-9-1 frames for the tests of the pure modules, encoded apart from the bridge's own encoders."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

from bridge.amqp.events import Delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

BITS = {
    name: 1 << (15 - number)
    for number, name in enumerate(
        (
            *("content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to"),
            *("expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id"),
        )
    )
}
"""Property flags by name, in the order of the class basic."""

Properties = dict[str, bytes]
"""Raw property values by name: short strings without their length, a header table with it."""

HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"
PERSISTENT: Properties = {"delivery_mode": b"\x02"}


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def split(data: bytes) -> list[bytes]:
    """Whole frames, one by one."""
    found: list[bytes] = []
    while data:
        stop = 8 + int.from_bytes(data[3:7], "big")
        found.append(data[:stop])
        data = data[stop:]
    return found


def short(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return bytes([len(raw)]) + raw


def method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return frame(1, channel, pack(">HH", class_id, method_id) + arguments)


def table(fields: Mapping[str, bytes]) -> bytes:
    """A field table: names and raw values, each with its type octet."""
    body = b"".join(short(name) + value for name, value in fields.items())
    return pack(">I", len(body)) + body


def text(value: str) -> bytes:
    """A table's value of type S."""
    return b"S" + pack(">I", len(value.encode())) + value.encode()


def header(body_size: int, properties: Properties, channel: int = 1) -> bytes:
    flags, values = 0, b""
    for name, bit in BITS.items():
        if name in properties:
            flags |= bit
            raw = properties[name]
            values += raw if name in {"headers", "delivery_mode", "priority", "timestamp"} else short(raw)
    return frame(2, channel, pack(">HHQH", 60, 0, body_size, flags) + values)


def content(body: bytes = b"", properties: Properties = PERSISTENT, *, channel: int = 1, step: int = 1 << 20) -> bytes:
    """A header frame and its body frames of at most `step` bytes of payload."""
    pieces = [frame(3, channel, body[start : start + step]) for start in range(0, len(body), step)]
    return b"".join([header(len(body), properties, channel), *pieces])


def deliver(  # noqa: PLR0913 - the fields of the method
    delivery_tag: int,
    message: bytes,
    *,
    redelivered: int = 0,
    exchange: str = "ex",
    routing_key: str = "key",
    consumer_tag: str = "ct",
    channel: int = 1,
) -> bytes:
    """`basic.deliver` and its content."""
    arguments = short(consumer_tag) + pack(">QB", delivery_tag, redelivered) + short(exchange) + short(routing_key)
    return method(channel, 60, 60, arguments) + message


def returned(
    message: bytes, *, routing_key: str = "key", code: int = 312, reason: str = "NO_ROUTE", channel: int = 1
) -> bytes:
    """`basic.return` and its content."""
    arguments = pack(">H", code) + short(reason) + short("ex") + short(routing_key)
    return method(channel, 60, 50, arguments) + message


def confirm(publish_seqno: int, *, multiple: bool = False, accepted: bool = True, channel: int = 1) -> bytes:
    """`basic.ack` or `basic.nack` of a publish."""
    return method(channel, 60, 80 if accepted else 120, pack(">QB", publish_seqno, multiple))


def close(channel: int, code: int, reason: str) -> bytes:
    """`channel.close`, or `connection.close` on channel 0."""
    class_id, method_id = (20, 40) if channel else (10, 50)
    return method(channel, class_id, method_id, pack(">H", code) + short(reason) + pack(">HH", 60, 40))


BLOCKED = method(0, 10, 60, short("low on memory"))
UNBLOCKED = method(0, 10, 61)
CANCEL = method(1, 60, 30, short("ct") + b"\0")
CANCEL_OK = method(1, 60, 31, short("ct"))
QUEUE_DECLARE_OK = method(3, 50, 11, short("q") + pack(">II", 0, 0))


def delivery(  # noqa: PLR0913 - the fields of a delivery
    delivery_tag: int,
    body: bytes | None = None,
    properties: Properties = PERSISTENT,
    *,
    redelivered: int = 0,
    delivery_count: int = 0,
    routing_key: str = "key",
    received_s: float = 0.0,
) -> Delivery:
    """A delivery as the window takes it; its body tells its tag unless told otherwise."""
    raw = b"%d" % delivery_tag if body is None else body
    route = short("ex") + short(routing_key)
    return Delivery(delivery_tag, redelivered, delivery_count, route, content(raw, properties), len(raw), received_s)


def with_offset(
    offset: int, properties: Properties = PERSISTENT, fields: Mapping[str, bytes] | None = None
) -> Properties:
    """The properties of a message of a stream, with some headers beside its offset."""
    return properties | {"headers": table({"x-stream-offset": b"l" + pack(">q", offset), **(fields or {})})}


def stream_delivery(delivery_tag: int, offset: int) -> Delivery:
    """A delivery of a stream, as the window takes it."""
    return delivery(delivery_tag, properties=with_offset(offset))


FIELD_TYPES = {
    "boolean": b"t\x01",
    "int8": b"b\xff",
    "uint8": b"B\xff",
    "int16": b"s" + pack(">h", -2),
    "uint16": b"u" + pack(">H", 65535),
    "int32": b"I" + pack(">i", -3),
    "uint32": b"i" + pack(">I", 1 << 31),
    "int64": b"l" + pack(">q", -4),
    "uint64": b"L" + pack(">Q", 1 << 63),
    "float": b"f" + pack(">f", 0.1),
    "double": b"d" + pack(">d", float("nan")),
    "decimal": b"D" + pack(">BI", 2, 12345),
    "long string": text("text é"),
    "empty string": text(""),
    "byte array": b"x" + pack(">I", 3) + b"\0\xce\xff",
    "timestamp": b"T" + pack(">Q", 1_700_000_000),
    "void": b"V",
    "array": b"A" + pack(">I", 9) + b"t\x01" + text("a") + b"V",
    "table": b"F" + table({"nested": b"F" + table({"deep": b"l" + pack(">q", 1)}), "x": b"V"}),
}
"""Raw values of every field type that RabbitMQ reads."""

EVERY_PROPERTY: Properties = {
    "content_type": b"text/plain",
    "content_encoding": b"gzip",
    "headers": table(FIELD_TYPES),
    "delivery_mode": b"\x02",
    "priority": b"\x09",
    "correlation_id": b"correlation",
    "reply_to": b"amq.rabbitmq.reply-to",
    "expiration": b"60000",
    "message_id": b"m-1",
    "timestamp": pack(">Q", 1_700_000_000),
    "type": b"order",
    "app_id": b"app",
    "cluster_id": b"cluster",
}
"""All but `user_id`, which does not always stay."""

BAD_TABLES = {
    "a type that RabbitMQ does not know": table({"k": b"?\0\0\0\0"}),
    "a name that runs out": pack(">I", 2) + b"\x05k",
    "a name without a value": pack(">I", 2) + b"\x01k",
    "a fixed value that runs out": table({"k": b"l\0\0"}),
    "a long value without its length": table({"k": b"S\0"}),
    "a long value that runs out": table({"k": b"S" + pack(">I", 9) + b"short"}),
}
"""Header tables that cannot be read."""
