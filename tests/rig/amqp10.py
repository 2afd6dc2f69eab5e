"""Publishes by AMQP 1.0, which lets messages in that no AMQP 0-9-1 client could send. RabbitMQ 4 speaks it by itself.

One message, one connection, every byte written by hand: the types and performatives are those of the OASIS standard,
parts 1 to 3 and 5.
"""

from __future__ import annotations

import socket
import struct
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_AMQP, _SASL = 0, 1
_OPEN, _BEGIN, _ATTACH, _TRANSFER, _DISPOSITION, _DETACH, _END, _CLOSE = 0x10, 0x11, 0x12, 0x14, 0x15, 0x16, 0x17, 0x18
_SASL_INIT, _SASL_OUTCOME = 0x41, 0x44
_SOURCE, _TARGET, _ACCEPTED = 0x28, 0x29, 0x24
_HEADER, _PROPERTIES, _APPLICATION_PROPERTIES, _DATA = 0x70, 0x73, 0x74, 0x75
_DESCRIPTOR = b"\x00\x53"

_NULL, _TRUE, _FALSE = b"\x40", b"\x41", b"\x42"


def publish_amqp10(url: str, queue: str, body: bytes, message_id: str, headers: Mapping[str, str]) -> None:
    """Publish a persistent message to a queue and wait until the broker has accepted it.

    Raises RuntimeError with what the broker answered instead.
    """
    parts = urlsplit(url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 5672), 30) as connection:
        stream = connection.makefile("rb")

        def send(kind: int, performative: bytes, payload: bytes = b"") -> None:
            size = 8 + len(performative) + len(payload)
            connection.sendall(struct.pack(">IBBH", size, 2, kind, 0) + performative + payload)

        connection.sendall(b"AMQP\x03\x01\x00\x00")
        stream.read(8)
        login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}".encode()
        send(_SASL, _described(_SASL_INIT, _symbol("PLAIN"), _binary(login)))
        _read_until(stream, _SASL_OUTCOME)
        connection.sendall(b"AMQP\x00\x01\x00\x00")
        stream.read(8)
        send(_AMQP, _described(_OPEN, _string("rig")))
        send(_AMQP, _described(_BEGIN, _NULL, _uint(0), _uint(100), _uint(100)))
        ends = (_described(_SOURCE, _string("rig")), _described(_TARGET, _string(f"/queues/{quote(queue, safe='')}")))
        send(_AMQP, _described(_ATTACH, _string("rig"), _uint(0), _FALSE, _NULL, _NULL, *ends, _NULL, _NULL, _uint(0)))
        _read_until(stream, _ATTACH)
        sections = (
            _described(_HEADER, _TRUE),
            _described(_PROPERTIES, _string(message_id)),
            _DESCRIPTOR + bytes([_APPLICATION_PROPERTIES]) + _map(headers),
            _DESCRIPTOR + bytes([_DATA]) + _binary(body),
        )
        send(_AMQP, _described(_TRANSFER, _uint(0), _uint(0), _binary(b"1"), _uint(0), _FALSE), b"".join(sections))
        answer = _read_until(stream, _DISPOSITION)
        if _DESCRIPTOR + bytes([_ACCEPTED]) not in answer:
            raise RuntimeError(f"the broker did not accept the message: {answer!r}")
        send(_AMQP, _described(_CLOSE))
        stream.close()


def _read_until(stream: IO[bytes], wanted: int) -> bytes:
    """Read frames up to the performative, and return it."""
    while True:
        head = stream.read(8)
        if len(head) < 8:
            raise RuntimeError("the broker closed the connection")
        size, offset_words = struct.unpack_from(">IB", head)
        payload = stream.read(size - 8)[4 * offset_words - 8 :]
        performative = payload[2] if payload else 0  # an empty frame is a heartbeat
        refused = performative == _SASL_OUTCOME and b"\x50\x00" not in payload  # a code other than 0
        if refused or performative in {_DETACH, _END, _CLOSE}:
            raise RuntimeError(f"the broker refused: {payload!r}")
        if performative == wanted:
            return payload


def _described(descriptor: int, *fields: bytes) -> bytes:
    content = struct.pack(">I", len(fields)) + b"".join(fields)
    return _DESCRIPTOR + bytes([descriptor]) + b"\xd0" + struct.pack(">I", len(content)) + content


def _map(values: Mapping[str, str]) -> bytes:
    pairs = b"".join(_string(text) for pair in values.items() for text in pair)
    content = struct.pack(">I", 2 * len(values)) + pairs
    return b"\xd1" + struct.pack(">I", len(content)) + content


def _string(text: str) -> bytes:
    return b"\xb1" + struct.pack(">I", len(text.encode())) + text.encode()


def _symbol(text: str) -> bytes:
    return b"\xb3" + struct.pack(">I", len(text)) + text.encode()


def _binary(data: bytes) -> bytes:
    return b"\xb0" + struct.pack(">I", len(data)) + data


def _uint(number: int) -> bytes:
    return b"\x70" + struct.pack(">I", number)
