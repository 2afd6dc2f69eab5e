"""One target under atheris, in a process of its own: `python -m tests.fuzz.instrumented MODULE OPTIONS`, of libFuzzer.

libFuzzer ends the process that it runs in. It writes the input that made a target raise into a file, and says its name.
The process may take little memory beyond what it has: an allocation by a declared size ends in an exception.
"""

from __future__ import annotations

import importlib
import resource
import sys
from pathlib import Path

import atheris

GUIDING = ["bridge", "http", "email"]
"""Packages whose branches guide the fuzzer: the bridge, and what the standard library parses requests with."""
ROOM_BYTES = 512 << 20
PAGE_BYTES = resource.getpagesize()


def main() -> None:
    """Fuzz until libFuzzer has had enough."""
    program, name, *options = sys.argv
    with atheris.instrument_imports(include=GUIDING):
        target = importlib.import_module(name)
    atheris.Setup([program, *options], target.run)
    taken_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (taken_bytes + ROOM_BYTES,) * 2)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
