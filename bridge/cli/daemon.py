"""The daemon: what `run` does from its settings to its end, and its signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from uvloop import new_event_loop

from bridge.assembly import assemble
from bridge.cli import heap
from bridge.cli.early import PAUSE, RESUME
from bridge.errors import BridgeError, ExhaustedError, NotYetError
from bridge.observe.answers import Answers
from bridge.observe.document import about
from bridge.observe.http import HttpServer
from bridge.observe.notify import Notifier
from bridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.cli.early import EarlySignals
    from bridge.cli.patience import Patience
    from bridge.connection.supervisor import Supervisor
    from bridge.observe.events import EventLog
    from bridge.settings.settings import Settings

log = logging.getLogger(__name__)

EX_CONFIG = 78
EX_TEMPFAIL = 75
EX_SECOND_SIGNAL = 130
SECOND_SIGNAL_AFTER_S = 1.0
"""A signal sooner than this after the first is no second one."""
START_POLL_S = 0.2
"""How often what is in the way at the start is looked at again."""


def run(settings: Settings, events: EventLog, patience: Patience, early: EarlySignals) -> int:
    """Forward until a signal; return the exit code."""
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(settings, events, patience, early))
    except NotYetError as error:
        log.critical("%s; gave up after %g s", error, settings.start_timeout)
        return EX_TEMPFAIL
    except ExhaustedError:
        return EX_TEMPFAIL  # it was logged when it was seen
    except BridgeError as error:
        log.critical("%s", error)
        return EX_CONFIG
    return 0


async def _serve(settings: Settings, events: EventLog, patience: Patience, early: EarlySignals) -> None:
    loop = asyncio.get_running_loop()
    supervisor = assemble(settings)
    signals = Signals(supervisor)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.received, number)
    for number in (PAUSE, RESUME):
        loop.add_signal_handler(number, signals.told, number)
    if early.last is not None:
        signals.told(early.last)
    loop.set_exception_handler(partial(_unhandled, supervisor))
    heap.prepare()
    answers = Answers(supervisor.snapshot, loop, about(settings, events))
    listening = await _listen(settings, supervisor, answers, patience)
    if listening is None:
        return
    with listening as server, Notifier(os.environ, answers.document) as notifier:
        signals.notify(notifier.stopping)
        log.info(
            "amqp-bridge %s started",
            __version__,
            extra={
                "port": server.port,
                "source": settings.source.safe_urls,
                "source_queue": settings.source_queue,
                "destination": settings.destination.safe_urls,
                "destination_queue": settings.destination_queue,
                "destination_exchange": settings.destination_exchange,
                "destination_route": settings.destination_route,
            },
        )
        for text in filter(None, (settings.source.unverified, settings.destination.unverified)):
            log.warning("%s", text)
        await supervisor.run()


def _unhandled(supervisor: Supervisor, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take an exception that nobody has: without memory there may be hundreds, and each says the same."""
    if isinstance(context.get("exception"), MemoryError):
        supervisor.exhausted("for what the network brought")
    else:
        loop.default_exception_handler(context)


async def _listen(
    settings: Settings, supervisor: Supervisor, answers: Answers, patience: Patience
) -> HttpServer | None:
    """Return the HTTP server as soon as its port is free; None after a signal. Raises `BridgeError`."""
    while not supervisor.stopping:
        try:
            return HttpServer(settings.http, answers)
        except NotYetError as error:
            if patience.endure(error, settings.start_timeout):
                log.warning("%s; waiting for it for up to %g s", error, settings.start_timeout)
        await asyncio.sleep(START_POLL_S)
    return None


def _nobody() -> None:
    """Nobody wants to know."""


class Signals:
    """SIGTERM and SIGINT: the first drains, another one ends the process at once. SIGUSR1 pauses, SIGUSR2 resumes."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._first_s = 0.0
        self._stopping: Callable[[], None] = _nobody

    def notify(self, stopping: Callable[[], None]) -> None:
        """Call this when the first signal that ends the bridge comes."""
        self._stopping = stopping

    def told(self, number: int) -> None:
        """Pause or resume."""
        log.info("%s received", signal.Signals(number).name)
        if number == PAUSE:
            self._supervisor.pause()
        else:
            self._supervisor.resume()

    def received(self, number: int) -> None:
        """Handle a signal. One that comes with the first, from a wrapper that signals its whole group, is the same."""
        now_s = time.monotonic()
        if not self._supervisor.stopping:
            log.info("%s received", signal.Signals(number).name)
            self._first_s = now_s
            self._supervisor.stop()
            self._stopping()
        elif now_s - self._first_s >= SECOND_SIGNAL_AFTER_S:
            log.warning("second signal: ending at once; what is in flight will be redelivered by the source")
            logging.shutdown()
            os._exit(EX_SECOND_SIGNAL)
