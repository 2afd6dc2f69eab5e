"""The watch of a drain, sans-I/O: what `finish` is shown of the bridge, a few times a second.

The simulation drives the same code: when a drain is over is decided in one place, by what is seen in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.drain.finish import Look
from bridge.relay.consumer import Consumer

if TYPE_CHECKING:
    from bridge.observe.backlog import Backlog
    from bridge.relay.steering import Steering
    from bridge.window.window import Window


class Watch:
    """Looks at one bridge."""

    def __init__(self, window: Window, steering: Steering) -> None:
        self._window, self._steering = window, steering
        self._withheld_s: float | None = None
        """Since when something is withheld."""

    def look(self, source: Backlog, now_s: float, *, source_up: bool, destination_up: bool) -> Look:
        """Note what is withheld, and return what is seen; `source` is how long the source's queue is."""
        window, steering = self._window, self._steering
        aside = window.parked + window.withheld
        consumes = steering.consumer is Consumer.ON
        if not window.withheld:
            self._withheld_s = None
        elif self._withheld_s is None:
            self._withheld_s = now_s
        oldest_s = [window.oldest_received_s if window.parked else None, self._withheld_s]
        return Look(
            now_s=now_s,
            room=window.room,
            looks_again=window.looks_again,
            underway=window.in_flight - aside,
            parked=window.parked,
            withheld=window.withheld,
            full=consumes and not steering.expects_deliveries and window.in_flight == aside > 0,
            ready=source.messages if consumes else None,
            answered_s=source.asked_s,
            oldest_s=min((at_s for at_s in oldest_s if at_s is not None), default=None),
            trouble_s=window.trouble.seconds(now_s),
            source_up=source_up,
            destination_up=destination_up,
        )
