"""The command `amqp-bridge check`: it checks until a signal, and prints what was found."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

from uvloop import new_event_loop

from bridge.check.check import as_json, as_table, check, failed

if TYPE_CHECKING:
    from bridge.check.finding import Finding
    from bridge.settings.settings import Settings


def check_settings(settings: Settings, *, in_json: bool) -> int:
    """Check what the settings lead to; return the exit code: 1 for an error, a signal's as a shell reports it."""
    received: list[int] = []
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            findings = runner.run(_check(settings, received))
        except asyncio.CancelledError:
            return 128 + received[0]
    sys.stdout.write(as_json(findings) if in_json else as_table(findings))
    return int(failed(findings))


async def _check(settings: Settings, received: list[int]) -> list[Finding]:
    """Check until a signal, which is noted: it cancels, since an exception out of nowhere would leave a traceback."""
    checking = asyncio.ensure_future(check(settings))

    def end(number: int) -> None:
        received.append(number)
        checking.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    return await checking
