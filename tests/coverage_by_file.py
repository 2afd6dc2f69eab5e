"""Hold each pure module to its own tests: every branch of `bridge/X.py` is run by `tests/test_X*.py` alone.

Run it with `python -m tests.coverage_by_file`; it exits 1 when one is not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = (
    *("frames", "wire", "content", "memory"),
    *("settlement", "publishes", "blame", "pace", "aside", "window"),
    *("consumer", "quarantine", "relay", "watchdog", "backoff"),
)
ROOT = Path(__file__).parent.parent


def covered(module: str, folder: Path) -> bool:
    """Run the module's own tests and print what of it they leave out; whether they pass and leave out nothing."""
    coverage = [sys.executable, "-m", "coverage"]
    data = f"--data-file={folder / module}"
    include = f"--include=bridge/{module}.py"
    tests = [str(path) for path in sorted((ROOT / "tests").glob(f"test_{module}*.py"))]
    steps = (
        [*coverage, "run", data, "-m", "pytest", "-q", "--no-header", *tests],
        [*coverage, "combine", "--quiet", data],
        [*coverage, "report", data, include, "--fail-under=100"],
    )
    return all(subprocess.run(step, cwd=ROOT, check=False, timeout=300).returncode == 0 for step in steps)


def main() -> int:
    """Look at every module, also after one that is not covered; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        missing = [module for module in MODULES if not covered(module, Path(folder))]
    for module in missing:
        print(f"bridge/{module}.py is not covered by tests/test_{module}*.py", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
