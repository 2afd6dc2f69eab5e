"""Which process a bridge is, so that it can be told from another that has got its number, here or in a container.

A process is known by its number, the time of its start and the namespace in which it has that number. Only Linux says
the last two; elsewhere they are unknown, and a process that is not known for certain is sent no signal.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
START_TIME = 19
"""Place of a process's start in `/proc/PID/stat`, counted from the field after the name (proc(5): field 22)."""


class Process(NamedTuple):
    """One process."""

    pid: int
    started_ticks: int | None
    """When it was started, in clock ticks since the machine was."""
    namespace: str | None
    """The pid namespace, such as `pid:[4026531836]`."""


def process_of(pid: int, proc: Path = PROC) -> Process:
    """Return what process has this number now, as far as this process may know."""
    process = proc / str(pid)
    try:
        # A name may hold anything, parentheses too.
        started = int((process / "stat").read_text().rpartition(")")[2].split()[START_TIME])
    except (OSError, ValueError, IndexError):
        return Process(pid, None, None)
    return Process(pid, started, own_namespace(proc))


def own_namespace(proc: Path = PROC) -> str | None:
    """Return this process's pid namespace; None where nobody says."""
    try:
        return str((proc / "self/ns/pid").readlink())
    except OSError:
        return None


def own_process(proc: Path = PROC) -> Process:
    """Return who this process is."""
    return process_of(os.getpid(), proc)
