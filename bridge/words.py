"""The words that several layers share: closed sets, as types that mypy checks and as what `/metrics` lists."""

from __future__ import annotations

from typing import Literal

SideName = Literal["source", "destination"]

AgeUnknownReason = Literal["no-timestamp", "clock-ahead"]
"""Reason for which the age of a message is not known."""

QuarantineReason = Literal["poison", "too-large", "delivery-limit", "unroutable", "max-hops"]
"""Reason for which a message goes to the quarantine."""
RequeueReason = Literal["shutdown", "pause", "brake", "hold-timeout", "probe", "memory", QuarantineReason]
"""Reason for which a delivery is requeued; those of the quarantine where there is none."""
RetryReason = Literal["nack", "returned", "destination-lost"]
"""Reason for which a message is published again."""
BrakeReason = Literal["max-ready", "min-consumers"]
"""Which state of the destination's queue the bridge rests for."""
ThrottleReason = Literal["messages", "bytes"]
"""Which rate holds messages back."""

ConnectResult = Literal[
    "ok",
    "unreachable",
    "unresolvable",
    "timeout",
    "connection-lost",
    "tls",
    "credentials",
    "login-refused",
    "vhost",
    "missing",
    "forbidden",
    "locked",
    "mismatch",
    "refused",
    "protocol",
    "bug",
]
"""Result of an attempt to open a side."""
EndReason = Literal[
    "connection-lost",
    "connection-closed",
    "channel-closed",
    "heartbeat",
    "confirm-timeout",
    "consumer-cancelled",
    "stalled",
    "cancel-timeout",
    "quarantine-timeout",
    "hold-timeout",
    "paused",
    "closed-by-us",
    "malformed",
    "memory",
    "bug",
]
"""Reason for which a generation ends."""
Outcome = Literal[ConnectResult, EndReason, "blocked"]
"""What a connection came to. An attempt may fail for what ends a generation, too, and a generation may end since its
consumer was refused; `blocked` is known to `check` alone."""
