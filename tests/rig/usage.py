"""What a process uses, by its pid."""

from __future__ import annotations

import os
import time
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads since it started, in nanoseconds where /proc has hundredths of a second.

    The clock of a pid is what clock_getcpuclockid(3) computes, which Python does not offer.
    """
    return time.clock_gettime(~pid << 3 | 2)


def resident_bytes(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
