"""`python3 -m bridge.cli.health`: exit 0 where the bridge of this environment answers `/healthz` with 200.

The health check of the image, in the standard library alone: it runs every ten seconds. Nothing secret is sent, and
`/healthz` is answered to everybody, so that the certificate is not verified.
"""

from __future__ import annotations

import os
import ssl
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from bridge.observe.address import NoStatusError, default_url

TIMEOUT_S = 4.0
"""Below the image's own."""


def main() -> int:
    """Ask; return the exit code, and say why where it is not 0."""
    try:
        url = urlsplit(default_url(os.environ))
        host = url.hostname if os.environ.get("BRIDGE_HTTP_HOST", "").strip() else "localhost"  # by either protocol
        connection = HTTPConnection(host or "", url.port, timeout=TIMEOUT_S)
        if url.scheme == "https":
            context = ssl._create_unverified_context()  # noqa: S323, SLF001 - see above
            connection = HTTPSConnection(host or "", url.port, timeout=TIMEOUT_S, context=context)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        said = answer.read(1000).decode(errors="replace")
    except (OSError, HTTPException, ValueError, NoStatusError) as error:
        sys.stderr.write(f"amqp-bridge: no answer: {error}\n")
        return 1
    sys.stdout.write(said)
    return int(answer.status != HTTPStatus.OK)


if __name__ == "__main__":
    sys.exit(main())
