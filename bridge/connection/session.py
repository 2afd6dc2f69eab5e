"""A session: a link that is joined to the relay, one generation of one side.

It opens what its side needs, and asks the source's broker what the steering wants to know. What comes of the data goes
from the tap to the relay's port and passes the session by; a close, or any other end, ends it by a call.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, cast

from aiormq import exceptions as amqp

from bridge.amqp.events import Close
from bridge.amqp.frames import QUARANTINE_CHANNEL
from bridge.connection.channels import WITH_QUESTIONS, Channels
from bridge.connection.counting import Counter
from bridge.connection.diagnosis import CONTROL_PLANE_ERRORS, explain
from bridge.connection.kind import DELAYED, UNSERVED, Queue, can_be_asked_for, exchange_type_of, kind_of, try_publishing
from bridge.connection.limits import DEFAULT
from bridge.connection.link import CONTROL_CHANNEL, Link
from bridge.connection.tap import Pump, Tap
from bridge.errors import ConnectError
from bridge.relay.queue import QueueFacts, QueueState
from bridge.window.blame import FORBIDDEN_KEY

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractQueue
    from aiormq.abc import DeliveredMessage

    from bridge.connection.dial import Dialer
    from bridge.connection.limits import TimeLimits
    from bridge.connection.tap import Receiver
    from bridge.connection.tracking import Tracking
    from bridge.relay.destination import Destination
    from bridge.relay.port import Port
    from bridge.relay.queue import QueueType
    from bridge.relay.relay import Relay
    from bridge.relay.source import Source
    from bridge.settings.settings import Settings
    from bridge.settings.sides import SideSettings

log = logging.getLogger(__name__)

QUEUE_TYPES = frozenset({"classic", "quorum", "stream"})
NOT_FOUND, NOT_IMPLEMENTED = 404, 540
REFUSALS: dict[str, int] = {"missing": NOT_FOUND, "forbidden": 403}
"""Reply codes of AMQP 0-9-1 for a publish to an exchange, by what a question about it resulted in."""
UNCOUNTED_SINCE = (4, 3)
"""The version of RabbitMQ since which `nack(requeue)` does not count towards a delivery limit."""

UPDATES_SECRETS_SINCE = (3, 8)
"""The version of RabbitMQ since which there is `connection.update-secret`."""


class Session(Link):
    """What both sides' generations have in common."""

    _port: Port | None = None

    def __init__(  # noqa: PLR0913 - what a session is made of
        self,
        relay: Relay,
        pump: Pump,
        settings: Settings,
        side: SideSettings,
        limits: TimeLimits = DEFAULT,
        *,
        channels: Channels | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        """`channels` and `dialer` know what earlier sessions have learned."""
        super().__init__(settings, side, limits, dialer=dialer)
        self._relay = relay
        self._pump = pump
        self._channels = channels or Channels()

    async def _connect(self, index: int, receiver: Receiver) -> AbstractChannel:
        channel = await super()._connect(index, receiver)
        self._channels.agreed(self._underlay.connection_tune.channel_max or 0)
        return channel

    def _new_tap(self, reader: asyncio.StreamReader, receiver: Receiver) -> Tap:
        return Tap(reader, receiver, self.ended, self._pump.run)

    def closed(self, close: Close, now_s: float) -> None:
        """As a link's; a refused channel is not asked for again."""
        if self._channels.refused(close):
            log.warning(
                "%s: the broker allows the user %d of the %d channels that the bridge uses (max-channels); it goes on "
                "without asking its broker questions",
                self._side.name,
                self._channels.most,
                WITH_QUESTIONS,
            )
        super().closed(close, now_s)

    def _lost(self, now_s: float) -> None:
        """The window hears of it before any byte of another generation."""
        if self._port is None:
            return
        if self._useful:
            self._pump.attach(self._side.name, None)
        self._port.lost(now_s)
        self._pump.run(now_s)

    def counter(self) -> Counter | None:
        """Return what counts the side's queue over this connection; None where there is no channel for it."""
        if not self._channels.for_questions:
            return None
        assert self._connection is not None  # noqa: S101 - open() has run
        return Counter(self._connection, self._side, self.index)

    @property
    def takes_secrets(self) -> bool:
        """Whether the broker knows what a new secret on an open connection is."""
        return self._is_rabbitmq and self._version >= UPDATES_SECRETS_SINCE

    async def update_secret(self, secret: str) -> None:
        """Have the broker accept a new secret on the open connection; takes as long as the broker does.

        One that refuses it closes the connection. Raises `ConnectError`.
        """
        assert self._connection is not None  # noqa: S101 - open() has run
        try:
            await self._connection.update_secret(secret, reason="renewed")
        except CONTROL_PLANE_ERRORS as error:
            raise explain(error, self._side, self.index) from error
        self.secret = secret

    async def _queue(self, channel: AbstractChannel, name: str) -> AbstractQueue:
        """Declare the side's durable queue, or verify that it exists."""
        side = self._side
        if not side.declare:
            return await channel.declare_queue(name, passive=True)
        arguments = {"x-queue-type": side.queue_type, **side.queue_arguments}
        return await channel.declare_queue(name, durable=True, arguments=arguments)  # type: ignore[arg-type]  # JSON

    @property
    def _is_rabbitmq(self) -> bool:
        return str(self._underlay.server_properties.get("product", "")) == "RabbitMQ"

    @property
    def _version(self) -> tuple[int, ...]:
        version = str(self._underlay.server_properties.get("version", ""))
        return tuple(int(number) for number in re.findall(r"\d+", version)[:2])

    def _begin(self) -> int:
        """Mark the generation as begun and return the tuned `frame_max`. Raises when it has ended meanwhile."""
        if self.end is not None:
            raise ConnectError(*self.end)
        assert self.tap is not None  # noqa: S101 - _connect has run
        tune = self._underlay.connection_tune
        self.tap.agree(float(tune.heartbeat or 0))
        self._pump.attach(self._side.name, self.tap)
        self._useful = True
        return int(tune.frame_max or 0)


class SourceSession(Session):
    """A generation of the source: consumes, and publishes to the quarantine."""

    _port: Source
    _channel: AbstractChannel
    _queue_object: AbstractQueue

    def __init__(  # noqa: PLR0913 - what a session is made of
        self,
        relay: Relay,
        pump: Pump,
        settings: Settings,
        limits: TimeLimits = DEFAULT,
        *,
        channels: Channels | None = None,
        dialer: Dialer | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        """`tracking` knows where to read on in a stream."""
        super().__init__(relay, pump, settings, settings.source, limits, channels=channels, dialer=dialer)
        self._tracking = tracking
        self._consumers = 0
        self._quarantine: AbstractChannel | None = None

    async def open(self, index: int) -> None:
        """Connect and verify the queue; a generation begins. Raises `BridgeError`."""
        async with self._explained(index):
            self._port = self._relay.connect_source(self.closed)
            self._channel = await self._connect(index, self._port)
            self._queue_object = await self._queue(self._channel, self._settings.source_queue or "")
            for binding in self._settings.source_bindings:
                arguments = binding.arguments
                await self._queue_object.bind(binding.exchange, binding.routing_key, arguments=arguments)  # type: ignore[arg-type]  # JSON
        facts = await self._facts()
        if self._tracking is not None:
            if facts.queue_type != "stream":
                text = f"queue {self._settings.source_queue} is a {facts.queue_type} queue, and has no offsets; unset "
                raise ConnectError("mismatch", f"{text}BRIDGE_SOURCE_OFFSET_NAME, or name a stream")
            await self._tracking.look_up(index)
        self._port.opened(self._begin(), facts)

    async def _facts(self) -> QueueFacts:
        """Ask the broker what the queue is; the settings' word counts where it does not say. Raises `BridgeError`."""
        is_rabbitmq = self._is_rabbitmq
        found = Queue()
        if is_rabbitmq and self._channels.for_questions:
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
            requeues_counted=queue_type != "classic" and not (is_rabbitmq and self._version >= UNCOUNTED_SINCE),
            answers=self._channels.for_questions,
        )

    async def consume(self, prefetch: int, offset: int | None) -> QueueState | None:
        """Begin to consume, in a stream from an `offset` on; return the queue's state right before.

        None when consuming is no longer wanted. Raises `BridgeError`.
        """
        settings = self._settings
        arguments = dict(settings.source_consumer_arguments)
        if settings.source_consumer_priority is not None:
            arguments["x-priority"] = settings.source_consumer_priority
        if self._tracking is not None:
            arguments.setdefault("x-stream-offset", "first")
        if offset is not None:
            arguments["x-stream-offset"] = offset
        async with self._explained(self.index):
            await self._channel.set_qos(prefetch_count=prefetch)
            before = await self._channel.declare_queue(self._settings.source_queue, passive=True)
            if self.end is not None:
                raise ConnectError(*self.end)
            self._consumers += 1
            consumer_tag = f"amqp-bridge-{self._consumers}"
            now_s = asyncio.get_running_loop().time()
            if not self._relay.steering.starting(consumer_tag, now_s, _state(before).ready):
                return None
            await self._queue_object.consume(_never, consumer_tag=consumer_tag, arguments=arguments)  # type: ignore[arg-type]  # JSON
        return _state(before)

    async def ask_queue(self) -> QueueState | None:
        """Ask the source queue for its state; None where there is no channel for it. Raises `BridgeError`."""
        if not self._channels.for_questions:
            return None
        try:
            async with self._explained(self.index):
                control = await self._channel_number(CONTROL_CHANNEL)
                queue = await control.declare_queue(self._settings.source_queue, passive=True)
                await control.close()
        except ConnectError as error:
            if error.result == "missing" and self.end is None:
                return QueueState(ready=0, consumers=0, exists=False)
            raise
        return _state(queue)

    async def ask_first_offset(self) -> int:
        """Return the offset of the source stream's first message. Raises `ConnectError`.

        AMQP 0-9-1 has no question for it: a consumer begins there, and takes one message.
        """
        first: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        async def take(message: DeliveredMessage) -> None:
            if not first.done():
                first.set_result((message.header.properties.headers or {}).get("x-stream-offset"))

        async with self._question() as channel:
            await channel.basic_qos(prefetch_count=1)
            queue = self._settings.source_queue or ""
            await channel.basic_consume(queue, take, arguments={"x-stream-offset": "first"})
            await asyncio.wait((first, channel.closing), return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                raise ConnectError("connection-lost", "the channel was closed")
        offset = first.result()
        if not isinstance(offset, int):
            raise ConnectError("mismatch", "it delivers messages without an offset: it is no stream any more")
        return offset

    async def open_quarantine(self) -> None:
        """Open the quarantine's channel, its queue declared where it is missing. Raises `BridgeError`."""
        name = self._settings.quarantine_queue_name
        if not self._channels.for_questions:
            await self._open_quarantine_unasked(name)
            return
        async with self._explained(self.index):
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

    async def _open_quarantine_unasked(self, name: str) -> None:
        """Do without another channel: a queue that exists with other properties is then refused."""
        if self._channels.most < QUARANTINE_CHANNEL:
            text = "it needs a channel, and the user may open one alone (max-channels); allow 4"
            raise ConnectError("refused", text)
        async with self._explained(self.index):
            if self._quarantine is not None:
                await self._quarantine.close()
            self._quarantine = await self._channel_number(QUARANTINE_CHANNEL, publisher_confirms=True)
            await self._quarantine.declare_queue(name, durable=True)


class DestinationSession(Session):
    """A generation of the destination: publishes."""

    _port: Destination
    _channel: AbstractChannel

    def __init__(  # noqa: PLR0913 - what a session is made of
        self,
        relay: Relay,
        pump: Pump,
        settings: Settings,
        limits: TimeLimits = DEFAULT,
        *,
        channels: Channels | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        super().__init__(relay, pump, settings, settings.destination, limits, channels=channels, dialer=dialer)

    async def open(self, index: int) -> None:
        """Connect and verify queue or exchange; a generation begins. Raises `BridgeError`."""
        self._port = self._relay.connect_destination(self.closed)
        try:
            async with self._explained(index):
                self._channel = await self._connect(index, self._port)
                if self._side.queue is not None:
                    await self._queue(self._channel, self._side.queue)
                elif self._settings.destination_exchange is not None:
                    await self._channel.get_exchange(self._settings.destination_exchange, ensure=True)
        except ConnectError as error:
            if error.result == "missing":
                self._port.missing()
            raise
        await self._inspect_exchange()
        now_s = asyncio.get_running_loop().time()
        self._port.opened(self._begin())
        self._pump.run(now_s)

    async def ask_exchange(self, exchange: bytes) -> Close | None:
        """Return the close that a publish to the exchange would bring about; None where it accepts messages.

        Nothing is published. Where it cannot be asked for, the publish itself will show it. Raises `ConnectError` where
        there is no answer.
        """
        try:
            name = exchange.decode()
        except UnicodeDecodeError:
            return Close(CONTROL_CHANNEL, NOT_FOUND, f"no exchange has a name that is not UTF-8 ({exchange!r})")
        if not (self._channels.for_questions and can_be_asked_for(name, self._side.addresses[self.index].path)):
            return None
        try:
            if self._is_rabbitmq:
                await try_publishing(self._question, name)
            elif name:
                async with self._question() as channel:
                    await channel.exchange_declare(name, passive=True)
        except ConnectError as error:
            # What a user may publish by its key alone, only the publish with that key shows.
            if self.end is None and FORBIDDEN_KEY in str(error):
                return None
            if self.end is not None or error.result not in REFUSALS:
                raise
            return Close(CONTROL_CHANNEL, REFUSALS[error.result], str(error))
        if name and self._is_rabbitmq and await exchange_type_of(self._question, name) == DELAYED:
            return Close(CONTROL_CHANNEL, NOT_IMPLEMENTED, f'exchange "{name}" {UNSERVED}')
        return None

    async def _inspect_exchange(self) -> None:
        """Raise `ConnectError` for an exchange that the bridge cannot serve, as far as the broker says what it is."""
        name = self._settings.destination_exchange
        if not name or not self._is_rabbitmq or not self._channels.for_questions:
            return
        if await exchange_type_of(self._question, name) == DELAYED:
            raise ConnectError("mismatch", f'exchange "{name}" {UNSERVED}')
        if self.end is not None:
            raise ConnectError(*self.end)


def _state(declared: AbstractQueue) -> QueueState:
    found = declared.declaration_result
    return QueueState(found.message_count or 0, found.consumer_count or 0)


async def _never(_: object) -> None:
    """The consumer's callback: the tap diverts every delivery before aio-pika could see it."""
