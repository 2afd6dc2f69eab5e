"""The check: inspects every URL of both sides, compares the sides, and says what it found; changes nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from bridge.check.distance import distance
from bridge.check.finding import Finding, Level
from bridge.check.inspection import RABBITMQ_4, Inspection
from bridge.connection.limits import DEFAULT
from bridge.errors import ConnectError
from bridge.observe.text import hide, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.check.inquiry import Broker, Inquiry
    from bridge.connection.limits import TimeLimits
    from bridge.settings.settings import Settings

LEVELS: tuple[Level, ...] = ("ok", "warning", "error")


async def check(settings: Settings, limits: TimeLimits = DEFAULT) -> list[Finding]:
    """Return what is found with these settings, the source's first."""
    sides = [
        [Inspection(settings, side, index, limits) for index in range(len(side.addresses))]
        for side in (settings.source, settings.destination)
    ]
    inspections = [inspection for side in sides for inspection in side]
    try:
        await asyncio.gather(*(inspection.inspect() for inspection in inspections))
        source, destination = (next((each for each in side if each.inquiry.is_open), None) for side in sides)
        findings = [finding for side in sides for finding in _of_side(side)]
        if source is not None and destination is not None:
            findings += [
                *_sizes(source.inquiry.broker, destination.inquiry.broker),
                *await _loop(settings, source.inquiry, destination.inquiry),
                await _distance(settings, source.inquiry, destination.inquiry),
            ]
    finally:
        await asyncio.gather(*(inspection.inquiry.close() for inspection in inspections))
    # A broker may repeat in a refusal what it was sent.
    secrets = settings.secrets()
    return [replace(finding, text=hide(finding.text, secrets)) for finding in findings]


def _of_side(inspections: list[Inspection]) -> list[Finding]:
    """Return a side's findings; a URL that is down is only a warning where another one is up."""
    some_open = any(inspection.inquiry.is_open for inspection in inspections)
    return [
        Finding("warning", finding.side, finding.subject, finding.text)
        if some_open and not inspection.inquiry.is_open
        else finding
        for inspection in inspections
        for finding in inspection.findings
    ]


def _sizes(source: Broker, destination: Broker) -> Iterable[Finding]:
    if source.version and destination.version >= RABBITMQ_4:
        if source.version < RABBITMQ_4:
            text = "the source may hold messages of up to 128 MiB, the destination takes 16 MiB by default (4.x): "
            text += "larger ones are quarantined; raise max_message_size at the destination if there are any"
            yield Finding("warning", "bridge", "largest message", text)
        else:
            yield Finding("ok", "bridge", "largest message", "16 MiB by default on both sides (4.x)")
    elif source.version and destination.version:
        yield Finding("ok", "bridge", "largest message", "128 MiB by default at the destination (3.x)")


async def _loop(settings: Settings, source: Inquiry, destination: Inquiry) -> Iterable[Finding]:
    queue = settings.destination_queue
    if queue is not None and queue not in {settings.source_queue, settings.quarantine_queue_name}:
        return [Finding("ok", "bridge", "loop", "none: the queues have different names")]
    same = await source.is_to_broker_of(destination)
    if same is False:
        return [Finding("ok", "bridge", "loop", "none: the two sides are different brokers or virtual hosts")]
    if settings.destination_route is not None:
        level: Level = "warning" if same is None else "error"
        sides = "may be" if same is None else "are"
        text = f"both sides {sides} one broker and virtual host, and each message goes to where it came from: it would "
        return [Finding(level, "bridge", "loop", f"{text}come back for ever; set another BRIDGE_DESTINATION_URL")]
    if queue is None:
        text = "both sides may be one broker; see that the exchange does not route to the source queue"
        return [Finding("ok", "bridge", "loop", text)]
    what = "source" if queue == settings.source_queue else "quarantine"
    if same is None:
        text = f'both sides may be one broker (cluster {source.broker.cluster}), and the {what} queue is "{queue}" too'
        return [Finding("warning", "bridge", "loop", f"{text}; make sure that they are two")]
    text = f'both sides are one broker: "{queue}" is the destination and the {what} queue; choose another queue'
    return [Finding("error", "bridge", "loop", text)]


async def _distance(settings: Settings, source: Inquiry, destination: Inquiry) -> Finding:
    try:
        return distance(settings, await source.round_trip_s(), await destination.round_trip_s())
    except ConnectError as error:
        return Finding("warning", "bridge", "round trip", f"not measured: {error}")


def failed(findings: Iterable[Finding]) -> bool:
    """Return whether there is an error among the findings."""
    return any(finding.level == "error" for finding in findings)


def as_table(findings: list[Finding]) -> str:
    """Return the findings for a terminal, a line each, and their numbers."""
    widths = [max(len(value) for value in column) for column in zip(*map(_cells, findings), strict=True)]
    # A broker says its version, its cluster's name and why it refuses; who names queues says the rest.
    lines = [
        visible(
            f"{finding.level:{widths[0]}}  {finding.side:{widths[1]}}  {finding.subject:{widths[2]}}  {finding.text}"
        )
        for finding in findings
    ]
    levels = [finding.level for finding in findings]
    numbers = ", ".join(f"{levels.count(level)} {level}" for level in LEVELS)
    return "\n".join([*lines, numbers]) + "\n"


def _cells(finding: Finding) -> tuple[str, str, str]:
    return finding.level, finding.side, finding.subject


def as_json(findings: list[Finding]) -> str:
    """Return the findings for machines."""
    status = max((finding.level for finding in findings), key=LEVELS.index)
    return json.dumps({"status": status, "findings": [asdict(finding) for finding in findings]}, indent=2) + "\n"
