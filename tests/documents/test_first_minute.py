"""`make demo` before anything is installed: whose environment it makes, what it announces, and what it says then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.documents.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` reads of a checkout; nothing is installed there."""
    for name in ("Makefile", "pyproject.toml", "requirements-demo.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `make`, as if no other `make` had started the tests; its output and errors are one text."""
    own = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=own | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_a_network_it_says_what_it_would_have_needed(checkout: Path) -> None:
    """After it has said how much it installs and how long that takes."""
    result = make(checkout, "demo", f"PYTHON={sys.executable}", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert result.returncode == 2
    begin, end = result.stdout.splitlines()[0], " ".join(result.stdout.splitlines()[-4:])
    assert begin.endswith("an environment of its own, from pins with hashes: 80 MB in about a minute.")
    assert "The packages could not be installed, see above. This needs a network, once" in end
    assert "Nothing outside .venv-demo" in end


def test_another_python_makes_another_environment(checkout: Path) -> None:
    plans = {name: make(checkout, "--dry-run", "demo", f"PYTHON={name}").stdout for name in ("python3", "python3.13")}
    for name, folder in (("python3", ".venv-demo"), ("python3.13", ".venv-demo-python3.13")):
        assert f"{name} -m venv {folder}\n" in plans[name]
        assert f"{folder}/bin/python -m tests.programs.demo" in plans[name]


def test_the_demo_installs_no_development_tools(checkout: Path) -> None:
    assert "--requirement requirements-demo.lock" in make(checkout, "--dry-run", "demo").stdout
    pins = {line.partition("==")[0] for line in (ROOT / "requirements-demo.lock").read_text().splitlines()}
    assert not pins & {"coverage", "hypothesis", "mypy", "pytest", "ruff"}


IMPORTED = """
import sys
from importlib.metadata import packages_distributions
of, before = packages_distributions(), {*sys.modules}
import tests.programs.demo
print(*{name.lower() for module in {*sys.modules} - before for name in of.get(module.partition(".")[0], ())})
"""


def test_the_demo_needs_nothing_but_what_it_installs() -> None:
    run = subprocess.run(
        (sys.executable, "-c", IMPORTED), cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    lines = (ROOT / "requirements-demo.lock").read_text().splitlines()
    pins = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert {name.replace("_", "-") for name in run.stdout.split()} <= pins | {"amqp-bridge"}


@pytest.mark.parametrize("python", ("false", "no-such-python"))
def test_a_python_that_does_not_run_is_named(checkout: Path, python: str) -> None:
    result = make(checkout, "demo", f"PYTHON={python}")
    assert result.returncode == 2
    assert f"Python 3.11 or later is needed; {python} is none that runs here. Try make PYTHON=" in result.stdout
    assert not [path for path in checkout.iterdir() if path.name.startswith(".venv")]
