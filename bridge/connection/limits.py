"""The time limits of a bridge that are no settings: tests make them short."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.relay.backoff import STABLE_S
from bridge.relay.plan import UNUSED_PAUSE_S
from bridge.relay.watchdog import ASK_EVERY_S
from bridge.window.pace import RETRY_MAX_S


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long the bridge waits, in seconds."""

    connect_s: float = 10.0
    """For connecting, logging in and opening the channel together; and for the answer to any other question."""
    close_s: float = 3.0
    """For a polite goodbye; the connection is dropped after it."""
    renew_s: float = 10.0
    """How often a file with a token is looked at for a new one."""
    stable_s: float = STABLE_S
    ask_every_s: float = ASK_EVERY_S
    unused_pause_s: float = UNUSED_PAUSE_S
    retry_max_s: float = RETRY_MAX_S
    """As the constants of these names."""


DEFAULT = TimeLimits()
