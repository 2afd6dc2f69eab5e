"""A link: one connection to one URL of a side, from connecting to its end.

One plain `aio_pika.Connection` each, which never reconnects by itself: what a lost generation means is the window's to
say. aio-pika connects, logs in, tunes, opens channels, declares, consumes and sends heartbeats; what the
`tap` diverts goes to a receiver, and the link does not know what becomes of it. A `session` joins a link to the relay;
`check` asks its questions over one.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import aio_pika
from aiormq import exceptions as amqp
from pamqp.constants import DOMAIN_REGEX

from bridge.amqp.frames import DATA_CHANNEL
from bridge.connection.diagnosis import (
    BEFORE_A_WORD,
    CERTIFICATE_TOO,
    CONTROL_PLANE_ERRORS,
    VAGUE,
    explain_close,
    explained,
    other_protocol,
)
from bridge.connection.dial import Dialer
from bridge.connection.limits import DEFAULT
from bridge.connection.offloop import off_loop
from bridge.connection.tap import Tap, TapFactory
from bridge.errors import BridgeError, ConnectError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator, Sequence

    from aio_pika.abc import AbstractChannel
    from aiohappyeyeballs import AddrInfoType
    from aiormq.abc import AbstractChannel as UnderlayChannel
    from aiormq.abc import AbstractConnection
    from pamqp.common import FieldTable
    from yarl import URL

    from bridge.amqp.events import Close
    from bridge.connection.limits import TimeLimits
    from bridge.connection.tap import Receiver
    from bridge.settings.settings import Settings
    from bridge.settings.sides import SideSettings
    from bridge.words import EndReason, Outcome, SideName

LONG_LOGIN_BYTES = 3500
"""User and password together. The frame that they are in has 370 bytes more (3,700 pass on 3.10.8, 3,800 do not)."""
NOT_ALLOWED = 530
"""AMQP 0-9-1's reply code for a virtual host that is missing or not the user's."""
CONTROL_CHANNEL = 3
"""For questions of which a refusal closes the channel, or that may never be answered."""

# pamqp 4.0 lets the name of a queue or an exchange be of ASCII letters, digits and some signs alone, as AMQP 0-9-1
# says. RabbitMQ takes any UTF-8.
DOMAIN_REGEX.update(dict.fromkeys(DOMAIN_REGEX, re.compile(".*", re.DOTALL)))


class TappedConnection(aio_pika.Connection):
    """A plain connection whose transport is made by a `TapFactory`: aio-pika does not pass that on by itself."""

    def __init__(self, url: URL, factory: TapFactory, context: ssl.SSLContext | None, name: str) -> None:
        properties: FieldTable = {"connection_name": name, "product": "amqp-bridge"}
        super().__init__(url, ssl_context=context, client_properties=properties)
        self.kwargs["transport_factory"] = factory


class Link:
    """A connection to one URL of a side, and the reason of its end."""

    def __init__(
        self, settings: Settings, side: SideSettings, limits: TimeLimits = DEFAULT, *, dialer: Dialer | None = None
    ) -> None:
        """`dialer` knows which addresses have led nowhere before."""
        self._settings = settings
        self._dialer = dialer or Dialer()
        self._side = side
        self._limits = limits
        self._connection: TappedConnection | None = None
        self._factory: TapFactory | None = None
        self._login_bytes = 0
        self._useful = False
        """Whether the connection has led to what it was for."""
        self.index = 0
        """Of the URL."""
        self.secret = ""
        """What the broker last accepted as the password."""
        self._overdue = ""
        """What to report when time is up, while connecting waits for something other than the broker."""
        self._closed: Close | None = None
        """The broker's own close of the data channel or the connection."""
        self.tap: Tap | None = None
        self.end: tuple[Outcome, str] | None = None
        """Reason for its end: a word for `/metrics`, a sentence for the log; None while it lasts."""
        self.failure: Exception | None = None
        """The bug that ended it, for its traceback."""
        self._over = asyncio.Event()

    @property
    def side(self) -> SideName:
        """Which side it is a connection of."""
        return self._side.name

    # --- The end -----------------------------------------------------------------------------------------

    def closed(self, close: Close, now_s: float) -> None:
        """The broker has closed the data channel or the connection."""
        self._closed = self._closed or close
        what = "channel" if close.channel else "connection"
        said = explain_close(close.reply_code, close.reply_text, self._side)
        reason: EndReason = "channel-closed" if close.channel else "connection-closed"
        self.ended(reason, f"the broker closed the {what}: {said}", now_s)

    def ended(self, reason: Outcome, text: str, now_s: float) -> None:
        """The connection is gone or cannot be trusted any more; the first call counts."""
        if self.end is None:
            self.end = reason, text
            self._lost(now_s)
            self._over.set()

    def _lost(self, now_s: float) -> None:
        """The connection has just ended, for the reason in `end`."""

    def finish(self, reason: Outcome, text: str, now_s: float, *, drop: bool) -> None:
        """End it from our side; `drop` the connection where its broker does not answer."""
        self.ended(reason, text, now_s)
        if drop and self.tap is not None:
            self.tap.abort()

    def bug(self, error: Exception, now_s: float) -> None:
        """End it, since the bridge or its library failed."""
        self.failure = error
        self.ended("bug", f"a bug in the bridge: {error!r}", now_s)

    async def wait_ended(self) -> None:
        """Wait until the connection has ended."""
        await self._over.wait()

    async def close(self) -> None:
        """Close the connection in order where the broker still answers, otherwise drop it; bounded in time."""
        self.ended("closed-by-us", "closed by the bridge", asyncio.get_running_loop().time())
        if self._connection is not None:
            # aiormq ends its tasks by itself where the transport is gone already. Not `wait_for`: that waits for what
            # it cancels, and aiormq shields its own closing.
            closing = asyncio.ensure_future(self._connection.close())
            await asyncio.wait({closing}, timeout=self._limits.close_s)
            if self.tap is not None:
                self.tap.abort()
            await asyncio.wait({closing}, timeout=self._limits.close_s)
            if closing.done():
                with suppress(*CONTROL_PLANE_ERRORS, asyncio.CancelledError):
                    closing.result()
            else:
                closing.cancel()
        if self.tap is not None:
            self.tap.abort()
        if self._factory is not None and self._factory.address is not None and not self._useful:
            self._dialer.led_nowhere(self._factory.address)

    # --- Connecting --------------------------------------------------------------------------------------

    async def open(self, index: int) -> None:
        """Connect to URL number `index` and verify what is needed. Raises `BridgeError`."""
        raise NotImplementedError

    async def _connect(self, index: int, receiver: Receiver) -> AbstractChannel:
        """Connect to URL number `index` and open the data channel, with confirms where it publishes."""
        await self._log_in_to(index, receiver)
        return await self._channel_number(DATA_CHANNEL, publisher_confirms=self.side == "destination")

    async def _log_in_to(self, index: int, receiver: Receiver, secret: str | None = None) -> None:
        """Connect to URL number `index` and log in, with the configured password or this `secret`."""
        side = self._side
        self.index = index
        factory = self._factory = TapFactory(
            lambda reader: self._new_tap(reader, receiver), self._look_up, side.server_name
        )
        what, advice = "reading password and certificate files", "does the file system that they are on answer?"
        if side.credentials.client is not None:
            what, advice = "reading files and fetching a token", f"does the {side.credentials.client} answer?"
        with self._waiting_for(what, advice):
            context = await off_loop(f"{side.tls}", side.ssl_context)
            question = f"{side.name}: {side.safe_urls[index]} {side.credentials.where}"
            url = side.url(index, secret) if secret else await off_loop(question, partial(side.url, index))
        self._login_bytes = len(f"{url.user}{url.password}".encode())
        where = side.queue or self._settings.destination_exchange or "to where messages came from"
        name = f"amqp-bridge {side.name} {where}"
        self._connection = TappedConnection(url, factory, context, url.query.get("name", name))
        try:
            await self._log_in(self._connection, factory)
        except amqp.ProbableAuthenticationError:
            side.credentials.refused(url.password or "")
            raise
        except amqp.InvalidFrameError:
            # aiormq 7.2.4 expects nothing but open-ok there: a missing virtual host is told by a close.
            if self._closed is None:
                raise
            refused = amqp.ConnectionNotAllowed if self._closed.reply_code == NOT_ALLOWED else amqp.ConnectionClosed
            raise refused(self._closed.reply_code, self._closed.reply_text) from None
        self.tap = factory.tap
        self.secret = url.password or ""

    def _new_tap(self, reader: asyncio.StreamReader, receiver: Receiver) -> Tap:
        return Tap(reader, receiver, self.ended)

    @staticmethod
    async def _log_in(connection: TappedConnection, factory: TapFactory) -> None:
        """Connect the socket and log in; when cancelled, drop the socket first."""
        connecting = asyncio.ensure_future(connection.connect())
        try:
            await asyncio.wait({connecting})
        except asyncio.CancelledError:
            # aiormq 7.2.4 closes politely where it is cancelled, and a TLS peer that is frozen never answers: asyncio
            # and uvloop wait 30 s for it.
            if factory.tap is not None:
                factory.tap.abort()
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            raise
        connecting.result()

    async def _channel_number(self, number: int, *, publisher_confirms: bool = False) -> AbstractChannel:
        assert self._connection is not None  # noqa: S101 - _connect has run
        channel = self._connection.channel(channel_number=number, publisher_confirms=publisher_confirms)
        await channel.initialize()
        return channel

    @property
    def _underlay(self) -> AbstractConnection:
        """Aiormq's connection, which knows what was said and agreed on at the login."""
        assert self._connection is not None  # noqa: S101 - _connect has run
        assert self._connection.transport is not None  # noqa: S101
        return self._connection.transport.connection

    async def _look_up(self, host: str, port: int) -> Sequence[AddrInfoType]:
        with self._waiting_for(f"the look-up of {host}", "does the name server answer?"):
            return await self._dialer.look_up(host, port)

    # --- What goes wrong ---------------------------------------------------------------------------------

    @contextmanager
    def _waiting_for(self, what: str, advice: str) -> Iterator[None]:
        self._overdue = f"{what} took longer than {self._limits.connect_s:g} s; {advice}"
        yield
        self._overdue = ""

    @asynccontextmanager
    async def _explained(self, index: int) -> AsyncIterator[None]:
        """As `explained`; where aiormq knows only that the connection is gone, the tap knows why."""
        try:
            async with explained(self._side, index, self._limits.connect_s):
                yield
        except ConnectError as error:
            where = self._side.safe_urls[index]
            if error.result == "timeout" and not self._useful and self.tap is not None:
                self.tap.abort()  # it would not answer a goodbye either
            if error.result == "timeout" and self._overdue:
                raise ConnectError("timeout", f"{where}: {self._overdue}") from error
            if self.end is None or error.result not in VAGUE:
                raise
            reason, text = self.end if self.tap is not None else self._why_no_login(*self.end)
            raise ConnectError(reason, f"{where}: {text}") from error

    def _why_no_login(self, reason: Outcome, text: str) -> tuple[Outcome, str]:
        """Return the likely reason for a connection that ended during the login, which the peer does not give."""
        if reason == "malformed" and (other := other_protocol(text)):
            return "protocol", other
        if reason == "connection-lost" and not (self._factory is not None and self._factory.has_heard):
            more = CERTIFICATE_TOO.format(**self._side.variables) if self._side.secure else ""
            return reason, f"{BEFORE_A_WORD}{more}"
        if reason == "connection-lost" and self._login_bytes > LONG_LOGIN_BYTES:
            return "login-refused", (
                f"{text} during the login: user and password have {self._login_bytes} bytes, and the whole login must "
                "fit into 4096 bytes with RabbitMQ 3.x, 8192 with 4.x (initial_frame_max); use a shorter password"
            )
        return reason, text

    @asynccontextmanager
    async def _question(self) -> AsyncIterator[UnderlayChannel]:
        """A channel that a refusal may close. Raises `ConnectError` for what is refused within."""
        try:
            async with self._explained(self.index):
                channel = await self._channel_number(CONTROL_CHANNEL)
                yield await channel.get_underlay_channel()
                await channel.close()
        except BridgeError:
            raise
        except Exception as error:
            # aiormq 7.2.4 may raise a bare Exception in what waits while the connection is lost; the tap knows why.
            if self.end is None:
                raise
            reason, text = self.end
            raise ConnectError(reason, f"{self._side.safe_urls[self.index]}: {text}") from error
