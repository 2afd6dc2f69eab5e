"""A message's content, sans-I/O: the header frame and the body frames as they stand on the wire.

A delivered content is the same bytes that a publish needs, so it is kept as one `bytes` and never decoded as
a whole. This module knows what is inside: the property flags, the top level of the header table, the body's
frames. It changes what invariant 7 of `window` allows and nothing else. `identity` says which message is which.

Layout (AMQP 0-9-1, 4.2.6.1 and 4.2.6.2)::

    header frame  2 | channel u16 | size u32 | class u16 | weight u16 | body size u64 | flags u16 | properties | CE
    body frame    3 | channel u16 | size u32 | bytes | CE          (none when the body is empty)
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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

COUNTS = (b"x-delivery-count", b"x-acquired-count")
"""The header fields that a quorum queue adds to a delivery, with different values each time."""
COPIES = (b"CC", b"BCC")
"""The header fields that make a broker route copies. RabbitMQ takes `BCC` out when it routes by it; one that is a text
(an MQTT 5 or AMQP 1.0 publisher can bring it) is delivered, and refused when it is published with AMQP 0-9-1."""
_DELIVERY_COUNT, _ACQUIRED_COUNT, _CC, _BCC = (b"%c%b" % (len(name), name) for name in COUNTS + COPIES)
_COUNT, _COPY = b"-count", b"CC"
"""What a quick look for those fields finds: what two of the names hold, then the names; the table is then looked at
properly. Two searches for bytes answer for most tables; a regular expression of all the names takes as long for a short
table and twice as long for one of 280 bytes."""

Treatment = Literal["move", "keep", "drop"]

UNSEEN_MASK = CONTENT_TYPE | CONTENT_ENCODING | HEADERS | DELIVERY_MODE | USER_ID
"""The property flags that decide whether a header frame may pass unseen; see `ContentPreparer.unseen_flags`."""

NONE_UNSEEN = -1
"""A value of `ContentPreparer.unseen_flags` that no flags have: every header frame is prepared."""

Counts = Literal["any", "acquired", "none"]
"""Which `x-delivery-count` is believed: any, one beside an `x-acquired-count` and then the lower of both, or none.

A classic queue adds neither. A quorum queue of 3.10 adds the first to every delivery by `basic.consume`, and replaces
one that is there. One of 4.3 adds the second to what has come back, and the first only where the return counted: after
a `nack(requeue)` one that was there before stays (4.3.6).
"""


class Added(Protocol):
    """What is added to each header table (see `additions`)."""

    @property
    def names(self) -> frozenset[bytes]:
        """The names of all that is added."""

    @property
    def marks(self) -> tuple[bytes, ...]:
        """What of each name stands in a table that has it, and perhaps elsewhere."""

    def after(self, hops: int) -> bytes:
        """Return the fields for a message that has passed so many bridges before."""

    def added_to(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the body of a header table with these fields, as names and raw values, and what is added."""


@dataclass(frozen=True, slots=True)
class HeaderPolicy:
    """What becomes of the properties that must not cross the bridge as they are (invariant 7)."""

    destination_user: bytes = b""
    """The destination connection's user: a `user_id` of that name may stay."""
    user_id: Treatment = "move"
    cc: Treatment = "move"
    """Of all `COPIES`: each moves to a header of its own, `x-bridge-cc` or `x-bridge-bcc`."""
    delivery_count: Literal["drop", "keep"] = "drop"
    """Of all `COUNTS`."""
    additions: Added | None = None
    """What is added to each message; None for nothing."""

    def treatments(self) -> dict[bytes, Treatment]:
        """Return what becomes of the header fields that may not pass, by name."""
        return {**dict.fromkeys(COUNTS, self.delivery_count), **dict.fromkeys(COPIES, self.cc)}


class Prepared(NamedTuple):
    """A header frame made ready to be published."""

    header: bytes
    delivery_count: int
    """The `x-delivery-count` in the header table, whoever wrote it; 0 where there is none."""


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


class ContentPreparer:
    """Makes delivered header frames ready to be published, by a `HeaderPolicy`."""

    unseen_flags = DELIVERY_MODE
    """A header frame whose flags within `UNSEEN_MASK` are these needs no preparing where its first property, which then
    is the delivery mode, is `PERSISTENT`. The cutter asks for it once, and does not call `prepare` for such a one. What
    makes `prepare` change headers of that kind has to set a value here that no flags have."""

    CACHE_SIZE = 256
    CACHED_BYTES = 1024
    """A table as large as a frame may be is not kept: a few hundred of them would be tens of megabytes."""

    def __init__(self, policy: HeaderPolicy) -> None:
        self.policy = policy
        self._treatments = policy.treatments()
        self._tables: dict[bytes, tuple[bytes, int]] = {}
        self._counts: Counts = "any"
        self._additions = additions = policy.additions
        self._marks = additions.marks if additions is not None else ()
        self._first = additions.after(0) if additions is not None else b""
        """What a message gets that has passed no bridge before."""
        if additions is not None:
            self.unseen_flags = NONE_UNSEEN

    def believe(self, counts: Counts) -> None:
        """Say which delivery counts are the queue's own: an application or a shovel may have copied another's."""
        self._counts = counts
        self._tables.clear()

    def prepare(self, header: bytes) -> Prepared | None:
        """Return the header frame to publish in the place of a delivered one, or None where it can stay as it is.

        Raises `MalformedFrameError` when the header cannot be read.
        """
        try:
            (flags,) = _u16.unpack_from(header, FLAGS_AT)
            if not flags & USER_ID:
                # Most messages end here, after two or three look-ups by offset.
                position = PROPERTIES_AT
                if flags & CONTENT_TYPE:
                    position += 1 + header[position]
                if flags & CONTENT_ENCODING:
                    position += 1 + header[position]
                suspicious = False
                start = position
                if flags & HEADERS:
                    position += 4 + _u32.unpack_from(header, position)[0]
                    suspicious = (
                        header.find(_COUNT, start, position) >= 0
                        and (
                            header.find(_DELIVERY_COUNT, start, position) >= 0
                            or header.find(_ACQUIRED_COUNT, start, position) >= 0
                        )
                    ) or (
                        header.find(_COPY, start, position) >= 0
                        and (header.find(_CC, start, position) >= 0 or header.find(_BCC, start, position) >= 0)
                    )
                if flags & DELIVERY_MODE and header[position] == PERSISTENT:
                    changed = suspicious or self._additions is not None
                    return self._splice(header, flags, start, position) if changed else None
        except (IndexError, struct.error) as error:
            message = f"a content header of {len(header)} bytes, too short for its properties"
            raise MalformedFrameError(message) from error
        return self._rewrite(header)

    def _splice(self, header: bytes, flags: int, start: int, stop: int) -> Prepared:
        """Replace the header table, which lies from `start` to `stop`, and nothing else.

        RabbitMQ 3.10 adds a field to every delivery of a quorum queue: to take the properties apart and join them
        again would double what the bridge spends on a message.
        """
        before = header[start:stop]
        table, delivery_count = self._table(before)
        if self._additions is not None:
            flags |= HEADERS
        elif table == EMPTY_TABLE != before:
            flags, table = flags & ~HEADERS, b""  # a message without headers has them only by what the queue added
        size = len(header) - FRAME_OVERHEAD - len(before) + len(table)
        parts = (header[:3], _u32.pack(size), header[7:FLAGS_AT], _u16.pack(flags), header[PROPERTIES_AT:start], table)
        return Prepared(b"".join(parts) + header[stop:], delivery_count)

    def _rewrite(self, header: bytes) -> Prepared:
        properties = split_properties(header)
        properties[DELIVERY_MODE] = b"\x02"
        delivery_count = 0
        if HEADERS in properties or self._additions is not None:
            before = properties.get(HEADERS, b"")
            properties[HEADERS], delivery_count = self._table(before)
            if properties[HEADERS] == EMPTY_TABLE != before:
                del properties[HEADERS]  # a message without headers has them only by what the queue added
        policy = self.policy
        user = properties.get(USER_ID)
        if user is not None and user[1:] != policy.destination_user and policy.user_id != "keep":
            del properties[USER_ID]
            if policy.user_id == "move":
                table = properties.get(HEADERS, EMPTY_TABLE)
                properties[HEADERS] = table_with(table, {b"x-bridge-user-id": long_string(user[1:])})
        return Prepared(join_properties(header, properties), delivery_count)

    def _table(self, table: bytes) -> tuple[bytes, int]:
        """Return the header table without what must not cross, and the delivery count that it held.

        RabbitMQ 3.10 adds a delivery count to every delivery of a quorum queue, so tables that repeat are
        kept: looking one up takes a tenth of the time of reading it.
        """
        found = self._tables.get(table)
        if found is None:
            found = self._read_table(table)
            if len(table) <= self.CACHED_BYTES:
                if len(self._tables) >= self.CACHE_SIZE:
                    self._tables.clear()
                self._tables[table] = found
        return found

    def _read_table(self, table: bytes) -> tuple[bytes, int]:
        additions = self._additions
        if additions is not None and not any(map(table.__contains__, (_COUNT, _COPY, *self._marks))):
            # Most tables with an id of each message's own end here: nothing in them is to be changed.
            return _u32.pack(max(0, len(table) - 4) + len(self._first)) + table[4:] + self._first, 0
        treatments = self._treatments
        counts = dict.fromkeys(COUNTS, -1)
        kept: list[tuple[bytes, bytes]] = []
        for name, value in table_fields(table):
            if name in counts:
                counts[name] = integer_of(value)
            treatment = treatments.get(name, "keep")
            if treatment == "drop":
                continue
            after = name if treatment == "keep" else b"x-bridge-" + name.lower()
            kept.append((after, value))
        if additions is None:
            body = b"".join(encode_field(name, value) for name, value in kept)
        else:
            body = additions.added_to(kept)
        return _u32.pack(len(body)) + body, self._believed(*counts.values())

    def _believed(self, delivered: int, acquired: int) -> int:
        """Return how often the source's queue says that it came back; -1 stands for a count that is not there."""
        if self._counts == "none":
            return 0
        if acquired >= 0:
            return max(0, min(delivered, acquired))
        return max(0, delivered) if self._counts == "any" else 0


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
