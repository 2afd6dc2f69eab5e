"""The plan of a bridge: what its settings ask of the relay, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.amqp.preparer import HeaderPolicy
from bridge.relay.queue import QueueType  # noqa: TC001 - a dataclass names its types
from bridge.relay.watchdog import ASK_EVERY_S

UNUSED_PAUSE_S = 0.25
"""Pause after the second generation in a row that was lost unused (see `state`): doubles up to `hold_timeout`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bridge is set up to do; see the settings of the same names."""

    quarantine_queue: str = ""
    """Empty for none."""
    source_queue: str = ""
    """What a message in the quarantine says of where it came from; empty to say nothing."""
    policy: HeaderPolicy = field(default_factory=HeaderPolicy)
    queue_type: QueueType | None = None
    """The source queue's, where the settings say so."""
    shutdown_timeout_s: float = 20.0
    """How long a pause forwards what is held, too."""
    start_paused: bool = False
    destination_max_ready: int = 0
    destination_min_consumers: int = 0
    """0 for not to look at it; with one of them, the window has a quota."""
    reconnect_min_s: float = 0.2
    reconnect_max_s: float = 30.0
    """Bounds of the backoff between attempts to open the quarantine."""
    ask_every_s: float = ASK_EVERY_S
    unused_pause_s: float = UNUSED_PAUSE_S
    """As the constants of these names."""
