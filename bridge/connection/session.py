"""A session: one generation of one side, from connecting to its end. With `tap`, all that knows aio-pika.

One plain `aio_pika.Connection` each: the supervisor owns reconnecting, because only it knows what a lost
generation means for the window. aio-pika connects, logs in, tunes, opens channels, declares, consumes and
sends heartbeats; deliveries, publishes, confirms and acks pass it by (see `tap`).
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import aio_pika
from aiormq import exceptions as amqp
from pamqp.constants import DOMAIN_REGEX

from bridge.amqp.frames import DATA_CHANNEL, QUARANTINE_CHANNEL
from bridge.connection.counting import Counter
from bridge.connection.diagnosis import (
    BEFORE_A_WORD,
    CONTROL_PLANE_ERRORS,
    VAGUE,
    explain_close,
    explained,
    other_protocol,
)
from bridge.connection.dial import led_nowhere, look_up
from bridge.connection.kind import Queue, kind_of
from bridge.connection.offloop import off_loop
from bridge.connection.tap import Pump, Tap, TapFactory
from bridge.errors import BridgeError, ConnectError
from bridge.relay.queue import QueueFacts, QueueState

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator, Sequence

    from aio_pika.abc import AbstractChannel, AbstractQueue
    from aiohappyeyeballs import AddrInfoType
    from aiormq.abc import AbstractChannel as UnderlayChannel
    from pamqp.common import FieldTable
    from yarl import URL

    from bridge.amqp.cutter import Cutter
    from bridge.amqp.events import Close, Event
    from bridge.relay.queue import QueueType
    from bridge.relay.relay import Relay
    from bridge.settings.settings import Settings
    from bridge.settings.sides import SideSettings

CONNECT_TIMEOUT_S = 10.0
"""For connecting, logging in and opening the channel together."""
CLOSE_TIMEOUT_S = 3.0
"""For a polite goodbye; the connection is dropped after it."""
LONG_LOGIN_BYTES = 3500
"""User and password together. The frame that they are in has 370 bytes more (3,700 pass on 3.10.8, 3,800 do not)."""
NOT_ALLOWED = 530
"""AMQP 0-9-1's reply code for a virtual host that is missing or not the user's."""
QUEUE_TYPES = frozenset({"classic", "quorum", "stream"})
UNCOUNTED_SINCE = (4, 3)
"""The version of RabbitMQ since which `nack(requeue)` does not count towards a delivery limit."""
CONTROL_CHANNEL = 3
"""For questions of which a refusal closes the channel, or that may never be answered."""

# pamqp 4.0 lets the name of a queue or an exchange be of ASCII letters, digits and some signs alone, as AMQP 0-9-1
# says. RabbitMQ takes any UTF-8.
DOMAIN_REGEX.update(dict.fromkeys(DOMAIN_REGEX, re.compile(".*", re.DOTALL)))


class TappedConnection(aio_pika.Connection):
    """A plain connection whose transport is made by a `TapFactory`: aio-pika does not pass that on by itself."""

    def __init__(self, url: URL, factory: TapFactory, context: ssl.SSLContext | None, name: str) -> None:
        properties: FieldTable = {"connection_name": name, "product": "amqp-bridge"}
        super().__init__(url, ssl_context=context, client_properties=properties)
        self.kwargs["transport_factory"] = factory


class Session:
    """What both sides' generations have in common."""

    def __init__(self, relay: Relay, pump: Pump, settings: Settings, side: SideSettings) -> None:
        self._relay = relay
        self._pump = pump
        self._settings = settings
        self._side = side
        self._connection: TappedConnection | None = None
        self._factory: TapFactory | None = None
        self._login_bytes = 0
        self._opened = False
        self._index = 0
        """Of the URL."""
        self._overdue = ""
        """What to say when the time is up, while connecting waits for something other than the broker."""
        self.tap: Tap | None = None
        self.end: tuple[str, str] | None = None
        """Why the generation ended: a short fixed word for `/metrics`, a sentence for the log."""
        self.failure: Exception | None = None
        """The bug that ended it, for its traceback."""
        self._over = asyncio.Event()

    # --- From the tap ------------------------------------------------------------------------------------

    def events(self, events: list[Event], now_s: float) -> None:
        """Take what was cut from a chunk (see `tap.Side`)."""
        if self.end is not None:
            return
        self._relay_events(events, now_s)
        if (close := self._close_by_broker()) is not None:
            what = "channel" if close.channel else "connection"
            said = explain_close(close.reply_code, close.reply_text, self._side)
            self.ended(f"{what}-closed", f"the broker closed the {what}: {said}", now_s)

    def ended(self, reason: str, text: str, now_s: float) -> None:
        """Take the end (see `tap.Side`): the window hears of it before any byte of another generation."""
        if self.end is not None:
            return
        self.end = reason, text
        if self._opened:
            self._relay_lost(now_s)
        self._over.set()

    def finish(self, reason: str, text: str, now_s: float, *, drop: bool) -> None:
        """End the generation from our side; `drop` the connection where its broker does not answer."""
        self.ended(reason, text, now_s)
        if drop and self.tap is not None:
            self.tap.abort()

    def bug(self, error: Exception, now_s: float) -> None:
        """End the generation, since the bridge or its library failed."""
        self.failure = error
        self.ended("bug", f"a bug in the bridge: {error!r}", now_s)

    async def wait_ended(self) -> None:
        """Wait until the generation has ended."""
        await self._over.wait()

    async def open(self, index: int) -> None:
        """Connect to URL number `index` and verify what the side needs; a generation begins. Raises `BridgeError`."""
        raise NotImplementedError

    def _relay_events(self, events: list[Event], now_s: float) -> None:
        raise NotImplementedError

    def _relay_lost(self, now_s: float) -> None:
        raise NotImplementedError

    def _close_by_broker(self) -> Close | None:
        raise NotImplementedError

    def counter(self) -> Counter:
        """Return what counts the side's queue over this connection."""
        assert self._connection is not None  # noqa: S101 - open() has run
        return Counter(self._connection, self._side, self._index)

    # --- For the supervisor ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _explained(self, index: int) -> AsyncIterator[None]:
        """As `explained`; where aiormq knows only that the connection is gone, the tap knows why."""
        try:
            async with explained(self._side, index, CONNECT_TIMEOUT_S):
                yield
        except ConnectError as error:
            where = self._side.safe_urls[index]
            if error.result == "timeout" and not self._opened and self.tap is not None:
                self.tap.abort()  # it would not answer a goodbye either
            if error.result == "timeout" and self._overdue:
                raise ConnectError("timeout", f"{where}: {self._overdue}") from error
            if self.end is None or error.result not in VAGUE:
                raise
            reason, text = self.end if self.tap is not None else self._why_no_login(*self.end)
            raise ConnectError(reason, f"{where}: {text}") from error

    def _why_no_login(self, reason: str, text: str) -> tuple[str, str]:
        """Return why the connection may have ended before the login had, of which the peer says nothing."""
        if reason == "malformed" and (other := other_protocol(text)):
            return "protocol", other
        if reason == "connection-lost" and not (self._factory is not None and self._factory.has_heard):
            return reason, BEFORE_A_WORD
        if reason == "connection-lost" and self._login_bytes > LONG_LOGIN_BYTES:
            return "login-refused", (
                f"{text} during the login: user and password have {self._login_bytes} bytes, and the whole login must "
                "fit into 4096 bytes with RabbitMQ 3.x, 8192 with 4.x (initial_frame_max); use a shorter password"
            )
        return reason, text

    @contextmanager
    def _waiting_for(self, what: str, advice: str) -> Iterator[None]:
        self._overdue = f"{what} took longer than {CONNECT_TIMEOUT_S:g} s; {advice}"
        yield
        self._overdue = ""

    async def _look_up(self, host: str, port: int) -> Sequence[AddrInfoType]:
        with self._waiting_for(f"the look-up of {host}", "does the name server answer?"):
            return await look_up(host, port)

    async def _connect(self, index: int, cutter: Cutter) -> AbstractChannel:
        """Connect to URL number `index` and open the data channel, with confirms where it publishes."""
        side = self._side
        self._index = index
        factory = self._factory = TapFactory(lambda reader: Tap(reader, cutter, self, self._pump), self._look_up)
        advice = "does the file system that they are on answer?"
        with self._waiting_for("reading password and certificate files", advice):
            context = await off_loop(f"{side.tls}", side.ssl_context)
            url = await off_loop(f"{side.safe_urls[index]} {side.credentials.password_file}", partial(side.url, index))
        self._login_bytes = len(f"{url.user}{url.password}".encode())
        name = f"amqp-bridge {side.name} {side.queue or self._settings.destination_exchange}"
        self._connection = TappedConnection(url, factory, context, url.query.get("name", name))
        try:
            await self._log_in(self._connection, factory)
        except amqp.InvalidFrameError:
            # aiormq 7.2.4 expects nothing but open-ok there: a missing virtual host is told by a close.
            if (close := self._close_by_broker()) is None:
                raise
            refused = amqp.ConnectionNotAllowed if close.reply_code == NOT_ALLOWED else amqp.ConnectionClosed
            raise refused(close.reply_code, close.reply_text) from None
        self.tap = factory.tap
        channel = self._connection.channel(channel_number=DATA_CHANNEL, publisher_confirms=side.name == "destination")
        await channel.initialize()
        return channel

    @asynccontextmanager
    async def _question(self) -> AsyncIterator[UnderlayChannel]:
        """A channel that a refusal may close. Raises `ConnectError` for what is refused within."""
        assert self._connection is not None  # noqa: S101 - open() has run
        try:
            async with self._explained(self._index):
                channel = self._connection.channel(channel_number=CONTROL_CHANNEL, publisher_confirms=False)
                await channel.initialize()
                yield await channel.get_underlay_channel()
                await channel.close()
        except BridgeError:
            raise
        except Exception as error:
            # aiormq 7.2.4 may raise a bare Exception in what waits while the connection is lost; the tap knows why.
            if self.end is None:
                raise
            reason, text = self.end
            raise ConnectError(reason, f"{self._side.safe_urls[self._index]}: {text}") from error

    @staticmethod
    async def _log_in(connection: TappedConnection, factory: TapFactory) -> None:
        """Connect the socket and log in; when cancelled, drop the socket first."""
        connecting = asyncio.ensure_future(connection.connect())
        try:
            await asyncio.wait({connecting})
        except asyncio.CancelledError:
            # aiormq 7.2.4 closes politely where it is cancelled, and a TLS peer that is frozen never answers: asyncio
            # and uvloop wait 30 s for it.
            if factory.tap is not None:
                factory.tap.abort()
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            raise
        connecting.result()

    async def _queue(self, channel: AbstractChannel, name: str) -> AbstractQueue:
        """Declare the side's durable queue, or verify that it exists."""
        side = self._side
        if not side.declare:
            return await channel.declare_queue(name, passive=True)
        arguments = {"x-queue-type": side.queue_type, **side.queue_arguments}
        return await channel.declare_queue(name, durable=True, arguments=arguments)  # type: ignore[arg-type]  # JSON

    def _begin(self) -> int:
        """Mark the generation as begun and return the tuned `frame_max`. Raises when it has ended meanwhile."""
        if self.end is not None:
            raise ConnectError(*self.end)
        assert self._connection is not None  # noqa: S101 - _connect has run
        assert self._connection.transport is not None  # noqa: S101
        assert self.tap is not None  # noqa: S101
        tune = self._connection.transport.connection.connection_tune
        self.tap.agree(float(tune.heartbeat or 0))
        self._opened = True
        return int(tune.frame_max or 0)

    async def close(self) -> None:
        """Say goodbye to the broker where it still listens, else drop the connection; bounded in time."""
        self.ended("closed-by-us", "closed by the bridge", asyncio.get_running_loop().time())
        if self._connection is not None:
            # aiormq ends its tasks by itself where the transport is gone already. Not `wait_for`: that waits for what
            # it cancels, and aiormq shields its own closing.
            closing = asyncio.ensure_future(self._connection.close())
            await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
            if self.tap is not None:
                self.tap.abort()
            await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
            if closing.done():
                with suppress(*CONTROL_PLANE_ERRORS, asyncio.CancelledError):
                    closing.result()
            else:
                closing.cancel()
        if self.tap is not None:
            self.tap.abort()
        if self._factory is not None and self._factory.address is not None and not self._opened:
            led_nowhere(self._factory.address)


class SourceSession(Session):
    """A generation of the source: consumes, and publishes to the quarantine."""

    _channel: AbstractChannel
    _queue_object: AbstractQueue

    def __init__(self, relay: Relay, pump: Pump, settings: Settings) -> None:
        super().__init__(relay, pump, settings, settings.source)
        self._consumers = 0
        self._quarantine: AbstractChannel | None = None

    async def open(self, index: int) -> None:
        """Connect and verify the queue; a generation begins. Raises `BridgeError`."""
        async with self._explained(index):
            self._channel = await self._connect(index, self._relay.source_connecting())
            self._queue_object = await self._queue(self._channel, self._settings.source_queue or "")
        facts = await self._facts()
        self._relay.source_opened(self._begin(), facts)
        self._pump.attach("source", self.tap)

    async def _facts(self) -> QueueFacts:
        """Ask the broker what the queue is; the settings' word counts where it does not say. Raises `BridgeError`."""
        assert self._connection is not None  # noqa: S101 - _connect has run
        assert self._connection.transport is not None  # noqa: S101
        properties = self._connection.transport.connection.server_properties
        version = tuple(int(number) for number in re.findall(r"\d+", str(properties.get("version", "")))[:2])
        is_rabbitmq = str(properties.get("product", "")) == "RabbitMQ"
        found = Queue()
        if is_rabbitmq:
            try:
                found = await kind_of(self._question, self._settings.source_queue or "")
            except ConnectError:
                if self.end is not None:
                    raise
        known = bool(found.queue_type)
        told = cast("QueueType", found.queue_type) if found.queue_type in QUEUE_TYPES else None
        queue_type = told or self._settings.stated_source_type
        return QueueFacts(
            queue_type,
            auto_delete=found.auto_delete if known else None,
            expires=found.expires if known else None,
            single_active=found.single_active if known else None,
            requeues_counted=queue_type != "classic" and not (is_rabbitmq and version >= UNCOUNTED_SINCE),
        )

    async def consume(self, prefetch: int, offset: int | None) -> QueueState | None:
        """Begin to consume, in a stream from an `offset` on; return the queue's state right before.

        None when consuming is no longer wanted. Raises `BridgeError`.
        """
        settings = self._settings
        arguments = dict(settings.source_consumer_arguments)
        if settings.source_consumer_priority is not None:
            arguments["x-priority"] = settings.source_consumer_priority
        if offset is not None:
            arguments["x-stream-offset"] = offset
        async with self._explained(self._index):
            await self._channel.set_qos(prefetch_count=prefetch)
            before = await self._channel.declare_queue(self._settings.source_queue, passive=True)
            if self.end is not None:
                raise ConnectError(*self.end)
            self._consumers += 1
            consumer_tag = f"amqp-bridge-{self._consumers}"
            if not self._relay.steering.starting(consumer_tag, asyncio.get_running_loop().time()):
                return None
            await self._queue_object.consume(_never, consumer_tag=consumer_tag, arguments=arguments)  # type: ignore[arg-type]  # JSON
        return _state(before)

    async def look(self) -> QueueState:
        """Ask the source queue for its state. Raises `BridgeError`."""
        try:
            async with self._explained(self._index):
                control = await self._channel_number(CONTROL_CHANNEL)
                queue = await control.declare_queue(self._settings.source_queue, passive=True)
                await control.close()
        except ConnectError as error:
            if error.result == "missing" and self.end is None:
                return QueueState(ready=0, consumers=0, exists=False)
            raise
        return _state(queue)

    async def open_quarantine(self) -> None:
        """Open the quarantine's channel, its queue declared where it is missing. Raises `BridgeError`."""
        name = self._settings.quarantine_queue_name
        async with self._explained(self._index):
            control = await self._channel_number(CONTROL_CHANNEL)
            try:
                await control.declare_queue(name, passive=True)
            except amqp.ChannelNotFoundEntity:
                control = await self._channel_number(CONTROL_CHANNEL)
                await control.declare_queue(name, durable=True)
            await control.close()
            if self._quarantine is not None:
                await self._quarantine.close()
            # Kept, since aio-pika lets go of a channel that nobody holds.
            self._quarantine = await self._channel_number(QUARANTINE_CHANNEL, publisher_confirms=True)

    async def _channel_number(self, number: int, *, publisher_confirms: bool = False) -> AbstractChannel:
        assert self._connection is not None  # noqa: S101 - open() has run
        channel = self._connection.channel(channel_number=number, publisher_confirms=publisher_confirms)
        await channel.initialize()
        return channel

    def _relay_events(self, events: list[Event], now_s: float) -> None:
        self._relay.source_events(events, now_s)

    def _relay_lost(self, now_s: float) -> None:
        self._pump.attach("source", None)
        self._relay.source_lost(now_s)

    def _close_by_broker(self) -> Close | None:
        return self._relay.source_close


class DestinationSession(Session):
    """A generation of the destination: publishes."""

    _channel: AbstractChannel

    def __init__(self, relay: Relay, pump: Pump, settings: Settings) -> None:
        super().__init__(relay, pump, settings, settings.destination)

    async def open(self, index: int) -> None:
        """Connect and verify queue or exchange; a generation begins. Raises `BridgeError`."""
        async with self._explained(index):
            self._channel = await self._connect(index, self._relay.destination_connecting())
            if self._side.queue is not None:
                await self._queue(self._channel, self._side.queue)
            else:
                await self._channel.get_exchange(self._settings.destination_exchange or "", ensure=True)
        now_s = asyncio.get_running_loop().time()
        self._relay.destination_opened(self._begin(), now_s)
        self._pump.attach("destination", self.tap)
        self._pump.run(now_s)

    def _relay_events(self, events: list[Event], now_s: float) -> None:
        self._relay.destination_events(events, now_s)

    def _relay_lost(self, now_s: float) -> None:
        self._pump.attach("destination", None)
        self._relay.destination_lost(now_s)
        self._pump.run(now_s)

    def _close_by_broker(self) -> Close | None:
        return self._relay.destination_close


def _state(declared: AbstractQueue) -> QueueState:
    found = declared.declaration_result
    return QueueState(found.message_count or 0, found.consumer_count or 0)


async def _never(_: object) -> None:
    """The consumer's callback: the tap diverts every delivery before aio-pika could see it."""
