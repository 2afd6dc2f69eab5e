"""A keeper keeps one side up: a generation after the other, over its URLs in turn, with backoff.

It opens a session, waits until it ends, and reports what became of it, in the log and in the side's status. What keeps
coming back for the same reason is logged once for each change, and every five minutes (see `news`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from bridge.connection.news import News
from bridge.errors import ConnectError
from bridge.relay.backoff import STABLE_S, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from bridge.connection.session import Session
    from bridge.observe.status import SideStatus
    from bridge.settings.sides import SideSettings
    from bridge.window.books import Books
    from bridge.words import Outcome

    Companion = Callable[[Session], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)

POLL_S = 0.05
"""How often a young generation is looked at: whether it has been of use."""


class Keeper:
    """Keeps one side up: a generation after the other, over its URLs in turn, with backoff."""

    def __init__(  # noqa: PLR0913 - see `assembly`
        self,
        *,
        books: Books,
        changed: asyncio.Event,
        side: SideSettings,
        status: SideStatus,
        backoff: Backoff,
        make: Callable[[], Session],
        stable_s: float = STABLE_S,
    ) -> None:
        """`make` makes the next session, not opened yet.

        `changed` is set whenever the side has come up or gone, so that there may be something to decide. A generation
        during which the books show progress was worth its while, and one that lives for `stable_s` is stable.
        """
        self.session: Session | None = None
        self.told_generation = 0
        """The present generation, once its beginning was logged; otherwise 0."""
        self._books = books
        self._changed = changed
        self._stable_s = stable_s
        self._side = side
        self._status = status
        self._make = make
        self._backoff = backoff
        self._companions: list[Companion] = []
        self._open_s = 0.0
        """How long the latest attempt was open; an attempt that fails after a long time has not been stable."""
        self._news = [News() for _ in side.addresses]
        """Each URL has its own, as in a list where all are down the reasons take turns."""

    def accompany(self, companion: Companion) -> None:
        """Run this along with each generation, and cancel it when that has ended."""
        self._companions.append(companion)

    async def keep(self) -> None:
        """Run until cancelled."""
        index = 0
        loop = asyncio.get_running_loop()
        while True:
            self._open_s = 0.0
            progress = self._books.progress
            try:
                await self._live(index)
                useful = self._books.progress != progress
            except ConnectError as error:
                useful = False
                self._failed(index, error.result, str(error), loop.time())
            except MemoryError as error:
                useful = False
                # As from any callback: the event loop's exception handler decides what becomes of the process.
                loop.call_exception_handler({"message": f"no memory for the {self._side.name}", "exception": error})
            except Exception as error:  # noqa: BLE001 - ours or the library's: it is logged with its traceback
                # The process must not end by it: it remembers what it has forwarded.
                useful = False
                self._failed(index, "bug", f"a bug in the bridge: {error!r}", loop.time(), error)
            if not useful:
                # Also where it could be opened: a node that is up and of no use must not be the only one tried.
                index = (index + 1) % len(self._side.addresses)
            if useful or self._open_s >= self._stable_s:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.begin_delay_s(loop.time()))

    async def _live(self, index: int) -> None:
        """Open a generation and wait for its end. Raises `ConnectError` when it cannot be opened."""
        status = self._status
        news = self._news[index]
        loop = asyncio.get_running_loop()
        opened_s: float | None = None
        session = self.session = self._make()
        try:
            await session.open(index)
            opened_s = loop.time()
            status.opened(self._side.safe_urls[index], time.time())
            if not news.repeated:
                self._tell_began(index)
            self._changed.set()
            with self._accompanied(session):
                await self._outlast(session, index, opened_s)
        except Exception as error:
            if status.up:
                session.bug(error, loop.time())
            raise
        finally:
            self._changed.set()
            if opened_s is not None:
                self._open_s = loop.time() - opened_s
            if status.up and session.end is not None:
                reason, text = session.end
                self._ended(reason, text, session.failure, tell=news.note(text, loop.time()))
            await _see_closed(session)

    async def _outlast(self, session: Session, index: int, opened_s: float) -> None:
        """Wait for the generation's end; forget its side's troubles once it has been of use."""
        loop, news = asyncio.get_running_loop(), self._news[index]
        progress = self._books.progress
        while session.end is None and self._books.progress == progress and loop.time() - opened_s < self._stable_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await session.wait_ended()
        if session.end is None:
            if news.repeated:
                self._tell_began(index)
            news.forget()
            await session.wait_ended()

    @contextmanager
    def _accompanied(self, session: Session) -> Iterator[None]:
        companions = [asyncio.ensure_future(companion(session)) for companion in self._companions]
        try:
            yield
        finally:
            for companion in companions:
                companion.cancel()

    def _tell_began(self, index: int) -> None:
        url = self._side.safe_urls[index]
        self.told_generation = self._status.generation
        log.info("%s connected (generation %d)", self._side.name, self._status.generation, extra={"url": url})

    def _ended(self, reason: Outcome, text: str, bug: Exception | None, *, tell: bool) -> None:
        status = self._status
        self.told_generation = 0
        status.ended(reason, text, time.time())
        if not tell:
            return
        books = self._books
        log.warning(
            "%s disconnected (generation %d): %s",
            self._side.name,
            status.generation,
            text,
            exc_info=bug,
            extra={
                "reason": reason,
                "forwarded": books.forwarded,
                "held": books.held,
                "published": books.published,
                "stale_held": books.stale_held,
                "stale_published": books.stale_published,
                "duplicates_possible": books.duplicates_possible,
            },
        )

    def _failed(self, index: int, result: Outcome, text: str, now_s: float, error: Exception | None = None) -> None:
        """Report an attempt that failed; with the traceback of an `error` that is a bug."""
        self._status.failed(result, text, time.time())
        if self._news[index].note(text, now_s):
            log.warning("%s not connected: %s; trying again", self._side.name, text, exc_info=error)


async def _see_closed(session: Session) -> None:
    """Close a session, and wait until it is closed: also when cancelled, by a shutdown in the middle of it.

    Whatever closes a connection is bounded in time, unless it is cancelled: then aiormq 7.2.4 may wait for ever, and
    so does the event loop's end, which cancels what is left.
    """
    closing = asyncio.ensure_future(session.close())
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await asyncio.wait({closing})
        raise
