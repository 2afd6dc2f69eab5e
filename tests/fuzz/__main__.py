"""`python -m tests.fuzz`: coverage-guided fuzzing of all that reads what strangers send, each target in its turn.

What must hold stands in `targets`. An input that breaks it is written to a file and printed, with the command that
tries it again. Exit status: 0 when all held; 1 when something did not; 3 when nothing was tested, for lack of atheris.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, NamedTuple

from tests.fuzz import corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGETS = ("cutter", "content", "relay", "http", "settings")
PASSED, FAILED, NOT_TESTED = 0, 1, 3
SLOWEST_S = 20
"""An input that takes longer makes something spin."""
EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")


class Campaign(NamedTuple):
    """What came of one target."""

    executions: int
    seconds: float
    output: str
    """Of libFuzzer, where something did not hold; empty otherwise."""
    found: list[bytes]
    """The corpus, and what has reached new branches."""


def fuzz(module: str, inputs: list[bytes], limits: Sequence[str], findings: Path) -> Campaign:
    """Fuzz a module's `run` from these inputs, within libFuzzer's limits."""
    most_bytes: int = importlib.import_module(module).MAX_BYTES
    with TemporaryDirectory(prefix="fuzz-corpus-") as parent:
        folder = Path(parent) / "inputs"
        corpus.unpack(inputs, folder)
        began_s = time.monotonic()
        ended = libfuzzer(
            module,
            *(*limits, f"-max_len={most_bytes}", f"-timeout={SLOWEST_S}", "-print_final_stats=1"),
            *(f"-artifact_prefix={findings}/", str(folder)),
        )
        executed = EXECUTED.search(ended.stdout)
        return Campaign(
            int(executed[1]) if executed else 0,
            time.monotonic() - began_s,
            ended.stdout if ended.returncode else "",
            corpus.pack(folder),
        )


def libfuzzer(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run libFuzzer on a module, in a process of its own."""
    command = (sys.executable, "-m", "tests.fuzz.instrumented", module, *options)
    output, errors = subprocess.PIPE, subprocess.STDOUT  # a traceback goes to the one, what libFuzzer says to the other
    return subprocess.run(command, stdout=output, stderr=errors, text=True, errors="replace", check=False)


def limits_of(options: argparse.Namespace, targets: Sequence[str]) -> list[str]:
    """Return how long to fuzz a target, in libFuzzer's words."""
    if options.executions is not None:
        return [f"-runs={options.executions}"]
    return [f"-max_total_time={max(1, round(options.seconds / len(targets)))}"]


def main(arguments: Sequence[str] | None = None, *, installed: bool = find_spec("atheris") is not None) -> int:
    """Fuzz each target; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for all targets together; 300 unless told")
    parser.add_argument("--executions", type=int, help="of each target, in the place of a time")
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    parser.add_argument("--input", type=Path, help="try this file once, without atheris; needs --target")
    parser.add_argument("--learn", action="store_true", help="keep in the corpus what has reached new branches")
    options = parser.parse_args(arguments)
    targets = TARGETS if options.target is None else (options.target,)
    if options.input is not None:
        if options.target is None:
            parser.error("--input needs --target")
        importlib.import_module(f"tests.fuzz.targets.{options.target}").run(options.input.read_bytes())
        print(f"{options.target}: all held")
        return PASSED
    if not installed:
        print(
            f"NOT TESTED: atheris is not installed. It has wheels for CPython 3.11 to 3.13 on Linux, x86-64; this is "
            f"{sys.implementation.name} {sys.version.split()[0]} on {sys.platform}, {machine()}. The suite tries the "
            "corpus without it.",
            file=sys.stderr,
        )
        return NOT_TESTED
    return campaign(targets, limits_of(options, targets), learn=options.learn)


def campaign(targets: Sequence[str], limits: Sequence[str], *, learn: bool) -> int:
    """Fuzz one target after the other; return the exit status."""
    status = PASSED
    print(f"{'target':10}{'executions':>12}{'per second':>12}{'inputs':>8}", flush=True)
    for target in targets:
        module = f"tests.fuzz.targets.{target}"
        findings = Path(mkdtemp(prefix="fuzz-findings-"))
        result = fuzz(module, corpus.read(target), limits, findings)
        rate = result.executions / result.seconds
        print(f"{target:10}{result.executions:12,}{rate:12,.0f}{len(result.found):8,}", flush=True)
        if result.output:
            status = FAILED
            print(result.output[-8000:], file=sys.stderr)
            for path in sorted(findings.iterdir()):
                print(f"FAILED: python -m tests.fuzz --target {target} --input {path}", file=sys.stderr)
        else:
            findings.rmdir()
        if learn:
            corpus.write(target, result.found)
    return status


if __name__ == "__main__":
    sys.exit(main())
