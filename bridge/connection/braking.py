"""Braking: reports to the brake what was asked and answered of the destination's queue, and has it looked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.relay.brake import Brake
    from bridge.relay.queue import QueueState


class Braking:
    """The brake as `counting` knows it."""

    def __init__(self, brake: Brake, wake: Callable[[], None]) -> None:
        """`wake` has the steering look at once."""
        self._brake = brake
        self._wake = wake

    def asked(self, now_s: float) -> None:
        """As `Brake.asked`."""
        self._brake.asked(now_s)

    def answered(self, found: QueueState) -> None:
        """As `Brake.answered`."""
        self._brake.answered(found)
        self._wake()

    def uncounted(self, why: str = "") -> None:
        """As `Brake.uncounted`."""
        self._brake.uncounted(why)
        self._wake()
