"""Renewal: a new token goes to the broker over the open connection, so that no generation ends with the old one.

1. What stands in the password file, or what is fetched (see `settings/oauth`), is compared with what the broker last
   accepted, every so often. Only a token (see `settings/token`) is handed on: nothing but RabbitMQ's OAuth 2 backend
   takes a secret on an open connection, and it takes no other. A password that has changed waits for the next connect.
2. A new token is first tried by a login of its own (see `trial`): RabbitMQ closes the connection whose new token it
   refuses. As long as it is refused, the old one stays, and it is tried again at each look.
3. The user of a connection cannot change. A token of another user waits for the next connect, too.
4. A content that the broker has accepted is offered no second time. It ends with the generation; the next one logs in
   with what stands in the file then.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from bridge.connection.news import News
from bridge.connection.offloop import off_loop
from bridge.errors import BridgeError, ConnectError, CredentialsError
from bridge.settings.token import Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bridge.observe.status import SideStatus
    from bridge.settings.sides import SideSettings

log = logging.getLogger(__name__)

REFUSED = frozenset({"login-refused", "vhost"})
"""Results of a login that are about the token; others are about the way to the broker."""


class Renewed(Protocol):
    """A generation whose token is renewed."""

    @property
    def end(self) -> tuple[str, str] | None:
        """Reason for its end; None while it lasts."""

    @property
    def index(self) -> int:
        """Number of the URL that it is connected to."""

    @property
    def secret(self) -> str:
        """What the broker last accepted as its password."""

    @property
    def takes_secrets(self) -> bool:
        """Whether its broker knows what a new secret is."""

    async def update_secret(self, secret: str) -> None:
        """Have the broker accept a new one. Raises `ConnectError`."""


class Renewal:
    """Keeps the token of one side's connections, one generation after the other."""

    def __init__(
        self,
        side: SideSettings,
        status: SideStatus,
        every_s: float,
        try_login: Callable[[int, str], Awaitable[None]],
    ) -> None:
        """`try_login` logs in to a URL, by its number, with a secret, and out again. It raises `BridgeError`."""
        self._side = side
        self._status = status
        self._every_s = every_s
        self._try_login = try_login
        self._news = News()

    async def run(self, session: Renewed) -> None:
        """Look at the file until cancelled, or until a bug ends it."""
        try:
            if not self._side.renewable or not session.takes_secrets:
                return
            while session.end is None:
                await asyncio.sleep(self._side.credentials.pause_s(self._every_s))
                await self._look(session)
        except Exception:
            # The generation may go on until its token expires.
            if session.end is None:
                log.exception("a bug in the bridge ended the renewal of the %s's token", self._side.name)
        finally:
            self._status.token_settled()

    async def _look(self, session: Renewed) -> None:
        credentials, present = self._side.credentials, Token.of(session.secret)
        try:
            secret = await off_loop(f"{self._side.name}: {credentials.where}", credentials.renew_password)
        except CredentialsError as error:
            if present is not None:
                self._refused(f"the new token cannot be read: {error}", present)
            return
        if secret == session.secret or secret is None:
            self._settled()
            return
        token = Token.of(secret)
        if token is None:
            if present is not None:
                self._refused(f"{credentials.where} holds no token any more", present)
            return
        try:
            await self._try_login(session.index, secret)
        except BridgeError as error:
            if isinstance(error, ConnectError) and error.result in REFUSED:
                self._refused(f"the new token was refused: {error}", present)
            else:
                self._refused(f"the new token could not be tried: {error}", present)
            return
        if present is not None and token.user != present.user:
            text = f'the new token is of user "{token.user}", and the connection of "{present.user}"'
            self._refused(f"{text}: it is used from the next connect on", present)
            return
        if session.end is None:
            await self._hand_on(session, secret, token)

    async def _hand_on(self, session: Renewed, secret: str, token: Token) -> None:
        try:
            await session.update_secret(secret)
        except ConnectError as error:
            if session.end is None:
                self._refused(f"the new token was refused: {error}", None)
            return
        self._settled()
        log.info("%s: the broker accepted a new token", self._side.name, extra={"expires": until(token)})

    def _refused(self, text: str, present: Token | None) -> None:
        """Report what keeps a new token from being used, once for each change."""
        stays = "" if present is None else f"; the present one is good {until(present)}"
        self._status.token_refused(f"{text}{stays}")
        if self._news.note(text, asyncio.get_running_loop().time()):
            log.warning("%s: %s%s", self._side.name, text, stays)

    def _settled(self) -> None:
        self._news.forget()
        self._status.token_settled()


def until(token: Token) -> str:
    """Return until when a token is good, in words."""
    if token.expires_s is None:
        return "for ever"
    return f"until {datetime.fromtimestamp(token.expires_s, UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')}"
