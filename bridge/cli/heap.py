"""The heap: how Python's garbage collector and the C library's allocator are set where messages are forwarded."""

from __future__ import annotations

import gc

GC_THRESHOLD = 50_000
"""The young generation's: a message is some tuples that die young, and none of them is in a cycle."""
KEPT_BYTES = 60 << 20
"""What of freed memory stays with the process at the top of its heap: a window of large messages, by the default.

The most that can be had: glibc takes no hint from a block of more than 32 MiB.
"""


def begin() -> None:
    """Collect nothing until `prepare`: imports make no garbage, and to look for it is a 26th of their instructions."""
    gc.disable()


def prepare() -> None:
    """Prepare for messages: all that exists by now stays."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Keep freed memory for the next messages, where the C library is glibc.

    It gives the top of the heap back to the kernel as soon as 128 KiB of it are free, and gets it page by page again,
    each with a page fault: an eighth of the CPU of a message of 100 kB, and a quarter of one of 10 MB. When it frees a
    block that it had mapped, it takes twice the size of that block for what is worth giving back (mallopt(3),
    M_MMAP_THRESHOLD). At the peak the process is no larger for it.
    """
    bytes(KEPT_BYTES // 2)
