"""What fits into a frame, sans-I/O: the bridge's own headers give way where they would not fit.

A header frame cannot be cut (AMQP 0-9-1, 4.2.6.1), and RabbitMQ closes the connection for one that is larger than the
`frame_max` that was agreed (501). It does not hold itself to that: dead-lettering and delivery counts make headers grow
(3.10.8, 4.3.6), the two sides may have agreed on different sizes, and the bridge adds headers of its own. So what fits
is known before it is published. What the message brought with it is never left out, but for what stands in a header of
the bridge because it could not stay in its place.

What it does not do: decide what becomes of a message that does not fit, which is `window`'s and `quarantine`'s.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from bridge.amqp.content import (
    EMPTY_TABLE,
    HEADERS,
    PROPERTIES_AT,
    header_frame,
    join_properties,
    long_string,
    split_properties,
    table_fields,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOVED = (b"x-bridge-cc", b"x-bridge-bcc", b"x-bridge-user-id")
"""Headers for what must not cross in its own place (see `preparer`); the first is the first to give way."""

_NONE: Mapping[bytes, bytes] = MappingProxyType({})
_LONG_STRING_HEAD = 5
"""Bytes of a table's long string before its text: type octet and length."""


class Fitted(NamedTuple):
    """A header frame that fits."""

    header: bytes
    left_out: int
    """How many headers of the bridge were left out for it."""


def clipped(text: bytes, most: int) -> bytes:
    """Return at most so many bytes of a text in UTF-8, cut between two characters."""
    return text if len(text) <= most else text[:most].decode("utf-8", "ignore").encode()


def fit(
    header: bytes,
    frame_max: int,
    additions: Mapping[bytes, bytes] = _NONE,
    *,
    shortened: bytes = b"",
    dispensable: Iterable[bytes] = (),
) -> Fitted | None:
    """Return the header frame with these raw fields added, as far as it stays within `frame_max` (0 for no limit).

    The additions stand from the most to the least useful, and take the place of fields of the same names. Fields named
    as `dispensable` give way first, then the least useful of the additions; the one named by `shortened`, a long
    string, is cut before it is left out. When there are none left, what was moved gives way. None when it is too large
    even so. Raises `MalformedFrameError` for a header that cannot be read.
    """
    properties = split_properties(header)
    table = properties.pop(HEADERS, EMPTY_TABLE)
    fields = [field for field in table_fields(table) if field[0] not in additions] + [*additions.items()]
    size = PROPERTIES_AT + 1 + sum(map(len, properties.values()))
    excess = size + _table_size(fields) - frame_max if frame_max else 0
    left_out = 0
    if excess > 0:
        fields, left_out = _without(fields, excess, [*dispensable, *[*additions][::-1], *MOVED], shortened)
    body = b"".join(b"%c%b%b" % (len(name), name, value) for name, value in fields)
    if body:
        properties[HEADERS] = len(body).to_bytes(4, "big") + body
    fitted = join_properties(header, properties)
    return Fitted(fitted, left_out) if len(fitted) <= (frame_max or len(fitted)) else None


def fit_content(content: bytes, frame_max: int) -> tuple[bytes, int] | None:
    """Return the content as it fits, and how many headers were left out; None when it cannot be made to fit."""
    header = header_frame(content)
    fitted = fit(header, frame_max)
    return None if fitted is None else (fitted.header + content[len(header) :], fitted.left_out)


def _without(
    fields: list[tuple[bytes, bytes]], excess: int, giving_way: list[bytes], shortened: bytes
) -> tuple[list[tuple[bytes, bytes]], int]:
    """Leave out one after the other until the excess is gone; return what stays, and how many were left out."""
    left_out = 0
    for name in giving_way:
        if excess <= 0:
            break
        gone = [field for field in fields if field[0] == name]
        fields = [field for field in fields if field[0] != name]
        if name == shortened:
            text = gone[0][1][_LONG_STRING_HEAD:]
            if short := clipped(text, max(0, len(text) - excess)):
                return [*fields, (name, long_string(short))], left_out
        left_out += len(gone)
        excess -= _table_size(gone) - len(EMPTY_TABLE)
    return fields, left_out


def _table_size(fields: list[tuple[bytes, bytes]]) -> int:
    return len(EMPTY_TABLE) + sum(1 + len(name) + len(value) for name, value in fields)
