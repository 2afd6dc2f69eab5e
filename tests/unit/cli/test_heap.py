"""The heap, in processes of their own: what they set holds for a process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CHURN = """
import resource, sys
from bridge.cli import heap
if "kept" in sys.argv:
    heap.prepare()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    blocks = [b"x" * 100_000 for _ in range(40)]
    del blocks
before = faults()
for _ in range(50):
    blocks = [b"x" * 100_000 for _ in range(40)]
    del blocks
print((faults() - before) / 2000)
"""
"""Prints the page faults for each block of 100 kB, which has 25 pages."""


def page_faults(*arguments: str, **environment: str) -> float:
    command = [sys.executable, "-c", CHURN, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="NOT TESTED: the C library is not glibc")
def test_memory_of_messages_is_used_again_without_page_faults() -> None:
    assert page_faults("kept") < 1
    assert page_faults("kept", MALLOC_TRIM_THRESHOLD_="131072") > 5, "set so, the threshold does not move"
