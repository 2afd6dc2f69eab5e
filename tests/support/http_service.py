"""The HTTP server of a bridge that is ready, with an event loop that can be made to hang."""

from __future__ import annotations

import asyncio
import copy
import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from bridge.observe.answers import LOOP_TIMEOUT_S, Answers
from bridge.observe.history import EVERY_S
from bridge.observe.http import CLIENT_TIMEOUT_S, HttpServer
from bridge.observe.status import Status
from bridge.settings.http import HttpSettings
from bridge.window.books import Books

if TYPE_CHECKING:
    import ssl

TIMEOUT_S = 20


class Answer(NamedTuple):
    """What a client got; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body's object."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Service:
    """An event loop on a thread of its own with books, a status and the server."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        loop_timeout_s: float = LOOP_TIMEOUT_S,
        client_timeout_s: float = CLIENT_TIMEOUT_S,
        sample_every_s: float = EVERY_S,
        settings: HttpSettings | None = None,
    ) -> None:
        self.books = Books()
        self.status = Status(consuming=True)
        for side in (self.status.source, self.status.destination):
            side.up, side.reason = True, ""
        self.loop = asyncio.new_event_loop()
        self.threads: set[int] = set()
        """The threads on which a copy was made."""
        self._thread = threading.Thread(target=self.loop.run_forever)
        self.host = host
        self.answers = Answers(self.snapshot, self.loop, loop_timeout_s=loop_timeout_s, sample_every_s=sample_every_s)
        self.server = HttpServer(settings or HttpSettings(host), self.answers, client_timeout_s=client_timeout_s)

    def snapshot(self) -> tuple[Books, Status]:
        """Return a copy, and note on which thread it was made."""
        self.threads.add(threading.get_ident())
        return copy.deepcopy((self.books, self.status))

    def __enter__(self) -> Self:
        self._thread.start()
        self.server.__enter__()
        self.threads.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @property
    def loop_thread(self) -> int | None:
        """The thread that the loop runs on."""
        return self._thread.ident

    def hang(self) -> threading.Event:
        """Stop the event loop from turning until the event that is returned is set."""
        hanging, end = threading.Event(), threading.Event()

        def wait() -> None:
            hanging.set()
            end.wait(TIMEOUT_S)

        self.loop.call_soon_threadsafe(wait)
        assert hanging.wait(TIMEOUT_S)
        return end

    def connect(self) -> socket.socket:
        """Return a client's connection."""
        return socket.create_connection((self.host.strip("[]"), self.server.port), TIMEOUT_S)

    def ask(self, path: str, method: str = "GET", *, tls: ssl.SSLContext | None = None, **headers: str) -> Answer:
        """Return the answer to one request on a connection of its own; over TLS with a context."""
        host, port = self.host.strip("[]"), self.server.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
            if tls is None
            else http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=tls)
        )
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()
