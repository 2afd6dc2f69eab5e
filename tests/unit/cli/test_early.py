"""What comes before all else: a crash leaves no core dump, by a real one.

A file of its own: once a test has run the command line in its own process, that process may not have a dump any more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def crashed(folder: Path, *arguments: str) -> list[Path]:
    """Start a Python that may dump its core, abort it when it has said something, and return the files it left."""
    variables = {
        "BRIDGE_SOURCE_URL": "amqp://u:p@127.0.0.1:1",
        "BRIDGE_SOURCE_QUEUE": "in",
        "BRIDGE_DESTINATION_QUEUE": "out",
        "BRIDGE_HTTP_PORT": "0",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    folder.mkdir()
    process = subprocess.Popen(
        ("bash", "-c", 'ulimit -c unlimited; exec "$@"', "bash", sys.executable, *arguments),
        env=os.environ | variables,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline()
        process.send_signal(signal.SIGABRT)
        assert process.wait(timeout=60) == -signal.SIGABRT
    return sorted(folder.glob("core*"))


def test_a_crash_leaves_no_core_dump(tmp_path: Path) -> None:
    """A real one, of a process that may write one; one that is not the bridge does."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    unlimited = subprocess.run(["bash", "-c", "ulimit -c unlimited"], check=False, stderr=subprocess.DEVNULL)
    if not pattern.startswith("core") or unlimited.returncode:
        pytest.skip("NOT TESTED: no core dump is written into the folder of a process here")
    assert crashed(tmp_path / "other", "-uc", "import time; print('ready'); time.sleep(60)")
    assert crashed(tmp_path / "bridge", "-m", "bridge", "run") == []
