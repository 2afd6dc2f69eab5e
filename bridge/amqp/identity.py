"""Which message is which, pure: what tells a message from all others when the source delivers it again.

A source's broker may change a message between two deliveries, and does so in one way only: a quorum queue adds its
counts, for which the header table may be sorted. Measured on RabbitMQ 3.10.8 and 4.3.6, with classic and quorum
queues, before and after a SIGKILL: all else comes again byte for byte, whatever the broker had normalised for the first
delivery. So a difference in anything else is a difference between messages: a retry that an application publishes under
the same id with another header or routing key is another message.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

from xxhash import xxh3_128, xxh3_128_digest

from bridge.amqp.content import (
    FLAGS_AT,
    FRAME_OVERHEAD,
    HEADERS,
    MESSAGE_ID,
    PROPERTIES_AT,
    body_payloads,
    header_frame_size,
    raw_fields,
    table_place,
)
from bridge.amqp.preparer import COUNTS
from bridge.errors import MalformedFrameError

IDENTITY_BYTES = 16
"""Of a digest: what is remembered of a message is small, however long its headers are."""
_UNREADABLE = 1
"""Added to the flags of a message whose header table cannot be read; the bit means more flags, and is never set."""

_u16 = Struct(">H")
_head = Struct(">HI")
_SEED = hash("bodies") & 0xFFFF_FFFF_FFFF_FFFF
"""Of the bodies' hashes. By Python's own seed, another in each process, so that no publisher knows them."""
_ADDED_BY_QUEUE = tuple(b"%c%b" % (len(name), name) for name in COUNTS)


def has_identity(content: bytes) -> bool:
    """Whether a message can be told from all others: it has a `message_id`."""
    (flags,) = _u16.unpack_from(content, FLAGS_AT)
    return bool(flags & MESSAGE_ID)


def identity(route: bytes, content: bytes) -> bytes | None:
    """Return what tells a message from others within this process, or None for one without a `message_id`.

    It is a digest of the route, all properties, all headers but those that a quorum queue adds, in any order, and the
    body. How the body is cut into frames, which depends on the connection, does not matter.

    The digest is BLAKE2b, but the body enters it as a seeded hash (XXH3, 128 bits), which takes a sixtieth of the time:
    bodies that collide there matter only in messages that agree in all else, the `message_id` among it.
    """
    (flags,) = _u16.unpack_from(content, FLAGS_AT)
    if not flags & MESSAGE_ID:
        return None
    start = stop = PROPERTIES_AT
    end = header_frame_size(content) - 1
    fields = b""
    if flags & HEADERS:
        flags &= ~HEADERS  # which may be there only by what the queue added
        start, stop = table_place(content)
        table = content[start:stop]
        try:
            raw = raw_fields(table)
        except MalformedFrameError:
            # It can be published, so it must not be refused here.
            flags, fields = flags | _UNREADABLE, table
        else:
            if b"-count" in table:
                raw = [field for field in raw if not field.startswith(_ADDED_BY_QUEUE)]
            raw.sort()
            fields = b"".join(raw)
    properties = content[PROPERTIES_AT:start] + content[stop:end]
    head = _head.pack(flags, len(properties))
    parts = head, route, properties, fields, body_hash(content, end + 1)
    return blake2b(b"".join(parts)).digest()[:IDENTITY_BYTES]


def body_hash(content: bytes, at: int) -> bytes:
    """Return 16 bytes for the body whose frames begin there, the same in this process however it is cut into frames."""
    if at == len(content) or len(content) - at - FRAME_OVERHEAD == int.from_bytes(content[at + 3 : at + 7], "big"):
        return xxh3_128_digest(memoryview(content)[at + 7 : -1], _SEED)  # one frame, as most have
    state = xxh3_128(seed=_SEED)
    for payload in body_payloads(content):
        state.update(payload)
    return state.digest()
