"""The plan of a bridge: what its settings ask of the relay, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.amqp.content import HeaderPolicy
from bridge.relay.queue import QueueType  # noqa: TC001 - a dataclass names its types


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bridge is set up to do; see the settings of the same names."""

    quarantine_queue: str = ""
    """Empty for none."""
    policy: HeaderPolicy = field(default_factory=HeaderPolicy)
    queue_type: QueueType | None = None
    """The source queue's, where the settings say so."""
    shutdown_timeout_s: float = 20.0
    reconnect_min_s: float = 0.2
    reconnect_max_s: float = 30.0
    """Bounds of the backoff between attempts to open the quarantine."""
