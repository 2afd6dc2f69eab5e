"""Which message a return may be about, pure: what a destination's broker may change before it returns a message.

A return carries no number, only the message as the broker has it by then. Measured, published and returned bytes
compared:

=========================================  ===============================  =================
what changes                               RabbitMQ 4.3.6                   3.10.8
=========================================  ===============================  =================
top level of the header table              sorted                           stays
one name that stands twice                 the first stays                  stays
type `L`, booleans other than 0 and 1      become `l`, and 1; nested, too   with `BCC` only [1]
`BCC`                                      goes                             goes
leading zeros of `expiration`              go                               stay
`timestamp_in_ms`, `x-routed-by`,          added or overwritten where       left alone
the property `timestamp`                   an interceptor is set to
=========================================  ===============================  =================

[1] It encodes the table again where it has a reason to. A plugin may be one more interceptor, and add what it likes.

So two questions are asked of a published message. `unchanged`: could it be the returned one at all? And of those that
could, `required`: has the returned one all that this one was published with, as far as brokers are known to leave it?
That is a matter of subsets, never of equality: whatever was added does not count.
"""

from __future__ import annotations

from collections import Counter

from bridge.amqp.content import (
    EMPTY_TABLE,
    EXPIRATION,
    HEADERS,
    MESSAGE_ID,
    TIMESTAMP,
    body_size,
    header_frame,
    header_frame_size,
    split_properties,
    table_fields,
)
from bridge.amqp.fitting import MOVED
from bridge.amqp.identity import body_hash
from bridge.amqp.pieces import LARGE_BYTES
from bridge.errors import MalformedFrameError

Unchanged = tuple[bytes, int | bytes]
"""Message id, and hash of the body; of a large one its size, since what is returned of it is not kept."""
Traits = frozenset[tuple[int | bytes, bytes]]
"""Properties by flag and headers by name, each with its value in one form."""

_CHANGED = frozenset({b"BCC", b"timestamp_in_ms", b"x-routed-by", *MOVED})
"""Headers that are taken out, or overwritten, or may have been left out before (see `fitting`)."""


def unchanged(content: bytes) -> Unchanged | None:
    """Return what no broker changes in a message; None for one whose properties cannot be read."""
    try:
        properties = split_properties(header_frame(content))
    except MalformedFrameError:
        return None
    message_id = properties.get(MESSAGE_ID, b"")
    if (size := body_size(content)) >= LARGE_BYTES:
        return message_id, size
    return message_id, body_hash(content, header_frame_size(content))


def required(content: bytes) -> Traits:
    """Return what a message must have that may be this one, returned: it is among the `traits` of that.

    Of a name that stands twice it is unknown which one stays, and of a message that cannot be read, what does.
    """
    properties, headers = _read(content)
    names = Counter(name for name, _ in headers)
    kept = [(name, value) for name, value in headers if names[name] == 1 and name not in _CHANGED]
    return frozenset((*properties, *kept))


def traits(content: bytes) -> Traits:
    """Return what a returned message has."""
    properties, headers = _read(content)
    return frozenset((*properties, *headers))


def _read(content: bytes) -> tuple[list[tuple[int | bytes, bytes]], list[tuple[int | bytes, bytes]]]:
    """Return properties and headers, each value in the one form that a broker may give it; none if unreadable."""
    try:
        properties = split_properties(header_frame(content))
        fields = list(table_fields(properties.pop(HEADERS, EMPTY_TABLE)))
    except MalformedFrameError:
        return [], []
    properties.pop(TIMESTAMP, None)
    if EXPIRATION in properties:
        properties[EXPIRATION] = properties[EXPIRATION][1:].lstrip(b"0")
    return [*properties.items()], [(name, _normal(value)) for name, value in fields]


def _normal(value: bytes) -> bytes:
    kind = value[:1]
    if kind in b"AF":
        return kind  # whose elements may change, too
    if kind == b"L":
        return b"l" + value[1:]
    if kind == b"t":
        return b"t\1" if value[1] else b"t\0"
    return value
