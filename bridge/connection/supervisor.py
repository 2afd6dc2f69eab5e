"""The supervisor: what a generation is to do, how to stop, and the bridge's state as one value.

Each side is kept up by a `keeper` of its own; what a lost generation means for the messages in flight was
decided by the window when the loss was seen (see `session`). The supervisor decides when to consume, when to open
the quarantine, when a generation that makes no progress must go, and how to stop.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import time
from typing import TYPE_CHECKING

from bridge.amqp.content import HeaderPolicy, message_id
from bridge.amqp.frames import route
from bridge.connection.keeper import Keeper, News
from bridge.connection.session import DestinationSession, Session, SourceSession
from bridge.connection.tap import Pump
from bridge.errors import BridgeError, ConnectError
from bridge.observe.status import Status
from bridge.relay.backoff import Backoff
from bridge.relay.consumer import Consumer
from bridge.relay.relay import Relay
from bridge.relay.watchdog import Watchdog
from bridge.window.books import Books
from bridge.window.memory import Memory
from bridge.window.window import Window, WindowLimits

if TYPE_CHECKING:
    from bridge.settings.settings import Settings

log = logging.getLogger(__name__)

TICK_S = 0.05
"""How often time is let pass in the relay."""
STANDSTILL_S = 1.0
"""After a longer pause it was the bridge that stood still (SIGSTOP, a machine that was suspended): what came
meanwhile is read first, before anybody is blamed for silence. The confirms among it prevent duplicates."""
QUARANTINE_AGAIN_S = 300.0
"""How long a quarantine that did not answer is left alone: a publish to a broker with an alarm stops the connection."""


class Supervisor:
    """The bridge."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.books = Books()
        self.status = Status()
        own_keys = settings.destination_queue is None and settings.destination_routing_key is None
        limits = WindowLimits(
            prefetch=settings.source_prefetch,
            max_in_flight_bytes=settings.max_in_flight_bytes,
            confirm_timeout_s=settings.confirm_timeout,
            hold_timeout_s=settings.hold_timeout,
            delivery_limit=settings.delivery_limit,
            quarantine=bool(settings.quarantine_queue_name),
            own_keys=own_keys,
            fans_out=settings.destination_queue is None,
        )
        self.window = Window(limits, self.books, Memory(enabled=settings.deduplication == "message-id"), random.random)
        policy = HeaderPolicy(
            destination_user=settings.destination.username.encode(),
            user_id=settings.user_id,
            cc=settings.cc,
            delivery_count=settings.delivery_count,
        )
        if settings.destination_queue is not None:
            to = route("", settings.destination_queue)
        else:
            to = route(settings.destination_exchange or "", settings.destination_routing_key or "")
        self.relay = Relay(
            self.window, policy, destination=to, own_keys=own_keys, quarantine=settings.quarantine_queue_name
        )
        self._watchdog = Watchdog(self.relay, stream=settings.source_is_stream)
        self._pump = Pump(self.relay)
        self._source = Keeper(self, settings.source, self.status.source, self._backoff(), self._source_session)
        self._destination = Keeper(
            self, settings.destination, self.status.destination, self._backoff(), self._destination_session
        )
        self._stop = asyncio.Event()
        self._quarantine_at_s = 0.0
        self._quarantine_backoff = self._backoff()
        self._quarantine_news = News()
        self._trouble_logged = ""
        self._consumer_lost_s: float | None = None

    def _backoff(self) -> Backoff:
        return Backoff(self.settings.reconnect_min, self.settings.reconnect_max, random.random)

    def _source_session(self) -> SourceSession:
        return SourceSession(self.relay, self._pump, self.settings)

    def _destination_session(self) -> DestinationSession:
        return DestinationSession(self.relay, self._pump, self.settings)

    @property
    def progress(self) -> int:
        """Grows whenever a message is done with: a generation during which it grew was worth its while."""
        return self.books.forwarded + sum(self.books.quarantined.values())

    # --- Running and stopping ----------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to shut down."""
        self._stop.set()

    async def run(self) -> None:
        """Forward until `stop` is called; then drain, give back the rest and close both sides."""
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(keeper.keep()) for keeper in (self._source, self._destination)]
            ticker = group.create_task(self._tick())
            await self._stop.wait()
            await self._shut_down(keepers)
            ticker.cancel()
        log.info(
            "stopped",
            extra={
                "received": self.books.received,
                "forwarded": self.books.forwarded,
                "requeued": sum(self.books.requeued.values()),
                "in_flight": self.window.in_flight,
            },
        )

    async def _shut_down(self, keepers: list[asyncio.Task[None]]) -> None:
        self.status.stopping = True
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self.settings.shutdown_timeout
        log.info("stopping: draining", extra={"published": self.books.published, "held": self.books.held})
        self.relay.stop()
        self._pump.run(loop.time())
        cancel_s = deadline_s - self.settings.shutdown_timeout / 2
        while not self.relay.source_drained and loop.time() < deadline_s:
            if self.relay.consumer is Consumer.ON and loop.time() >= cancel_s:
                self.relay.stop_consuming()
                self._pump.run(loop.time())
            await asyncio.sleep(TICK_S / 5)
        self.relay.abandon()
        self._pump.run(loop.time())
        for keeper in keepers:
            keeper.cancel()
        await asyncio.wait(keepers)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while True:
            before_s = now_s
            await asyncio.sleep(TICK_S)
            now_s = loop.time()
            if now_s - before_s > STANDSTILL_S:
                continue
            self.relay.tick(now_s, time.time())
            self._watch(now_s)
            for tap in (self._pump.source, self._pump.destination):
                if tap is not None:
                    tap.tick(now_s)
            self._pump.run(now_s)
            self._tell()

    def wake(self) -> None:
        """A side is up: the other may have waited for it."""
        for keeper in (self._source, self._destination):
            if keeper.session is not None:
                keeper.session.changed.set()

    # --- Steering a generation ---------------------------------------------------------------------------

    async def steer(self, session: Session) -> None:
        """Do what an open generation needs now, then wait until something changes or a tick has passed."""
        session.changed.clear()  # before the steering: what changes during it is not to be missed
        if isinstance(session, SourceSession):
            await self._steer_source(session)
        if session.end is None:
            try:
                async with asyncio.timeout(TICK_S):
                    await session.changed.wait()
            except TimeoutError:
                return

    async def _steer_source(self, session: SourceSession) -> None:
        now_s = asyncio.get_running_loop().time()
        relay = self.relay
        if prefetch := relay.wanted_prefetch:
            try:
                received = self.books.received
                self._watchdog.consuming(await session.consume(prefetch), received)
            except ConnectError as error:
                session.ended(error.result, f"could not consume: {error}", now_s)
                return
            log.info("consuming", extra={"queue": self.settings.source_queue, "prefetch": prefetch})
        if relay.quarantine.wanted and now_s >= self._quarantine_at_s:
            await self._open_quarantine(session, now_s)
        if self._watchdog.look_due(now_s):
            await self._look(session)
        if relay.consumer is Consumer.LOST:
            if self._consumer_lost_s is None:
                self._consumer_lost_s = now_s
                log.warning(
                    "the source cancelled the consumer (queue %s was deleted or has moved); forwarding what is held",
                    self.settings.source_queue,
                )
            # What is held can still be forwarded and acked: it may exist nowhere else any more.
            if relay.source_drained or now_s - self._consumer_lost_s >= self.settings.hold_timeout:
                session.ended("consumer-cancelled", "the broker cancelled the consumer", now_s)
        else:
            self._consumer_lost_s = None

    async def _open_quarantine(self, session: SourceSession, now_s: float) -> None:
        self.relay.quarantine.opening = True
        try:
            await session.open_quarantine()
        except BridgeError as error:
            if self._quarantine_news.is_due(str(error), now_s):
                log.error("quarantine %s not available: %s", self.settings.quarantine_queue_name, error)  # noqa: TRY400 - the text says it
            self._quarantine_at_s = now_s + self._quarantine_backoff.delay_s(now_s)
            self.relay.quarantine.closed(now_s)
        else:
            self._quarantine_backoff.reset()
            self._quarantine_news.forget()

    # --- The watchdog ------------------------------------------------------------------------------------

    def _watch(self, now_s: float) -> None:
        """End the generations that the watchdog names, and say what that did not mend."""
        pump = self._pump
        destination = pump.destination
        if destination is not None:
            ending = self._watchdog.destination(now_s, destination.unsent_bytes)
            if ending is not None:
                destination.fail(*ending)
        if pump.source is not None and (ending := self._watchdog.source(now_s)) is not None:
            if self.window.quarantining:
                self._quarantine_at_s = now_s + QUARANTINE_AGAIN_S
            pump.source.fail(*ending)
        self.status.stuck = self._watchdog.stuck

    async def _look(self, session: SourceSession) -> None:
        """Ask a queue that delivers nothing whether it is empty."""
        found = None
        try:
            found = await session.look()
        except ConnectError as error:
            log.warning("asked queue %s for its state in vain: %s", self.settings.source_queue, error)
        now_s = asyncio.get_running_loop().time()
        ending = self._watchdog.looked(found, now_s) if session.end is None else None
        if ending is not None and session.tap is not None:
            session.tap.fail(*ending)

    # --- What others see ---------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Log what an operator acts on."""
        for delivery, verdict in self.relay.quarantine.confirmed:
            log.warning(
                "message quarantined: %s",
                verdict.reason,
                extra={
                    "message_id": message_id(delivery.content),
                    "reason": verdict.reason,
                    "reply_code": verdict.reply_code,
                    "reply_text": verdict.reply_text,
                    "size_bytes": delivery.body_size,
                    "queue": self.settings.quarantine_queue_name,
                },
            )
        self.relay.quarantine.confirmed.clear()
        status = self.status.destination
        blocked = status.up and self.window.blocked
        if blocked is not status.blocked:
            status.blocked = blocked
            log.warning("destination %s", "blocked by the broker (an alarm)" if status.blocked else "no longer blocked")
        trouble = self.window.hindrance
        if bool(trouble) is not bool(self._trouble_logged):
            log.warning("destination %s", trouble or "takes messages again")
            self._trouble_logged = trouble

    def snapshot(self) -> tuple[Books, Status]:
        """Return a consistent copy of books and status; to be called on the event loop's thread."""
        status = copy.deepcopy(self.status)
        window = self.window
        status.consuming = self.relay.consumer is Consumer.ON
        status.publish_window = window.pace.publish_window
        status.trouble = window.hindrance
        status.oldest_received_s = window.oldest_received_s
        if window.last_forward_s is not None:
            status.last_forward_s = time.time() - (asyncio.get_running_loop().time() - window.last_forward_s)
        return copy.deepcopy(self.books), status
