"""The distance: how far both brokers are, and what the prefetch lets pass over it."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from bridge.check.finding import Finding

if TYPE_CHECKING:
    from bridge.settings.settings import Settings

MODEST_PER_S = 1000
"""Messages per second that a route is supposed to be set up for, where no rate is set."""
UNHINDERED_PER_S = 100_000
"""More than one bridge forwards: a prefetch that would let so many pass holds back nothing."""


def distance(settings: Settings, source_s: float, destination_s: float) -> Finding:
    """Return what follows from the round trips to both brokers.

    A message takes a place in the prefetch until it has been confirmed over there and acked here.
    """
    away_s = source_s + destination_s
    prefetch, wanted_per_s = settings.source_prefetch, settings.max_rate or MODEST_PER_S
    text = f"{source_s * 1000:.1f} ms to the source, {destination_s * 1000:.1f} ms to the destination: a prefetch of "
    if prefetch >= UNHINDERED_PER_S * away_s:
        return Finding("ok", "bridge", "round trip", f"{text}{prefetch} holds back nothing")
    text += f"{prefetch} lets at most some {prefetch / away_s:,.0f} messages/s pass"
    if prefetch >= wanted_per_s * away_s:
        return Finding("ok", "bridge", "round trip", text)
    text += f"; for {wanted_per_s:,} set BRIDGE_SOURCE_PREFETCH to {ceil(wanted_per_s * away_s)} or more"
    return Finding("warning", "bridge", "round trip", text)
