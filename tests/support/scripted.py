"""A scripted broker: an AMQP server on loopback that answers each method as the test says.

It speaks raw frames, encoded with pamqp and not with the bridge's encoders. What it answers stands in a table
by method, which a test changes to make the broker refuse, be silent or talk nonsense, at any step.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import secrets
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import pytest
import uvloop
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal, unmarshal
from pamqp.header import ContentHeader, ProtocolHeader

from bridge.assembly import assemble
from bridge.connection.limits import DEFAULT
from bridge.relay.backoff import Backoff
from bridge.settings.environment import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from pamqp.common import FieldTable
    from pamqp.frame import FrameTypes

    from bridge.connection.dial import Dialer
    from bridge.connection.limits import TimeLimits
    from bridge.connection.supervisor import Supervisor

PATIENCE_S = 10.0
"""How long a condition may take to come true before a test fails: far longer than it should."""


OWN_PORTS = range(10_000, 20_000)
"""Below those that the rig takes, which are below those that Linux hands out."""


async def eventually(condition: Callable[[], object], what: str | Callable[[], str] = "") -> None:
    """Wait until the condition holds. Raises `AssertionError` when it does not come true in time.

    What was waited for may be told by a function, which is asked when it did not come.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - the pure modules have no events to wait for
                await asyncio.sleep(0.002)
    except TimeoutError:
        told = what() if callable(what) else what
        raise AssertionError(f"never came true: {told or condition}") from None


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Any:  # noqa: ANN401 - what pytest makes of it
    """Run an async test on asyncio's own event loop and on uvloop."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))

    parameters = inspect.signature(test).parameters.values()
    own = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = inspect.Signature([*parameters, own])  # type: ignore[attr-defined]  # pytest reads it
    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    factories = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("loop_factory", factories, ids=["asyncio", "uvloop"])(run)


def reply(*frames: FrameTypes) -> Callable[[Peer, int, Any], None]:
    """Answer with these frames on the channel that asked."""
    return lambda peer, channel, _: peer.send(*frames, channel=channel)


def refuse(code: int, text: str) -> Callable[[Peer, int, Any], None]:
    """Answer by closing the channel, or the connection where channel 0 asked."""
    return lambda peer, channel, _: peer.close(code, text, channel=channel)


def silence(_: Peer, __: int, ___: object) -> None:
    """Do not answer."""


def hang_up(peer: Peer, _: int, __: object) -> None:
    """Drop the connection."""
    peer.abort()


def start(**properties: str) -> Callable[[Peer, int, Any], None]:
    """Begin a connection as a broker of these properties does: its product and version, mostly."""
    return reply(commands.Connection.Start(0, 9, {**CAPABILITIES, **properties}, "PLAIN", "en_US"))


CAPABILITIES: FieldTable = {
    "capabilities": {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}
}


class Peer:
    """One accepted connection, from the broker's end."""

    def __init__(self, broker: ScriptedBroker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._broker = broker
        self._reader = reader
        self._writer = writer
        self._body = b""
        self._body_left = 0
        self._delivery_tag = 0
        self.frames: list[Any] = []
        """What came in, in order, contents included."""
        self.published: list[bytes] = []
        """The bodies of the contents that came in."""
        self.gone = False

    def __repr__(self) -> str:
        """Say what was heard last."""
        return f"<peer {self._writer.get_extra_info('peername')}, {len(self.frames)} frames, last {self.frames[-3:]}>"

    def got(self, kind: type) -> list[Any]:
        """Return the frames of a kind that came in."""
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def send(self, *frames: FrameTypes, channel: int = 1) -> None:
        """Write frames on a channel."""
        self.send_raw(b"".join(marshal(frame, channel) for frame in frames))

    def send_raw(self, data: bytes) -> None:
        """Write any bytes."""
        self._writer.write(data)

    def deliver(self, *bodies: bytes, message_id: str | None = None, headers: FieldTable | None = None) -> None:
        """Deliver messages to the newest consumer, numbered on."""
        consumer_tag = self.got(commands.Basic.Consume)[-1].consumer_tag
        for body in bodies:
            self._delivery_tag += 1
            properties = commands.Basic.Properties(delivery_mode=2, message_id=message_id, headers=headers)
            method = commands.Basic.Deliver(consumer_tag, self._delivery_tag, False, "", "in")  # noqa: FBT003
            self.send(method, ContentHeader(0, len(body), properties), *([ContentBody(body)] if body else []))

    def close(self, code: int, text: str, *, channel: int = 1) -> None:
        """Close the channel, or the connection with channel 0."""
        kind = commands.Channel.Close if channel else commands.Connection.Close
        self.send(kind(code, text, 0, 0), channel=channel)

    def abort(self) -> None:
        """Drop the connection without a word."""
        self._writer.transport.abort()

    async def run(self) -> None:
        """Answer until the connection ends."""
        try:
            await self._reader.readexactly(8)
            self._take(0, ProtocolHeader())
            while True:
                head = await self._reader.readexactly(7)
                rest = await self._reader.readexactly(int.from_bytes(head[3:]) + 1)
                _, channel, frame = unmarshal(head + rest)
                self._take(channel, frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the bridge hung up, or this test did
        finally:
            self.gone = True
            self._writer.close()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    def _take(self, channel: int, frame: object) -> None:
        self.frames.append(frame)
        if isinstance(frame, ContentHeader | ContentBody):
            if isinstance(frame, ContentHeader):
                self._body, self._body_left = b"", frame.body_size
            else:
                self._body += frame.value
                self._body_left -= len(frame.value)
            if not self._body_left:
                self.published.append(self._body)
                self._broker.published(self, len(self.published))
        elif (answer := self._broker.answers.get(type(frame))) is not None:
            answer(self, channel, frame)


def confirm(peer: Peer, publish_seqno: int) -> None:
    """Confirm a publish."""
    peer.send(commands.Basic.Ack(publish_seqno, False))  # noqa: FBT003 - the field `multiple`


def keep(_: Peer, __: int) -> None:
    """Take a publish and say nothing."""


async def listen(accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> asyncio.Server:
    """Listen on a port that the system hands out to nobody.

    One that it does hand out may have been another test's a moment ago, and the bridge of that one, in another process,
    still tries to connect to it: it would be heard here.
    """
    while True:
        try:
            return await asyncio.start_server(accept, "127.0.0.1", OWN_PORTS[secrets.randbelow(len(OWN_PORTS))])
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


class ScriptedBroker:
    """The server; `answers` and `published` may be changed at any time, for all connections."""

    url: str

    def __init__(self, *, frame_max: int = 131072) -> None:
        self.peers: list[Peer] = []
        self.published: Callable[[Peer, int], None] = confirm
        """What is done about a publish, given its number on the connection."""
        self.turns_away = False
        """Hang up before a word is said, as a proxy does whose broker is away."""
        self.answers: dict[type, Callable[[Peer, int, Any], None]] = {
            ProtocolHeader: start(),
            commands.Connection.StartOk: reply(commands.Connection.Tune(2047, frame_max, 60)),
            commands.Connection.Open: reply(commands.Connection.OpenOk()),
            commands.Connection.Close: reply(commands.Connection.CloseOk()),
            commands.Channel.Open: reply(commands.Channel.OpenOk()),
            commands.Channel.Close: reply(commands.Channel.CloseOk()),
            commands.Confirm.Select: reply(commands.Confirm.SelectOk()),
            commands.Queue.Declare: reply(commands.Queue.DeclareOk("q", 0, 0)),
            commands.Exchange.Declare: reply(commands.Exchange.DeclareOk()),
            commands.Basic.Qos: reply(commands.Basic.QosOk()),
            commands.Basic.Consume: lambda peer, channel, frame: peer.send(
                commands.Basic.ConsumeOk(frame.consumer_tag), channel=channel
            ),
            commands.Basic.Cancel: lambda peer, channel, frame: peer.send(
                commands.Basic.CancelOk(frame.consumer_tag), channel=channel
            ),
        }

    async def __aenter__(self) -> Self:
        self._server = await listen(self._accept)
        self.url = f"amqp://guest:secret@127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for peer in self.peers:
            peer.abort()
        await eventually(lambda: not self.open, "the broker's connections are gone")

    @property
    def peer(self) -> Peer:
        """The latest connection."""
        return self.peers[-1]

    @property
    def open(self) -> list[Peer]:
        """The connections that are not gone."""
        return [peer for peer in self.peers if not peer.gone]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        if self.turns_away:
            peer.gone = True
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            return
        await peer.run()

    async def consumed(self, consumers: int = 1) -> Peer:
        """Wait until the latest connection consumes, and return it."""
        await eventually(
            lambda: sum(len(peer.got(commands.Basic.Consume)) for peer in self.peers) >= consumers, "consuming"
        )
        return self.peer


@asynccontextmanager
async def bridge(
    source: ScriptedBroker,
    destination: ScriptedBroker,
    limits: TimeLimits = DEFAULT,
    new_backoff: Callable[[float, float, Callable[[], float]], Backoff] = Backoff,
    dialer: Dialer | None = None,
    /,
    **settings: object,
) -> AsyncIterator[Supervisor]:
    """Run the whole bridge, stop it, and check that the books balance and that it leaves no task and no socket."""
    before = asyncio.all_tasks()
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    environ = {
        "BRIDGE_SOURCE_URL": source.url,
        "BRIDGE_SOURCE_QUEUE": "in",
        "BRIDGE_DESTINATION_URL": destination.url,
        "BRIDGE_DESTINATION_QUEUE": "out",
        "BRIDGE_SHUTDOWN_TIMEOUT": "0.2",
        "BRIDGE_RECONNECT_MIN": "0.01",
        "BRIDGE_RECONNECT_MAX": "0.02",
    } | {f"BRIDGE_{name.upper()}": str(value) for name, value in settings.items()}
    supervisor = assemble(load_settings(environ), limits, new_backoff=new_backoff, dialer=dialer)
    task = asyncio.ensure_future(supervisor.run())
    try:
        yield supervisor
    finally:
        supervisor.stop()
        async with asyncio.timeout(PATIENCE_S):
            await task
    assert supervisor.books.imbalance == 0
    await eventually(
        lambda: not source.open and not destination.open,
        lambda: f"every socket is closed: source {source.open}, destination {destination.open}, {supervisor.status}",
    )
    await eventually(lambda: asyncio.all_tasks() <= before, f"no task is left of {asyncio.all_tasks() - before}")
    assert not unhandled
