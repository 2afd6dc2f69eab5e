"""The survey: what both sides are before a drain, and how long their queues are after it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.check.inquiry import Inquiry
from bridge.check.inspection import DEFAULT_DELIVERY_LIMIT, RABBITMQ_4
from bridge.connection.kind import Queue
from bridge.connection.limits import DEFAULT
from bridge.connection.session import UNCOUNTED_SINCE
from bridge.drain import sample
from bridge.errors import ConnectError
from bridge.window.blame import FORBIDDEN_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridge.amqp.target import Target
    from bridge.check.inquiry import Glimpse
    from bridge.connection.limits import TimeLimits
    from bridge.relay.queue import QueueState
    from bridge.settings.settings import Settings
    from bridge.settings.sides import SideSettings


ORIGINS = "where each message came from"
LOOKED_BYTES = 64 << 20
"""Bodies of so many bytes end a look."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one side is."""

    url: str
    """Without the password."""
    name: str
    """The queue's, or the exchange's."""
    state: QueueState | None = None
    """Of the queue; None for an exchange, and for a queue that is to be declared."""
    queue: Queue = Queue()  # noqa: RUF009 - frozen
    version: tuple[int, ...] = ()
    """RabbitMQ's; empty where the broker is another."""

    @property
    def returns_uncounted(self) -> bool:
        """Whether a message that is returned stays where it was, and nothing counts it."""
        kind = self.queue.queue_type
        return kind == "classic" or (kind == "quorum" and self.version >= UNCOUNTED_SINCE)

    @property
    def delivery_limit(self) -> int | None:
        """How often a message may come back; None where that is not known, or not limited."""
        if self.queue.queue_type == "classic":
            return None
        default = DEFAULT_DELIVERY_LIMIT if self.version >= RABBITMQ_4 else None
        return default if self.queue.delivery_limit is None else self.queue.delivery_limit

    @property
    def ready(self) -> int | None:
        """How many messages the queue has ready; None where that is not known."""
        return None if self.state is None else self.state.ready


@asynccontextmanager
async def inquiring(settings: Settings, side: SideSettings, limits: TimeLimits = DEFAULT) -> AsyncIterator[Inquiry]:
    """Connect to the first of the side's URLs that answers. Raises `ConnectError` where none does."""
    inquiry, error = None, None
    try:
        for index in range(len(side.addresses)):
            inquiry = Inquiry(settings, side, index, limits)
            try:
                await inquiry.open(index)
            except ConnectError as failed:
                await inquiry.close()
                error = error or failed
            else:
                break
        else:
            raise error or ConnectError("unreachable", "no URL is set")
        yield inquiry
    finally:
        if inquiry is not None:
            await inquiry.close()


async def survey_source(settings: Settings, inquiry: Inquiry) -> Side:
    """Return what the source is. Raises `ConnectError`."""
    name = settings.source_queue or ""
    state = await inquiry.state_of(name)
    queue = await inquiry.kind_of(name) if inquiry.broker.version else Queue()
    return Side(inquiry.url, name, state, queue, inquiry.broker.version)


async def survey_destination(settings: Settings, inquiry: Inquiry) -> Side:
    """Return what the destination is. Raises `ConnectError`."""
    url, version = inquiry.url, inquiry.broker.version
    if settings.destination_queue is None and settings.destination_exchange is None:
        return Side(url, ORIGINS, version=version)
    if settings.destination_queue is None:
        exchange = settings.destination_exchange or ""
        await inquiry.find_exchange(exchange)
        return Side(url, exchange, version=version)
    name = settings.destination_queue
    try:
        return Side(url, name, await inquiry.state_of(name), version=version)
    except ConnectError as error:
        if error.result != "missing" or not settings.destination.declare:
            raise
        return Side(url, name, version=version)


async def require_reading(inquiry: Inquiry, source: Side) -> None:
    """Raise `ConnectError` where the user may not consume from the queue; nothing is consumed."""
    if inquiry.broker.version:
        await inquiry.may_consume(source.name)


async def require_writing(inquiry: Inquiry, target: Target) -> None:
    """Raise `ConnectError` where the user may not publish to the target; nothing is published.

    An alarm passes by itself, and what may be published by its key alone, only each message shows.
    """
    if not inquiry.broker.version:
        return
    try:
        await inquiry.may_publish(target)
    except ConnectError as error:
        if error.result != "blocked" and not (target.keeps_keys and FORBIDDEN_KEY in str(error)):
            raise


def near_limit(source: Side, message: Glimpse) -> bool:
    """Whether the queue would soon drop the message for having come back too often."""
    limit = source.delivery_limit
    return limit is not None and sample.delivery_count(message) >= limit - sample.LIMIT_MARGIN


async def look_at(inquiry: Inquiry, source: Side, most: int) -> list[Glimpse]:
    """Return at most so many of the queue's first messages; what comes near its delivery limit ends the look."""
    size_bytes = 0

    def enough(message: Glimpse) -> bool:
        nonlocal size_bytes
        size_bytes += len(message.body)
        return near_limit(source, message) or size_bytes >= LOOKED_BYTES

    return await inquiry.look(source.name, most, enough)
