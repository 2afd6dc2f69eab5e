"""What comes before all else: signals are noted while the bridge is imported, and it leaves no core dump.

It imports nothing but `resource` and `signal`, since its handlers are set before all other imports.
"""

from __future__ import annotations

import resource
import signal

PAUSE, RESUME = signal.SIGUSR1, signal.SIGUSR2


class EarlySignals:
    """What an operator has asked for so far: the default action of SIGUSR1 and SIGUSR2 would end the process."""

    def __init__(self) -> None:
        self.last: int | None = None
        """The last of these signals; None for none."""

    def listen(self) -> None:
        """Note these signals until somebody else handles them."""
        for number in (PAUSE, RESUME):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self.last = number


def forbid_core_dumps() -> None:
    """Have the kernel write no memory of this process to a disk: it holds passwords, tokens and messages.

    1 and not 0 where that may be: of a limit of 0 a program that gets the dump through a pipe takes no notice, and for
    1 the kernel starts none (core(5), and `do_coredump` of Linux since 2.6.32).
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
