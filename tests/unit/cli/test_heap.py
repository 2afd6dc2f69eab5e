"""The heap, in processes of their own: what they set holds for a process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROBE = """
import resource
from bridge.cli import heap
def is_on_the_heap():
    block = b"x" * 3_000_000
    for line in open("/proc/self/maps"):
        first, _, after = line.split()[0].partition("-")
        if int(first, 16) <= id(block) < int(after, 16):
            return "[heap]" in line
def churn():
    for _ in range(50):
        blocks = [b"x" * 100_000 for _ in range(500)]
        del blocks
before = is_on_the_heap()
heap.prepare()
churn()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
print(before, is_on_the_heap(), faults < 2000)
"""
"""What glibc maps by itself it gives back at once. 500 blocks of 25 pages, 50 MB, are churned 50 times."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="NOT TESTED: the C library is not glibc")
def test_memory_of_messages_is_kept_and_used_again_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    assert done.stdout == "False True True\n"


def test_garbage_is_collected_again_from_the_first_message_on() -> None:
    probe = "import gc; from bridge.cli import heap; heap.begin(); begun = gc.isenabled(); heap.prepare()"
    probe += "; print(begun, gc.isenabled(), gc.get_freeze_count() > 0)"
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert done.stdout == "False True True\n"
