"""TLS to a broker: whom to trust, and by what the bridge is known there. The files are read at every connect."""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bridge.errors import CredentialsError
from bridge.settings.files import open_file, read_secret

if TYPE_CHECKING:
    from pathlib import Path

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([^-]+)-----END")
_VALIDITY = re.compile(rb"(?:\x17\x0d\d{12}|\x18\x0f\d{14})Z(?:\x17\x0d(\d{12})|\x18\x0f(\d{14}))Z")
"""RFC 5280, 4.1.2.5, in DER: two times, one right after the other as nowhere before."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What `amqps` is spoken with; without a CA file the system's CAs are trusted."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_passphrase_file: Path | None = None
    server_name: str | None = None
    """The name that the broker's certificate must have, in place of the URL's host."""
    verify: bool = True
    """Whether the broker's certificate is verified at all."""

    def context(self) -> ssl.SSLContext:
        """Read the files as they are now. Blocks for some milliseconds. Raises CredentialsError."""
        files = {"CA file": self.ca_file, "client certificate": self.cert_file, "client key": self.key_file}
        for what, path in files.items():
            try:
                if path is not None:
                    open_file(path).close()  # OpenSSL would wait for what is written into a pipe
            except OSError as error:
                raise CredentialsError(f"{what} {path}: {error.strerror}") from None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise CredentialsError(f"CA file {self.ca_file}: {error.strerror or error}") from None
        # Python's own default since 3.13: every Python is to give the same answer about a certificate.
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file is not None:
            self._load_own(context, self.cert_file)
        return context

    def _load_own(self, context: ssl.SSLContext, cert_file: Path) -> None:
        """Have the context show the client's certificate. Raises CredentialsError."""
        # Without one OpenSSL would ask on the terminal for an encrypted key's.
        passphrase = ""
        if self.key_passphrase_file is not None:
            passphrase = read_secret(self.key_passphrase_file, "passphrase file")
        try:
            context.load_cert_chain(cert_file, self.key_file, password=passphrase)
        except (OSError, ValueError) as error:  # ValueError for a passphrase of more than 1,024 bytes
            key = f" with key {self.key_file}" if self.key_file is not None else ""
            wanted = "a PEM certificate and its key are needed"
            if self.key_passphrase_file is not None:
                wanted = f"{wanted}, the key encrypted with the passphrase in {self.key_passphrase_file}"
            else:
                wanted = f"{wanted}, the key not encrypted unless there is a passphrase file"
            reason = f"{getattr(error, 'strerror', None) or error} ({wanted})"
            raise CredentialsError(f"client certificate {cert_file}{key}: {reason}") from None

    def client_not_after(self) -> list[str]:
        """Return when each certificate of the client's file ends, written as `getpeercert` writes it.

        The `ssl` module tells it of a peer's certificate and of CAs alone.
        """
        if self.cert_file is None:
            return []
        ends = []
        for block in _CERTIFICATE.findall(self.cert_file.read_bytes()):
            for short, long in _VALIDITY.findall(base64.b64decode(block))[:1]:
                year = "%y" if short else "%Y"
                end = datetime.strptime((short or long).decode(), f"{year}%m%d%H%M%S").replace(tzinfo=UTC)
                ends.append(f"{end:%b %d %H:%M:%S %Y} GMT")
        return ends
