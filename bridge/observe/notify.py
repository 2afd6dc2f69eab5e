"""What systemd is told of a running bridge: that it is ready, what it does, that it lives, that it stops.

The protocol is one datagram of lines for each message, to the socket that `NOTIFY_SOCKET` names (sd_notify(3)). Where
that is not set nothing is sent. A thread of its own sends what is due: it sends no sign of life of a stuck event loop.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

STATUS_EVERY_S = 10.0
"""How often the status is renewed at least."""
BEATS = 3
"""Signs of life in the time after which systemd takes the bridge for dead."""


def watchdog_s(environ: Mapping[str, str], pid: int) -> float:
    """Return after how many seconds without a sign of life systemd ends this process; 0 for never."""
    for_whom = environ.get("WATCHDOG_PID", "")
    try:
        seconds = int(environ.get("WATCHDOG_USEC", "0")) / 1e6
        return max(0.0, seconds) if not for_whom or int(for_whom) == pid else 0.0
    except ValueError:
        return 0.0


class Notifier:
    """Tells systemd; a context manager, entered once HTTP is listened on: a broker that is away fails no start."""

    def __init__(self, environ: Mapping[str, str], document: Callable[[], dict[str, Any]]) -> None:
        """`document` returns the status document; it says whether the event loop answers, and runs on any thread."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._document = document
        self._watchdog_s = watchdog_s(environ, os.getpid())
        self._ended = threading.Event()
        self._failed = self._told_to_stop = False
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def __enter__(self) -> Self:
        if self._address:
            self._send("READY=1")
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The thread is not waited for: it may be asking the event loop, which is what ends here.
        self._ended.set()
        if not self._told_to_stop:
            self.stopping()

    def stopping(self) -> None:
        """A shutdown has begun."""
        self._told_to_stop = True
        self._send("STOPPING=1", "STATUS=stopping")

    def _run(self) -> None:
        every_s = STATUS_EVERY_S
        if self._watchdog_s:
            every_s = min(every_s, self._watchdog_s / BEATS)
        while True:
            self.beat()
            if self._ended.wait(every_s):
                return

    def beat(self) -> None:
        """Renew the status, and give a sign of life while `/healthz` would answer 200."""
        document = self._document()
        if self._ended.is_set():
            return
        alive = ("WATCHDOG=1",) if self._watchdog_s and document["bridge"]["answers"] else ()
        self._send(f"STATUS={document['sentence']}", *alive)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
                sending.settimeout(0)
                sending.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._failed:
                self._failed = True
                log.warning("systemd cannot be notified: %s", error.strerror or error)
