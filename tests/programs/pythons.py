"""Run what depends on the Python most under each other supported one: `python -m tests.programs.pythons`.

That is TLS, whose messages come from the interpreter's OpenSSL, and what is read from sockets. Each Python gets an
environment of its own by `make venv`. One that is not on this machine is NOT TESTED, and said to be.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
CHOSEN = (
    "tests/broker/test_tls.py",
    *(f"tests/unit/connection/test_{name}.py" for name in ("buffer", "tap", "tls")),
)


def supported() -> list[str]:
    """Return the versions that the package says it runs on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text) for text in project["classifiers"])
    return [match[1] for match in found if match]


def find(version: str) -> str | None:
    """Return a Python of this version that runs: one on the path, or one of pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return first_that_runs(_candidates(version, root), version)


def _candidates(version: str, pyenv: Path) -> Iterator[str]:
    if (on_path := shutil.which(f"python{version}")) is not None:
        yield on_path
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")))


def first_that_runs(candidates: Iterable[str], version: str) -> str | None:
    """Return the first that says it is of this version: pyenv's own command may be there and refuse to run."""
    question = "import sys; print('{}.{}'.format(*sys.version_info))"
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return candidate
    return None


def main() -> int:
    """Run them one after the other; return the exit status."""
    failed = []
    for version in supported():
        if version == "{}.{}".format(*sys.version_info):
            continue  # `make test` is for this one
        python = find(version)
        if python is None:
            print(f"NOT TESTED: there is no Python {version} here", flush=True)
            continue
        print(f"Python {version}: {python}", flush=True)
        subprocess.run(["make", "venv", f"PYTHON={python}"], cwd=ROOT, check=True)
        own = ROOT / f".venv-python{version}" / "bin" / "python"
        done = subprocess.run([own, "-m", "pytest", "--quiet", *CHOSEN], cwd=ROOT, check=False)
        if done.returncode:
            failed.append(version)
    if failed:
        print(f"failed under Python {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
