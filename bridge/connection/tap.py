"""The tap: the asyncio protocol under aiormq that cuts the data plane out of each connection.

aiormq takes a `transport_factory`; ours gives it a reader that is fed only what the control plane should see,
and a writer on the same transport. Both sides write whole frames with one call, so they can share it. What
the receiver (a port of the relay) keeps is acted on, and what the relay says goes out, within the same call of
`buffer_updated`: no task, no queue, no await between a delivery and its publish.

Facts about aiormq 7.2.4 that this stands on are pinned in `tests/unit/connection/test_tap.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from fcntl import ioctl
from math import inf
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError

from bridge.amqp.frames import HEARTBEAT_FRAME
from bridge.connection import dial
from bridge.connection.buffer import ReceiveBuffer
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import SupportsIndex

    from aiohappyeyeballs import AddrInfoType
    from yarl import URL

    from bridge.relay.relay import Relay
    from bridge.words import EndReason, SideName

    Ended = Callable[[EndReason, str, float], None]
    """Takes a word for `/metrics`, a sentence for the log, and the time in monotonic seconds."""
    LookUp = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]

log = logging.getLogger(__name__)

WRITE_HIGH_WATER_BYTES = 1 << 20
"""Bytes in a socket's write buffer above which nothing more is published to it."""
UNSENT_STEP_BYTES = 4096
"""Unsent bytes are reported in steps of this size: more than all heartbeats that may wait."""
HEARTBEAT_FEED_S = 1.0
"""How often aiormq is fed a heartbeat while data that it does not see flows, or while reading is paused."""
DEAD_AFTER_HEARTBEATS = 2.5
"""Intervals of silence after which the peer is dead. AMQP 0-9-1, 4.2.7, says two; half of one is for noise."""


class Receiver(Protocol):
    """What a tap feeds: a port of the relay, mostly."""

    def receive(self, data: bytes, now_s: float) -> bool:
        """Take a chunk; return whether there may be something to write. Raises `MalformedFrameError`."""

    def take_control(self) -> bytes:
        """Hand over what has come for the control plane: whole frames, in order."""


def _nothing_to_write(now_s: float) -> None:
    """As for a connection that only asks: aiormq writes its questions."""


class Tap(asyncio.BufferedProtocol):
    """One connection: bytes to the receiver, the rest to aiormq."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        receiver: Receiver,
        ended: Ended,
        pump: Callable[[float], None] = _nothing_to_write,
        *,
        feed_s: float = HEARTBEAT_FEED_S,
    ) -> None:
        """`ended` is called when the connection is gone or cannot be trusted any more, and more than once.

        `pump` is called when there may be something to write, or room to write it. aiormq is fed heartbeats every
        `feed_s` seconds.
        """
        loop = asyncio.get_running_loop()
        self.control = asyncio.StreamReaderProtocol(reader, loop=loop)
        """What aiormq reads from and waits on."""
        self._clock = loop.time
        self._buffer = ReceiveBuffer()
        self._receiver = receiver
        self._ended = ended
        self._pump = pump
        self._feed_every_s = feed_s
        self.transport: asyncio.Transport | None = None
        self.writable = True
        self.paused = False
        self._heartbeat_s = 0.0
        """The heartbeat interval that the connection agreed on; 0 before that."""
        self._received_s = self._fed_s = self._clock()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by asyncio."""
        # A cast, since uvloop's transports are not asyncio's by inheritance.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self.control.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return what to read into; called by asyncio."""
        return self._buffer.room

    def buffer_updated(self, nbytes: int) -> None:
        """Cut a chunk and answer it; called by asyncio."""
        now_s = self._received_s = self._clock()
        receiver = self._receiver
        try:
            acted = receiver.receive(self._buffer.take(nbytes), now_s)
        except MalformedFrameError as error:
            self.fail("malformed", f"the broker sent {error}")
            return
        except MemoryError:
            self.fail("memory", "the bridge has no memory left")
            raise  # to the event loop's handler: the process ends
        except Exception as error:
            # A bug of ours must not leave a generation that looks alive and is not.
            log.exception("a bug in the bridge ended the generation")
            self.fail("bug", f"a bug in the bridge: {error!r}")
            return
        if control := receiver.take_control():
            self.control.data_received(control)
            self._fed_s = now_s
        elif now_s - self._fed_s >= self._feed_every_s:
            self._feed_heartbeat(now_s)
        if acted:
            self._pump(now_s)

    def _feed_heartbeat(self, now_s: float) -> None:
        # aiormq declares a connection stuck on which it sees no frame, and RabbitMQ sends heartbeats only
        # when it sends nothing else.
        self._fed_s = now_s
        self.control.data_received(HEARTBEAT_FRAME)

    def eof_received(self) -> bool:
        """The peer sends no more; called by asyncio. False: the connection is to be closed."""
        return bool(self.control.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called by asyncio."""
        text = f"connection lost ({exc})" if exc else "the broker closed the connection"
        self._ended("connection-lost", text, self._clock())
        self.control.connection_lost(exc)

    def agree(self, heartbeat_s: float) -> None:
        """The connection has agreed on this heartbeat interval: watch the peer by it; 0 for not at all."""
        self._heartbeat_s = heartbeat_s

    def pause_writing(self) -> None:
        """The socket accepts no more; called by asyncio."""
        self.writable = False
        self.control.pause_writing()

    def resume_writing(self) -> None:
        """The socket takes more; called by asyncio."""
        self.writable = True
        self.control.resume_writing()
        self._pump(self._clock())

    def write(self, frames: Sequence[bytes | memoryview]) -> None:
        """Write whole frames."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(frames)

    @property
    def unsent_bytes(self) -> int:
        """What was written and the peer's kernel has not taken; ours holds megabytes. Heartbeats do not show in it."""
        if self.transport is None or self.transport.is_closing():
            return 0
        unsent = self.transport.get_write_buffer_size()
        descriptor = self.transport.get_extra_info("socket").fileno()
        with suppress(OSError):  # the connection may have been lost just now
            unsent += int.from_bytes(ioctl(descriptor, TIOCOUTQ, bytes(4)), sys.byteorder)
        return unsent // UNSENT_STEP_BYTES * UNSENT_STEP_BYTES

    def pause(self, *, pause: bool) -> None:
        """Pause or resume reading from the socket."""
        if pause is self.paused or self.transport is None or self.transport.is_closing():
            return
        self.paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self._received_s = self._clock()
            self.transport.resume_reading()

    @property
    def due_s(self) -> float:
        """When `tick` has something to do, if nothing comes before."""
        if self.paused:
            return self._fed_s + self._feed_every_s
        return self._received_s + DEAD_AFTER_HEARTBEATS * self._heartbeat_s if self._heartbeat_s else inf

    def tick(self, now_s: float) -> None:
        """Watch the peer: end the generation when it has been silent for too long."""
        if self.paused:
            if now_s - self._fed_s >= self._feed_every_s:
                self._feed_heartbeat(now_s)
        elif self._heartbeat_s and now_s - self._received_s > DEAD_AFTER_HEARTBEATS * self._heartbeat_s:
            self.fail("heartbeat", f"no byte from the broker for {now_s - self._received_s:.0f} s")

    def fail(self, reason: EndReason, text: str) -> None:
        """End the generation from our side, at once."""
        self._ended(reason, text, self._clock())
        self.abort()

    def abort(self) -> None:
        """Drop the connection without a word."""
        if self.transport is not None:
            self.transport.abort()


class Pump:
    """Carries what the relay has to say to the two sockets."""

    def __init__(self, relay: Relay, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called when something moves after `rest`."""
        self._relay = relay
        self._wake = wake
        self._resting = False
        self.source: Tap | None = None
        self.destination: Tap | None = None
        """The sockets of the generations that are open."""

    def attach(self, side: SideName, tap: Tap | None) -> None:
        """A generation of this side has begun on a socket, or (None) has ended."""
        if side == "source":
            self.source = tap
        else:
            self.destination = tap

    def rest(self) -> None:
        """Nobody looks at the relay for a while: call `wake` when something moves."""
        self._resting = True

    def attend(self) -> None:
        """Somebody looks again."""
        self._resting = False

    def run(self, now_s: float) -> None:
        """Write what is to be written, as long as the sockets take it; pause or resume the source."""
        relay, source, destination = self._relay, self.source, self.destination
        if destination is not None:
            while destination.writable and (frames := relay.destination.data_to_send(now_s)):
                destination.write(frames)
        if source is not None:
            if output := relay.source.data_to_send():
                source.write(output)
            while source.writable and (piece := relay.source.take_piece()):
                source.write(piece)
            source.pause(pause=relay.paused)
        if self._resting:
            self._resting = False
            self._wake()


class _Reader(asyncio.StreamReader):
    """What aiormq reads from; it knows whether there ever was anything to read."""

    heard = False

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self.heard = True
        super().feed_data(data)


class TapFactory(TransportFactory):
    """aiormq's hook: opens the socket with a tap on it."""

    def __init__(
        self, make: Callable[[asyncio.StreamReader], Tap], look_up: LookUp, server_name: Callable[[str], str]
    ) -> None:
        """`look_up` returns a host's addresses in the order in which to try them.

        `server_name` returns the name that the certificate of the broker at a host must have.
        """
        self._make = make
        self._look_up = look_up
        self._server_name = server_name
        self._reader: _Reader | None = None
        self.tap: Tap | None = None
        self.address: object = None
        """What the socket is connected to, as `getpeername` writes it; None before."""

    @property
    def has_heard(self) -> bool:
        """Whether the peer has said a word of AMQP."""
        return self._reader is not None and self._reader.heard

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ANN401 - aiormq's signature
        """Connect; raises `AMQPConnectionError` as aiormq's own factories do."""
        loop = asyncio.get_running_loop()
        host = url.host or ""
        context = await kwargs["ssl_context_provider"].get_context() if url.scheme == "amqps" else None
        reader = self._reader = _Reader(loop=loop)
        tap = self.tap = self._make(reader)
        try:
            sock = await dial.connect(await self._look_up(host, url.port or 0))
            self.address = sock.getpeername()
            await loop.create_connection(
                lambda: tap,
                sock=sock,
                ssl=context,
                server_hostname=self._server_name(host) if context is not None else None,
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        assert tap.transport is not None  # noqa: S101 - create_connection calls connection_made first
        return reader, asyncio.StreamWriter(tap.transport, tap.control, reader, loop)
