"""The certificate that HTTP is served with: looked at for each client, so that a rotated one needs no restart."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from bridge.errors import CredentialsError

if TYPE_CHECKING:
    import ssl

    from bridge.settings.http import ServerTls

log = logging.getLogger(__name__)


class ServedCertificate:
    """The context of now; on any thread."""

    def __init__(self, tls: ServerTls) -> None:
        """Read the files. Raises `CredentialsError`."""
        self._tls = tls
        self._lock = threading.Lock()
        self._stamp = tls.stamp()
        self._context = tls.context()
        self._reported = ""

    def take_context(self) -> ssl.SSLContext:
        """Read the files if they have changed, and return the context; the last while a new pair is incomplete."""
        with self._lock:
            problem = ""
            try:
                if (stamp := self._tls.stamp()) != self._stamp:
                    # The stamp is older than what is read, so that a change in between is seen at the next client.
                    self._context = self._tls.context()
                    self._stamp = stamp
            except CredentialsError as error:
                problem = str(error)
                if problem != self._reported:
                    log.warning("HTTP goes on with the certificate of before: %s", problem)
            self._reported = problem
            return self._context
