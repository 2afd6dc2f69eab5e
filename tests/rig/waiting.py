"""Waiting for a condition of another process, the one place of the rig that polls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30, interval_s: float = 0.02) -> None:
    """Return as soon as the condition holds.

    Raises TimeoutError, naming what was waited for, when it does not hold within ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s} s in vain: {what}")
        time.sleep(interval_s)
