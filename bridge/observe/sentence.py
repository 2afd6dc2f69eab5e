"""The bridge's state as one sentence, made from the status document: what an operator wants to know first."""

from __future__ import annotations

from typing import Any

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
STILL = 0.05
"""Below so many messages per second, nothing is forwarded now."""


def sentence(document: dict[str, Any]) -> str:
    """Return the sentence."""
    bridge, readiness = document["bridge"], document["readiness"]
    if not bridge["answers"]:
        return f"the event loop does not answer; everything else is as of {clock(bridge['now'], bridge['now'])}"
    if document["consumer"]["stopping"]:
        return f"stopping, {number(_in_flight(document))} messages in flight"
    if document["consumer"]["paused"] or (document["consumer"]["braked"] and readiness["ready"]):
        said = _resting(document)
    else:
        said = _hindered(document) if not readiness["ready"] else _flow(document)
    return "; ".join([said, *(f"degraded: {text}" for text in readiness["degraded"])])


def _hindered(document: dict[str, Any]) -> str:
    now = document["bridge"]["now"]
    for name in ("source", "destination"):
        side = document[name]
        if side["state"] != "connected":
            since = f" since {clock(side['since'], now)}" if side["since"] else ""
            return f"{name} not connected{since}: {side['reason']}"
    destination = document["destination"]
    if destination["blocked"]:
        why = f": {destination['blocked_reason']}" if destination["blocked_reason"] else ""
        return f"destination blocked since {clock(destination['blocked_since'], now)}{why}"
    reason: str = document["readiness"]["reasons"][0]
    if destination["trouble"] and destination["trouble"] in reason:
        reason = f"{reason}, for {duration(destination['trouble_s'])}"
    return reason


def _flow(document: dict[str, Any]) -> str:
    pace = document["rates"]["10s"]["forwarded"] or 0.0
    source = document["backlog"]["source"]
    waiting = source.get("messages_ready")
    if pace >= STILL:
        parts = [f"forwarding {number(pace)} messages/s"]
    else:
        parts = ["idle" if waiting == 0 else "forwarding nothing"]
    if waiting is not None:
        parts.append(f"{number(waiting)} waiting" if waiting else "none waiting")
    if waiting and source["drain_s"] is not None:
        parts.append(f"empty in about {duration(source['drain_s'])}")
    elif waiting and source["grows_per_s"] is not None:
        parts.append("not getting fewer")
    if pace < STILL and (last := document["books"]["last_forward"]):
        parts.append(f"last forwarded at {clock(last, document['bridge']['now'])}")
    return ", ".join(parts)


def _resting(document: dict[str, Any]) -> str:
    waiting = document["backlog"]["source"].get("messages_ready")
    held = _in_flight(document)
    parts = [document["consumer"]["state"]]
    parts += [f"{number(held)} messages in flight"] if held else []
    parts += [] if waiting is None else [f"{number(waiting)} waiting" if waiting else "none waiting"]
    return ", ".join(parts)


def _in_flight(document: dict[str, Any]) -> int:
    return sum(document["books"]["in_flight"].values())


def number(value: float) -> str:
    """Return a number for people: whole, or with two digits where it is small."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"  # noqa: PLR2004


def duration(seconds: float) -> str:
    """Return a duration for people: one unit, or two."""
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    if seconds < DAY_S:
        return f"{seconds / HOUR_S:.1f} h"
    return f"{seconds / DAY_S:.1f} days"


def clock(at: str, now: str, *, seconds: bool = False, zone: str = " UTC") -> str:
    """Return the time of day in UTC of a timestamp, with the date where it is not today's."""
    day, time = at[:10], at[11 : 19 if seconds else 16]
    return f"{time}{zone}" if day == now[:10] else f"{day} {time}{zone}"


def where(side: dict[str, Any]) -> str:
    """Return what a side reads from or publishes to, from its section of the document."""
    if side.get("route"):
        return "each message's own exchange and key"
    return f"exchange {side['exchange']}" if side.get("exchange") else side["queue"] or ""
