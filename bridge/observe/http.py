"""The HTTP server, on threads of its own: a scrape never delays a message, and a stuck event loop is still reported.

What it answers is made by `answers`; who may see it is decided by `access`. It only reads: whatever would change
something is refused. What a client can take of the process is bounded: connections, and the time and the bytes of a
request.
"""

from __future__ import annotations

import errno
import io
import logging
import resource
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from ssl import SSLSocket
from typing import TYPE_CHECKING, Any, Self

from bridge.errors import ConfigurationError, CredentialsError, NotYetError
from bridge.observe.access import Access
from bridge.observe.certificate import ServedCertificate

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from bridge.observe.access import Refusal
    from bridge.observe.answers import Answers
    from bridge.settings.http import HttpSettings

log = logging.getLogger(__name__)

ANY, ANY_IPV4 = "::", "0.0.0.0"  # noqa: S104 - a container's probes come from outside
CLIENT_TIMEOUT_S = 5.0
"""How long a client may be silent; and how long a TLS handshake may take, or a request from its first byte on."""
MAX_HEAD_BYTES = 16 << 10
"""Of a request; http.server alone would keep 6 MB for each client."""
MAX_CLIENTS = 16
"""Connections at a time. One more ends the oldest: who only occupies connections cannot keep the probes out."""
PASSING_ERRNOS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, socket.EAI_AGAIN}
"""Another process may be about to end, an interface to get its address, a name server to answer."""
FOREIGN_ERRNOS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL}
"""The address is of another machine, of a family that this one has not, or lacks its interface."""
OWN_DESCRIPTORS = 24
"""What the process has open besides its clients, with some to spare for a connection that begins."""
SCARCE_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Descriptors or memory are used up: the client waits in the queue of the socket."""
SCARCE_PAUSE_S = 0.2
"""How long nobody is let in then: the socket stays readable, and would be tried without end."""


class HttpServer:
    """Serves the answers of one bridge; a context manager."""

    def __init__(
        self,
        settings: HttpSettings,
        answers: Answers,
        *,
        client_timeout_s: float = CLIENT_TIMEOUT_S,
        has_both: Callable[[], bool] = socket.has_dualstack_ipv6,
    ) -> None:
        """Listen, but do not answer yet. Raises `NotYetError` while the port is taken or the certificate unreadable.

        Without a `host`, at every address: of IPv4 and IPv6, by one socket, where the machine `has_both`, otherwise of
        IPv4. Raises `ConfigurationError` when the port is not available.
        """
        self._answers = answers
        host = settings.host
        if host is None:
            host = ANY if has_both() else ANY_IPV4
        try:
            self._server = _TcpServer(host, settings, answers, client_timeout_s)
        except CredentialsError as error:
            raise NotYetError([f"BRIDGE_HTTP_CERT_FILE: {error}"]) from None
        except OSError as error:
            reason = error.strerror or str(error)
            where = f"BRIDGE_HTTP_HOST={settings.host} " if settings.host is not None else ""
            if where and (isinstance(error, socket.gaierror) or error.errno in FOREIGN_ERRNOS):
                expected = "an address of this machine"
            else:
                where += f"BRIDGE_HTTP_PORT={settings.port} "
                expected = "a free port here"
            problem = f"{where}cannot be listened on ({reason}); expected {expected}"
            if error.errno in PASSING_ERRNOS:
                raise NotYetError([problem]) from None
            raise ConfigurationError([problem]) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_until_ended, name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._answers.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.end()
        self._server.end()
        self._thread.join()
        self._server.server_close()


def most_clients() -> int:
    """Return how many connections there may be at a time, so that descriptors are left for the brokers'."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CLIENTS
    return max(1, min(MAX_CLIENTS, limit - OWN_DESCRIPTORS))


class _TcpServer(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64
    timeout = 0.0
    """Of `handle_request`, which is called when there is one."""

    def __init__(self, host: str, settings: HttpSettings, answers: Answers, client_timeout_s: float) -> None:
        self.answers = answers
        self.access = Access(settings)
        self.client_timeout_s = client_timeout_s
        self._certificate = None if settings.tls is None else ServedCertificate(settings.tls)
        host = host.removeprefix("[").removesuffix("]")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._takes_both = host == ANY
        self._clients: dict[socket.socket, None] = {}
        """The open connections, the oldest first."""
        self._lock = threading.Lock()
        self._most_clients = most_clients()
        self._scarce_told = False
        self._ending, self._end = socket.socketpair()
        super().__init__((host, settings.port), RequestHandler)

    def server_bind(self) -> None:
        """Take the address; `::` is IPv4's, too, whatever the system's default says."""
        if self._takes_both:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

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

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a client, on its own thread, where a slow handshake keeps nobody else waiting."""
        if self._certificate is None:
            super().finish_request(request, client_address)
            return
        secured = self._secure(request, self._certificate.take_context())
        try:
            secured.do_handshake()
            super().finish_request(secured, client_address)
        finally:
            self.shutdown_request(secured)

    def _secure(self, request: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Put a socket that speaks TLS in the place of a client's; raise `OSError` where it has been sent away."""
        request.settimeout(self.client_timeout_s)
        with self._lock:
            secured = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            known = request in self._clients
            self._clients = {secured if each is request else each: None for each in self._clients}
        if not known:
            secured.close()
            raise ConnectionAbortedError
        return secured

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


class _HeadTooLongError(Exception):
    """The head of a request is longer than it may be."""


class _BoundedReader(io.RawIOBase):
    """Reads from a client; the head of a request may take so many bytes, and so long from its first byte."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._until_s: float | None = None
        self._left_bytes = MAX_HEAD_BYTES

    def begin(self) -> None:
        """Begin with a request."""
        self._until_s, self._left_bytes = None, MAX_HEAD_BYTES

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - a buffer, as the base class has it
        """Read what there is; raise `TimeoutError` or `_HeadTooLongError` beyond the bounds."""
        now_s = time.monotonic()
        if self._left_bytes <= 0:
            raise _HeadTooLongError
        if self._until_s is not None and now_s >= self._until_s:
            raise TimeoutError
        try:
            self._connection.settimeout(self._timeout_s if self._until_s is None else self._until_s - now_s)
            size = self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._timeout_s)
        if self._until_s is None:
            self._until_s = time.monotonic() + self._timeout_s
        self._left_bytes -= size
        return size


class RequestHandler(BaseHTTPRequestHandler):
    """Answers the requests of one client, on a thread of its own."""

    server: _TcpServer
    protocol_version = "HTTP/1.1"
    server_version = "amqp-bridge"
    sys_version = ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    @property
    def request_version(self) -> str:
        """The version that is answered in; `http.server` takes what is no request for one of HTTP/0.9."""
        return self._version

    @request_version.setter
    def request_version(self, version: str) -> None:
        # In HTTP/0.9 an answer has no status: a refusal could not be told from what was asked for.
        self._version = "HTTP/1.0" if version == "HTTP/0.9" else version

    def setup(self) -> None:
        """Begin with a client; called by socketserver."""
        super().setup()
        self.connection.settimeout(self.server.client_timeout_s)
        self.rfile.close()
        self._reader = _BoundedReader(self.connection, self.server.client_timeout_s)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        """Serve one request; called by http.server."""
        self._reader.begin()
        # They may not have been read when it is refused.
        self.requestline, self.request_version, self.command = "", self.protocol_version, ""
        try:
            super().handle_one_request()
        except _HeadTooLongError:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def do_GET(self) -> None:
        """Answer; HEAD too."""
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            # What is not read would be taken for the next request.
            self.send_error(HTTPStatus.BAD_REQUEST, "a request with a body")
            return
        path, answers = self.path.partition("?")[0], self.server.answers
        certified = isinstance(self.connection, SSLSocket) and self.connection.getpeercert() is not None
        if refusal := self.server.access.admit(path, self.request_version, self.headers, certified=certified):
            self._refuse(refusal)
            return
        match path:
            case "/metrics":
                answer = answers.metrics(self.headers.get("Accept", ""))
            case "/healthz":
                answer = answers.healthz()
            case "/readyz":
                answer = answers.readyz()
            case "/status":
                answer = answers.status()
            case "/":
                answer = answers.page()
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self._finish(answer.body)

    def _refuse(self, refusal: Refusal) -> None:
        self.send_response(refusal.status)
        self.send_header("Content-Type", self.error_content_type)
        for name, value in refusal.headers.items():
            self.send_header(name, value)
        self._finish(f"{refusal.text}\n".encode())

    def _finish(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_POST(self) -> None:
        """Refuse; other methods that change something too."""
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")  # its body was not read
        self.end_headers()

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_POST  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: a probe is no event."""
