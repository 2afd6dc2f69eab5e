"""An inspection: connects to one URL of a side as the bridge would, and looks; consumes, publishes and creates nothing.

AMQP 0-9-1 answers few questions, but a refusal tells much. Each trick here was measured on RabbitMQ 3.10.8 and
4.3.6, is used on RabbitMQ alone, and runs on a channel of its own, since the refusal closes it:

- the type of a queue, and its delivery limit: it is declared with a type that does not exist. The broker says what
  it is instead, or that the user may not declare it; where the queue is missing, that there is no such type;
- the permission to consume: a consumer with an `x-priority` that is no number. 403, or a refusal of that argument;
- the permission to publish, and that the exchange is there: an empty message in a transaction (`tx`), which is
  rolled back. No queue ever sees it, and nobody is told whether its key has a route;
- whether both sides are one broker: a nameless exclusive queue of one connection is looked for by the other.
"""

from __future__ import annotations

import re
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bridge.content import ContentPreparer, HeaderPolicy
from bridge.errors import BridgeError, ConnectError
from bridge.frames import DATA_CHANNEL
from bridge.session import CONTROL_CHANNEL, Session
from bridge.tap import Pump
from bridge.wire import Blocked, Close, Cutter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiormq.abc import AbstractChannel
    from pamqp.common import FieldTable

    from bridge.side import SideSettings
    from bridge.supervisor import Supervisor
    from bridge.wire import Event

Level = Literal["ok", "warning", "error"]

EXPIRES_SOON_DAYS = 30.0
"""A certificate that ends sooner is a warning."""
QUORUM_MAX_PREFETCH = 2000
"""RabbitMQ's documentation, of quorum queues."""
RABBITMQ_4 = (4, 0)
DEFAULT_DELIVERY_LIMIT = 20
"""A quorum queue's since 4.0; before, there was none by default."""
MAX_QUESTIONS = 20
"""About one queue: more arguments than a queue can have."""
UNKNOWN = "unknown"
"""No type of queue, no number."""

_DIFFERS = re.compile(
    r"inequivalent arg '([^']+)' for queue .*received .* but current is (?:none|(?:the value )?'([^']*)')"
)
"""The broker's refusal to declare a queue that is there and is another: the argument, and its value in the queue."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer."""

    level: Level
    side: str
    """`source` or `destination`, with the URL's number where there are several, or `bridge`."""
    subject: str
    text: str
    """A sentence; of a warning or an error, also what to do."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What a queue is, as far as the broker said."""

    queue_type: str = ""
    """Empty where it is not known."""
    delivery_limit: int | None = None
    durable: bool = True


class Inspection(Session):
    """One URL of one side: its connection, and what was found there."""

    def __init__(self, supervisor: Supervisor, side: SideSettings, index: int) -> None:
        super().__init__(supervisor.relay, Pump(supervisor.relay), supervisor.settings, side)
        self.findings: list[Finding] = []
        self.is_open = False
        self.version: tuple[int, ...] = ()
        """RabbitMQ's; empty where the broker is another."""
        self.cluster = ""
        self.vhost = side.addresses[index].path.rstrip("/")
        self._index = index
        self._url = side.safe_urls[index]
        self._closed: Close | None = None
        self._label = side.name if len(side.addresses) == 1 else f"{side.name} {index + 1}"

    def found(self, level: Level, subject: str, text: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(level, self._label, subject, text))

    # --- The session: nothing is forwarded ---------------------------------------------------------------

    def _relay_events(self, events: list[Event], now_s: float) -> None:  # noqa: ARG002 - the bridge's need it
        for event in events:
            if isinstance(event, Close) and event.channel in {0, DATA_CHANNEL}:
                self._closed = self._closed or event
            elif isinstance(event, Blocked) and self.tap is not None:
                # The broker reads no more from this connection: an answer would never come.
                self.end = "blocked", f"the broker blocks publishers ({event.reason})"
                self.tap.abort()

    def _relay_lost(self, now_s: float) -> None:
        """Nothing is in flight."""

    def _close_by_broker(self) -> Close | None:
        return self._closed

    async def open(self, index: int) -> None:
        """Connect and log in. Raises `BridgeError`."""
        async with self._explained(index):
            await self._connect(index, Cutter(ContentPreparer(HeaderPolicy())))
        self.is_open = True

    @asynccontextmanager
    async def _question(self) -> AsyncIterator[AbstractChannel]:
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
            raise ConnectError(reason, f"{self._url}: {text}") from error

    # --- Looking -----------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Connect and look at everything; what goes wrong is a finding. `close` is the caller's."""
        self._look_at_own_certificate()
        try:
            await self.open(self._index)
        except BridgeError as error:
            self.found("error", "connection", str(error))
            return
        try:
            self._look_at_connection()
            self._look_at_certificates()
            if self._side.name == "source":
                await self._look_at_source()
            else:
                await self._look_at_destination()
        except ConnectError as error:
            self.found("error", "connection", str(error))

    def _look_at_connection(self) -> None:
        assert self._connection is not None  # noqa: S101 - open() has run
        assert self._connection.transport is not None  # noqa: S101
        connection = self._connection.transport.connection
        properties, tune = connection.server_properties, connection.connection_tune
        product, version = str(properties.get("product", "a nameless broker")), str(properties.get("version", ""))
        self.cluster = str(properties.get("cluster_name", ""))
        self.found(
            "ok",
            "connection",
            f"{self._url}: {product} {version}, cluster {self.cluster or 'unknown'}; logged in",
        )
        self.found("ok", "tuning", f"heartbeat {tune.heartbeat} s, frame_max {tune.frame_max} bytes")
        if product == "RabbitMQ":
            self.version = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
        else:
            self.found("warning", "server", f"{product} is not RabbitMQ: types and permissions were not looked at")

    def _look_at_own_certificate(self) -> None:
        """Done before connecting: a broker that refuses it may not say why."""
        if self._side.addresses[self._index].scheme == "amqps":
            for not_after in self._side.tls.client_not_after():
                self._look_at_expiry(f"the client certificate {self._side.tls.cert_file}", not_after, ended="error")

    def _look_at_certificates(self) -> None:
        assert self.tap is not None  # noqa: S101 - open() has run
        assert self.tap.transport is not None  # noqa: S101
        tls = self.tap.transport.get_extra_info("ssl_object")
        if tls is None:
            return
        self._look_at_expiry("the broker's certificate", tls.getpeercert()["notAfter"])
        for certificate in tls.context.get_ca_certs() if self._side.tls.ca_file else ():
            self._look_at_expiry(f"a CA in {self._side.tls.ca_file}", certificate["notAfter"])

    def _look_at_expiry(self, whose: str, not_after: str, ended: Level = "warning") -> None:
        """`ended` is the level of one that has: a connection that is open needed no such CA."""
        days = (ssl.cert_time_to_seconds(not_after) - time.time()) / 86400
        soon = days < EXPIRES_SOON_DAYS
        text = f"{whose} {'was' if days < 0 else 'is'} good until {not_after} ({days:.0f} days)"
        level: Level = ended if days < 0 else "warning" if soon else "ok"
        self.found(level, "certificate", text + ("; renew it" if soon else ""))

    async def _look_at_source(self) -> None:
        settings = self._settings
        queue = await self._look_at_queue(settings.source_queue or "")
        if queue is not None:
            await self._look_at_reading()
            self._look_at_prefetch(queue)
            self._look_at_offset(queue)
            self._look_at_delivery_limit(queue)
        await self._look_at_quarantine()

    async def _look_at_destination(self) -> None:
        settings = self._settings
        if settings.destination_queue is not None:
            if await self._look_at_queue(settings.destination_queue) is not None:
                text = f'publishing to queue "{settings.destination_queue}" is allowed'
                await self._look_at_publishing("route", "", settings.destination_queue, text)
            return
        exchange, key = settings.destination_exchange or "", settings.destination_routing_key
        try:
            async with self._question() as channel:
                await channel.exchange_declare(exchange, passive=True)
        except ConnectError as error:
            self.found("error", "exchange", str(error))
            return
        which = "each message's key" if key is None else f'key "{key}"'
        text = (
            f'exchange "{exchange}" is there; publishing is allowed; whether {which} has a route, a publish will show'
        )
        await self._look_at_publishing("route", exchange, key or "", text)

    async def _look_at_queue(self, name: str) -> Queue | None:
        """Return what is known of the side's queue, None where it cannot be used."""
        try:
            async with self._question() as channel:
                declared = await channel.queue_declare(name, passive=True)
            if self._side.declare:
                # As `run` does: of a queue that is there, it changes nothing.
                async with self._question() as channel:
                    arguments = {"x-queue-type": self._side.queue_type, **self._side.queue_arguments}
                    await channel.queue_declare(name, durable=True, arguments=arguments)  # type: ignore[arg-type]  # JSON
        except ConnectError as error:
            if error.result != "missing" or not self._side.declare:
                self.found("error", "queue", str(error))
                return None
            refusal = await self._refusal_to_declare(name)
            if refusal is not None:
                self.found("error", "queue", refusal)
            else:
                self.found("ok", "queue", f'queue "{name}" is missing; the bridge will declare it')
            return None
        queue = await self._ask_queue(name) if self.version else Queue()
        counts = f"{declared.message_count} messages ready, {declared.consumer_count} consumers"
        kind = queue.queue_type or "of unknown type (the user may not declare it)"
        self.found("ok", "queue", f'queue "{name}", {kind}: {counts}')
        if not queue.durable:
            text = f'queue "{name}" is not durable: a restart of the broker deletes it; make it durable'
            self.found("warning", "durability", text)
        return queue

    async def _ask_queue(self, name: str) -> Queue:
        """Ask what the queue is: the broker names one difference in each refusal, which the next question repeats.

        Type and delivery limit of a question are never both valid, so that no question can create a queue.
        """
        arguments: FieldTable = {"x-queue-type": UNKNOWN, "x-delivery-limit": UNKNOWN}
        flags = {"durable": True, "auto_delete": False}
        queue_type = ""
        for _ in range(MAX_QUESTIONS):
            difference = await self._difference(name, flags, arguments)
            if difference is None:
                break
            argument, value = difference
            if argument == "x-queue-type":
                queue_type = value or "classic"
                if queue_type != "quorum":
                    break
                arguments[argument] = queue_type
            elif argument == "x-delivery-limit":
                return Queue(queue_type, int(value) if value else None)
            elif argument in flags:
                flags[argument] = value == "true"
            else:
                arguments[argument] = _argument(value)
        return Queue(queue_type, durable=flags["durable"])

    async def _difference(self, name: str, flags: dict[str, bool], arguments: FieldTable) -> tuple[str, str] | None:
        """Return the first argument in which the queue is another, and its value there, empty for none."""
        try:
            async with self._question() as channel:
                await channel.queue_declare(
                    name, durable=flags["durable"], auto_delete=flags["auto_delete"], arguments=arguments
                )
        except ConnectError as error:
            if (found := _DIFFERS.search(str(error))) is not None:
                return found[1], found[2] or ""
        return None

    async def _refusal_to_declare(self, name: str) -> str | None:
        """Return why the user may not declare a queue that is missing; None where nothing speaks against it."""
        if not self.version:
            return None
        try:
            async with self._question() as channel:
                await channel.queue_declare(name, durable=True, arguments={"x-queue-type": UNKNOWN})
        except ConnectError as error:
            if error.result != "mismatch":
                return str(error)
        return None

    async def _look_at_reading(self) -> None:
        if not self.version:
            return
        try:
            async with self._question() as channel:
                await channel.basic_consume(self._side.queue or "", _never, arguments={"x-priority": UNKNOWN})
        except ConnectError as error:
            if error.result != "mismatch":
                self.found("error", "consuming", str(error))
                return
        self.found("ok", "consuming", "the user may consume; nothing was consumed")

    async def _look_at_publishing(self, subject: str, exchange: str, key: str, text: str) -> None:
        if not self.version:
            return
        try:
            async with self._question() as channel:
                await channel.tx_select()
                await channel.basic_publish(b"", exchange=exchange, routing_key=key)
                await channel.tx_rollback()
        except ConnectError as error:
            # An alarm is not the configuration's fault, and a quarantine is not needed to forward.
            mild = error.result == "blocked" or subject == "quarantine"
            advice = "; it forwards nothing until the alarm is cleared" if error.result == "blocked" else ""
            self.found("warning" if mild else "error", subject, f"{error}{advice}")
        else:
            self.found("ok", subject, f"{text} (an empty message in a transaction, rolled back)")

    def _look_at_prefetch(self, queue: Queue) -> None:
        prefetch = self._settings.source_prefetch
        if prefetch > QUORUM_MAX_PREFETCH and queue.queue_type in {"quorum", ""}:
            text = (
                f"{prefetch} is above a quorum queue's cap; set BRIDGE_SOURCE_PREFETCH to {QUORUM_MAX_PREFETCH} or less"
            )
            self.found("warning", "prefetch", text)

    def _look_at_offset(self, queue: Queue) -> None:
        if queue.queue_type == "stream":
            offset = self._settings.source_consumer_arguments.get("x-stream-offset", "next")
            text = f'a stream keeps no place for its readers: each connect begins at x-stream-offset, here "{offset}", '
            self.found("warning", "offset", text + "so that messages are missed or come again; a queue has neither")

    def _look_at_delivery_limit(self, queue: Queue) -> None:
        if queue.queue_type not in {"quorum", ""} or not self.version:
            return
        default = DEFAULT_DELIVERY_LIMIT if self.version >= RABBITMQ_4 else -1
        limit = default if queue.delivery_limit is None else queue.delivery_limit
        ours = self._settings.delivery_limit
        if limit < 0:
            self.found("ok", "delivery limit", "the queue has none, unless a policy sets one (AMQP does not show it)")
        elif 0 < ours <= limit:
            text = f"the queue's is {limit} unless a policy sets another; the bridge quarantines within 3 of {ours}"
            self.found("ok", "delivery limit", text)
        else:
            text = f"the broker drops a message that comes back {limit} times; set BRIDGE_DELIVERY_LIMIT={limit}"
            self.found("warning", "delivery limit", f"{text}, so that the bridge quarantines it before")

    async def _look_at_quarantine(self) -> None:
        name = self._settings.quarantine_queue_name
        if not name:
            text = "BRIDGE_QUARANTINE_QUEUE is empty: what the destination can never take is held"
            self.found("ok", "quarantine", text)
            return
        try:
            async with self._question() as channel:
                await channel.queue_declare(name, passive=True)
        except ConnectError as error:
            if error.result != "missing":
                self.found("warning", "quarantine", str(error))
                return
            refusal = await self._refusal_to_declare(name)
            if refusal is not None:
                text = f'queue "{name}" is missing and cannot be declared: {refusal}, or create it'
                self.found("warning", "quarantine", text)
                return
            text = f'queue "{name}" is missing and will be declared when it is needed; publishing to it is allowed'
        else:
            text = f'queue "{name}" is there; publishing to it is allowed'
        await self._look_at_publishing("quarantine", "", name, text)

    # --- Both sides --------------------------------------------------------------------------------------

    async def is_broker_of(self, other: Inspection) -> bool | None:
        """Return whether both are connected to one virtual host of one broker; None where that is not known."""
        if (self.vhost, self.cluster) != (other.vhost, other.cluster) or not self.version:
            return False
        try:
            async with self._question() as channel:
                marker = await channel.queue_declare("", exclusive=True)
                try:
                    async with other._question() as their_channel:
                        await their_channel.queue_declare(marker.queue or "", passive=True)
                except ConnectError as error:
                    return {"missing": False, "locked": True}.get(error.result)
        except ConnectError:
            return None
        return None


def _argument(value: str) -> int | bool | str:
    """Return a queue's argument as it has to be written to be the same."""
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if re.fullmatch(r"-?\d+", value) else value


async def _never(_: object) -> None:
    """The callback of a consumer that the broker refuses."""
