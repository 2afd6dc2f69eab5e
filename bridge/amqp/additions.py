"""The headers that the bridge adds on request, sans-I/O: fixed ones, its source, and the count of bridges passed.

They overwrite what the message carries under their names: a publisher must not forge another's. The bytes are made
once. A message whose header table has none of the names gets them behind its own fields, without being read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.amqp.content import (
    EMPTY_TABLE,
    MOST_INTEGER,
    encode_field,
    integer_of,
    long_string,
    table_fields,
    table_place,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HOPS = b"x-bridge-hops"
SOURCE = b"x-bridge-source"
SOURCE_BYTES = 1024
"""Of the source's name this much is said."""
_HOPS_MARK = b"%c%b" % (len(HOPS), HOPS)

Scalar = str | int | bool | None
"""What a header on request may hold."""


def encode_scalar(value: Scalar) -> bytes:
    """Return a table's raw value, its type octet first."""
    match value:
        case None:
            return b"V"
        case bool():
            return b"t\1" if value else b"t\0"
        case int():
            return b"l" + value.to_bytes(8, "big", signed=True)
        case _:
            return long_string(value.encode())


@dataclass(frozen=True, slots=True)
class Additions:
    """What is added to each message."""

    fields: bytes
    """Whole fields as they stand in a header table, without the hops."""
    names: frozenset[bytes]
    """Of all that is added."""
    hops: bool = False
    """Whether the bridges that a message has passed are counted."""

    @classmethod
    def of(cls, headers: Mapping[str, Scalar], source: str = "") -> Additions | None:
        """Return these headers and, with a `source`, its name and the count of hops; None for nothing."""
        raw = {name.encode(): encode_scalar(value) for name, value in headers.items()}
        if source:
            raw[SOURCE] = long_string(source.encode()[:SOURCE_BYTES].decode("utf-8", "ignore").encode())
        if not raw:
            return None
        fields = b"".join(encode_field(name, value) for name, value in raw.items())
        return cls(fields, frozenset([*raw, HOPS] if source else raw), hops=bool(source))

    @property
    def marks(self) -> tuple[bytes, ...]:
        """What of each name stands in a table that has it, and perhaps elsewhere."""
        return tuple(b"%c%b" % (len(name), name) for name in sorted(self.names))

    def after(self, hops: int) -> bytes:
        """Return the fields for a message that has passed so many bridges before."""
        if not self.hops:
            return self.fields
        passed = min(max(hops, 0), MOST_INTEGER - 1) + 1
        return self.fields + encode_field(HOPS, b"l" + passed.to_bytes(8, "big", signed=True))

    def added_to(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the body of a header table with these fields, as names and raw values, and what is added."""
        kept, hops = [], 0
        for name, value in fields:
            if name not in self.names:
                kept.append(encode_field(name, value))
            elif name == HOPS:
                hops = max(hops, integer_of(value))
        return b"".join(kept) + self.after(hops)


def hops_of(content: bytes) -> int:
    """Return how many bridges a message has passed, this one included where it counts; 0 where it does not say.

    Raises `MalformedFrameError` for a header table that cannot be read.
    """
    start, stop = table_place(content)
    if content.find(_HOPS_MARK, start, stop) < 0:
        return 0
    table = content[start:stop] or EMPTY_TABLE
    return max((integer_of(value) for name, value in table_fields(table) if name == HOPS), default=0)
