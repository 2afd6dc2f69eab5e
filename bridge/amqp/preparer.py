"""Makes delivered header frames ready to be published, sans-I/O.

It changes what invariant 7 of `window` allows and nothing else: a message becomes persistent, its `user_id`, copies and
delivery counts go the way of the policy, and headers are added where that is asked for. Which header frames may pass
unseen is said here, and nowhere else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from bridge.amqp.content import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    DELIVERY_MODE,
    EMPTY_TABLE,
    FLAGS_AT,
    FRAME_OVERHEAD,
    HEADERS,
    PERSISTENT,
    PROPERTIES_AT,
    USER_ID,
    encode_field,
    integer_of,
    join_properties,
    long_string,
    split_properties,
    table_fields,
    table_with,
)
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Iterable

_u16 = Struct(">H")
_u32 = Struct(">I")

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
