"""An inquiry: a connection to one URL of a side that asks, and consumes, publishes and creates nothing.

AMQP 0-9-1 answers few questions, but a refusal tells much. Each trick here was measured on RabbitMQ 3.10.8 and
4.3.6, is for RabbitMQ alone, and runs on a channel of its own, since the refusal closes it:

- the type of a queue, and its delivery limit: it is declared with a type that does not exist. The broker says what
  it is instead, or that the user may not declare it; where the queue is missing, that there is no such type;
- the permission to consume: a consumer with an `x-priority` that is no number. 403, or a refusal of that argument;
- the permission to publish, and that the exchange is there: an empty message in a transaction (`tx`), which is
  rolled back. No queue ever sees it, and nobody is told whether its key has a route;
- the type of an exchange, in the same way: it is declared with an argument that is never valid;
- whether two connections are to one broker: a nameless exclusive queue of one is looked for by the other.

What it does not do: say what the answers are good for, which is `inspection`'s.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bridge.connection.kind import UNKNOWN, Queue, exchange_type_of, kind_of, try_publishing
from bridge.connection.limits import DEFAULT
from bridge.connection.link import Link
from bridge.connection.offloop import off_loop
from bridge.connection.receiver import QuietReceiver
from bridge.errors import ConnectError
from bridge.relay.queue import QueueState
from bridge.settings.token import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from aiormq.abc import AbstractChannel as UnderlayChannel
    from aiormq.abc import DeliveredMessage

    from bridge.amqp.target import Target
    from bridge.connection.limits import TimeLimits
    from bridge.settings.settings import Settings
    from bridge.settings.sides import SideSettings

ROUND_TRIPS = 5
"""Measured; the shortest counts."""
RETURNED_AT_ONCE = 25
RETURN_POLLS, RETURN_POLL_S = 100, 0.02
"""How often a queue is asked whether it has back what was looked at, and how long after an answer that it has not."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What the broker says of itself."""

    product: str = ""
    version_text: str = ""
    cluster: str = ""
    heartbeat_s: int = 0
    frame_max: int = 0
    """In bytes."""

    @property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's; empty where the broker is another."""
        if self.product != "RabbitMQ":
            return ()
        return tuple(int(number) for number in re.findall(r"\d+", self.version_text)[:3])


class Glimpse(NamedTuple):
    """A message that was looked at, and returned."""

    headers: Mapping[str, object]
    """As the library has decoded them."""
    exchange: str
    routing_key: str
    message_id: str
    timestamp: datetime | None
    body: bytes


class Inquiry(Link):
    """One URL of one side. Every question may raise `ConnectError`, which says why there is no answer."""

    def __init__(self, settings: Settings, side: SideSettings, index: int, limits: TimeLimits = DEFAULT) -> None:
        super().__init__(settings, side, limits)
        self.broker = Broker()
        self.is_open = False
        self.vhost = side.addresses[index].path.rstrip("/")
        self.url = side.safe_urls[index]
        """Without the password."""

    def _blocked(self, reason: str, now_s: float) -> None:
        """The broker reads no more from this connection: an answer would never come."""
        self.finish("blocked", f"the broker blocks publishers ({reason})", now_s, drop=True)

    async def open(self, index: int) -> None:
        """Connect and log in. Raises `BridgeError`."""
        async with self._explained(index):
            await self._connect(index, QuietReceiver(self.closed, self._blocked))
        properties, tune = self._underlay.server_properties, self._underlay.connection_tune
        self.broker = Broker(
            str(properties.get("product", "a nameless broker")),
            str(properties.get("version", "")),
            str(properties.get("cluster_name", "")),
            tune.heartbeat or 0,
            tune.frame_max or 0,
        )
        self.is_open = True

    # --- Questions ---------------------------------------------------------------------------------------

    def certificate_ends(self) -> tuple[list[str], list[str]]:
        """Return when the broker's certificate ends, and when each CA's does that is trusted; none without TLS.

        Times are written as `ssl.cert_time_to_seconds` reads them.
        """
        assert self.tap is not None  # noqa: S101 - open() has run
        assert self.tap.transport is not None  # noqa: S101
        tls = self.tap.transport.get_extra_info("ssl_object")
        if tls is None:
            return [], []
        return [tls.getpeercert()["notAfter"]], [ca["notAfter"] for ca in tls.context.get_ca_certs()]

    async def client_certificate_ends(self) -> list[str]:
        """Return when each certificate of the client's file ends; none where it cannot be read: `open` reports that."""
        try:
            async with self._explained(self.index):
                return await off_loop(f"{self._side.tls} ends", self._side.tls.client_not_after)
        except ConnectError:
            return []

    async def token(self) -> Token | None:
        """Return the token that is the password now; None for another one, or where `open` will report why not."""
        try:
            async with self._explained(self.index):
                url = await off_loop(f"{self.side}: token for {self.url}", partial(self._side.url, self.index))
        except ConnectError:
            return None
        return Token.of(url.password or "")

    async def round_trip_s(self) -> float:
        """Return how long the broker takes to answer at the least, in seconds."""
        took_s = []  # by a finer clock than the loop's, which has whole milliseconds
        async with self._question() as channel:
            for _ in range(ROUND_TRIPS):
                asked_s = time.perf_counter()
                await channel.basic_qos(prefetch_count=1)
                took_s.append(time.perf_counter() - asked_s)
        return min(took_s)

    async def state_of(self, name: str) -> QueueState:
        """Return the state of a queue that must be there."""
        async with self._question() as channel:
            declared = await channel.queue_declare(name, passive=True)
        return QueueState(declared.message_count or 0, declared.consumer_count or 0)

    async def look(self, name: str, most: int, enough: Callable[[Glimpse], bool]) -> list[Glimpse]:
        """Return at most so many of a queue's first messages, the last of them the first that is `enough`.

        They are returned to the queue, in their order.
        """
        found: list[Glimpse] = []
        tags: list[int] = []
        async with self._question() as channel:
            while len(found) < most:
                message = await channel.basic_get(name)
                if message.delivery_tag is None:
                    break
                tags.append(message.delivery_tag)
                found.append(_glimpse(message))
                if enough(found[-1]):
                    break
            await self._return(channel, name, tags)
        return found

    @staticmethod
    async def _return(channel: UnderlayChannel, name: str, tags: list[int]) -> None:
        """Requeue what was got, a few at a time, and wait for each few until the queue has them back.

        A quorum queue (4.3.6) takes 32 returns at a time. The channel's process keeps the others, and hands them over
        in another order. Where somebody takes what is returned, it is waited for once.
        """
        polls = RETURN_POLLS
        behind = (await channel.queue_declare(name, passive=True)).message_count or 0
        for returned in range(RETURNED_AT_ONCE, len(tags) + RETURNED_AT_ONCE, RETURNED_AT_ONCE):
            known = tags[:returned]
            await channel.basic_nack(known[-1], multiple=True, requeue=True)
            while polls:
                declared = await channel.queue_declare(name, passive=True)
                if (declared.message_count or 0) >= behind + len(known):
                    break
                polls -= 1
                await asyncio.sleep(RETURN_POLL_S)

    async def declare(self, name: str) -> None:
        """Declare the side's queue as the bridge will: an existing one is not changed."""
        async with self._question() as channel:
            arguments = {"x-queue-type": self._side.queue_type, **self._side.queue_arguments}
            await channel.queue_declare(name, durable=True, arguments=arguments)  # type: ignore[arg-type]  # JSON

    async def find_exchange(self, name: str) -> None:
        """Look for an exchange that must be there."""
        async with self._question() as channel:
            await channel.exchange_declare(name, passive=True)

    async def exchange_type_of(self, name: str) -> str:
        """Return the type of an exchange that must be there; empty where the broker does not say."""
        return await exchange_type_of(self._question, name)

    async def may_bind(self, queue: str, exchange: str) -> None:
        """Ask whether the user may bind an existing queue to an existing exchange: by removing a binding of no key.

        RabbitMQ looks at the permissions that binding needs, and finds nothing to remove (3.10.8, 4.3.6).
        """
        async with self._question() as channel:
            await channel.queue_unbind(queue, exchange, routing_key=f"amqp-bridge.{uuid.uuid4()}")

    async def kind_of(self, name: str) -> Queue:
        """Return what the queue is (see `connection/kind`)."""
        return await kind_of(self._question, name)

    async def refusal_to_declare(self, name: str) -> str | None:
        """Return why the user may not declare a queue that is missing; None where nothing speaks against it."""
        try:
            async with self._question() as channel:
                await channel.queue_declare(name, durable=True, arguments={"x-queue-type": UNKNOWN})
        except ConnectError as error:
            if error.result != "mismatch":
                return str(error)
        return None

    async def may_consume(self, name: str) -> None:
        """Ask whether the user may consume from an existing queue."""
        try:
            async with self._question() as channel:
                await channel.basic_consume(name, _never, arguments={"x-priority": UNKNOWN})
        except ConnectError as error:
            if error.result != "mismatch":
                raise

    async def may_publish(self, target: Target) -> None:
        """Ask whether the user may publish to a target whose exchange must be there."""
        await try_publishing(self._question, target.exchange, target.routing_key or "")

    async def is_to_broker_of(self, other: Inquiry) -> bool | None:
        """Return whether both are connected to one virtual host of one broker; None where that is not known."""
        here, there = ((each.vhost, each.broker.cluster) for each in (self, other))
        if here != there or not self.broker.version:
            return False
        try:
            async with self._question() as channel:
                marker = await channel.queue_declare("", exclusive=True)
                try:
                    await other.state_of(marker.queue or "")
                except ConnectError as error:
                    return {"missing": False, "locked": True}.get(error.result)
        except ConnectError:
            return None
        return None


async def _never(_: object) -> None:
    """The callback of a consumer that the broker refuses."""


def _glimpse(message: DeliveredMessage) -> Glimpse:
    properties = message.header.properties
    return Glimpse(
        dict(properties.headers or {}),
        message.exchange or "",
        message.routing_key or "",
        properties.message_id or "",
        properties.timestamp,
        message.body,
    )
