"""A blocking AMQP 0-9-1 client of one channel that shows and sends content headers as the bytes they are.

It shares nothing with the bridge or its libraries, so it can judge them, and it is quick enough for numbered messages
by the hundred thousand. Properties are the header frame's payload from the property flags on. Connection details that
tests do not need (heartbeats, TLS, several channels) are left out.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

_FRAME_METHOD, _FRAME_HEADER, _FRAME_BODY, _FRAME_HEARTBEAT = 1, 2, 3, 8
_FRAME_END = b"\xce"
_BASIC = 60

_START, _START_OK, _TUNE, _TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
_OPEN, _OPEN_OK, _CLOSE, _CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
_CHANNEL_OPEN, _CHANNEL_OPEN_OK, _CHANNEL_CLOSE = (20, 10), (20, 11), (20, 40)
_DECLARE, _DECLARE_OK = (50, 10), (50, 11)
_QOS, _QOS_OK, _CONSUME, _CONSUME_OK, _CANCEL, _CANCEL_OK = (60, 10), (60, 11), (60, 20), (60, 21), (60, 30), (60, 31)
_PUBLISH, _RETURN, _DELIVER, _GET, _GET_OK, _GET_EMPTY = (60, 40), (60, 50), (60, 60), (60, 70), (60, 71), (60, 72)
_ACK, _NACK = (60, 80), (60, 120)
_SELECT, _SELECT_OK = (85, 10), (85, 11)


class RawClosedError(Exception):
    """The broker closed the channel or the connection, or the connection broke; the text says why."""


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message as it was delivered, its properties as bytes."""

    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: bytes
    body: bytes


def short_string(text: str) -> bytes:
    """AMQP's short string: a length octet and at most 255 octets."""
    data = text.encode()
    return struct.pack(">B", len(data)) + data


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A whole frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _FRAME_END


def table(*fields: tuple[str, bytes]) -> bytes:
    """AMQP's field table of names and values, each value with the octet of its type in front."""
    content = b"".join(short_string(name) + value for name, value in fields)
    return struct.pack(">I", len(content)) + content


def long_string(data: bytes) -> bytes:
    """A long string as a table's value."""
    return b"S" + struct.pack(">I", len(data)) + data


def publish_frames(exchange: str, routing_key: str, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """The frames of a mandatory publish."""
    method = struct.pack(">HHH", *_PUBLISH, 0) + short_string(exchange) + short_string(routing_key) + b"\x01"
    header = struct.pack(">HHQ", _BASIC, 0, len(body)) + properties
    pieces = [body[start : start + frame_max - 8] for start in range(0, len(body), frame_max - 8)]
    frames = [(_FRAME_METHOD, method), (_FRAME_HEADER, header), *((_FRAME_BODY, piece) for piece in pieces)]
    return b"".join(frame(kind, 1, payload) for kind, payload in frames)


class RawClient:
    """One connection with one channel. Every call may raise RawClosedError, or TimeoutError after ``timeout_s``."""

    def __init__(self, url: str, *, frame_max: int = 131_072, timeout_s: float = 60) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._socket = socket.create_connection((parts.hostname, parts.port or 5672), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._input = cast("BufferedReader", self._socket.makefile("rb", 1 << 20))
        self._published = 0
        self._unconfirmed: set[int] = set()
        self.nacked: set[int] = set()
        self.returned: list[RawMessage] = []
        try:
            self._open(parts, frame_max)
        except BaseException:
            self.abandon()
            raise

    def _open(self, parts: SplitResult, frame_max: int) -> None:
        login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}".encode()
        self._socket.sendall(b"AMQP\0\0\x09\x01")
        self._expect(_START)
        response = struct.pack(">I", len(login)) + login
        self._call(_START_OK, b"\0\0\0\0" + short_string("PLAIN") + response + short_string("en_US"), None, channel=0)
        channel_max, servers_frame_max, _ = struct.unpack(">HIH", self._expect(_TUNE))
        self.frame_max = min(frame_max, servers_frame_max or frame_max)
        self._call(_TUNE_OK, struct.pack(">HIH", channel_max, self.frame_max, 0), None, channel=0)
        vhost = unquote(parts.path[1:]) or "/"
        self._call(_OPEN, short_string(vhost) + b"\0\0", _OPEN_OK, channel=0)
        self._call(_CHANNEL_OPEN, b"\0", _CHANNEL_OPEN_OK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is None and not self._input.closed:
                self.close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the socket without a word: for a connection that has broken."""
        self._input.close()
        self._socket.close()

    def close(self) -> None:
        """Close the connection in good order: what was acked before is settled when this returns."""
        self._call(_CLOSE, struct.pack(">HBHH", 200, 0, 0, 0), _CLOSE_OK, channel=0)

    # Publishing

    def confirm_select(self) -> None:
        """Have publishes confirmed."""
        self._call(_SELECT, b"\0", _SELECT_OK)

    def publish(self, exchange: str, routing_key: str, properties: bytes, body: bytes) -> None:
        """Publish a message, mandatory."""
        self.publish_many(exchange, routing_key, [(properties, body)])

    def publish_many(self, exchange: str, routing_key: str, messages: list[tuple[bytes, bytes]]) -> None:
        """Publish messages, mandatory, with one write."""
        self.publish_each(exchange, [(routing_key, *message) for message in messages])

    def publish_each(self, exchange: str, messages: list[tuple[str, bytes, bytes]]) -> None:
        """Publish messages, each with a routing key of its own in front, mandatory, with one write."""
        out = bytearray()
        for routing_key, properties, body in messages:
            out += publish_frames(exchange, routing_key, properties, body, self.frame_max)
            self._published += 1
            self._unconfirmed.add(self._published)
        self._socket.sendall(out)

    def wait_confirms(self, leave: int = 0) -> None:
        """Read until at most ``leave`` publishes are neither acked nor nacked (``nacked`` has the latter)."""
        while len(self._unconfirmed) > leave:
            self._expect(None)

    def _settle(self, method: tuple[int, int], arguments: bytes) -> None:
        publish_seqno, multiple = struct.unpack(">QB", arguments)
        many = {number for number in self._unconfirmed if number <= publish_seqno} if multiple & 1 else {publish_seqno}
        self._unconfirmed -= many
        if method == _NACK:
            self.nacked |= many

    # Consuming

    def ready(self, queue: str) -> int:
        """How many messages wait in the queue."""
        answer = self._call(_DECLARE, b"\0\0" + short_string(queue) + b"\x01\0\0\0\0", _DECLARE_OK)
        messages, _ = struct.unpack(">II", answer[-8:])
        return int(messages)

    def get(self, queue: str) -> RawMessage | None:
        """Get one message without acking it, or None from an empty queue."""
        self._send(_GET, b"\0\0" + short_string(queue) + b"\0")
        method, arguments = self._read_method()
        return None if method == _GET_EMPTY else self._read_content(arguments)

    def consume(self, queue: str, prefetch: int = 1000) -> None:
        """Begin to consume; ``deliveries`` has what comes."""
        self._call(_QOS, struct.pack(">IHB", 0, prefetch, 0), _QOS_OK)
        self._call(_CONSUME, b"\0\0" + short_string(queue) + short_string("rig") + b"\0\0\0\0\0", _CONSUME_OK)

    def deliveries(self) -> Iterator[RawMessage]:
        """Deliveries as they come, until the consumer's cancellation is confirmed."""
        while True:
            method, arguments = self._read_method()
            if method == _CANCEL_OK:
                return
            if method == _DELIVER:
                tag_size = arguments[0]
                yield self._read_content(arguments[1 + tag_size :])

    def cancel(self) -> None:
        """Ask for the consumer's end; ``deliveries`` ends when it has come."""
        self._send(_CANCEL, short_string("rig") + b"\0")

    def ack(self, delivery_tag: int, *, multiple: bool = False) -> None:
        """Ack one delivery, or all up to it."""
        self._send(_ACK, struct.pack(">QB", delivery_tag, multiple))

    def reject(self, delivery_tag: int, *, multiple: bool = False, requeue: bool = False) -> None:
        """Refuse one delivery, or all up to it: it is dead-lettered or dropped, or given back."""
        self._send((60, 120), struct.pack(">QB", delivery_tag, multiple + 2 * requeue))

    def _read_content(self, arguments: bytes) -> RawMessage:
        delivery_tag, redelivered = struct.unpack_from(">QB", arguments)
        exchange, rest = _take_short_string(arguments[9:])
        routing_key, _ = _take_short_string(rest)
        properties, body = self._read_header_and_body()
        return RawMessage(delivery_tag, bool(redelivered), exchange, routing_key, properties, body)

    def _read_header_and_body(self) -> tuple[bytes, bytes]:
        header = self._read_frame()[1]
        size = int.from_bytes(header[4:12], "big")
        body = b""
        if size:
            pieces = []
            while size > 0:
                pieces.append(self._read_frame()[1])
                size -= len(pieces[-1])
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return header[12:], body

    # Frames and methods

    def send_raw(self, frames: bytes) -> None:
        """Write finished frames; their confirms are the caller's to count."""
        self._socket.sendall(frames)

    def receive_raw(self) -> bytes:
        """Wait for what comes next, in whatever pieces, and hand it over unread."""
        data = self._input.read1(1 << 20)
        if not data:
            raise RawClosedError("the connection ended")
        return data

    def _call(
        self, method: tuple[int, int], arguments: bytes, answer: tuple[int, int] | None, channel: int = 1
    ) -> bytes:
        self._send(method, arguments, channel)
        return self._expect(answer) if answer else b""

    def _send(self, method: tuple[int, int], arguments: bytes, channel: int = 1) -> None:
        self._socket.sendall(frame(_FRAME_METHOD, channel, struct.pack(">HH", *method) + arguments))

    def _expect(self, method: tuple[int, int] | None) -> bytes:
        """Read methods up to the expected one (None: any one); confirms and returns on the way are noted."""
        while True:
            found, arguments = self._read_method()
            if method in (found, None):
                return arguments

    def _read_method(self) -> tuple[tuple[int, int], bytes]:
        kind, payload = self._read_frame()
        while kind == _FRAME_HEARTBEAT:
            kind, payload = self._read_frame()
        method: Any = struct.unpack_from(">HH", payload)
        arguments = payload[4:]
        if method in (_CLOSE, _CHANNEL_CLOSE):
            text, _ = _take_short_string(arguments[2:])
            raise RawClosedError(f"{int.from_bytes(arguments[:2], 'big')} {text}")
        if method in (_ACK, _NACK):
            self._settle(method, arguments)
        elif method == _RETURN:
            _, rest = _take_short_string(arguments[2:])
            exchange, rest = _take_short_string(rest)
            routing_key, _ = _take_short_string(rest)
            self.returned.append(RawMessage(0, False, exchange, routing_key, *self._read_header_and_body()))  # noqa: FBT003
        return method, arguments

    def _read_frame(self) -> tuple[int, bytes]:
        head = self._input.read(7)
        if len(head) < 7:
            raise RawClosedError("the connection ended")
        kind, _, size = struct.unpack(">BHI", head)
        return kind, self._input.read(size + 1)[:-1]


def _take_short_string(data: bytes) -> tuple[str, bytes]:
    end = 1 + data[0]
    return data[1:end].decode(), data[end:]
