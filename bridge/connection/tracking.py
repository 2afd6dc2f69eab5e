"""Tracking: the broker keeps under a name how far a stream was forwarded, and the next process reads on there.

1. What is stored is the offset of the last message that was forwarded with all before it (see `window/offsets`), so
   that whatever is lost of it later costs duplicates, never messages.
2. It is asked for once, before this process begins to consume. Without an answer there is no generation: to begin at a
   guess might pass messages over.
3. It is stored when it has changed for `STORE_EVERY_S`, or by a window's worth; and once more at the end. Whatever goes
   wrong with that holds up no message. It is tried again, logged once for each change, counted, and shown.
4. Before it is stored, it is asked for: another bridge that uses the name is seen by what it stored.

RabbitMQ writes what is stored into the stream, where each time takes an offset, and forgets what lies before the
stream's first message (3.10.8, 4.3.6).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from bridge.connection.dial import Dialer
from bridge.connection.limits import DEFAULT
from bridge.connection.news import News
from bridge.connection.stream import StreamConnection
from bridge.errors import BridgeError, ConnectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.connection.limits import TimeLimits
    from bridge.observe.status import TrackingStatus
    from bridge.relay.backoff import Backoff
    from bridge.settings.tracking import TrackingSettings
    from bridge.window.window import Window

log = logging.getLogger(__name__)

STORE_EVERY_S = 1.0
ASK_EVERY_S = 5.0
"""How often it is asked for while it does not change: another bridge is seen, and the connection kept alive."""
OTHERS_FOR_S = 60.0
"""How long another bridge is reported after it was seen."""


class Tracked(Protocol):
    """A generation of the source."""

    @property
    def end(self) -> tuple[str, str] | None:
        """Reason for its end; None while it lasts."""

    @property
    def index(self) -> int:
        """Number of the URL that it is connected to."""


class Tracking:
    """Keeps the offset, over all generations of this process."""

    def __init__(  # noqa: PLR0913 - see `assembly`
        self,
        settings: TrackingSettings,
        window: Window,
        status: TrackingStatus,
        backoff: Backoff,
        *,
        may_store: Callable[[], bool],
        begins_at: object = "first",
        limits: TimeLimits = DEFAULT,
        dialer: Dialer | None = None,
        connect: Callable[[TrackingSettings, int, float], StreamConnection] = StreamConnection,
    ) -> None:
        """`may_store` says whether the stream is known to be there; `begins_at` is for a name that is new."""
        self._settings = settings
        self._window = window
        self._status = status
        self._backoff = backoff
        self._may_store = may_store
        self._begins_at = begins_at
        self._limits = limits
        self._dialer = dialer or Dialer()
        self._connect = connect
        self._connection: StreamConnection | None = None
        self._turn = 0
        """Of the URLs for the stream protocol, where they are set: the next one's with each failure."""
        self._over = False
        """Whether it was stored for the last time."""
        self._begun = False
        self._known: int | None = None
        """What the broker had when it was asked last."""
        self._ours: set[int] = set()
        """What it may have by this process's doing."""
        self._stored_s = 0.0
        """When it was stored last."""
        self._others_s: float | None = None
        """When another bridge was seen last."""
        self._due = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._news = News()
        self._others_news = News()

    # --- The start ---------------------------------------------------------------------------------------

    async def look_up(self, index: int) -> None:
        """Ask where to read on, unless this process knows; `index` is the source's URL. Raises `ConnectError`."""
        if self._begun:
            return
        name, stream = self._settings.name, self._settings.stream
        try:
            connection = await self._opened(index)
            self._known = await connection.stored()
            self._ours = set() if self._known is None else {self._known}
        except BridgeError as error:
            self._next_url()
            result = error.result if isinstance(error, ConnectError) else "credentials"
            raise ConnectError(result, f"the offset stored as {name} cannot be asked for: {error}") from error
        self._begun = True
        self._window.read_stream(self._known)
        self._status.kept(self._known)
        if self._known is None:
            text = "no offset of stream %s is stored as %s: reading it from %s on"
            log.warning(text, stream, name, self._begins_at)
        else:
            log.info("offset %d of stream %s is stored as %s: reading on after it", self._known, stream, name)

    # --- While it runs -----------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Let time pass; what is due is stored soon after."""
        settled = self._settled
        if settled is None or settled == self._known or not self._may_store():
            return
        passed = settled - (self._known or 0)
        if now_s - self._stored_s >= STORE_EVERY_S or passed >= self._window.limits.prefetch:
            self._due.set()

    async def run(self, session: Tracked) -> None:
        """Store what is due until cancelled, or until a bug ends it."""
        loop = asyncio.get_running_loop()
        try:
            while session.end is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(ASK_EVERY_S):
                        await self._due.wait()
                self._due.clear()
                if not await self._keep(session.index):
                    await asyncio.sleep(self._backoff.begin_delay_s(loop.time()))
        except Exception as error:
            if session.end is None:  # the next generation begins again
                self._status.failed(f"a bug in the bridge: {error!r}")
                log.exception("a bug in the bridge ended the storing of the offset")
        finally:
            self._drop()

    async def finish(self, index: int) -> None:
        """Store it once more, at the end; takes `close_s` at most."""
        self._over = True
        try:
            async with asyncio.timeout(self._limits.close_s), self._one_at_a_time:
                if self._settled not in {None, self._known}:
                    await self._try(index)
                if self._connection is not None:
                    await self._connection.close()
        except TimeoutError:
            self._failed(f"no answer within {self._limits.close_s:g} s")
        self._drop()

    # --- Asking and storing ------------------------------------------------------------------------------

    @property
    def _settled(self) -> int | None:
        offsets = self._window.offsets
        return None if offsets is None else offsets.settled

    async def _keep(self, index: int) -> bool:
        """See who else stores it, and store it where it has changed; return whether that went well."""
        async with self._one_at_a_time:
            return self._over or await self._try(index)

    async def _try(self, index: int) -> bool:
        try:
            await self._ask_and_store(index)
        except BridgeError as error:
            self._next_url()
            self._failed(str(error))
            return False
        self._kept()
        return True

    async def _ask_and_store(self, index: int) -> None:
        """Use the connection that is open, and a new one where that fails: what a new one comes to counts.

        RabbitMQ 4.3 ends a connection with the token that it was opened with, and none is renewed here.
        """
        if self._connection is not None:
            try:
                await self._ask_and_store_on(self._connection)
            except BridgeError:
                self._drop()
            else:
                return
        await self._ask_and_store_on(await self._opened(index))

    async def _ask_and_store_on(self, connection: StreamConnection) -> None:
        self._compare(await connection.stored())
        settled = self._settled
        if settled is not None and settled != self._known and self._may_store():
            self._stored_s = asyncio.get_running_loop().time()
            self._ours.add(settled)
            await connection.store(settled)
            self._known, self._ours = settled, {settled}

    def _compare(self, found: int | None) -> None:
        """Look at what is stored: by this process, or by somebody else."""
        now_s = asyncio.get_running_loop().time()
        if found is not None and found not in self._ours:
            self._others_s = now_s
            name, stream = self._settings.name, self._settings.stream
            text = f"another bridge stores its offset of stream {stream} as {name}, too"
            self._status.shared(text)
            if self._others_news.note(text, now_s):
                log.warning(
                    "another bridge stores its offset of stream %s as %s, too: a name is for one bridge, or the next "
                    "process reads on at the wrong place",
                    stream,
                    name,
                    extra={"stored": found, "ours": self._known},
                )
        elif self._others_s is not None and now_s - self._others_s >= OTHERS_FOR_S:
            self._others_s = None
            self._status.shared("")
        self._known = found

    def _kept(self) -> None:
        self._status.kept(self._known)
        self._backoff.reset()
        if self._news.told:
            log.info("the offset is stored again", extra={"offset": self._known})
        self._news.forget()

    def _failed(self, text: str) -> None:
        self._status.failed(text)
        if self._news.note(text, asyncio.get_running_loop().time()):
            log.warning(
                "the offset is not stored: %s; forwarding goes on, and is done again after offset %s by a process that "
                "starts now",
                text,
                self._known,
            )

    # --- The connection ----------------------------------------------------------------------------------

    async def _opened(self, index: int) -> StreamConnection:
        """Connect. Raises `BridgeError`."""
        settings = self._settings
        if settings.addresses:
            index = self._turn % settings.number
        connection = self._connect(settings, index, self._limits.connect_s)
        await connection.open(self._dialer)
        self._connection = connection
        return connection

    def _next_url(self) -> None:
        """It failed, or what it led to did not answer as it should."""
        self._turn += 1
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
