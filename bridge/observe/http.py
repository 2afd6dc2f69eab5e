"""`/`, `/status`, `/metrics`, `/healthz` and `/readyz`, on a thread of their own: a scrape never delays a message.

The thread asks the event loop for a copy of books and status, which takes it some 50 µs and is exact while
traffic flows. When the loop does not answer within a second it is stuck, and the thread is there to say so.
"""

from __future__ import annotations

import errno
import json
import logging
import selectors
import socket
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from bridge.errors import ConfigurationError, NotYetError
from bridge.observe.document import About, Document, Seen, document
from bridge.observe.history import EVERY_S, History, sample
from bridge.observe.metrics import BridgeCollector
from bridge.observe.page import PAGE_HEADERS, page

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from bridge.observe.status import Status
    from bridge.window.books import Books

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

MAX_CLIENTS = 16
"""Connections at a time. One more ends the oldest: who only occupies connections cannot keep the probes out."""
PASSING_ERRNOS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, socket.EAI_AGAIN}
"""Another process may be about to end, an interface to get its address, a name server to answer."""
OWN_DESCRIPTORS = 24
"""What the process has open besides its clients, with some to spare for a connection that begins."""
SCARCE_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Descriptors or memory are used up: the client waits in the queue of the socket."""
SCARCE_PAUSE_S = 0.2
"""How long nobody is let in then: the socket stays readable, and would be tried without end."""

Snapshot = tuple["Books", "Status"]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long the server waits, in seconds."""

    loop_s: float = 1.0
    """For the event loop; it counts as stuck when it takes longer to answer."""
    client_s: float = 5.0
    """For a client that is silent."""
    sample_every_s: float = EVERY_S
    """Between two samples of the history."""


LIMITS = HttpLimits()


class Answer(NamedTuple):
    """What a client is sent."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Endpoint:
    """The HTTP server; a context manager."""

    def __init__(  # noqa: PLR0913 - where to listen, and what about
        self,
        host: str,
        port: int,
        snapshot: Callable[[], Snapshot],
        loop: asyncio.AbstractEventLoop,
        about: About | None = None,
        *,
        limits: HttpLimits = LIMITS,
    ) -> None:
        """`snapshot` runs on `loop`'s thread. Raises `NotYetError` while the port is taken.

        Raises `ConfigurationError` when the port cannot be had.
        """
        self._snapshot = snapshot
        self._loop = loop
        self._about = about or About()
        self.limits = limits
        self._history = History()
        self._sampling: asyncio.TimerHandle | None = None
        self._last = self._see()
        registry = CollectorRegistry()
        registry.register(BridgeCollector(lambda: self._last))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._registry = registry
        try:
            self._server = _Server(host.removeprefix("[").removesuffix("]"), port, self)
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"BRIDGE_HTTP_HOST={host} BRIDGE_HTTP_PORT={port}"
            problem = f"{where} cannot be listened on ({reason}); expected a free port here"
            if error.errno in PASSING_ERRNOS:
                raise NotYetError([problem]) from None
            raise ConfigurationError([problem]) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_until_ended, name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._loop.call_soon_threadsafe(self._sample)
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
        self._server.end()
        self._thread.join()
        self._server.server_close()

    def _see(self) -> Seen:
        """Return a copy of what there is to see now; on the loop's thread."""
        books, status = self._snapshot()
        now = sample(books, status.source.backlog, self._loop.time(), time.time())
        return Seen(books, status, self._history.until(now))

    def _sample(self) -> None:
        """Keep a sample now, and from now on; on the loop's thread."""
        self._history.add(self._see().samples[-1])
        self._sampling = self._loop.call_later(self.limits.sample_every_s, self._sample)

    def refresh(self) -> bool:
        """Have the loop make a new copy; False when it does not answer."""
        done: Future[Seen] = Future()

        def copy() -> None:
            try:
                done.set_result(self._see())
            except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
                done.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(copy)
        except RuntimeError:  # the loop is closed
            return False
        try:
            self._last = done.result(self.limits.loop_s)
        except TimeoutError:
            return False
        return True

    def metrics(self, accept: str) -> Answer:
        """Return status, content type and body of `/metrics`; the last copy where the loop is stuck."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # prometheus-client 0.26, of a version that is no number
            encode, content_type = choose_encoder("")
        self.refresh()
        return Answer(HTTPStatus.OK, content_type, encode(self._registry))

    def healthz(self) -> Answer:
        """Return 200 unless a restart would help: while the loop answers.

        A fault at a broker or in a message is for `readyz`. Kubernetes would kill the process, which then forgets what
        it has learned, and a quorum queue would count a return of all that it held.
        """
        stuck = "" if self.refresh() else f"the event loop has not answered for {self.limits.loop_s:g} s"
        return _json(
            HTTPStatus.SERVICE_UNAVAILABLE if stuck else HTTPStatus.OK, {"healthy": not stuck, "reason": stuck}
        )

    def readyz(self) -> Answer:
        """Return 200 while messages are or could be forwarded, and while the bridge is paused as it was told to be.

        What keeps single messages back is `degraded`, and so is what a paused bridge would meet if it were resumed.
        """
        answers = self.refresh()
        status = self._last.status
        reasons = status.hindrances if answers else ["the event loop does not answer"]
        code = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        found = {"ready": not reasons, "paused": status.paused, "reasons": reasons}
        return _json(code, found | {"degraded": status.reservations if answers else []})

    def document(self) -> Document:
        """Return the status document; the last copy where the loop is stuck."""
        answers = self.refresh()
        return document(self._last._replace(answers=answers), self._about)

    def status(self) -> Answer:
        """Return the status document as JSON, always with 200: whether it is ready stands in it."""
        return _json(HTTPStatus.OK, self.document())

    def page(self) -> Answer:
        """Return the page for a browser."""
        body = page(self.document()).encode()
        return Answer(HTTPStatus.OK, "text/html; charset=utf-8", body, PAGE_HEADERS)


def _json(status: HTTPStatus, value: dict[str, Any]) -> Answer:
    return Answer(status, "application/json", json.dumps(value, allow_nan=False).encode() + b"\n")


def most_clients() -> int:
    """Return how many connections there may be at a time, so that descriptors are left for the brokers'."""
    if sys.platform == "win32":
        return MAX_CLIENTS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CLIENTS
    return max(1, min(MAX_CLIENTS, limit - OWN_DESCRIPTORS))


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64
    timeout = 0.0
    """Of `handle_request`, which is called when there is one."""

    def __init__(self, host: str, port: int, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._clients: dict[socket.socket, None] = {}
        """The open connections, the oldest first."""
        self._lock = threading.Lock()
        self._most_clients = most_clients()
        self._scarce_told = False
        self._ending, self._end = socket.socketpair()
        super().__init__((host, port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Let a client in; where there is no descriptor for it, end the oldest and pause."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in SCARCE_ERRNOS:
                with self._lock:
                    self._end_oldest()
                time.sleep(SCARCE_PAUSE_S)
            raise  # socketserver tries again

    def _end_oldest(self) -> None:
        if self._clients:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            _end(oldest)

    def serve_until_ended(self) -> None:
        """Serve, and sleep in between: `serve_forever` looks up ten times a second to see whether it is to end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(self._ending, selectors.EVENT_READ)
            while True:
                if any(key.fileobj is self._ending for key, _ in selector.select()):
                    return
                self.handle_request()

    def end(self) -> None:
        """Have it end; may be called on any thread."""
        self._end.close()

    def server_close(self) -> None:
        """Free the port."""
        super().server_close()
        self._ending.close()
        self._end.close()

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's signature
        with self._lock:
            self._clients[request] = None
            if len(self._clients) > self._most_clients:
                self._end_oldest()
        try:
            super().process_request(request, client_address)
        except RuntimeError as error:  # CPython's words for no memory, and for too many
            message = "no further thread can be started"
            raise MemoryError(message) from error

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Log what is wrong with us; a client that went away is no event, and for lack of memory one line is enough."""
        if isinstance(error := sys.exception(), MemoryError):
            if not self._scarce_told:
                self._scarce_told = True
                log.warning("a request could not be answered for lack of memory: %s", error)
        elif not isinstance(sys.exception(), OSError):
            log.error("a request could not be answered", exc_info=True)  # noqa: LOG014 - called in an except clause


def _end(client: socket.socket) -> None:
    """Wake the thread that serves the client: it sees the end of the stream, and closes."""
    with suppress(OSError):  # it may have gone by itself
        client.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "amqp-bridge"
    sys_version = ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def setup(self) -> None:
        """Begin with a client; called by socketserver."""
        super().setup()
        self.connection.settimeout(self.server.endpoint.limits.client_s)

    def do_GET(self) -> None:
        """Answer; HEAD too."""
        endpoint = self.server.endpoint
        match self.path.partition("?")[0]:
            case "/metrics":
                answer = endpoint.metrics(self.headers.get("Accept", ""))
            case "/healthz":
                answer = endpoint.healthz()
            case "/readyz":
                answer = endpoint.readyz()
            case "/status":
                answer = endpoint.status()
            case "/":
                answer = endpoint.page()
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_POST(self) -> None:
        """Refuse; other methods that change something too."""
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")  # its body was not read
        self.end_headers()

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: a probe is no event."""
