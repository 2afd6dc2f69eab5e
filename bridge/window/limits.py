"""What the window is held to: numbers from the settings, and those that are the bridge's own."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.window.pace import RETRY_MAX_S

LIMIT_MARGIN = 3
"""A delivery that has come back within so many of the delivery limit is quarantined."""
HELD_MOST_S = 1500.0
"""How long a delivery may be held: well below RabbitMQ's consumer timeout of 30 minutes."""


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """What the window is held to; see the settings of the same names."""

    prefetch: int = 1000
    max_in_flight_bytes: int = 64 << 20
    confirm_timeout_s: float = 30.0
    hold_timeout_s: float = 300.0
    unroutable_timeout_s: float = 300.0
    """0 for never."""
    retry_max_s: float = RETRY_MAX_S
    """How long the quarantine is left alone that does not accept a message, without a reason of its own."""
    delivery_limit: int = 20
    quarantine: bool = True
    max_hops: int = 0
    """How many bridges a message may have passed, this one included; 0 for any number."""
    max_rate: float = 0.0
    """Messages per second; 0 for no limit."""
    max_bytes_per_s: float = 0.0
    """0 for no limit."""
    paced_s: float = 60.0
    """The prefetch is at most what these rates forward in so many seconds."""
    stream_filtered: bool = False
    """Whether the consumer of a stream has a filter: what it leaves out is not missing."""
    destination_counted: bool = False
    """Whether nothing is published before the destination's queue has been counted."""
    destination_max_ready: int = 0
    """How many messages may wait in it; 0 for any number."""
