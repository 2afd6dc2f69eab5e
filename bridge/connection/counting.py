"""Counting: how many messages and consumers a side's queue has, asked of its broker every so often.

1. It has a channel of its own, which stays open. A refusal closes that channel alone, is logged once for each change,
   and leaves no figure behind (see `observe/backlog`).
2. A question that is not answered in time expires, and the generation goes on: a blocked destination answers nothing,
   nor does a source whose reading is paused. No other is asked until the answer has come, and a late one is not
   believed.
3. It ends with the generation. A question is never cancelled: aiormq 7.2.4 would close the channel and wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bridge.connection.diagnosis import CONTROL_PLANE_ERRORS, explain
from bridge.connection.kind import kind_of
from bridge.connection.news import News
from bridge.errors import ConnectError
from bridge.relay.queue import QueueState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    import aio_pika
    from aio_pika.abc import AbstractChannel
    from aiormq.abc import AbstractChannel as UnderlayChannel

    from bridge.observe.backlog import Backlog
    from bridge.settings.sides import SideSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

COUNTING_CHANNEL = 4
ANSWERED_WITHIN_S = 60.0
"""A question is answered by then, or not at all, however seldom one is asked."""
ASK_AGAIN_S = 1.0
"""After the first answer that is not believed; or the period, where that is shorter."""


class Counter:
    """Asks one queue, over one connection."""

    def __init__(self, connection: aio_pika.Connection, side: SideSettings, index: int) -> None:
        """The connection is to URL number `index` of the side."""
        self._connection = connection
        self._side = side
        self._index = index
        self._channel: AbstractChannel | None = None
        """Kept, since aio-pika lets go of a channel that nobody holds."""

    async def count(self) -> QueueState:
        """Return the queue's state. Raises `ConnectError`; takes as long as the broker does."""
        async with self._asking() as channel:
            answer = await channel.queue_declare(self._side.queue or "", passive=True)
        return QueueState(answer.message_count or 0, answer.consumer_count or 0)

    async def is_stream(self) -> bool:
        """Return whether the queue is a stream, as far as the broker says. Takes as long as the broker does."""
        assert self._connection.transport is not None  # noqa: S101 - it is open
        properties = self._connection.transport.connection.server_properties
        if str(properties.get("product", "")) != "RabbitMQ":
            return False
        found = await kind_of(self._asking, self._side.queue or "")
        return found.queue_type == "stream"

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[UnderlayChannel]:
        try:
            if self._channel is None:
                channel = self._connection.channel(channel_number=COUNTING_CHANNEL, publisher_confirms=False)
                await channel.initialize()
                self._channel = channel
            yield await self._channel.get_underlay_channel()
        except CONTROL_PLANE_ERRORS as error:
            self._channel = None
            raise explain(error, self._side, self._index) from error


class Counted(Protocol):
    """A generation whose queue is counted."""

    @property
    def end(self) -> tuple[str, str] | None:
        """Reason for its end; None while it lasts."""

    def counter(self) -> Counter | None:
        """Return what asks over its connection."""


class Listener(Protocol):
    """Hears what is asked and answered: what it decides by must not be older than it thinks."""

    def asked(self, now_s: float) -> None:
        """A question goes out now."""

    def answered(self, found: QueueState) -> None:
        """This is believed."""

    def uncounted(self, why: str = "") -> None:
        """There is no answer for this reason, or one that is not believed."""


class Counting:
    """Keeps one side's backlog, one generation after the other."""

    def __init__(  # noqa: PLR0913 - what the sides differ by
        self,
        queue: str | None,
        backlog: Backlog,
        every_s: float,
        *,
        stream: Callable[[], bool] | None = None,
        consumed: Callable[[], bool] = lambda: False,
        listener: Listener | None = None,
    ) -> None:
        """Without a `queue`, or with 0 seconds, it does nothing.

        `stream` tells whether the queue is one; otherwise the broker is asked. `consumed` tells whether a consumer of
        the bridge's own counts in an answer.
        """
        self._queue = queue
        self._backlog = backlog
        self._every_s = every_s
        self._within_s = min(every_s, ANSWERED_WITHIN_S)
        self._news = News()
        self._is_stream = stream
        self._consumed = consumed
        self._listener = listener
        self._asked_for = asyncio.Event()

    def ask(self) -> None:
        """Ask at once, as soon as no answer is awaited."""
        self._asked_for.set()

    async def run(self, session: Counted) -> None:
        """Count until cancelled, or until a bug ends it."""
        if self._queue is None or not self._every_s:
            self._failed("an exchange has no length" if self._queue is None else "BRIDGE_QUEUE_POLL is 0")
            return
        counter = session.counter()
        if counter is None:
            self._failed("the user may open no channel for it (max-channels)")
            return
        try:
            is_stream = self._is_stream
            if is_stream is None:
                known = bool((await self._answer(session, counter.is_stream()))[0])
                is_stream = partial(bool, known)
            doubted = False
            while session.end is None:
                self._asked_for.clear()
                if self._listener is not None:
                    self._listener.asked(asyncio.get_running_loop().time())
                found, late = await self._answer(session, counter.count())
                doubted_before, doubted = doubted, False
                if found is not None and not late:
                    consumed = self._consumed()
                    believed = self._backlog.answered(found, time.time(), stream=is_stream(), consumed=consumed)
                    doubted = not believed
                    self._tell(found, believed=believed)
                soon = doubted and not doubted_before
                await self._rest(min(self._every_s, ASK_AGAIN_S) if soon else self._every_s)
        except Exception:
            # aiormq 7.2.4 may raise a bare Exception in what waits while the connection is lost. What else cannot be
            # done here is no reason to end a generation.
            if session.end is None:
                log.exception("a bug in the bridge ended the counting of queue %s", self._queue)
        finally:
            self._failed("not connected" if session.end is not None else "a bug in the bridge; see the log")

    def _tell(self, found: QueueState, *, believed: bool) -> None:
        if self._listener is None:
            return
        if self._backlog.stream:
            self._listener.uncounted("it is a stream, which reports neither how many messages wait nor its consumers")
        elif believed:
            self._listener.answered(found)
        else:
            self._listener.uncounted()

    def _failed(self, reason: str) -> None:
        self._backlog.failed(reason)
        if self._listener is not None:
            self._listener.uncounted(reason)

    async def _rest(self, pause_s: float) -> None:
        """Wait until the next question is due or asked for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._asked_for.wait()

    async def _answer(self, session: Counted, question: Coroutine[Any, Any, T]) -> tuple[T | None, bool]:
        """Return what is answered, None for a refusal, and whether it came late."""
        asking = asyncio.ensure_future(question)
        asking.add_done_callback(_retrieved)
        answered, _ = await asyncio.wait({asking}, timeout=self._within_s)
        if not answered:
            self._failed(f"it did not answer within {self._within_s:g} s")
            await asyncio.wait({asking})
        if asking.cancelled():  # aiormq cancels its own waiters when it loses the connection
            return None, not answered
        try:
            return asking.result(), not answered
        except ConnectError as error:
            if session.end is None:
                self._failed(str(error))
                if self._news.note(str(error), asyncio.get_running_loop().time()):
                    log.warning("queue %s not counted: %s", self._queue, error)
            return None, not answered


def _retrieved(asking: asyncio.Future[Any]) -> None:
    """Look at how a question ended that nobody waits for any more, so that asyncio does not complain of it."""
    if not asking.cancelled():
        asking.exception()
