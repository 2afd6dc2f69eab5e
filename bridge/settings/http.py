"""What HTTP is served by: address, certificate, and who must show what. The files are read again when they change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.errors import CredentialsError
from bridge.settings.files import open_file, read_secret

if TYPE_CHECKING:
    from pathlib import Path

MIN_TOKEN_CHARACTERS = 16
"""Nobody who may ask a thousand times a second guesses so many."""


def token_fault(token: str) -> str:
    """Return what is wrong with a token; empty for nothing. It is not quoted."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        return "holds other characters than the visible ones of ASCII; expected one line of these"
    if len(token) < MIN_TOKEN_CHARACTERS:
        return f"holds {len(token)} characters; expected a token of at least {MIN_TOKEN_CHARACTERS}"
    return ""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What `https` is spoken with."""

    cert_file: Path
    key_file: Path | None = None
    """Without one, the key stands in the certificate's file."""
    client_ca_file: Path | None = None
    """Who signs the certificates of clients; without one, none is asked for."""

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when a file does. Raises `CredentialsError`."""
        found = []
        for path in filter(None, (self.cert_file, self.key_file, self.client_ca_file)):
            try:
                state = path.stat()
            except OSError as error:
                raise CredentialsError(f"{path}: {error.strerror}") from None
            found.append((state.st_ino, state.st_size, state.st_mtime_ns))
        return tuple(found)

    def context(self) -> ssl.SSLContext:
        """Read the files as they are now. Raises `CredentialsError`."""
        for path in filter(None, (self.cert_file, self.key_file, self.client_ca_file)):
            try:
                open_file(path).close()  # OpenSSL would wait for what is written into a pipe
            except OSError as error:
                raise CredentialsError(f"{path}: {error.strerror}") from None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            # Without a passphrase OpenSSL would ask on the terminal for an encrypted key's.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        except (OSError, ValueError) as error:
            key = f" with key {self.key_file}" if self.key_file is not None else ""
            reason = getattr(error, "strerror", None) or error
            wanted = "a PEM certificate and its key, not encrypted, are needed"
            raise CredentialsError(f"certificate {self.cert_file}{key}: {reason} ({wanted})") from None
        if self.client_ca_file is not None:
            try:
                context.load_verify_locations(self.client_ca_file)
            except OSError as error:  # ssl.SSLError is one
                raise CredentialsError(f"client CA file {self.client_ca_file}: {error.strerror or error}") from None
            # Optional, since a kubelet's probe presents none; `access` says what is to be seen without one.
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where and how HTTP is served."""

    host: str | None = "127.0.0.1"
    """None for every address."""
    port: int = 0
    tls: ServerTls | None = None
    token_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether everything is shown to whoever asks."""
        return self.token_file is None and not self.wants_certificate

    @property
    def wants_certificate(self) -> bool:
        """Whether a client may show a certificate."""
        return self.tls is not None and self.tls.client_ca_file is not None

    def token(self) -> str:
        """Return the token as it is now; empty where none is wanted. Raises `CredentialsError`."""
        if self.token_file is None:
            return ""
        token = read_secret(self.token_file, "token file")
        if fault := token_fault(token):
            raise CredentialsError(f"token file {self.token_file} {fault}")
        return token
