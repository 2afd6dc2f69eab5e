"""Client credentials (RFC 6749, 4.4): a token that is fetched from a token server, and again before it ends.

What is fetched serves both sides of a connection's life: a login, as long as it is young, and the renewal on an open
connection. `oauthlib`, an extra of the package, writes the request and reads the answer; the HTTP is Python's own.
"""

from __future__ import annotations

import importlib.util
import json
import ssl
import time
from base64 import b64encode
from http.client import HTTPException
from typing import TYPE_CHECKING, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote_plus
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from bridge.errors import CredentialsError
from bridge.settings.files import read_secret
from bridge.settings.token import Token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO
    from urllib.request import OpenerDirector

RENEWED_AT = 0.8
"""The part of its life after which a token is fetched again."""
RETRIED_AFTER = 0.05
"""The part of its life after which it is tried again where that failed."""
LEAST_PAUSE_S = 1.0
"""However short the life is that a server announces."""
ANSWERED_WITHIN_S = 8.0
"""By the token server; an attempt to connect waits no longer than 10 s for everything."""
MAX_ANSWER_BYTES = 1 << 17
MOST_SAID = 200
"""Characters of what the server says of a refusal."""


def is_installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec("oauthlib") is not None


class _Fetched(NamedTuple):
    """A token that was fetched, with times of the clock."""

    text: str
    fetched_s: float
    life_s: float | None
    """None for ever, or unknown: it is held until the broker refuses it."""


class TokenClient:
    """Fetches the tokens of one side. It may be asked by several threads, which then fetch one each at the worst."""

    def __init__(  # noqa: PLR0913 - a setting each
        self,
        url: str,
        client_id: str,
        secret_file: Path,
        scope: str | None = None,
        ca_file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ca_file` has CAs that are trusted besides the system's; `clock` never goes back."""
        self.client_id = client_id
        self.secret_file = secret_file
        self._url = url
        self._scope = scope
        self._ca_file = ca_file
        self._clock = clock
        self._held: _Fetched | None = None
        self._secret = ""
        self._failed = False

    def __str__(self) -> str:
        return f"token server {self._url}"

    @property
    def secure(self) -> bool:
        """Whether the token server is asked by TLS."""
        return self._url.startswith("https:")

    def secrets(self) -> set[str]:
        """Return what nobody may see: the client's secret, as it was last read, in the ways in which it is sent."""
        return {self._secret, quote_plus(self._secret)} - {""}

    def fetch(self) -> str:
        """Fetch a token, unless the one that is held is young. Raises `CredentialsError`; blocks for seconds."""
        held = self._held
        if held is not None and self.due_in_s() > 0:
            return held.text
        try:
            self._held = held = self._ask()
        except CredentialsError:
            self._failed = True
            raise
        self._failed = False
        return held.text

    def login(self) -> str:
        """Fetch a token as `fetch` does; where there is none to be had, the one that is held does while it is good."""
        held = self._held
        try:
            return self.fetch()
        except CredentialsError:
            if held is not None and held.life_s is not None and self._clock() < held.fetched_s + held.life_s:
                return held.text
            raise

    def refused(self, token: str) -> None:
        """The broker has refused the token: another one is fetched next time."""
        if self._held is not None and self._held.text == token:
            self._held = None

    def due_in_s(self) -> float:
        """Return after how many seconds a token is to be fetched; 0 for now."""
        held = self._held
        if held is None:
            return 0.0
        if held.life_s is None:
            return float("inf")
        return max(0.0, held.fetched_s + held.life_s * RENEWED_AT - self._clock())

    def pause_s(self, most_s: float) -> float:
        """Return after how many seconds to fetch again, or to try to after a failure; `most_s` at most."""
        held = self._held
        if held is None or held.life_s is None:
            return most_s
        return min(most_s, max(LEAST_PAUSE_S, self.due_in_s(), held.life_s * RETRIED_AFTER if self._failed else 0.0))

    def _ask(self) -> _Fetched:
        from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error  # noqa: PLC0415 - an extra of the package

        self._secret = read_secret(self.secret_file, "client secret file")
        client = BackendApplicationClient(self.client_id)
        begun_s = self._clock()
        answer = self._post(client.prepare_request_body(scope=self._scope))
        try:
            # oauthlib 4.0 would take an answer that is no JSON for a form, as one provider sends it.
            said = json.loads(answer)
            if not isinstance(said, dict):
                raise CredentialsError(f"{self}: its answer is no JSON object")
            found = client.parse_request_body_response(answer)
            text, life_s = str(found["access_token"]), found.get("expires_in")
        except (OAuth2Error, ValueError, TypeError, KeyError) as error:
            raise CredentialsError(f"{self}: its answer has no token ({_words(error)})") from None
        token = Token.of(text)
        if life_s is None and token is not None and token.expires_s is not None and token.issued_s is not None:
            life_s = max(0.0, token.expires_s - token.issued_s)
        return _Fetched(text, begun_s, None if life_s is None else float(life_s))

    def _post(self, body: str) -> str:
        login = f"{quote_plus(self.client_id)}:{quote_plus(self._secret)}".encode()  # RFC 6749, 2.3.1
        headers = {
            "Accept": "application/json",
            "Authorization": f"Basic {b64encode(login).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        request = Request(self._url, body.encode(), headers)  # noqa: S310 - the setting takes http and https alone
        try:
            with self._opener().open(request, timeout=ANSWERED_WITHIN_S) as answer:
                data: bytes = answer.read(MAX_ANSWER_BYTES)
        except HTTPError as error:
            with error:
                raise CredentialsError(f"{self}: {error.code} {_refusal(error)}") from None
        except (OSError, HTTPException) as error:  # URLError is an OSError
            raise CredentialsError(f"{self}: {_words(error)}") from None
        return data.decode("utf-8", "replace")

    def _opener(self) -> OpenerDirector:
        if not self.secure:
            return build_opener(_NoRedirect)
        context = ssl.create_default_context()
        if self._ca_file is not None:
            context.load_verify_locations(self._ca_file)
        return build_opener(_NoRedirect, HTTPSHandler(context=context))


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirection: the secret is for the URL that was set."""

    def redirect_request(self, *_: object) -> None:
        """Take the answer for a refusal."""


def _refusal(answer: IO[bytes]) -> str:
    """Return what a server says of a refusal (RFC 6749, 5.2)."""
    try:
        said = json.loads(answer.read(MAX_ANSWER_BYTES))
        words = [str(said[name]) for name in ("error", "error_description") if name in said]
    except (OSError, HTTPException, ValueError, TypeError):
        words = []
    return ": ".join(words)[:MOST_SAID] or "without a reason; is it the URL of the token endpoint?"


def _words(error: Exception) -> str:
    """Return what went wrong, without what says nothing to an operator."""
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)[:MOST_SAID]
