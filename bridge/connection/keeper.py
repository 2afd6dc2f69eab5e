"""A keeper keeps one side up: a generation after the other, over its URLs in turn, with backoff.

It opens a session, waits until it ends, and tells what became of it, in the log and in the side's
status. What keeps coming back for the same reason is told once for each change, and now and then.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from bridge.errors import ConnectError
from bridge.relay.backoff import STABLE_S, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.connection.session import Session
    from bridge.observe.status import SideStatus
    from bridge.settings.sides import SideSettings
    from bridge.window.books import Books
    from bridge.words import Outcome

log = logging.getLogger(__name__)

POLL_S = 0.05
"""How often a young generation is looked at: whether it has been of use."""
LOG_AGAIN_S = 300.0
"""A reason that has not changed is logged again after so long."""


class News:
    """What was last logged of something that may last: it is told once for each change, and now and then."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Whatever comes next is new."""
        self.repeated = False
        """Whether the last was not worth a line."""
        self._text = ""
        self._logged_s = 0.0

    def note(self, text: str, now_s: float) -> bool:
        """Note what there is to say; return whether to log it now."""
        self.repeated = text == self._text and now_s - self._logged_s < LOG_AGAIN_S
        if not self.repeated:
            self._text, self._logged_s = text, now_s
        return not self.repeated


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
        """The present generation, once it was said to have begun; else 0."""
        self._books = books
        self._changed = changed
        self._stable_s = stable_s
        self._side = side
        self._status = status
        self._make = make
        self._backoff = backoff
        self._open_s = 0.0
        """How long the latest attempt was open; an attempt that fails after a long time has not been stable."""
        self._news = [News() for _ in side.addresses]
        """Each URL has its own, as in a list where all are down the reasons take turns."""

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
            status.opened()
            if not news.repeated:
                self._tell_began(index)
            self._changed.set()
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
            # Shielded, so that a shutdown in the middle of it still closes the connection.
            await asyncio.shield(asyncio.ensure_future(session.close()))

    def _tell_began(self, index: int) -> None:
        url = self._side.safe_urls[index]
        self.told_generation = self._status.generation
        log.info("%s generation %d began", self._side.name, self._status.generation, extra={"url": url})

    def _ended(self, reason: Outcome, text: str, bug: Exception | None, *, tell: bool) -> None:
        status = self._status
        self.told_generation = 0
        status.ended(reason, text)
        if not tell:
            return
        books = self._books
        log.warning(
            "%s generation %d ended: %s",
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
        self._status.failed(result, text)
        if self._news[index].note(text, now_s):
            log.warning("%s not connected: %s; trying again", self._side.name, text, exc_info=error)
