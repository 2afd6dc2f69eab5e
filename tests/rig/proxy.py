"""A TCP proxy on loopback whose link can be cut, refused, stalled, delayed, narrowed and made to lose frames.

It runs in a thread of its own with its own event loop, so that tests of any kind can use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.rig.ports import LOOPBACK, free_port
from tests.rig.sieve import Sieve, Swallowing

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.rig.sieve import Method

_CHUNK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


@dataclass
class Direction:
    """How one direction of the link behaves; the fields may be set at any time, from any thread."""

    delay_s: float = 0
    bytes_per_s: float = 0
    """0: no limit."""
    _open: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Forwards connections from ``port`` to ``target_port``, both on loopback, while used as a context manager.

    ``upstream`` is the direction from client to broker, ``downstream`` from broker to client. ``by_frame`` cuts what
    the broker sends into AMQP's frames, which ``swallow`` needs and which costs time.
    """

    def __init__(self, target_port: int, *, by_frame: bool = False) -> None:
        self.port = free_port()
        self.upstream = Direction()
        self.downstream = Direction()
        self.connections = 0
        """How many connections have been accepted so far."""
        self._swallowing = Swallowing() if by_frame else None
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    @property
    def url(self) -> str:
        """The URL by which an AMQP client goes through the proxy."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        self.resume()
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, *, reset: bool = True) -> None:
        """End all connections at once, by RST or else by FIN. New ones are accepted."""
        self._run(self._cut(reset=reset))

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._run(self._refuse())

    def accept(self) -> None:
        """Accept connections (again)."""
        self._run(self._accept())

    def stall(self, *directions: Direction) -> None:
        """Half-open: let no byte through (in the given directions, else both), close nothing, accept everything."""
        for direction in directions or (self.upstream, self.downstream):
            self._loop.call_soon_threadsafe(direction._open.clear)

    def resume(self) -> None:
        """End a stall; what was held back is delivered."""
        for direction in (self.upstream, self.downstream):
            self._loop.call_soon_threadsafe(direction._open.set)

    def swallow(self, *methods: Method) -> None:
        """Lose these methods of the broker's from now on, each with its content; with none given, lose nothing more."""
        assert self._swallowing, "only a proxy that goes by frames knows methods"
        self._swallowing.methods = frozenset(methods)

    @property
    def swallowed(self) -> int:
        """How many methods have been lost so far."""
        return self._swallowing.number if self._swallowing else 0

    def _run(self, action: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(30)

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self, *, reset: bool) -> None:
        links, self._links = self._links, {}
        for task, writers in links.items():
            for writer in writers:
                if reset:
                    with contextlib.suppress(OSError):  # that end is closed already
                        connection = writer.get_extra_info("socket")
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    writer.transport.abort()
                else:
                    writer.close()
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.connections += 1
        writers = self._links[task] = [writer]
        try:
            broker_reader, broker_writer = await asyncio.open_connection(LOOPBACK, self._target_port)
            writers.append(broker_writer)
            async with asyncio.TaskGroup() as group:
                sieve = Sieve(self._swallowing) if self._swallowing else None
                group.create_task(_pump(reader, broker_writer, self.upstream))
                group.create_task(_pump(broker_reader, writer, self.downstream, sieve))
        except* OSError:
            pass  # the broker is away or a side broke its connection: so does the proxy, see below
        except* asyncio.CancelledError:
            pass  # cut
        finally:
            self._links.pop(task, None)
            for each in writers:
                each.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction, sieve: Sieve | None = None
) -> None:
    """Carry one direction until its end: one task reads and stamps chunks, one writes them when they are due."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

    async def read() -> None:
        chunk = b"begun"
        while chunk:
            await direction._open.wait()
            chunk = await reader.read(_CHUNK)
            await chunks.put((loop.time() + direction.delay_s, chunk))

    async def write() -> None:
        while True:
            due, chunk = await chunks.get()
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await direction._open.wait()
            if not chunk:
                with contextlib.suppress(OSError):  # the other direction may have been broken off already
                    writer.write_eof()
                return
            writer.write(sieve.sift(chunk) if sieve else chunk)
            await writer.drain()
            if direction.bytes_per_s:
                await asyncio.sleep(len(chunk) / direction.bytes_per_s)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        group.create_task(write())
