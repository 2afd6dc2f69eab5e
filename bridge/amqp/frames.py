"""Frames of AMQP 0-9-1, sans-I/O: their types and methods by number, and those that the bridge writes, encoded.

Frame layout (AMQP 0-9-1, 4.2.3)::

    type u8 | channel u16 | size u32 | payload | CE

A method's payload begins with its class and number, here one integer of 32 bits.
"""

from __future__ import annotations

from struct import Struct

DATA_CHANNEL = 1
"""The bridge's one channel on each side, by number: the same on both, so that contents need no new number."""
QUARANTINE_CHANNEL = 2
"""The channel on the source's connection that publishes to the quarantine."""
DATA_CHANNELS = frozenset({DATA_CHANNEL, QUARANTINE_CHANNEL})

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

CONNECTION_CLOSE = 10 << 16 | 50
CONNECTION_BLOCKED = 10 << 16 | 60
CONNECTION_UNBLOCKED = 10 << 16 | 61
CHANNEL_CLOSE = 20 << 16 | 40
BASIC_CANCEL = 60 << 16 | 30
BASIC_CANCEL_OK = 60 << 16 | 31
BASIC_PUBLISH = 60 << 16 | 40
BASIC_RETURN = 60 << 16 | 50
BASIC_DELIVER = 60 << 16 | 60
BASIC_ACK = 60 << 16 | 80
BASIC_NACK = 60 << 16 | 120

_frame_head = Struct(">BHI")
_method_id = Struct(">I")
_settlement = Struct(">BHIIQBB")


def short_string(value: bytes) -> bytes:
    """Encode a short string (at most 255 bytes)."""
    return b"%c%b" % (len(value), value)


def route(exchange: str, routing_key: str) -> bytes:
    """Return exchange and routing key as they stand in deliveries, returns and publishes."""
    return short_string(exchange.encode()) + short_string(routing_key.encode())


def split_route(value: bytes) -> tuple[bytes, bytes]:
    """Return the exchange and the routing key of a route."""
    key_at = 1 + value[0]
    return value[1:key_at], value[key_at + 1 :]


def own_key(value: bytes) -> bytes:
    """Return the routing key of a route as a short string."""
    return value[1 + value[0] :]


def method_frame(channel: int, method: int, arguments: bytes) -> bytes:
    """Encode a method frame."""
    return b"".join(
        (_frame_head.pack(METHOD, channel, 4 + len(arguments)), _method_id.pack(method), arguments, b"\xce")
    )


def publish_frame(channel: int, to: bytes) -> bytes:
    """Encode `basic.publish` to a route, mandatory: a message that no queue takes comes back."""
    return method_frame(channel, BASIC_PUBLISH, b"\0\0" + to + b"\x01")


def cancel_frame(consumer_tag: str) -> bytes:
    """Encode `basic.cancel` on the data channel; the broker answers with `cancel-ok`."""
    return method_frame(DATA_CHANNEL, BASIC_CANCEL, short_string(consumer_tag.encode()) + b"\0")


def ack_frame(delivery_tag: int, *, multiple: bool) -> bytes:
    """Encode `basic.ack` on the data channel."""
    return _settlement.pack(METHOD, DATA_CHANNEL, 13, BASIC_ACK, delivery_tag, multiple, FRAME_END)


def requeue_frame(delivery_tag: int, *, multiple: bool) -> bytes:
    """Encode `basic.nack` with requeue on the data channel."""
    return _settlement.pack(METHOD, DATA_CHANNEL, 13, BASIC_NACK, delivery_tag, 0b10 | multiple, FRAME_END)
