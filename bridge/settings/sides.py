"""One side as the control plane needs it: where to connect, as whom, and the queue there.

Secrets are read when they are needed, not when the bridge starts: a rotated password or certificate is
used from the next connect on. What is printable here (`repr`, `safe_urls`) never holds a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from yarl import URL

from bridge.settings.files import read_secret
from bridge.settings.parsers import MAX_CODEC_CHARACTERS, MAX_SHORTSTR_BYTES, host_fault, quoted

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import SecretStr

    from bridge.settings.oauth import TokenClient
    from bridge.settings.tls import Tls
    from bridge.words import SideName

Auth = Literal["plain", "external"]
QueueType = Literal["classic", "quorum", "stream"]

DEFAULT_HEARTBEAT_S = 10
MAX_HEARTBEAT_S = 3600
MOST_SEEN = 8
"""So many passwords of each file are hidden: tokens come without end, and those before have expired."""
PORTS = {"amqp": 5672, "amqps": 5671}
EXAMPLE = "amqp://user:password@host:5672/vhost, or amqps://"
ENCODED = "special characters of user and password percent-encoded"
LATE_AT = f'has an "@" behind a "/", "?" or "#"; expected {ENCODED}, and any other "@" written as %40'


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom to log in as: what the variables say, over what each URL says."""

    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    client: TokenClient | None = field(default=None, compare=False)
    """What fetches tokens, in place of a password."""
    seen: dict[str, None] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Passwords that were read from the file, or fetched, the latest last, which the log hides."""

    @property
    def where(self) -> str:
        """Where the password comes from, for messages to an operator; empty where the settings have it."""
        return f"{self.client or self.password_file or ''}"

    def read_password(self) -> str | None:
        """Read or fetch what to log in with now; None where the URL has it. The log hides it from then on.

        Raises CredentialsError.
        """
        if self.client is not None:
            return self._noted(self.client.login())
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        return self._noted(read_secret(self.password_file, "password file"))

    def renew_password(self) -> str | None:
        """As `read_password`; where none can be fetched now, what was fetched before does not do."""
        return self.read_password() if self.client is None else self._noted(self.client.fetch())

    def pause_s(self, most_s: float) -> float:
        """Return after how many seconds to look for a new password; `most_s` at most."""
        return most_s if self.client is None else self.client.pause_s(most_s)

    def refused(self, password: str) -> None:
        """The broker has refused it."""
        if self.client is not None:
            self.client.refused(password)

    def secrets(self) -> set[str]:
        """Return what nobody may see of all this."""
        found = {*self.seen} | (set() if self.client is None else self.client.secrets())
        return found if self.password is None else {*found, self.password.get_secret_value()}

    def _noted(self, text: str) -> str:
        self.seen.pop(text, None)
        self.seen[text] = None
        if len(self.seen) > MOST_SEEN:
            del self.seen[next(iter(self.seen))]
        return text


@dataclass(frozen=True, slots=True)
class SideSettings:
    """Where and how one side connects. Immutable."""

    name: SideName
    addresses: tuple[URL, ...] = field(repr=False)
    """The URLs as configured, credentials included: for this class alone."""
    credentials: Credentials = field(repr=False)
    tls: Tls
    auth: Auth
    queue: str | None
    """None where the destination is an exchange."""
    declare: bool
    queue_type: QueueType
    queue_arguments: Mapping[str, object]
    variables: Mapping[str, str]
    """The environment variable of each kind of setting (`url`, `password` and so on) that counts for this side: the
    source's where the destination inherits."""

    @property
    def urls(self) -> tuple[URL, ...]:
        """Every URL, without credentials."""
        return tuple(address.with_user(None) for address in self.addresses)

    @property
    def safe_urls(self) -> tuple[str, ...]:
        """Every URL for logs: with the user, never with the password."""
        return tuple(safe_url(address, self._user(address)) for address in self.addresses)

    @property
    def username(self) -> str:
        """Whom the broker takes us for; empty where that is not known: a certificate or token, or different users."""
        users = {self._user(address) or "guest" for address in self.addresses}
        known = self.auth != "external" and self.credentials.client is None and len(users) == 1
        return users.pop() if known else ""

    @property
    def has_password(self) -> bool:
        """Whether every user that is named has a password, or comes with a file for it; no user at all is guest."""
        credentials = self.credentials
        if any((credentials.password, credentials.password_file, credentials.client)):
            return True
        return all(address.password or not self._user(address) for address in self.addresses)

    def login_variables(self) -> str:
        """Return what to look at when a login is refused: where user and password stand."""
        if self.auth == "external":
            return self.variables["cert_file"]
        credentials, names = self.credentials, self.variables
        if (client := credentials.client) is not None:
            return f"the client in {names['oauth_client_id']} and what its tokens grant, from {client}"
        user = names["url"] if credentials.username is None else names["username"]
        password = names["url"]
        if credentials.password is not None:
            password = names["password"]
        elif credentials.password_file is not None:
            password = f"{names['password_file']} ({credentials.password_file})"
        if user == password:
            return f"user and password in {user}"
        return f"the user in {user} and the password in {password}"

    def login_blemish(self, index: int) -> str:
        """Return what looks wrong about the user name or the password; empty for nothing. Tells no password."""
        user = self.user(index)
        if user is None and self.auth != "external":
            return "no user is named, so that it is guest, whom RabbitMQ lets in only from its own machine"
        if user is not None and has_outer_space(user):
            return f'the user name "{user}" begins or ends with white space'
        if any(map(has_outer_space, self.secrets())):
            return "the password begins or ends with white space"
        return ""

    def secrets(self) -> set[str]:
        """Return every password that is known, those read from a file included, for the log to hide."""
        found = {address.password for address in self.addresses} | self.credentials.secrets()
        return {secret for secret in found if secret}

    @property
    def renewable(self) -> bool:
        """Whether the password may change while the bridge runs: it stands in a file, or is fetched."""
        return self.auth != "external" and self.credentials.password is None and bool(self.credentials.where)

    def url(self, index: int, secret: str | None = None) -> URL:
        """Return URL number `index` as aio-pika wants it, credentials as they are now. Raises CredentialsError.

        A `secret` takes the place of the password that is configured.
        """
        address = self.addresses[index]
        if self.auth == "external":
            return address.with_user(None).update_query(auth="external")
        password = secret or self.credentials.read_password() or address.password
        return address.with_user(self._user(address) or "guest").with_password(password or "guest")

    @property
    def secure(self) -> bool:
        """Whether it connects by TLS."""
        return bool(self.addresses) and self.addresses[0].scheme == "amqps"

    @property
    def unverified(self) -> str:
        """What an operator must know of a broker whose certificate is not verified; empty where it is."""
        if not self.secure or self.tls.verify:
            return ""
        return (
            f"{self.variables['tls_verify']}=false: the {self.name}'s certificate is not verified, so that whoever is "
            "on the way may be taken for the broker, and be told the password"
        )

    def server_name(self, host: str) -> str:
        """Return the name that the certificate of the broker at `host` must have, and that it is asked for by."""
        # A dot at the end keeps the resolver from its search list; neither SNI (RFC 6066, 3) nor certificates have it.
        return self.tls.server_name or host.removesuffix(".")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Build the TLS context from the files as they are now; None for `amqp`. Raises CredentialsError."""
        return self.tls.context() if self.secure else None

    def user(self, index: int) -> str | None:
        """Return whom URL number `index` logs in as; None where a certificate says it, or nothing."""
        return self._user(self.addresses[index])

    def _user(self, address: URL) -> str | None:
        if self.auth == "external":
            return None
        client = self.credentials.client
        # RabbitMQ looks into the token, and wants some name.
        fallback = None if client is None else client.client_id
        return self.credentials.username or address.user or fallback


def has_outer_space(text: str) -> bool:
    """Whether the text begins or ends with white space, which nobody sees."""
    return text != text.strip()


def safe_url(address: URL, user: str | None) -> str:
    """Return the URL without password and query."""
    return str(address.with_user(user).with_password(None).with_query(None))


def parse_urls(text: str) -> tuple[tuple[URL, ...], list[str]]:
    """Return the comma-separated URLs and what is wrong with them, passwords masked."""
    entries = [entry.strip() for entry in text.split(",")]
    if any(entry and "://" not in entry for entry in entries):
        # Most likely a comma in a password: nothing of such a value can be shown.
        numbers = ", ".join(str(n) for n, entry in enumerate(entries, 1) if entry and "://" not in entry)
        return (), [
            f"entry {numbers} of the list is not a URL (write a comma in a password as %2C); expected {EXAMPLE}"
        ]
    addresses = []
    problems = []
    for number, entry in enumerate(entries, 1):
        try:
            addresses.append(parse_url(entry))
        except ValueError as error:
            # Of a late "@" nobody knows what is password before it.
            shown = f"entry {number} of the list" if not entry or has_late_at(entry) else quoted(mask(entry))
            problems.append(f"{shown} {error}")
    if len({address.scheme for address in addresses}) > 1:
        problems.append("mixes amqp:// and amqps://; expected one scheme, or passwords would cross in the clear")
    return tuple(addresses), problems


def parse_url(text: str) -> URL:
    """Return the URL with its port and heartbeat spelt out. Raises ValueError, whose text never quotes the URL."""
    if not text:
        raise ValueError(f"is empty; expected {EXAMPLE}")
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        raise ValueError(f"is not a valid URL; expected a port from 1 to 65535, and {ENCODED}") from None
    if url.scheme not in PORTS:
        raise ValueError("has an unknown scheme; expected amqp:// or amqps://")
    if has_late_at(text):
        raise ValueError(LATE_AT)
    if not url.raw_host or " " in url.raw_host:
        raise ValueError(f"names no host; expected {EXAMPLE}")
    if fault := host_fault(url.raw_host):
        raise ValueError(f"has {fault}")
    if port == 0:
        raise ValueError("has port 0; expected 1 to 65535")
    if url.fragment or text.endswith("#"):
        raise ValueError('holds a "#"; expected it written as %23')
    _check_vhost(text, url)
    _check_query(url)
    heartbeat = url.query.get("heartbeat", str(DEFAULT_HEARTBEAT_S))
    return url.with_port(port or PORTS[url.scheme]).update_query(heartbeat=heartbeat)


def has_late_at(text: str) -> bool:
    """Whether a URL has an "@" behind its host: what is before it may be the rest of a password.

    Of `amqp://user:1/secret@host` the host is `user`, the port 1, and the password would be shown as a virtual host.
    """
    _, *rest = re.split("[/?#]", text.partition("://")[2], maxsplit=1)
    return "@" in "".join(rest)


def _check_vhost(text: str, url: URL) -> None:
    """Refuse a virtual host that would arrive as another one, or not at all.

    aiormq 7.2.4 takes the path as yarl decodes it and decodes `%2F` once more; yarl resolves dots and
    keeps what is not UTF-8 encoded. `amqp://host` and `amqp://host/` both mean the virtual host `/`.
    """
    path = text.partition("://")[2].partition("?")[0].partition("/")[2]
    try:
        meant = unquote(path, errors="strict") or "/"
    except UnicodeDecodeError:
        raise ValueError("has a virtual host that is not UTF-8; expected percent-encoded UTF-8") from None
    if meant != (url.path[1:].replace("%2F", "/") or "/"):
        raise ValueError(
            'has a virtual host that cannot be reached; expected one without "%2F", "." and ".." in its name'
        )
    if len(meant) > MAX_CODEC_CHARACTERS or len(meant.encode()) > MAX_SHORTSTR_BYTES:
        raise ValueError(
            f"has a virtual host of {len(meant)} characters, {len(meant.encode())} bytes; expected at most "
            f"{MAX_CODEC_CHARACTERS} characters and {MAX_SHORTSTR_BYTES} bytes, as the client library sends no more"
        )


def _check_query(url: URL) -> None:
    for key, value in url.query.items():
        if key == "heartbeat":
            if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= MAX_HEARTBEAT_S):
                raise ValueError(
                    "has a bad heartbeat; expected 1 to 3600 seconds, as without one a dead peer goes unnoticed"
                )
        elif key != "name":
            raise ValueError(
                "has an unknown query parameter; expected only heartbeat and name (TLS and login have variables)"
            )
    if len(url.query) != len(set(url.query)):
        raise ValueError("repeats a query parameter; expected each once")


def mask(text: str) -> str:
    """Hide whatever may be a password in something that should be a URL and may not be one."""
    scheme, separator, rest = text.partition("://")
    userinfo, at, address = rest.rpartition("@")
    if at:
        user, colon, _ = userinfo.partition(":")
        rest = f"{user}:***@{address}" if colon else f"***@{_without_password(address)}"
    else:
        rest = _without_password(rest)
    return f"{scheme}{separator}{re.split('[?#]', rest, maxsplit=1)[0]}"


def _without_password(address: str) -> str:
    """Hide what should be a port and is none: `user:pass` with the rest cut off looks like `host:port`."""
    host, colon, port = address.partition(":")
    if re.match(r"\[[0-9A-Fa-f:.]+\]", address) or not colon or port.partition("/")[0].isdecimal():
        return address
    return f"{host}:***"
