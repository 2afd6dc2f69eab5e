"""A connection by RabbitMQ's stream protocol, to ask for the offset of a stream and to store it; no message passes it.

Any node does both for a stream of its cluster, also one that has no replica of it (3.10.8, 4.3.6). So no advertised
host is followed.

Of `rstream` (1.1.1) only the frames are used. Its client has background tasks whose exceptions nobody takes, leaves a
socket open that was lost, and can send no server name. Here a question is written, and what comes is read until it is
answered: nothing runs in the background, and each question is bounded in time. The broker's heartbeats are read along
with the answers; a question every few seconds is as good as one of ours.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from bridge.connection.diagnosis import explain
from bridge.connection.dial import Dialer, connect
from bridge.connection.offloop import off_loop
from bridge.errors import BridgeError, ConnectError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rstream import schema

    from bridge.connection.limits import TimeLimits
    from bridge.settings.tracking import TrackingSettings
    from bridge.words import Outcome

HEARTBEAT_S = 60
"""Asked of the broker: more than the time between two questions."""
MAX_FRAME_BYTES = 1 << 20
"""RabbitMQ's default, of which an answer takes a few hundred."""
ANSWER = 1 << 15
"""Marks the key of an answer."""
LIST_AT = 10
"""Where an answer lists something, if it does: after key, version, correlation id and response code."""
NO_OFFSET = 19
"""The response code for a name under which nothing is stored."""

_ANSWERS: dict[int, tuple[Outcome, str]] = {
    2: ("mismatch", "there is no stream of that name; BRIDGE_SOURCE_OFFSET_NAME is for a stream alone"),
    6: ("refused", "the stream has no leader just now"),
    7: ("login-refused", "it offers no such login mechanism; see {auth}"),
    8: ("login-refused", "it refused the login; check {login}"),
    9: ("login-refused", "it refused the login; check {login}"),
    11: ("login-refused", "it lets this user in from its own machine only; check {login}"),
    12: ("vhost", "it refused the virtual host; create it, or give the user permissions in it"),
    16: ("forbidden", "the user may not read the stream; give the user the permission (rabbitmqctl set_permissions)"),
}
"""By the protocol's response codes, what to do."""
PLUGIN = "is the plugin rabbitmq_stream enabled there, and is it the port of the stream protocol (5552 by default)?"
NO_CERTIFICATE = (
    "it broke off the login by certificate, which RabbitMQ 3.10 cannot do over the stream protocol; give "
    "BRIDGE_SOURCE_STREAM_URL the login of a user who may read the stream"
)
"""3.10.8 ends the connection with `function_clause` in its log; 4.3.6 does not."""

Response = TypeVar("Response", bound="schema.Frame")


class _Utf8(str):
    """A text of which the length is that of its bytes, as `rstream` writes it before them (1.1.1)."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.encode())


class StreamConnection:
    """One connection; after an error it is closed."""

    def __init__(self, settings: TrackingSettings, index: int, within_s: float) -> None:
        """`index` is of the URL; each question has so many seconds."""
        self._settings = settings
        self._index = index
        self._within_s = within_s
        self._where = settings.seen_as_side(index).safe_urls[0]
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._questions = 0

    async def open(self, dialer: Dialer) -> None:
        """Connect and log in. Raises `BridgeError`."""
        from rstream import schema  # noqa: PLC0415 - an extra of the package

        settings, index = self._settings, self._index
        try:
            async with self._explained():
                await self._connect(dialer)
                await self._ask(schema.PeerProperties(self._number(), []), schema.PeerPropertiesResponse)
                await self._ask(schema.SaslHandshake(self._number()), schema.SaslHandshakeResponse)
                login = await off_loop(f"stream protocol: {self._where}", partial(settings.login, index))
                mechanism = "EXTERNAL" if login is None else "PLAIN"
                data = b"" if login is None else b"\0" + b"\0".join(text.encode() for text in login)
                request = schema.SaslAuthenticate(self._number(), mechanism, data)
                try:
                    await self._ask(request, schema.SaslAuthenticateResponse)
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    if login is not None:
                        raise
                    raise ConnectError("login-refused", f"{self._where}: {NO_CERTIFICATE}") from error
                tune = await self._read(schema.Tune)
                heartbeat = min(tune.heartbeat, HEARTBEAT_S) or HEARTBEAT_S
                self._write(schema.Tune(frame_max=tune.frame_max, heartbeat=heartbeat))
                virtual_host = _Utf8(settings.virtual_host(index))
                await self._ask(schema.Open(self._number(), virtual_host), schema.OpenResponse)
        except BaseException:
            self.abort()
            raise

    async def _connect(self, dialer: Dialer) -> None:
        settings, index = self._settings, self._index
        url = settings.address(index)
        context = await off_loop(f"stream protocol: {settings.side.tls}", partial(settings.ssl_context, index))
        host = url.raw_host or ""
        sock = await connect(await dialer.look_up(host, url.port or 0))
        name = settings.side.server_name(host) if context is not None else None
        self._reader, self._writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)

    async def stored(self) -> int | None:
        """Return the offset that is stored under the name; None for none. Raises `ConnectError`."""
        from rstream import schema  # noqa: PLC0415 - an extra of the package

        stream, name = _Utf8(self._settings.stream), _Utf8(self._settings.name)
        async with self._explained():
            question = schema.QueryOffset(self._number(), name, stream)
            answer = await self._ask(question, schema.QueryOffsetResponse, NO_OFFSET)
        return None if answer.response_code == NO_OFFSET else answer.offset

    async def store(self, offset: int) -> None:
        """Have the offset stored, and see that it is. Raises `ConnectError`.

        Storing is not answered. The same connection's next question is, and after it.
        """
        from rstream import schema  # noqa: PLC0415 - an extra of the package

        self._write(schema.StoreOffset(_Utf8(self._settings.name), _Utf8(self._settings.stream), offset))
        if (found := await self.stored()) != offset:
            raise ConnectError("refused", f"{self._where}: offset {offset} was not stored; the broker has {found}")

    async def close(self) -> None:
        """Say goodbye where the broker answers, and drop the connection."""
        from rstream import schema  # noqa: PLC0415 - an extra of the package

        with suppress(ConnectError):
            async with self._explained():
                await self._ask(schema.Close(self._number(), 1, "OK"), schema.CloseResponse)
        self.abort()

    def abort(self) -> None:
        """Drop the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    # --- Frames ------------------------------------------------------------------------------------------

    def _number(self) -> int:
        self._questions += 1
        return self._questions

    def _write(self, frame: schema.Frame) -> None:
        from rstream.encoding import encode_frame  # noqa: PLC0415 - an extra of the package

        if self._writer is None:
            raise ConnectError("connection-lost", f"{self._where}: the connection is closed")
        self._writer.write(encode_frame(frame))

    async def _ask(self, question: Any, kind: type[Response], *allowed: int) -> Response:  # noqa: ANN401 - any frame
        """Write a question and return its answer; raise `ConnectError` for one that is not `allowed`."""
        self._write(question)
        while True:
            answer: Any = await self._read(kind)
            if answer.correlation_id == question.correlation_id:
                break  # an earlier one's was not waited for
        code = answer.response_code
        if code != 1 and code not in allowed:
            result, text = _ANSWERS.get(code, ("refused", f"it refused {type(question).__name__} (code {code})"))
            side = self._settings.seen_as_side(self._index)
            raise ConnectError(result, f"{self._where}: {text.format(login=side.login_variables(), **side.variables)}")
        found: Response = answer
        return found

    async def _read(self, kind: type[Response]) -> Response:
        """Return the next frame of a kind; others are heartbeats, and news of streams that nobody asked for."""
        from rstream import schema  # noqa: PLC0415 - an extra of the package

        while True:
            if self._reader is None:
                raise ConnectError("connection-lost", f"{self._where}: the connection is closed")
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            if size > MAX_FRAME_BYTES:
                raise ConnectError("protocol", f"{self._where}: it does not speak the stream protocol; {PLUGIN}")
            data = await self._reader.readexactly(size)
            try:
                frame = decoded(data, (kind, schema.Close))
            except (ValueError, LookupError) as error:
                text = f"{self._where}: what it answers is not understood ({error})"
                raise ConnectError("protocol", text) from error
            if isinstance(frame, kind):
                return frame
            if isinstance(frame, schema.Close):
                raise ConnectError("connection-lost", f"{self._where}: it closed the connection ({frame.reason})")

    @asynccontextmanager
    async def _explained(self) -> AsyncIterator[None]:
        """Bound what is done within, and say what went wrong; a connection on which it did is dropped."""
        try:
            async with asyncio.timeout(self._within_s):
                yield
        except CredentialsError as error:
            self.abort()
            raise ConnectError("credentials", f"{self._where}: {error}") from error
        except BridgeError:
            self.abort()
            raise
        except asyncio.IncompleteReadError as error:
            self.abort()
            text = f"{self._where}: the connection was lost; {PLUGIN}"
            raise ConnectError("connection-lost", text) from error
        except TimeoutError as error:
            self.abort()
            text = f"{self._where} did not answer within {self._within_s:g} s; is it overloaded, or a firewall between?"
            raise ConnectError("timeout", text) from error
        except (OSError, RuntimeError) as error:  # ssl.SSLError is an OSError; uvloop's closed transport the other
            self.abort()
            explained = explain(error, self._settings.seen_as_side(self._index), 0)
            more = "" if isinstance(error, ssl.SSLError) else f"; {PLUGIN}"
            raise ConnectError(explained.result, f"{explained}{more}") from error


def decoded(data: bytes, kinds: tuple[type[schema.Frame], ...]) -> schema.Frame | None:
    """Return a frame of these kinds without what it lists, None for others. Raises ValueError and LookupError.

    `rstream` (1.1.1) believes how long a list says it is: fourteen bytes would be decoded for minutes.
    """
    from rstream import schema  # noqa: PLC0415 - an extra of the package
    from rstream.constants import Key  # noqa: PLC0415
    from rstream.encoding import decode_frame  # noqa: PLC0415

    key = int.from_bytes(data[:2], "big")
    found = schema.registry[bool(key & ANSWER), Key(key & ~ANSWER)]
    if found not in kinds:
        return None
    if found in {schema.PeerPropertiesResponse, schema.SaslHandshakeResponse, schema.OpenResponse}:
        data = data[:LIST_AT] + bytes(4)
    return decode_frame(data)


async def stored_offset(settings: TrackingSettings, index: int, limits: TimeLimits) -> int | None:
    """Ask for the stored offset over a connection of its own; None for none. Raises `BridgeError`."""
    connection = StreamConnection(settings, index, limits.connect_s)
    await connection.open(Dialer())
    found = await connection.stored()
    await connection.close()
    return found
