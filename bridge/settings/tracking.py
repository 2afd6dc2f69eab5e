"""Where the broker keeps the offset of a stream that the bridge has come to, and by what login it is reached.

The stream protocol has a port of its own; what is not set for it is as for the source's AMQP. `rstream`, an extra of
the package, knows its frames.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from yarl import URL

from bridge.settings.parsers import host_fault
from bridge.settings.sides import LATE_AT, Credentials, has_late_at

if TYPE_CHECKING:
    import ssl

    from bridge.settings.sides import SideSettings

STREAM_PORTS = {"rabbitmq-stream": 5552, "rabbitmq-stream+tls": 5551}
PLAIN, SECURE = STREAM_PORTS
STREAM_EXAMPLE = f"{PLAIN}://host:5552, or {SECURE}://"


def has_rstream() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec("rstream") is not None


@dataclass(frozen=True, slots=True)
class TrackingSettings:
    """The name under which the offset is kept, and where. Immutable."""

    name: str
    stream: str
    """The source queue."""
    side: SideSettings = field(repr=False)
    """The source: whose login and TLS files count, where the URL has no login of its own."""
    addresses: tuple[URL, ...] = field(repr=False)
    """Empty for the ports of the stream protocol on the source's hosts."""

    @property
    def number(self) -> int:
        """How many URLs there are."""
        return len(self.addresses or self.side.addresses)

    def address(self, index: int) -> URL:
        """Return URL number `index`, without what is not set there."""
        if self.addresses:
            return self.addresses[index]
        scheme = SECURE if self.side.secure else PLAIN
        host = self.side.addresses[index].raw_host or ""
        return URL.build(scheme=scheme, host=host, port=STREAM_PORTS[scheme])

    def seen_as_side(self, index: int) -> SideSettings:
        """Return the source as it would be with URL number `index`: what is said of it to an operator names that."""
        url = self.address(index)
        names = {"url": "BRIDGE_SOURCE_STREAM_URL"} if self.addresses else {}
        side = replace(self.side, addresses=(url,), variables={**self.side.variables, **names})
        return side if url.user is None else replace(side, credentials=Credentials(), auth="plain")

    def virtual_host(self, index: int) -> str:
        """Return the virtual host: the source's. `index` is that of the stream protocol's URL."""
        url = self.side.addresses[0 if self.addresses else index]
        return url.path[1:].replace("%2F", "/") or "/"

    def login(self, index: int) -> tuple[str, str] | None:
        """Read user and password as they are now; None where a certificate says them. Raises `CredentialsError`."""
        own = self.addresses[index] if self.addresses else URL()
        if own.user is not None:
            return own.user, own.password or ""
        if self.side.auth == "external":
            return None
        url = self.side.url(0 if self.addresses else index)
        return url.user or "", url.password or ""

    def ssl_context(self, index: int) -> ssl.SSLContext | None:
        """Build the TLS context from the source's files as they are now; None for none. Raises `CredentialsError`."""
        return self.side.tls.context() if self.address(index).scheme == SECURE else None

    def secrets(self) -> set[str]:
        """Return the passwords of the URLs."""
        return {url.password for url in self.addresses if url.password}


def parse_stream_urls(text: str) -> tuple[tuple[URL, ...], list[str]]:
    """Return the comma-separated URLs and what is wrong with them; nothing of them is quoted but their number."""
    urls, problems = [], []
    for number, entry in enumerate(text.split(","), 1):
        try:
            urls.append(_parsed(entry.strip()))
        except ValueError as error:
            problems.append(f"entry {number} of the list {error}; expected {STREAM_EXAMPLE}")
    if len({url.scheme for url in urls}) > 1:
        problems.append(f"mixes {PLAIN}:// and {SECURE}://; expected one scheme, or passwords would cross in the clear")
    return tuple(urls), problems


def _parsed(text: str) -> URL:
    try:
        url = URL(text)
        port = url.explicit_port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if url.scheme not in STREAM_PORTS:
        raise ValueError("has an unknown scheme")
    if has_late_at(text):
        raise ValueError(LATE_AT)
    if not url.raw_host or " " in url.raw_host:
        raise ValueError("names no host")
    if fault := host_fault(url.raw_host):
        raise ValueError(f"has {fault}")
    if port == 0:
        raise ValueError("has port 0")
    if url.raw_path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("has a path or a query, and the virtual host is that of BRIDGE_SOURCE_URL")
    if url.user is not None and not url.password:
        raise ValueError("names a user without a password")
    return url.with_path("").with_port(port or STREAM_PORTS[url.scheme])
