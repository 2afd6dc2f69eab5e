"""Signals that come before the bridge can act on them: noted while it is imported and waits to start.

It imports nothing but the standard library's `signal`, since its handlers are set before all other imports.
"""

from __future__ import annotations

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
