"""Hold each pure file to its own tests: every branch of `bridge/P/X.py` is run by `tests/unit/P/test_X*.py` alone.

Run it with `python -m tests.programs.coverage_by_file`; it exits 1 when one is not. What only holds numbers has no
tests of its own, and so no branch to cover.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
PURE = ("amqp", "window", "relay")
NO_BRANCHES = {
    "relay/action",
    "relay/plan",
    *(f"window/{name}" for name in ("books", "limits", "terms")),
    "amqp/events",
}
"""Files that only hold names and numbers."""
DRAIN = (
    "breaker",
    "digest",
    "filter",
    "finish",
    "plan",
    "progress",
    "receipt",
    "sample",
    "selection",
    "verification",
    "watch",
)
PURE_FILES = tuple(f"drain/{name}" for name in DRAIN)
"""Files of other layers that are held to it, too."""


def files() -> list[Path]:
    """Return the files of the pure layers that have branches."""
    bridge = ROOT / "bridge"
    candidates = [path for layer in PURE for path in sorted((bridge / layer).glob("*.py"))]
    candidates += [bridge / f"{name}.py" for name in PURE_FILES]
    named = {path: f"{path.parent.name}/{path.stem}" for path in candidates if path.stem != "__init__"}
    return [path for path, name in named.items() if name not in NO_BRANCHES]


def covered(file: Path, folder: Path) -> tuple[bool, str]:
    """Run the file's own tests: whether they pass and leave out nothing of it, and what was printed."""
    coverage = [sys.executable, "-m", "coverage"]
    data = f"--data-file={folder / file.parent.name}-{file.stem}"
    tests = [str(path) for path in sorted((ROOT / "tests/unit" / file.parent.name).glob(f"test_{file.stem}*.py"))]
    if not tests:
        return False, ""
    steps = (
        # With one seed: what of a file only some random example runs would be covered on some days.
        [*coverage, "run", data, "-m", "pytest", "-q", "--no-header", "--hypothesis-seed=0", *tests],
        [*coverage, "combine", "--quiet", data],
        [*coverage, "report", data, f"--include={file.relative_to(ROOT)}", "--fail-under=100"],
    )
    said = ""
    for step in steps:
        done = subprocess.run(step, cwd=ROOT, check=False, timeout=300, stdout=subprocess.PIPE, text=True)
        said += done.stdout
        if done.returncode != 0:
            return False, said
    return True, said


def main() -> int:
    """Look at every file, also after one that is not covered; return the exit status."""
    missing, looked_at = [], files()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as executor:
        found = executor.map(partial(covered, folder=Path(folder)), looked_at)
        for file, (complete, said) in zip(looked_at, found, strict=True):
            print(said, end="", flush=True)
            missing += [] if complete else [file]
    for file in missing:
        tests = f"tests/unit/{file.parent.name}/test_{file.stem}*.py"
        print(f"{file.relative_to(ROOT)} is not covered by {tests}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
