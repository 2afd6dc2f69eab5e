"""The supervisor: carries out what the steering decides, and shows the bridge's state as one value.

It decides nothing. A `keeper` keeps each side up; the window says what a lost generation means for the messages in
flight, at the moment of the loss (see `session`); `relay/steering` says what comes next: consume, open the quarantine,
ask the queue, end a generation, stop.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.connection.exchanging import Exchanging
from bridge.connection.news import News
from bridge.connection.reporter import Reporter
from bridge.connection.session import DestinationSession, SourceSession
from bridge.errors import BridgeError, ConnectError, ExhaustedError
from bridge.relay.action import (
    Action,
    AskDestination,
    AskExchange,
    AskFirstOffset,
    AskQueue,
    Consume,
    EndGeneration,
    OpenQuarantine,
    Stop,
)
from bridge.relay.consumer import Consumer
from bridge.window.rate import STEP_S

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from bridge.connection.keeper import Keeper
    from bridge.connection.session import Session
    from bridge.connection.tap import Pump
    from bridge.connection.tracking import Tracking
    from bridge.observe.status import Status
    from bridge.relay.action import AskSource
    from bridge.relay.relay import Relay
    from bridge.settings.settings import Settings
    from bridge.window.books import Books

log = logging.getLogger(__name__)

TICK_S = 0.05
"""How often time is let pass in the relay."""
REST_S = 5.0
"""How long an idle bridge rests at most, so that what has no time of its own waits no longer."""
STANDSTILL_S = 1.0
"""After a longer pause the bridge has rested, or it stood still (SIGSTOP, a machine that was suspended): what came
meanwhile is read first, before anybody is blamed for silence. The confirms among it prevent duplicates."""


class Supervisor:
    """The bridge."""

    def __init__(  # noqa: PLR0913 - see `assembly`
        self,
        settings: Settings,
        *,
        relay: Relay,
        pump: Pump,
        status: Status,
        source: Keeper,
        destination: Keeper,
        changed: asyncio.Event,
        count_source: Callable[[], None],
        count_destination: Callable[[], None],
        tracking: Tracking | None = None,
    ) -> None:
        """`changed` is set when there may be something to decide; `count_…` have a side's queue counted."""
        self.settings = settings
        self.relay = relay
        self.window = relay.window
        self.books = relay.window.books
        self.status = status
        self._pump = pump
        self._source = source
        self._destination = destination
        self._changed = changed
        self._stopped = asyncio.Event()
        self._errands: set[asyncio.Task[None]] = set()
        """What the brokers have been asked, and are to answer."""
        self._exchanging = Exchanging(self.window, self._pump)
        self._quarantine_news = News()
        self._reporter = Reporter(self.relay, self.status, settings)
        self._count_source = count_source
        self._count_destination = count_destination
        self._tracking = tracking
        self._consumer_before = Consumer.OFF
        """At the last look."""
        self._exhausted = ""
        """What there was no memory for, in a sentence."""
        self._left_in_flight = 0
        """Messages in flight when the last decision was asked for: the last decision of all requeues them."""

    @property
    def stopping(self) -> bool:
        """Whether a shutdown has begun."""
        return self.relay.steering.stopping

    # --- Running and stopping ----------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to shut down."""
        now_s = asyncio.get_running_loop().time()
        if self.relay.steering.stopping:
            return
        log.info("stopping: draining", extra={"published": self.books.published, "held": self.books.held})
        self.relay.stop(now_s)
        self._pump.run(now_s)
        self._changed.set()

    def pause(self) -> None:
        """Forward what is held and consume nothing more, until `resume`."""
        now_s = asyncio.get_running_loop().time()
        self.relay.pause(now_s)
        self._pump.run(now_s)
        if self.relay.steering.consumer is Consumer.OFF:
            self._count_source()
        self._changed.set()

    def resume(self) -> None:
        """Consume again."""
        self.relay.resume()
        self._changed.set()

    async def run(self) -> None:
        """Forward until `stop` is called; then drain, requeue the rest and close both sides.

        Raises `ExhaustedError` where it was for memory that it stopped.
        """
        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(keeper.keep()) for keeper in (self._source, self._destination)]
            steering = group.create_task(self._steer())
            await self._stopped.wait()
            if self._tracking is not None:
                await self._tracking.finish(0 if self._source.session is None else self._source.session.index)
            for task in (*keepers, *self._errands, steering):
                task.cancel()
        log.info(
            "stopped",
            extra={
                "received": self.books.received,
                "forwarded": self.books.forwarded,
                "requeued": sum(self.books.requeued.values()),
                "in_flight": self.window.in_flight,
            },
        )
        if self._exhausted:
            raise ExhaustedError(self._exhausted)

    def exhausted(self, what: str) -> None:
        """Memory or threads are used up, as `what` says: end in order, so that a supervisor starts the process again.

        To go on would be to fail at the same message again. What is held goes back to its queue, and a new process
        begins with one message, so that on a quorum queue further attempts count for the one that does not fit alone.
        """
        if not self._exhausted:
            self._exhausted = f"not enough memory ({what}); ending in order, so that the bridge is started again"
            log.critical("%s", self._exhausted)
            self.stop()

    # --- Steering ----------------------------------------------------------------------------------------

    async def _steer(self) -> None:
        """Let time pass in the relay, and do what follows."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        pause_s = TICK_S
        while not self._stopped.is_set():
            before_s = now_s
            if pause_s > TICK_S:
                self._pump.rest()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            self._changed.clear()
            self._pump.attend()
            now_s = loop.time()
            pause_s = TICK_S
            if now_s - before_s > STANDSTILL_S:
                # It has rested, or stood still: which of both does not matter.
                continue
            try:
                self._tick(now_s)
            except MemoryError:
                self.exhausted("while deciding what comes next")
            pause_s = self._pause_s(now_s)

    def _tick(self, now_s: float) -> None:
        self.relay.tick(now_s, time.time())
        self._pump.run(now_s)
        if self.relay.source.unfit_bytes:
            self.exhausted(f"for a message of {self.relay.source.unfit_bytes} bytes")
        self._decide(now_s)
        for tap in (self._pump.source, self._pump.destination):
            if tap is not None:
                tap.tick(now_s)
        self._reporter.tell(self._source.told_generation)
        if self._tracking is not None:
            self._tracking.tick(now_s)
        before, self._consumer_before = self._consumer_before, self.relay.steering.consumer
        if self._consumer_before is Consumer.OFF is not before and self.relay.steering.pausing:
            self._count_source()

    def _pause_s(self, now_s: float) -> float:
        """Return for how long nothing is due, unless something comes: `_changed` ends it, which the pump sets, too."""
        taps = [tap for tap in (self._pump.source, self._pump.destination) if tap is not None]
        due_s = min(self.relay.steering.quiet_until_s, *(tap.due_s for tap in taps), now_s + REST_S)
        by_rate_s = max(STEP_S, self.window.rate_due_s - now_s)
        return max(min(TICK_S, by_rate_s), due_s - now_s - TICK_S)

    def _decide(self, now_s: float) -> None:
        destination = self._pump.destination
        unsent_bytes = 0 if destination is None else destination.unsent_bytes
        while True:
            self._left_in_flight = self.window.in_flight
            action = self.relay.decide(now_s, unsent_bytes)
            # First what has been settled: a generation that ends takes with it what is not written.
            self._pump.run(now_s)
            if action is None:
                break
            self._do(action, now_s)

    def _do(self, action: Action, now_s: float) -> None:
        if isinstance(action, Stop):
            found = self.relay.steering.last_found
            if self.relay.steering.facts.deletes_itself and found is not None:
                left = found.ready + self._left_in_flight
                log.warning(
                    "stopping: queue %s still has %d messages, which are lost when RabbitMQ deletes it",
                    self.settings.source_queue,
                    left,
                )
            self._stopped.set()
        elif isinstance(action, AskDestination):
            self._count_destination()
        elif isinstance(action, EndGeneration):
            keeper = self._source if action.side == "source" else self._destination
            if keeper.session is not None:
                keeper.session.finish(action.reason, action.text, now_s, drop=action.drop)
        elif isinstance(action, AskExchange):
            there = self._destination.session
            assert isinstance(there, DestinationSession)  # noqa: S101 - the steering asks only an open destination
            self._begin_errand(there, self._exchanging.ask(there, action.exchange))
        else:
            session = self._source.session
            assert isinstance(session, SourceSession)  # noqa: S101 - the steering asks only an open source
            self._begin_errand(session, self._carry_out(session, action))

    def _begin_errand(self, session: Session, asking: Coroutine[Any, Any, None]) -> None:
        errand = asyncio.ensure_future(self._see_through(session, asking))
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)

    async def _carry_out(self, session: SourceSession, action: AskSource) -> None:
        """Ask the source's broker, and tell the steering what it answered, unless the generation has ended."""
        match action:
            case Consume(prefetch, offset):
                await self._consume(session, prefetch, offset)
            case OpenQuarantine():
                await self._open_quarantine(session)
            case AskQueue():
                await self._ask_queue(session)
            case AskFirstOffset():
                await self._ask_first_offset(session)

    async def _see_through(self, session: Session, asking: Coroutine[Any, Any, None]) -> None:
        """Ask a side's broker; what goes wrong with that in the bridge ends the generation."""
        try:
            await asking
        except MemoryError:
            session.ended("memory", "the bridge has no memory left", asyncio.get_running_loop().time())
            self.exhausted(f"while asking the {session.side}")
        except Exception as error:  # noqa: BLE001 - ours or the library's: the generation ends with its traceback
            # The process must not end by it: it remembers what it has forwarded.
            session.bug(error, asyncio.get_running_loop().time())
        self._changed.set()

    async def _consume(self, session: SourceSession, prefetch: int, offset: int | None) -> None:
        try:
            before = await session.consume(prefetch, offset)
        except ConnectError as error:
            session.ended(error.result, f"could not consume: {error}", asyncio.get_running_loop().time())
            return
        if session.end is not None:
            return
        now_s = asyncio.get_running_loop().time()
        if before is None:
            self.relay.steering.not_started()
        else:
            self.relay.started(before, now_s)
            self._pump.run(now_s)

    async def _open_quarantine(self, session: SourceSession) -> None:
        loop = asyncio.get_running_loop()
        try:
            await session.open_quarantine()
        except BridgeError as error:
            if self._quarantine_news.note(str(error), loop.time()):
                log.error("quarantine %s not available: %s", self.settings.quarantine_queue_name, error)  # noqa: TRY400 - the text says it
            if session.end is None:
                self.relay.steering.quarantine_unavailable(loop.time())
        else:
            self._quarantine_news.forget()
            if session.end is None:
                self.relay.steering.quarantine_opened()

    async def _ask_queue(self, session: SourceSession) -> None:
        """Ask a queue that delivers nothing whether it is empty."""
        found = None
        try:
            found = await session.ask_queue()
        except ConnectError as error:
            log.warning("queue %s did not report its state: %s", self.settings.source_queue, error)
        now_s = asyncio.get_running_loop().time()
        if session.end is None:
            self.relay.steering.queue_answered(found, now_s)

    async def _ask_first_offset(self, session: SourceSession) -> None:
        """Ask a stream that has left something out where it begins."""
        first = None
        try:
            first = await session.ask_first_offset()
        except ConnectError as error:
            if session.end is None:
                log.warning("stream %s did not report its first message: %s", self.settings.source_queue, error)
        if session.end is None:
            self.relay.steering.first_offset_answered(first)

    # --- What others see ---------------------------------------------------------------------------------

    def snapshot(self) -> tuple[Books, Status]:
        """Return a consistent copy of books and status; to be called on the event loop's thread."""
        window, steering = self.window, self.relay.steering
        unix_ahead_s = time.time() - asyncio.get_running_loop().time()
        last_forward_s = None if window.last_forward_s is None else window.last_forward_s + unix_ahead_s
        status = replace(
            self.status,
            source=copy.deepcopy(self.status.source),
            destination=copy.deepcopy(self.status.destination),
            tracking=copy.copy(self.status.tracking),
            consuming=steering.consumer is Consumer.ON,
            state=steering.told_state,
            prefetch=steering.prefetch,
            stopping=steering.stopping,
            paused=steering.paused_by_operator,
            resting=steering.pausing,
            braked=steering.brake.reason if steering.braked else None,
            brake=steering.brake.text,
            trouble=window.hindrance or steering.brake.trouble,
            trouble_s=window.trouble.seconds(asyncio.get_running_loop().time()),
            degraded=[f"destination: {text}" for text in window.degraded],
            unreadable=steering.hindrance,
            stuck=steering.watchdog.stuck,
            publish_window=window.publish_window,
            oldest_received_s=window.oldest_received_s,
            last_forward_s=last_forward_s,
        )
        return copy.deepcopy(self.books), status
