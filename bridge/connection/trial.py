"""A trial: a second, short connection that logs in with a new token, before an open connection is asked to take it.

RabbitMQ closes a connection (530) whose new token it refuses; what is refused here costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.connection.limits import DEFAULT
from bridge.connection.link import Link
from bridge.connection.receiver import QuietReceiver

if TYPE_CHECKING:
    from bridge.connection.limits import TimeLimits
    from bridge.settings.settings import Settings
    from bridge.settings.sides import SideSettings


class Trial(Link):
    """One login, to one URL of a side, with a `secret` in place of the configured one."""

    def __init__(self, settings: Settings, side: SideSettings, secret: str, limits: TimeLimits = DEFAULT) -> None:
        super().__init__(settings, side, limits)
        self._new_secret = secret

    async def open(self, index: int) -> None:
        """Log in; open no channel. Raises `BridgeError`."""
        async with self._explained(index):
            await self._log_in_to(index, QuietReceiver(self.closed, self._blocked), self._new_secret)

    def _blocked(self, reason: str, now_s: float) -> None:
        """The broker would answer no more."""
        self.finish("blocked", f"the broker blocks publishers ({reason})", now_s, drop=True)


async def try_login(settings: Settings, side: SideSettings, limits: TimeLimits, index: int, secret: str) -> None:
    """Log in to URL number `index` of the side with the secret, and out again. Raises `BridgeError`."""
    trial = Trial(settings, side, secret, limits)
    try:
        await trial.open(index)
    finally:
        await trial.close()
