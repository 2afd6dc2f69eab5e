"""Counting instructions with callgrind, which repeats to the instruction where a program leaves nothing to chance.

What could differ from run to run is fixed: the hash seed, every variable of the environment, and the compiled files,
which a run only reads. The clock is an argument of the pure layers. What remains is how memory happens to be laid out:
another folder, or modules that were compiled again, change a count by up to 0.6 %.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600
ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "PATH": os.environ.get("PATH", os.defpath),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": str(Path(xxhash.__file__).parents[1]),  # the one package that the pure layers need
}


class CountingError(Exception):
    """Nothing was counted; the message says why."""


def is_installed() -> bool:
    """Whether valgrind is on this machine."""
    return shutil.which("valgrind") is not None


def count(subjects: Sequence[str], messages: int) -> dict[str, float]:
    """Return the instructions per message of each subject of `workload`, by subject.

    Raises `CountingError`.
    """
    if not is_installed():
        raise CountingError("valgrind is not installed; 'make budget' installs it")
    for part in ("bridge", "tests"):
        compileall.compile_dir(ROOT / part, quiet=2)  # else what else runs here may do so between two counts
    with tempfile.TemporaryDirectory() as folder:
        callgrind = ["valgrind", "--tool=callgrind", "--dump-before=getppid", "--combine-dumps=yes"]
        output = [f"--callgrind-out-file={folder}/%p", f"--log-file={folder}/log-%p"]
        # Without the site packages: to look for them costs time.
        workload = [sys.executable, "-S", "-m", "tests.budget.workload", str(messages), *subjects]
        done = subprocess.run(
            [*callgrind, *output, *workload],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            raise CountingError(f"callgrind ended with status {done.returncode}:\n{done.stdout}")
        processes = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        return {subject: _marked(Path(folder, pid)) / messages for pid, subject in processes.items()}


def _marked(counters: Path) -> int:
    """Return the instructions between the two marks."""
    totals = re.findall(r"^totals: (\d+)$", counters.read_text(), re.MULTILINE)
    if len(totals) != 3:  # before the first mark, between the marks, after the second
        raise CountingError(f"callgrind saw {len(totals) - 1} calls of getppid, where two mark what counts")
    return int(totals[1])
