"""Standard streams that are closed, full or not read any more: no traceback, and no socket in their place."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EX_IOERR = 74
UNREAD = 128 + signal.SIGPIPE
"""As a shell reports a program that a closed pipe has ended."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def open_standard_streams() -> None:
    """Open the null device for each of the first three descriptors that is closed.

    The next socket would get that number: what is meant for a log would go to a broker, and uvloop aborts.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free: this one
    # Python has given up those that were closed when it started.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - it stays open
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - it stays open


def writing(run: Callable[[], int]) -> int:
    """Run a command and write what it has left to write; return its exit code, or one of here where that fails."""
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # what reads it has seen enough
        _discard(1)
        return UNREAD
    except OSError as error:
        if error.errno not in FULL:
            raise
        _discard(1)
        sys.stderr.write(
            f"amqp-bridge: what it has to say cannot be written ({error.strerror}); expected room for it\n"
        )
        return EX_IOERR
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _discard(2)  # Python would try again at its end, and exit with 120


def _discard(descriptor: int) -> None:
    """Have what is left for a stream go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
