"""Which process a bridge is, so that it can be told from another that has got its number, here or in a container.

A process is known by its number, the time of its start and the namespace in which it has that number. Only Linux says
the last two; elsewhere they are unknown, and a process that is not known for certain is sent no signal.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

START_TIME = 19
"""Place of a process's start in `/proc/PID/stat`, counted from the field after the name (proc(5): field 22)."""


class Identity(NamedTuple):
    """One process."""

    pid: int
    started_ticks: int | None
    """When it was started, in clock ticks since the machine was."""
    namespace: str | None
    """The pid namespace, such as `pid:[4026531836]`."""


def identity_of(pid: int) -> Identity:
    """Return what process has this number now, as far as this process may know."""
    process = Path("/proc") / str(pid)
    try:
        # A name may hold anything, parentheses too.
        started = int((process / "stat").read_text().rpartition(")")[2].split()[START_TIME])
    except (OSError, ValueError, IndexError):
        return Identity(pid, None, None)
    return Identity(pid, started, own_namespace())


def own_namespace() -> str | None:
    """Return this process's pid namespace; None where nobody says."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def own_identity() -> Identity:
    """Return who this process is."""
    return identity_of(os.getpid())
