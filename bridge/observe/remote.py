"""A running bridge, asked over HTTP for its status document, by a token or a certificate where it wants one.

What it answers was written by others, by a broker or by any process that listens on that port: nothing of it reaches a
terminal that the terminal obeys (see `text`). A token is sent to the address that it is meant for and to no other: no
redirection is followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bridge.errors import CredentialsError
from bridge.observe.address import NoStatusError
from bridge.observe.document import VERSION
from bridge.observe.text import printable
from bridge.settings.files import read_secret
from bridge.settings.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.observe.document import Document

TIMEOUT_S = 5.0
LARGEST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Visit:
    """What is shown to a bridge that is asked, and what it must show."""

    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    pinned: bool = False
    """The bridge must show a certificate of the CA file itself, under whatever name."""

    def context(self) -> ssl.SSLContext:
        """Return the context by the files of now. Raises `CredentialsError`."""
        context = Tls(self.ca_file, self.cert_file, self.key_file).context()
        if self.pinned:
            context.check_hostname = False
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def headers(self) -> dict[str, str]:
        """Return the headers of a request. Raises `CredentialsError`."""
        if self.token_file is None:
            return {}
        return {"Authorization": f"Bearer {read_secret(self.token_file, 'token file')}"}


def own_visit(environ: Mapping[str, str]) -> Visit:
    """Return how the bridge of this environment is asked on its own host: by its token, known by its certificate."""
    token, certificate = (environ.get(f"BRIDGE_HTTP_{what}_FILE", "") for what in ("TOKEN", "CERT"))
    return Visit(
        token_file=Path(token) if token else None,
        ca_file=Path(certificate) if certificate else None,
        pinned=bool(certificate),
    )


def http_url(text: str) -> str:
    """Return what is the address of a bridge. Raises `NoStatusError` for what cannot be one."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise NoStatusError(f"{printable(text)} is no HTTP address; expected such as http://127.0.0.1:8080")
    if "@" in parts.netloc:
        raise NoStatusError("the address holds a login, which others can read; expected --token-file FILE")
    return text


def fetch(url: str, visit: Visit | None = None) -> Document:
    """Return the document of the bridge at a URL (see `http_url`). Raises `NoStatusError`."""
    shown = printable(url)
    try:
        status, body = _ask(url, visit or Visit())
    except (OSError, HTTPException, ValueError, CredentialsError) as error:
        reason = printable(str(error) or type(error).__name__)
        raise NoStatusError(f"no status from {shown}: {reason}; does the bridge run there?") from error
    if status != HTTPStatus.OK:
        said = printable(body[:500].decode(errors="replace").strip())
        raise NoStatusError(f"no status from {shown}: it answers {status}: {said}{_ADVICE.get(status, '')}")
    try:
        document = json.loads(body)
    except ValueError as error:
        reason = printable(str(error))
        raise NoStatusError(f"no status from {shown}: {reason}; does the bridge run there?") from error
    if not isinstance(document, dict) or "sentence" not in document:
        raise NoStatusError(f"no status from {shown}: another service answers there")
    if document.get("version") != VERSION:
        theirs = printable(str(document.get("version")))
        raise NoStatusError(f"the bridge at {shown} has a status of version {theirs}, and this program reads {VERSION}")
    cleaned: Document = _printable(document)
    return cleaned


_ADVICE: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "; give the token by --token-file, or by BRIDGE_HTTP_TOKEN_FILE",
    HTTPStatus.FORBIDDEN: "; give a certificate by --cert-file and --key-file",
}


def _ask(url: str, visit: Visit) -> tuple[int, bytes]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        HTTPSConnection(host, port, timeout=TIMEOUT_S, context=visit.context())
        if parts.scheme == "https"
        else HTTPConnection(host, port, timeout=TIMEOUT_S)
    )
    path = parts.path.rstrip("/")
    try:
        connection.request("GET", path if path.endswith("/status") else f"{path}/status", headers=visit.headers())
        answer = connection.getresponse()
        return answer.status, answer.read(LARGEST_BYTES)
    finally:
        connection.close()


def _printable(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable(key): _printable(entry) for key, entry in value.items()}
        case list():
            return [_printable(entry) for entry in value]
        case _:
            return value
