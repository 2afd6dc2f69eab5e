"""What is answered at `/`, `/status`, `/metrics`, `/healthz` and `/readyz`.

Every answer is made from a copy of books and status, which the event loop makes on its own thread in some 50 µs: it is
exact while traffic flows. When the loop does not answer within a second it is stuck, and the answers say so.

What it does not do: listen, and talk HTTP, which is `http`'s.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from bridge.observe.document import About, Document, Seen, cleaned, document
from bridge.observe.history import EVERY_S, History, sample
from bridge.observe.metrics import BridgeCollector
from bridge.observe.page import PAGE_HEADERS, page

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from bridge.observe.status import Status
    from bridge.window.books import Books

Snapshot = tuple["Books", "Status"]
LOOP_TIMEOUT_S = 1.0
"""How long the event loop may take to answer before it counts as stuck."""


class Answer(NamedTuple):
    """What a client is sent."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Answers:
    """The answers of one bridge. They may be asked for on any thread; `begin` and `end` keep a history meanwhile."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        loop: asyncio.AbstractEventLoop,
        about: About | None = None,
        *,
        loop_timeout_s: float = LOOP_TIMEOUT_S,
        sample_every_s: float = EVERY_S,
    ) -> None:
        """`snapshot` runs on `loop`'s thread, where this must be made."""
        self._snapshot = snapshot
        self._loop = loop
        self._loop_timeout_s = loop_timeout_s
        self._sample_every_s = sample_every_s
        self._about = about or About()
        self._history = History()
        self._sampling: asyncio.TimerHandle | None = None
        self._last = self._see()
        registry = CollectorRegistry()
        registry.register(BridgeCollector(lambda: self._last))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._registry = registry

    def begin(self) -> None:
        """Begin to keep samples."""
        self._loop.call_soon_threadsafe(self._sample)

    def end(self) -> None:
        """Keep no more samples; on the loop's thread, or when it has ended."""
        if self._sampling is not None:
            self._sampling.cancel()

    def _see(self) -> Seen:
        """Return a copy of what there is to see now; on the loop's thread."""
        books, status = self._snapshot()
        now = sample(books, status.source.backlog, self._loop.time(), time.time())
        return Seen(books, status, self._history.until(now))

    def _sample(self) -> None:
        """Keep a sample now, and from now on; on the loop's thread."""
        self._history.add(self._see().samples[-1])
        self._sampling = self._loop.call_later(self._sample_every_s, self._sample)

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
            self._last = done.result(self._loop_timeout_s)
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
        stuck = "" if self.refresh() else f"the event loop has not answered for {self._loop_timeout_s:g} s"
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
        found |= {"degraded": status.reservations if answers else []}
        return _json(code, cleaned(found, tuple(self._about.secrets())))

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
