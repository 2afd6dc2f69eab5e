"""A message's content, sans-I/O: the header frame and the body frames as they stand on the wire.

A delivered content is the same bytes that a publish needs, so it is kept as one `bytes` and never decoded as
a whole. This module knows what is inside: the property flags, the top level of the header table, the body's
frames. What of it has to change before it is published, `preparer` says; `identity` says which message is which.

Layout (AMQP 0-9-1, 4.2.6.1 and 4.2.6.2)::

    header frame  2 | channel u16 | size u32 | class u16 | weight u16 | body size u64 | flags u16 | properties | CE
    body frame    3 | channel u16 | size u32 | bytes | CE          (none when the body is empty)
"""

from __future__ import annotations

import struct
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY_SIZE_AT = 11
FLAGS_AT = 19
PROPERTIES_AT = 21
"""Offsets in a header frame: the size of the body, the property flags, and the first property."""

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO = (
    1 << bit for bit in range(15, 8, -1)
)
EXPIRATION, MESSAGE_ID, TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID = (1 << bit for bit in range(8, 1, -1))
PROPERTY_FLAGS = (
    *(CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO),
    *(EXPIRATION, MESSAGE_ID, TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID),
)
"""In the order in which the properties follow each other (AMQP 0-9-1, class basic)."""

FRAME_OVERHEAD = 8
"""Bytes of a frame besides its payload: type, channel, size and the end octet."""

PERSISTENT = 2
_STREAM_OFFSET_MARK = b"\x0fx-stream-offsetl"
_TIMESTAMP_MARK = b"\x0ftimestamp_in_ms"
EMPTY_TABLE = b"\0\0\0\0"
MOST_INTEGER = (1 << 63) - 1
"""The highest that a field of type `l` holds."""

_u16 = Struct(">H")
_u32 = Struct(">I")
_u64 = Struct(">Q")
_frame_head = Struct(">BHI")
_content_head = Struct(">BHIHHQH")

_FIXED_FIELD_SIZES = {**dict.fromkeys(b"tbB", 1), **dict.fromkeys(b"su", 2), **dict.fromkeys(b"Iif", 4)}
_FIXED_FIELD_SIZES |= {**dict.fromkeys(b"lLdT", 8), ord("D"): 5, ord("V"): 0}
"""Bytes of a field value by its type octet, as RabbitMQ reads them (its errata to AMQP 0-9-1, section 3)."""
_LONG_FIELDS = frozenset(b"SAFx")
_INTEGER_FIELDS = frozenset(b"bBsuIilL")


def split_properties(header: bytes) -> dict[int, bytes]:
    """Return the raw bytes of each property in a header frame, by its flag.

    Raises `MalformedFrameError` when the frame does not hold what its flags say.
    """
    position = PROPERTIES_AT
    end = len(header) - 1
    properties: dict[int, bytes] = {}
    try:
        (flags,) = _u16.unpack_from(header, FLAGS_AT)
        for flag in PROPERTY_FLAGS:
            if not flags & flag:
                continue
            if flag == HEADERS:
                stop = position + 4 + _u32.unpack_from(header, position)[0]
            elif flag == TIMESTAMP:
                stop = position + 8
            elif flag in {DELIVERY_MODE, PRIORITY}:
                stop = position + 1
            else:
                stop = position + 1 + header[position]
            properties[flag] = header[position:stop]
            position = stop
    except (IndexError, struct.error) as error:
        message = f"a content header of {len(header)} bytes, too short for its properties"
        raise MalformedFrameError(message) from error
    if position != end or flags & 0b11:
        message = f"a content header whose properties do not match its flags {flags:#06x}"
        raise MalformedFrameError(message)
    return properties


def join_properties(header: bytes, properties: dict[int, bytes]) -> bytes:
    """Return the header frame with these properties in the place of its own; channel and body size stay."""
    flags = sum(properties)
    in_order = [properties[flag] for flag in PROPERTY_FLAGS if flag in properties]
    payload = b"".join((header[7:FLAGS_AT], _u16.pack(flags), *in_order))
    return b"".join((header[:3], _u32.pack(len(payload)), payload, b"\xce"))


def raw_fields(table: bytes) -> list[bytes]:
    """Return the fields at the top level of a header table (its length first) as they stand there, names first.

    Raises `MalformedFrameError` for a type octet that RabbitMQ does not know, or a field that does not fit.
    """
    position = 4
    end = len(table)
    fields: list[bytes] = []
    while position < end:
        name_end = position + 1 + table[position]
        if name_end >= end:
            break
        kind = table[name_end]
        if kind in _LONG_FIELDS and name_end + 5 <= end:
            stop = name_end + 5 + _u32.unpack_from(table, name_end + 1)[0]
        elif kind in _FIXED_FIELD_SIZES:
            stop = name_end + 1 + _FIXED_FIELD_SIZES[kind]
        else:
            break
        fields.append(table[position:stop])
        position = stop
    if position != end:
        message = f"a header table that cannot be read at byte {position} of {end}"
        raise MalformedFrameError(message)
    return fields


def table_fields(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the top level of a header table as name and raw value (its type octet first); raises as `raw_fields`."""
    for field in raw_fields(table):
        name_end = 1 + field[0]
        yield field[1:name_end], field[name_end:]


def table_with(table: bytes, fields: dict[bytes, bytes]) -> bytes:
    """Return the header table with these names and raw values at its end, in the place of any of the same names."""
    kept = [(name, value) for name, value in table_fields(table) if name not in fields]
    body = b"".join(b"%c%b%b" % (len(name), name, value) for name, value in [*kept, *fields.items()])
    return _u32.pack(len(body)) + body


def long_string(value: bytes) -> bytes:
    """Return a table's raw value of type S (a long string)."""
    return b"S" + _u32.pack(len(value)) + value


def encode_field(name: bytes, value: bytes) -> bytes:
    """Return a field of a table: its name, and its raw value with the type octet first."""
    return b"%c%b%b" % (len(name), name, value)


def integer_of(value: bytes) -> int:
    """Return a raw value, its type octet first, as a number; 0 for what is no whole number."""
    return int.from_bytes(value[1:], "big", signed=value[:1] not in b"BuiL") if value[0] in _INTEGER_FIELDS else 0


def table_place(content: bytes) -> tuple[int, int]:
    """Return from where to where the header table lies in the content, its length first; an empty place without one."""
    (flags,) = _u16.unpack_from(content, FLAGS_AT)
    start = PROPERTIES_AT
    if not flags & HEADERS:
        return start, start
    if flags & CONTENT_TYPE:
        start += 1 + content[start]
    if flags & CONTENT_ENCODING:
        start += 1 + content[start]
    return start, start + 4 + _u32.unpack_from(content, start)[0]


def stream_offset(content: bytes) -> int | None:
    """Return the field `x-stream-offset` of the header table, which a stream gives each delivery; None without one.

    It is a long (`l`) at the top level of the table. The same bytes in a body, in a value or in another property are
    none, and a table that cannot be read has none.
    """
    start, stop = table_place(content)
    if content.find(_STREAM_OFFSET_MARK, start, stop) < 0:
        return None
    with suppress(MalformedFrameError):
        for name, value in table_fields(content[start:stop]):
            if name == b"x-stream-offset" and value[:1] == b"l":
                return integer_of(value)
    return None


def timestamp_ms(content: bytes) -> int | None:
    """Return when the message was published, in milliseconds of Unix time; None where it does not say, or no number.

    The header `timestamp_in_ms`, which RabbitMQ's interceptor sets beside the property `timestamp` (whole seconds).
    """
    with suppress(MalformedFrameError):
        start, stop = table_place(content)
        if content.find(_TIMESTAMP_MARK, start, stop) >= 0:
            for name, value in table_fields(content[start:stop]):
                if name == b"timestamp_in_ms" and value[0] in _INTEGER_FIELDS:
                    return integer_of(value)
        (flags,) = _u16.unpack_from(content, FLAGS_AT)
        if flags & TIMESTAMP:
            seconds: int = _u64.unpack(split_properties(header_frame(content))[TIMESTAMP])[0]
            return seconds * 1000
    return None


def header_frame_size(content: bytes) -> int:
    """Return the size of the content's header frame in bytes, to be held against a `frame_max`: it cannot be cut."""
    size: int = _u32.unpack_from(content, 3)[0]
    return FRAME_OVERHEAD + size


def body_size(content: bytes) -> int:
    """Return the size of the body in bytes, as the header frame announces it."""
    return int.from_bytes(content[BODY_SIZE_AT:FLAGS_AT], "big")


def header_frame(content: bytes) -> bytes:
    """Return the content's header frame."""
    return content[: header_frame_size(content)]


def body_payloads(content: bytes) -> Iterator[memoryview]:
    """Yield the payload of each body frame."""
    view = memoryview(content)
    position = header_frame_size(content)
    while position < len(content):
        (size,) = _u32.unpack_from(content, position + 3)
        yield view[position + 7 : position + 7 + size]
        position += FRAME_OVERHEAD + size


def message_id(content: bytes) -> str:
    """Return the `message_id` for a log line; empty where there is none, or where it cannot be read."""
    try:
        value = split_properties(header_frame(content)).get(MESSAGE_ID, b"\0")
    except MalformedFrameError:
        return ""
    return value[1:].decode("utf-8", "replace")


def reframe(content: bytes, channel: int, frame_max: int) -> bytes:
    """Return the content for another channel, its body cut again into frames of at most `frame_max` bytes.

    `frame_max` is what the connection tuned: the size of a whole frame, 0 for no limit. The header frame
    cannot be cut (AMQP 0-9-1, 4.2.6.1); one that is too large goes out as it is, and the broker refuses it.
    """
    header = header_frame(content)
    body = memoryview(b"".join(body_payloads(content)))
    step = frame_max - FRAME_OVERHEAD if frame_max else max(1, len(body))
    frames: list[bytes | memoryview] = [header[:1], _u16.pack(channel), header[3:]]
    for start in range(0, len(body), step):
        payload = body[start : start + step]
        frames += (_frame_head.pack(3, channel, len(payload)), payload, b"\xce")
    return b"".join(frames)


def with_headers(content: bytes, fields: dict[bytes, bytes]) -> bytes:
    """Return the content with these raw fields set in its header table."""
    header = header_frame(content)
    properties = split_properties(header)
    properties[HEADERS] = table_with(properties.get(HEADERS, EMPTY_TABLE), fields)
    return join_properties(header, properties) + content[len(header) :]


def without_expiration(content: bytes) -> tuple[bytes, bytes]:
    """Return the content without its `expiration`, and what that was; empty where there was none."""
    header = header_frame(content)
    properties = split_properties(header)
    expiration = properties.pop(EXPIRATION, b"")
    if not expiration:
        return content, b""
    return join_properties(header, properties) + content[len(header) :], expiration[1:]
