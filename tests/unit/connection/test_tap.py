"""The tap, and the facts about aio-pika and aiormq that it stands on: an upgrade that breaks one fails here."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from importlib.metadata import version
from math import inf
from typing import TYPE_CHECKING, Any, cast

import aio_pika
import aiormq
import pytest
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat
from yarl import URL

from bridge.amqp.cutter import Cutter
from bridge.amqp.events import Blocked, Close, Confirm, Deliveries, Event, Unblocked
from bridge.amqp.frames import HEARTBEAT_FRAME
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.connection.dial import Dialer
from bridge.connection.link import TappedConnection
from bridge.connection.tap import HEARTBEAT_FEED_S, Pump, Tap, TapFactory
from tests.support import frames
from tests.support.scripted import ScriptedBroker, bridge, eventually, keep, on_both_loops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bridge.relay.relay import Relay


class RecordingSide:
    """A receiver that cuts, and keeps what comes of it and how the connection ends."""

    def __init__(self) -> None:
        self._cutter = Cutter(ContentPreparer(HeaderPolicy()))
        self.seen: list[Event] = []
        self.ends: list[tuple[str, str]] = []
        self.on_event: Callable[[Event], None] = self.seen.append

    def receive(self, data: bytes, now_s: float) -> bool:
        """Keep each event; there is nothing to write."""
        for event in self._cutter.feed(data, now_s):
            self.on_event(event)
        return False

    def take_control(self) -> bytes:
        """As a port's."""
        return self._cutter.take_control()

    def ended(self, reason: str, text: str, now_s: float) -> None:  # noqa: ARG002 - the tap's signature
        """Keep the end."""
        self.ends.append((reason, text))


def make_tap(reader: asyncio.StreamReader, side: RecordingSide, feed_s: float = HEARTBEAT_FEED_S) -> Tap:
    """A tap that has nobody to write to."""
    return Tap(reader, side, side.ended, feed_s=feed_s)


def read(tap: Tap, data: bytes) -> None:
    """Have the tap read this."""
    tap.get_buffer(-1)[: len(data)] = data
    tap.buffer_updated(len(data))


class RecordingFactory(TapFactory):
    """Keeps what aiormq asks of the hook and what it writes."""

    def __init__(self, side: RecordingSide, feed_s: float) -> None:
        super().__init__(lambda reader: make_tap(reader, side, feed_s), Dialer().look_up, lambda host: host)
        self.asked: list[tuple[URL, set[str]]] = []
        self.writes: list[bytes] = []

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ANN401
        """Keep what aiormq asks for, and every write that it makes."""
        self.asked.append((url, set(kwargs)))
        reader, writer = await super().create(url, **kwargs)
        write = writer.write

        def record(data: bytes | bytearray | memoryview[int]) -> None:
            self.writes.append(bytes(data))
            write(data)

        writer.write = record  # type: ignore[method-assign]
        return reader, writer


@asynccontextmanager
async def tapped(
    broker: ScriptedBroker, side: RecordingSide, *, heartbeat: int = 10, feed_s: float = HEARTBEAT_FEED_S
) -> AsyncIterator[tuple[TappedConnection, RecordingFactory]]:
    """A connection of aio-pika's with a tap on it, closed at the end."""
    factory = RecordingFactory(side, feed_s)
    url = URL(broker.url).update_query(heartbeat=str(heartbeat))
    connection = TappedConnection(url, factory, None, "test")
    await connection.connect()
    try:
        yield connection, factory
    finally:
        await connection.close()


# --- Facts about the libraries -------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "known"), (("aio-pika", "10.2.1"), ("aiormq", "7.2.4")))
def test_fact_the_libraries_are_those_that_the_tap_was_written_for(package: str, known: str) -> None:
    """Another version may work as well: read its changes, run these tests against it, then change the number."""
    assert version(package) == known


@on_both_loops
async def test_fact_aiormq_takes_its_transport_from_the_factory_in_the_connections_kwargs() -> None:
    """aio-pika hands its `kwargs` to aiormq; the factory is asked once, with the provider of the TLS context."""
    async with ScriptedBroker() as broker, tapped(broker, RecordingSide()) as (connection, factory):
        ((url, asked),) = factory.asked
        assert (url.host, url.port) == ("127.0.0.1", URL(broker.url).port)
        assert "ssl_context_provider" in asked
        assert factory.tap is not None
        assert factory.tap.transport is not None
        assert connection.transport is not None
        assert isinstance(connection.transport.connection, aiormq.Connection)
        start_ok = broker.peer.got(commands.Connection.StartOk)[0]
        assert start_ok.client_properties["connection_name"] == "test"


def whole_frames(data: bytes) -> bool:
    """Whether nothing but whole frames stand in the data."""
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            return False
        position += 8 + struct.unpack_from(">I", data, position + 3)[0]
        if position > len(data) or data[position - 1] != 0xCE:
            return False
    return True


@on_both_loops
async def test_fact_aiormq_writes_whole_frames_with_one_write() -> None:
    """Else the bridge's own writes on the same transport would land in the middle of a frame."""
    async with ScriptedBroker(frame_max=4096) as broker, tapped(broker, RecordingSide()) as (connection, factory):
        channel = await connection.channel(publisher_confirms=False)
        await channel.declare_queue("q")
        await channel.default_exchange.publish(aio_pika.Message(bytes(100_000)), "q")
        await eventually(lambda: broker.peer.published)
        await channel.close()
    header, *others = factory.writes
    assert header == b"AMQP\x00\x00\x09\x01"
    assert len(others) > 5
    assert all(whole_frames(write) for write in others)


@pytest.mark.parametrize("fed", (True, False), ids=["fed a heartbeat", "not fed"])
@on_both_loops
async def test_fact_aiormq_cuts_a_connection_on_which_it_sees_no_frame(
    fed: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deliveries are diverted: without the fed heartbeat the busiest connection would be taken for dead."""
    monkeypatch.setattr(aiormq.Connection, "HEARTBEAT_GRACE_MULTIPLIER", 0.25)  # of two seconds
    async with ScriptedBroker() as broker:
        side = RecordingSide()
        async with tapped(broker, side, heartbeat=1, feed_s=0.05 if fed else 1e9):
            peer = broker.peer

            def deliver() -> bool:
                if not peer.gone:
                    peer.send_raw(frames.deliver(1, frames.content(b"x")))
                return len(peer.got(Heartbeat)) >= 2 or bool(side.ends)

            await eventually(deliver, "two of aiormq's own heartbeats, a second apart, or the end")
            assert bool(side.ends) is not fed
            assert side.seen


@on_both_loops
async def test_fact_aiormq_gives_a_publish_a_message_id_of_its_own() -> None:
    """With confirms it adds a property that the message had not: why the bridge does not publish through it."""
    async with ScriptedBroker() as broker, tapped(broker, RecordingSide()) as (connection, _):
        broker.published = keep
        channel = await connection.channel()
        publish = asyncio.ensure_future(channel.default_exchange.publish(aio_pika.Message(b"x"), "q"))
        await eventually(lambda: broker.peer.published)
        (header,) = broker.peer.got(ContentHeader)
        assert header.properties.message_id
        publish.cancel()
        await asyncio.wait([publish])


@on_both_loops
async def test_fact_aiormq_does_not_show_whether_the_connection_is_blocked() -> None:
    """So the tap notes it; the two methods still reach aiormq, which holds back its own writes."""
    async with ScriptedBroker() as broker:
        side = RecordingSide()
        async with tapped(broker, side) as (connection, _):
            broker.peer.send_raw(frames.BLOCKED + frames.UNBLOCKED)
            await eventually(lambda: len(side.seen) == 2)
            assert side.seen == [Blocked("low on memory"), Unblocked()]
            assert connection.transport is not None
            for shown in (connection, connection.transport, connection.transport.connection):
                assert [name for name in dir(shown) if "block" in name.lower() and not name.startswith("_")] == []


@on_both_loops
async def test_fact_the_tap_sees_a_channel_close_in_stream_order_and_before_aiormq() -> None:
    """A confirm just before the close still counts; aiormq knows of the close some iterations of the loop later."""
    async with ScriptedBroker() as broker:
        side = RecordingSide()
        async with tapped(broker, side) as (connection, _):
            channel = await connection.channel(channel_number=1)
            closed_when_seen: list[bool] = []

            def see(event: Event) -> None:
                side.seen.append(event)
                if isinstance(event, Close):
                    closed_when_seen.append(channel.is_closed)

            side.on_event = see
            broker.peer.send_raw(frames.confirm(1) + frames.close(1, 406, "PRECONDITION_FAILED"))
            await eventually(lambda: channel.is_closed)
            assert side.seen == [
                Confirm(1, 1, multiple=False, accepted=True),
                Close(1, 406, "PRECONDITION_FAILED"),
            ]
            assert closed_when_seen == [False]


@pytest.mark.parametrize("step", (1, 2, 7, 8, 9, 1000))
async def test_fact_a_chunk_ends_anywhere(step: int) -> None:
    """Data goes to the side and the rest to aiormq's reader, byte for byte, however the stream was cut."""
    bodies = [b"", b"x", bytes(3000)]
    stream = frames.HEARTBEAT + frames.QUEUE_DECLARE_OK
    for number, body in enumerate(bodies, 1):
        stream += frames.deliver(number, frames.content(body)) + frames.HEARTBEAT
    reader = asyncio.StreamReader()
    side = RecordingSide()
    tap = make_tap(reader, side)
    for start in range(0, len(stream), step):
        read(tap, stream[start : start + step])
    reader.feed_eof()
    assert await reader.read() == frames.HEARTBEAT + frames.QUEUE_DECLARE_OK + frames.HEARTBEAT * 3
    deliveries = [item for event in side.seen if isinstance(event, Deliveries) for item in event.items]
    assert [(item.delivery_tag, item.body_size) for item in deliveries] == [(1, 0), (2, 1), (3, 3000)]


@pytest.mark.parametrize(("source_max", "destination_max"), ((131072, 4096), (4096, 131072), (8192, 8192)))
@on_both_loops
async def test_fact_the_two_sides_tune_a_frame_max_each(source_max: int, destination_max: int) -> None:
    """Bodies are split anew where the destination's frames are smaller, and arrive as they were."""
    body = bytes(range(256)) * 400
    step = source_max - 8
    pieces = [ContentBody(body[start : start + step]) for start in range(0, len(body), step)]
    async with (
        ScriptedBroker(frame_max=source_max) as source,
        ScriptedBroker(frame_max=destination_max) as destination,
        bridge(source, destination) as running,
    ):
        peer = await source.consumed()
        consumer_tag = peer.got(commands.Basic.Consume)[0].consumer_tag
        method = commands.Basic.Deliver(consumer_tag, 1, False, "", "in")  # noqa: FBT003 - redelivered
        peer.send(method, ContentHeader(0, len(body), commands.Basic.Properties()), *pieces)
        await eventually(lambda: running.books.forwarded == 1)
        assert destination.peer.published == [body]
        sizes = [len(piece.value) for piece in destination.peer.got(ContentBody)]
        assert max(sizes) <= destination_max - 8


# --- The tap by itself ---------------------------------------------------------------------------------------


class FakeTransport(asyncio.Transport):
    """Keeps what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Note the limits."""
        self.done.append(f"limit {high} {low}")

    def is_closing(self) -> bool:
        """Say what the test set."""
        return self.closing

    def writelines(self, list_of_data: Any) -> None:  # noqa: ANN401 - wider than what the base class takes
        """Note how many buffers."""
        self.done.append(f"write {len(list_of_data)}")

    def pause_reading(self) -> None:
        """Note it."""
        self.done.append("pause")

    def resume_reading(self) -> None:
        """Note it."""
        self.done.append("resume")

    def abort(self) -> None:
        """Note it, and be closing."""
        self.done.append("abort")
        self.closing = True


def connected() -> tuple[Tap, RecordingSide, FakeTransport, asyncio.StreamReader]:
    """A tap on a transport that only keeps."""
    side, reader, transport = RecordingSide(), asyncio.StreamReader(), FakeTransport()
    tap = make_tap(reader, side)
    tap.connection_made(transport)
    transport.done.clear()
    return tap, side, transport, reader


async def test_a_malformed_frame_ends_the_generation_and_the_connection() -> None:
    tap, side, transport, _ = connected()
    read(tap, b"\x09\x00\x01\x00\x00\x00\x00\xce")
    assert [reason for reason, _ in side.ends] == ["malformed"]
    assert transport.done == ["abort"]


async def test_a_bug_of_the_bridge_ends_the_generation_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A generation that looks alive and is not would be worse."""
    tap, side, transport, _ = connected()

    def stumble(_: Event) -> None:
        raise ZeroDivisionError

    side.on_event = stumble
    read(tap, frames.BLOCKED)
    assert side.ends == [("bug", "a bug in the bridge: ZeroDivisionError()")]
    assert transport.done == ["abort"]
    assert "ZeroDivisionError" in caplog.text


async def test_without_memory_the_generation_ends_and_the_event_loop_hears_of_it() -> None:
    tap, side, transport, _ = connected()

    def exhaust(_: Event) -> None:
        raise MemoryError

    side.on_event = exhaust
    with pytest.raises(MemoryError):
        read(tap, frames.BLOCKED)
    assert side.ends == [("memory", "the bridge has no memory left")]
    assert transport.done == ["abort"]


async def test_a_silent_peer_is_dead_after_two_and_a_half_heartbeats_and_never_without_one() -> None:
    tap, side, transport, _ = connected()
    now_s = asyncio.get_running_loop().time()
    tap.tick(now_s + 1e6)
    assert side.ends == []
    tap.agree(10.0)
    tap.tick(now_s + 24.9)
    assert side.ends == []
    tap.tick(now_s + 26.0)
    assert [reason for reason, _ in side.ends] == ["heartbeat"]
    assert transport.done == ["abort"]


async def test_it_says_when_it_is_to_look_at_the_peer() -> None:
    tap, side, _, _ = connected()
    assert tap.due_s == inf, "without a heartbeat"
    tap.agree(10.0)
    due_s = tap.due_s
    tap.tick(due_s)
    assert side.ends == []
    tap.pause(pause=True)
    assert tap.due_s <= asyncio.get_running_loop().time() + 1.0, "aiormq is to be fed"
    tap.pause(pause=False)
    tap.tick(tap.due_s + 0.001)
    assert [reason for reason, _ in side.ends] == ["heartbeat"]


def test_a_pump_wakes_who_rests_once_when_something_moves() -> None:
    woken: list[None] = []
    pump = Pump(cast("Relay", None), lambda: woken.append(None))
    pump.run(0.0)
    assert woken == [], "nobody rests"
    pump.rest()
    pump.run(0.0)
    pump.run(0.0)
    assert woken == [None]
    pump.rest()
    pump.attend()
    pump.run(0.0)
    assert woken == [None]


async def test_a_paused_tap_is_not_dead_and_feeds_aiormq_a_heartbeat_a_second() -> None:
    """The bridge itself does not read: the silence is its own."""
    tap, side, transport, reader = connected()
    tap.agree(10.0)
    now_s = asyncio.get_running_loop().time()
    tap.pause(pause=True)
    tap.pause(pause=True)
    for late_s in (0.5, 100.0, 100.5, 101.5):
        tap.tick(now_s + late_s)
    tap.pause(pause=False)
    assert transport.done == ["pause", "resume"]
    assert side.ends == []
    reader.feed_eof()
    assert await reader.read() == HEARTBEAT_FRAME * 2


async def test_a_closing_transport_is_neither_written_to_nor_paused() -> None:
    tap, _, transport, _ = connected()
    tap.write([b"x", b"y"])
    transport.closing = True
    tap.write([b"x"])
    tap.pause(pause=True)
    assert transport.done == ["write 2"]
    assert not tap.paused


@pytest.mark.parametrize(
    ("error", "text"),
    ((None, "the broker closed the connection"), (OSError("reset"), "connection lost (reset)")),
)
async def test_a_lost_connection_is_told_to_the_side_and_to_aiormq(error: OSError | None, text: str) -> None:
    tap, side, _, reader = connected()
    tap.connection_lost(error)
    assert side.ends == [("connection-lost", text)]
    assert reader.at_eof() or reader.exception() is error


async def test_a_full_socket_is_not_written_to_until_it_has_room() -> None:
    tap, _, _, _ = connected()
    tap.pause_writing()
    assert not tap.writable
    tap.resume_writing()
    assert tap.writable


@on_both_loops
async def test_what_the_kernel_holds_for_a_slow_peer_is_unsent_and_heartbeats_are_not() -> None:
    """The kernel takes megabytes at once: with those gone from sight, a slow way would look like no confirm."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as nobody_accepts:
        tap = make_tap(asyncio.StreamReader(loop=loop), RecordingSide())
        await loop.create_connection(lambda: tap, *nobody_accepts.getsockname())
        assert tap.transport is not None
        tap.write([HEARTBEAT_FRAME])
        assert tap.unsent_bytes == 0
        written = 0
        while not tap.transport.get_write_buffer_size():
            tap.write([bytes(100_000)])
            written += 100_000
        assert tap.transport.get_write_buffer_size() < tap.unsent_bytes <= written
        tap.abort()
        assert tap.unsent_bytes == 0
