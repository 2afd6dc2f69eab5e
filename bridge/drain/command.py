"""The command `amqp-bridge drain`: its settings, its questions and its exit codes; its options are in `options`.

Exit 0 when all that was asked for is moved, 1 when not (the receipt says why), 64 for wrong use, 69 where a side cannot
be reached, 74 where the output or the receipt cannot be written, 75 where a file of the settings is missing, 78 for
wrong settings, 130 or 143 after a signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from uvloop import new_event_loop

from bridge.drain import sample, verification
from bridge.drain.drain import Drain
from bridge.drain.filter import Filter
from bridge.drain.options import PEEKED
from bridge.drain.plan import DrainPlan, Outlook
from bridge.drain.progress import shown
from bridge.drain.receipt import NOT_ALL, UNREACHABLE
from bridge.drain.request import Request, WrongUseError
from bridge.drain.survey import (
    inquiring,
    look_at,
    near_limit,
    require_reading,
    require_writing,
    survey_destination,
    survey_source,
)
from bridge.errors import BridgeError
from bridge.observe.text import hide, printable, visible, visible_lines

if TYPE_CHECKING:
    import argparse
    from collections.abc import Coroutine, Mapping
    from pathlib import Path
    from typing import Any

    from bridge.check.inquiry import Glimpse
    from bridge.drain.drain import Assemble
    from bridge.drain.receipt import Receipt
    from bridge.drain.survey import Side
    from bridge.settings.settings import Settings

T = TypeVar("T")

EX_USAGE = 64
EX_SECOND_SIGNAL = 130
SECOND_SIGNAL_AFTER_S = 1.0
"""A signal sooner than this after the first is no second one."""
FILTERING_PREFETCH = 2000
"""As many as a quorum queue lets one consumer hold: what does not match is held until the end."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
LINE_BYTES = 4096
"""A terminal's longest line (termios(3))."""


class InterruptedByError(BridgeError):
    """A signal came before anything was moved."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"{signal.Signals(number).name} received; nothing was moved")


def environment(environ: Mapping[str, str], arguments: argparse.Namespace) -> dict[str, str]:
    """Return the environment of the drain's settings. Raises `WrongUseError`.

    A drain quarantines nothing, reads no stream, and counts both queues every second.
    """
    source = environ.get("BRIDGE_SOURCE_QUEUE", "")
    queue = arguments.queue or source
    if arguments.quarantine:
        if arguments.queue:
            raise WrongUseError("QUEUE and --quarantine are both given; expected one of them")
        queue = environ.get("BRIDGE_QUARANTINE_QUEUE") or (f"{source}.quarantine" if source else "")
    found = {"BRIDGE_LOG_LEVEL": "warning", **environ}
    if arguments.command == "drain":
        if arguments.to_original:
            found = {name: value for name, value in found.items() if not name.startswith("BRIDGE_DESTINATION_")}
        if _filter(arguments, 0.0):
            found.setdefault("BRIDGE_SOURCE_PREFETCH", str(FILTERING_PREFETCH))
        if arguments.rate:
            found["BRIDGE_MAX_RATE"] = str(arguments.rate)
    return found | {
        "BRIDGE_SOURCE_QUEUE": queue,
        "BRIDGE_QUARANTINE_QUEUE": "",
        "BRIDGE_SOURCE_OFFSET_NAME": "",
        "BRIDGE_SOURCE_STREAM_URL": "",
        "BRIDGE_QUEUE_POLL": "1s",
        "BRIDGE_START_PAUSED": "false",
    }


def _filter(arguments: argparse.Namespace, unix_s: float) -> Filter:
    older: float | None = arguments.older_than
    return Filter(
        headers=tuple(arguments.match),
        reasons=tuple(arguments.reason),
        keys=tuple(arguments.key),
        before_unix_s=None if older is None else unix_s - older,
    )


def request(arguments: argparse.Namespace) -> Request:
    """Return what is asked for. Raises `WrongUseError`."""
    receipt: Path | None = arguments.receipt
    if receipt is not None and (receipt.is_dir() or not os.access(receipt.parent, os.W_OK)):
        raise WrongUseError(f"--receipt {printable(str(receipt))} cannot be written there")
    if arguments.ramp and not arguments.rate:
        raise WrongUseError("--ramp is given without --rate; expected both")
    if arguments.allow_target and not arguments.to_original:
        raise WrongUseError("--allow-target is given without --to-original; expected both")
    return Request(
        limit=arguments.limit,
        until_empty=arguments.until_empty,
        yes=arguments.yes,
        dry_run=arguments.dry_run,
        receipt=receipt,
        to_original=arguments.to_original,
        allowed=tuple(arguments.allow_target),
        wanted=_filter(arguments, time.time()),
        ramp_s=arguments.ramp or 0.0,
    )


def drain(settings: Settings, wanted: Request, assemble: Assemble, *, on_terminal: bool = False) -> int:
    """Drain, and return the exit code; on a terminal somebody is asked first."""
    try:
        plan = _run(_survey(settings, wanted))
        plan.refuse()
        _say(plan.text)
        if wanted.dry_run:
            return 0
        if on_terminal and not wanted.yes and not _run(_agreed()):
            _say("nothing was moved\n")
            return NOT_ALL
    except BridgeError as error:
        return _complain(hide(str(error), settings.secrets()), status_of(error))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        receipt = runner.run(_drain(settings, plan, assemble))
    why = ""
    if wanted.receipt is not None:  # first, since nobody may read the output any more
        try:
            _write(wanted.receipt, receipt.as_json)
        except OSError as error:
            why = f"the receipt cannot be written to {printable(str(wanted.receipt))} ({error.strerror}); it is above"
    _say(receipt.text)
    return _complain(why, receipt.status or os.EX_IOERR) if why else receipt.status


def peek(settings: Settings, *, limit: int, yes: bool, in_json: bool) -> int:
    """Show the first messages of a queue in groups; return the exit code."""
    try:
        found, source = _run(_peek(settings, limit, yes=yes))
    except BridgeError as error:
        return _complain(hide(str(error), settings.secrets()), status_of(error))
    listed = sample.groups(found, time.time(), settings.source_queue or "")
    _say((sample.as_json if in_json else sample.as_text)(listed, len(found), source.ready))
    if found and near_limit(source, found[-1]):
        _tell(f"the last of them is near the queue's delivery limit ({source.delivery_limit}), which ends the look\n")
    return 0


async def _peek(settings: Settings, limit: int, *, yes: bool) -> tuple[list[Glimpse], Side]:
    async with inquiring(settings, settings.source) as inquiry:
        source = await survey_source(settings, inquiry)
        if source.queue.queue_type == "stream":
            raise WrongUseError(f'"{source.name}" is a stream, which has no first message to look at and return')
        if not (yes or source.returns_uncounted):
            raise WrongUseError(
                f'to return a message to queue "{source.name}" may count towards its delivery limit and put it behind '
                "others (a quorum queue before RabbitMQ 4.3, or one of a kind that the user is not told); say --yes"
            )
        found = await look_at(inquiry, source, limit)
    return found, source


def verify(first: Path, second: Path) -> int:
    """Hold what the first receipt says was moved against what the second took; return the exit code."""
    try:
        documents = [verification.read(str(path), path.read_text()) for path in (first, second)]
    except OSError as error:
        return _complain(f"{printable(str(error.filename))} cannot be read ({error.strerror})", EX_USAGE)
    except (WrongUseError, UnicodeDecodeError) as error:
        return _complain(error, EX_USAGE)
    compared = verification.compare(*documents)
    _say(verification.as_text(compared, verification.remarks(documents[1])))
    return 0 if all(each.agrees for each in compared) else NOT_ALL


def _complain(why: object, status: int) -> int:
    _tell(f"amqp-bridge: {visible(str(why))}\n")
    return status


def status_of(error: BridgeError) -> int:
    """Return the exit code for what went wrong before anything was moved."""
    if isinstance(error, InterruptedByError):
        return 128 + error.number
    return EX_USAGE if isinstance(error, WrongUseError) else UNREACHABLE


async def _agreed() -> bool:
    """Ask on the terminal whether to go ahead. Raises `InterruptedByError` where there is no answer any more.

    The loop reads, since a signal that comes just before `input` begins to read would not end it.
    """
    _say("move them? [y/N] ")
    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()
    typed = asyncio.Event()
    loop.add_reader(keyboard, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(keyboard)
    line = os.read(keyboard, LINE_BYTES)
    if not line:
        raise InterruptedByError(signal.SIGINT)
    return line.strip().lower() in {b"y", b"yes"}


def _write(path: Path, text: str) -> None:
    """Write a file whole, or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


async def _survey(settings: Settings, wanted: Request) -> DrainPlan:
    async with inquiring(settings, settings.source) as inquiry:
        source = await survey_source(settings, inquiry)
        await require_reading(inquiry, source)
        outlook = None
        if wanted.to_original is not None and source.returns_uncounted:
            found = await look_at(inquiry, source, min(PEEKED, source.ready or 0))
            outlook = Outlook.of(sample.groups(found, time.time(), source.name), wanted.to_original)
    async with inquiring(settings, settings.destination) as inquiry:
        destination = await survey_destination(settings, inquiry)
        if wanted.to_original != "exchange":  # which each message names
            await require_writing(inquiry, settings.target)
    stated = settings.stated_source_type is not None
    return DrainPlan(source, destination, wanted, stated=stated, outlook=outlook)


async def _drain(settings: Settings, plan: DrainPlan, assemble: Assemble) -> Receipt:
    draining = Drain(settings, plan, assemble, shown(_tell, live=sys.stderr.isatty()))
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(draining.unhandled)
    first_s: list[float] = []

    def interrupt(number: int) -> None:
        now_s = time.monotonic()
        if not first_s:
            first_s.append(now_s)
            draining.interrupt(number)
        elif now_s - first_s[0] >= SECOND_SIGNAL_AFTER_S:
            _tell("amqp-bridge: second signal: ending at once; what is in flight will be delivered again\n")
            os._exit(EX_SECOND_SIGNAL)

    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt, number)
    return await draining.run()


def _run(question: Coroutine[Any, Any, T]) -> T:
    """Run something short; a signal ends it. Raises `InterruptedByError`, and what it raises."""
    received: list[int] = []

    async def run() -> T:
        asking = asyncio.ensure_future(question)

        def end(number: int) -> None:
            received.append(number)
            asking.cancel()

        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        return await asking

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(run())
    except asyncio.CancelledError:
        raise InterruptedByError(received[0]) from None
    finally:
        # uvloop 0.23 leaves its own handlers behind, which do nothing.
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stdout.write(visible_lines(text))
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(visible_lines(text))
    sys.stderr.flush()
