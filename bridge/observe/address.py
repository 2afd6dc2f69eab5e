"""Where a bridge listens, by its environment. The health check of the image needs this and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from collections.abc import Mapping


class NoStatusError(BridgeError):
    """No status is available there; says why."""


def default_url(environ: Mapping[str, str]) -> str:
    """Return where the bridge of this environment listens, as seen from the same host.

    Raises `NoStatusError` where its port is chosen by the system.
    """
    host = environ.get("BRIDGE_HTTP_HOST", "").strip().removeprefix("[").removesuffix("]")
    port = environ.get("BRIDGE_HTTP_PORT", "").strip() or "8080"
    if port == "0":
        raise NoStatusError("BRIDGE_HTTP_PORT is 0, so the port is in the bridge's first log line; give it with --url")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is compared
    scheme = "https" if environ.get("BRIDGE_HTTP_CERT_FILE") else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
