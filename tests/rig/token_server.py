"""A token server on loopback: client credentials (RFC 6749, 4.4), answered over real HTTP."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote_plus

from tests.rig.ports import LOOPBACK

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

CLIENT_ID, CLIENT_SECRET = "a bridge", "Client-s3cret-6:/ +&"


def unknown(client_id: str, secret: str) -> object:
    """Return a refusal, which repeats what nobody may see."""
    return {"error": "invalid_client", "error_description": f"not {client_id}, or not {secret}"}


class TokenServer:
    """Gives whoever knows the client's secret what `answer` returns: an HTTP status, and JSON or any text."""

    def __init__(self, answer: Callable[[], tuple[int, object]], context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.forms: list[dict[str, list[str]]] = []
        """What was asked, in order."""
        self._server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://{LOOPBACK}:{self._server.server_port}/token"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                server.forms.append(form)
                _, _, login = self.headers.get("Authorization", "").partition("Basic ")
                client_id, _, secret = map(unquote_plus, base64.b64decode(login).decode().partition(":"))
                known = self.path == "/token" and (client_id, secret) == (CLIENT_ID, CLIENT_SECRET)
                status, said = server.answer() if known else (401, unknown(client_id, secret))
                data = said if isinstance(said, str) else json.dumps(said)
                self.send_response(status)
                if status in {301, 302, 307}:
                    self.send_header("Location", server.url)
                self.send_header("Content-Length", str(len(data.encode())))
                self.end_headers()
                self.wfile.write(data.encode())

            def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the library's signature
                pass

        return Handler
