"""Who may see what over HTTP: names that the bridge answers to, pages of others, tokens and certificates.

1. Probes are answered to everybody: a kubelet presents nothing.
2. `/metrics`, `/status` and the page want the token or a client's certificate, where the settings ask for either.
3. Where they ask for neither, what protects the page and `/status` from a website that a person on the inside opens in
   a browser is the name asked for: such a website may give its own name the bridge's address. A browser sends that
   name, so that only addresses and names that nobody can own on the Internet are answered, and those in the settings.
4. No other website embeds the answers or reads them (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/).
"""

from __future__ import annotations

import hmac
import logging
from base64 import b64decode
from http import HTTPStatus
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from bridge.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

    from bridge.settings.http import HttpSettings

log = logging.getLogger(__name__)

PAGES = {"/", "/status"}
GUARDED = PAGES | {"/metrics"}
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".svc", ".home.arpa", ".test")
"""Names under these are given inside of a network alone (RFC 6761, 6762, 8375; ICANN's `internal`; Kubernetes)."""
OTHERS = {"cross-site", "same-site"}
"""What a browser says of a request that another website makes."""
CHALLENGE = MappingProxyType({"WWW-Authenticate": 'Basic realm="amqp-bridge", charset="UTF-8", Bearer'})


class Refusal(NamedTuple):
    """Why somebody is shown nothing."""

    status: HTTPStatus
    text: str
    headers: Mapping[str, str] = MappingProxyType({})


class Access:
    """Decides for each request; on any thread."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._reported = ""

    def admit(self, path: str, version: str, headers: Message, *, certified: bool) -> Refusal | None:
        """Decide on a request: answer why it is refused, or None. `certified`: the client has shown a certificate."""
        if path in PAGES and (refusal := self._misdirected(version, headers) or _embedded(headers)):
            return refusal
        if path not in GUARDED or self._settings.open or certified:
            return None
        return self._unknown(headers)

    def _misdirected(self, version: str, headers: Message) -> Refusal | None:
        given = headers.get_all("Host", [])
        if len(given) > 1 or (not given and version == "HTTP/1.1"):
            return Refusal(HTTPStatus.BAD_REQUEST, "the request has not one Host header")
        # A browser sends neither token nor certificate to a name that they do not belong to.
        if not given or not self._settings.open or self._settings.tls is not None:
            return None
        if self._is_ours(_name(given[0])):
            return None
        return Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            "the bridge does not answer to this name; ask it by its address, or put the name into "
            "BRIDGE_HTTP_ALLOWED_HOSTS, or protect it by BRIDGE_HTTP_TOKEN_FILE",
        )

    def _is_ours(self, name: str) -> bool:
        try:
            ip_address(name)
        except ValueError:
            settings = self._settings
            private = "." not in name or name.endswith(PRIVATE_SUFFIXES)
            return bool(name) and (private or name in {(settings.host or "").lower(), *settings.allowed_hosts})
        return True

    def _unknown(self, headers: Message) -> Refusal | None:
        settings = self._settings
        if settings.token_file is None:
            return Refusal(
                HTTPStatus.FORBIDDEN, "a client certificate is needed, signed by BRIDGE_HTTP_CLIENT_CA_FILE's"
            )
        try:
            expected = settings.token()
        except CredentialsError as error:
            self._report(str(error))
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the bridge cannot read its token; its log says why")
        self._report("")
        if any(hmac.compare_digest(expected.encode(), token) for token in _tokens(headers)):
            return None
        certificate = " or a client certificate" if settings.wants_certificate else ""
        return Refusal(
            HTTPStatus.UNAUTHORIZED,
            f"a token{certificate} is needed: as a bearer token, or as the password of any user",
            CHALLENGE,
        )

    def _report(self, problem: str) -> None:
        if problem and problem != self._reported:
            log.warning("nobody gets in by a token: %s", problem)
        self._reported = problem


def _embedded(headers: Message) -> Refusal | None:
    """Return a refusal where another website asks, unless a person follows a link there."""
    mode, kind = headers.get("Sec-Fetch-Mode", ""), headers.get("Sec-Fetch-Dest", "")
    followed = mode == "navigate" and kind in {"", "document"}
    other = headers.get("Sec-Fetch-Site", "") in OTHERS and not followed
    origin = headers.get("Origin")
    if other or (origin is not None and _authority(origin) != headers.get("Host", "").lower()):
        return Refusal(HTTPStatus.FORBIDDEN, "another website's page asks for this; it is not shown there")
    return None


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Return the name in a Host header, without its port; empty for what is none."""
    try:
        return (urlsplit(f"//{host.strip()}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _tokens(headers: Message) -> list[bytes]:
    """Return what the request shows as a token: as a bearer's, or as the password of HTTP Basic."""
    scheme, _, given = headers.get("Authorization", "").strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return [given.strip().encode("latin-1", "replace")]
        case "basic":
            try:
                return [b64decode(given.strip(), validate=True).partition(b":")[2]]
            except ValueError:  # not Base64, or not ASCII
                return []
        case _:
            return []
