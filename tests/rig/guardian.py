"""Nothing outlives us: a child that ends what we started when we end, however we end.

A ``finally`` or ``atexit`` is not run when this process is SIGKILLed, and brokers left behind add up. The guardian is a
process of its own that reads from us what to end and to remove; when its input ends, because we closed it or died, it
does so.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).resolve().parents[2]
_guardian: subprocess.Popen[str] | None = None


def guard_group(pid: int) -> None:
    """Have the process group led by ``pid`` SIGKILLed when this process ends."""
    _tell(f"group {pid}")


def release_group(pid: int) -> None:
    """Forget a process group: it has ended, and its number may be another's soon."""
    _tell(f"ended {pid}")


def guard_folder(folder: Path) -> None:
    """Have a folder removed when this process ends."""
    _tell(f"folder {folder}")


def _tell(line: str) -> None:
    global _guardian  # noqa: PLW0603 - one for each process, begun when first needed
    if _guardian is None:
        _guardian = subprocess.Popen(
            [sys.executable, "-m", "tests.rig.guardian"],
            stdin=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            start_new_session=True,  # Ctrl-C at the terminal is for us, not for it
        )
        atexit.register(_dismiss)
    print(line, file=_guardian.stdin, flush=True)


def _dismiss() -> None:
    assert _guardian is not None
    _guardian.communicate()


def _watch(lines: IO[str]) -> None:
    groups: set[int] = set()
    folders: list[Path] = []
    for line in lines:
        kind, value = line.rstrip("\n").split(" ", 1)
        if kind == "group":
            groups.add(int(value))
        elif kind == "ended":
            groups.discard(int(value))
        else:
            folders.append(Path(value))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _watch(sys.stdin)
