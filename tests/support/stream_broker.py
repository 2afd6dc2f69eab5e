"""A scripted broker that speaks RabbitMQ's stream protocol, encoded apart from the library that the bridge uses."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING, Self

from tests.rig.ports import LOOPBACK
from tests.support.scripted import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

STORE, QUERY, PEER_PROPERTIES, HANDSHAKE, AUTHENTICATE, TUNE, OPEN, CLOSE, HEARTBEAT = (
    10,
    11,
    17,
    18,
    19,
    20,
    21,
    22,
    23,
)
METADATA = 15
ANSWER = 0x8000
OK, NO_OFFSET = 1, 19


def text(value: str) -> bytes:
    """A string: the number of its bytes, and these."""
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def frame(key: int, payload: bytes = b"") -> bytes:
    """A frame of version 1."""
    return struct.pack(">IHH", len(payload) + 4, key, 1) + payload


def take_text(data: bytes) -> tuple[str, bytes]:
    """The string that the data begins with, and the rest."""
    (size,) = struct.unpack_from(">H", data)
    return data[2 : 2 + size].decode(), data[2 + size :]


class StreamBroker:
    """``async with StreamBroker() as broker:`` listens on a port of its own."""

    def __init__(self, codes: Mapping[int, int] | None = None) -> None:
        """``codes`` are the response codes by request; 1, for all is well, where there is none."""
        self.codes = dict(codes or {})
        self.offsets: dict[tuple[str, str], int] = {}
        """By stream and name."""
        self.logins: list[tuple[str, bytes]] = []
        """Mechanism and what came with it."""
        self.virtual_hosts: list[str] = []
        self.before: deque[bytes] = deque()
        """Sent before the next answers, one each; what ends with an empty one is sent and nothing after it."""
        self.keeps = True
        """Whether what is stored is kept."""
        self.connections = 0
        self.silent = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.drop()
        await eventually(lambda: not self._writers, "every socket is closed")

    def drop(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def end(self) -> None:
        """Close every connection in order: what was written goes out first."""
        for writer in self._writers:
            writer.close()

    @property
    def url(self) -> str:
        """For `BRIDGE_SOURCE_STREAM_URL`."""
        return f"rabbitmq-stream://me:secret@{LOOPBACK}:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                (size,) = struct.unpack(">I", await reader.readexactly(4))
                data = await reader.readexactly(size)
                key, version = struct.unpack_from(">HH", data)
                assert version == 1
                if not self.silent:
                    self._answer(key, data[4:], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # asyncio closes it then
            self._writers.discard(writer)

    def _answer(self, key: int, payload: bytes, writer: asyncio.StreamWriter) -> None:
        if key == STORE:
            name, rest = take_text(payload)
            stream, rest = take_text(rest)
            if self.keeps:
                (self.offsets[stream, name],) = struct.unpack(">Q", rest)
            return
        if key in {TUNE, HEARTBEAT}:
            return
        number, rest = payload[:4], payload[4:]
        if self.before:
            writer.write(self.before.popleft())
        code = self.codes.get(key, OK)
        code, more = self._content(key, code, rest)
        writer.write(frame(key | ANSWER, number + struct.pack(">H", code) + more))
        if key == AUTHENTICATE and code == OK:
            writer.write(frame(TUNE, struct.pack(">II", 1 << 20, 60)))

    def _content(self, key: int, code: int, rest: bytes) -> tuple[int, bytes]:
        """The response code, and what comes after it."""
        if key == QUERY:
            name, rest = take_text(rest)
            stream, _ = take_text(rest)
            found = self.offsets.get((stream, name))
            return NO_OFFSET if found is None and code == OK else code, struct.pack(">Q", found or 0)
        if key == HANDSHAKE:
            return code, struct.pack(">I", 1) + text("PLAIN")
        if key == AUTHENTICATE:
            mechanism, rest = take_text(rest)
            self.logins.append((mechanism, rest[4:]))
        elif key == OPEN:
            self.virtual_hosts.append(take_text(rest)[0])
        return code, struct.pack(">I", 0) if key in {PEER_PROPERTIES, OPEN} else b""
