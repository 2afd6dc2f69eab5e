"""Tables of what was measured under load: beside the broker's limit, live, and of many bridges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import report
from tests.bench.rows import FLOW_SHARES, FORWARDING
from tests.programs.figures import name_size, three_digits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.bench.report import Result

MEASURED = Path(__file__).parents[1] / "measured"
LIMIT, FLOW, MANY = (MEASURED / f"{name}.json" for name in ("limit", "flow", "many"))
QUEUE_TYPES = ("classic", "quorum")
ALL_IN = "CPU µs/msg"


def limit_table() -> str:
    """Return the bridge beside what the broker allows, in Markdown: medians on classic / on quorum queues."""
    found: dict[tuple[str, int], dict[tuple[str, str], Result]] = {}
    for result in sorted(report.load(LIMIT), key=lambda result: result.row):
        if result.row in {"limit", "tls"}:
            same = found.setdefault((result.version, result.cell.size), {})
            same.setdefault((result.contestant, result.cell.queue_type), result)
    costs = ("CPU all in: bridge", "Shovel", "÷ Shovel")
    speeds = ("messages/s: bridge", "two bridges", "Shovel", "of the limit", "local shovel", "publisher", "consumer")
    heads = (*costs, *speeds, "TLS: bridge", "two bridges")
    lines = [f"| RabbitMQ, messages | {' | '.join(heads)} |", f"|{'---|' * (1 + len(heads))}"]
    for (version, size), results in sorted(found.items(), key=lambda item: (-float(item[0][0]), item[0][1])):
        names = ("bridge", "two bridges", "Shovel", "local Shovel")
        alone = ("none: a publisher alone", "none: a consumer alone")
        costs_us = [_both(results, name, ALL_IN, " µs") for name in ("bridge", "Shovel")]
        ratio = " / ".join(f"{_cost_ratio(results, kind):.2f}" for kind in QUEUE_TYPES)
        share = " / ".join(f"{share_of_the_limit(results, kind):.2f}" for kind in QUEUE_TYPES)
        over_tls = ("bridge, TLS", "two bridges, TLS")
        rates = [_both(results, name, "msg/s") for name in (*names, *alone, *over_tls)]
        cells = [f"{version}, {name_size(size)}", *costs_us, ratio, *rates[:3], share, *rates[3:]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _provenance(LIMIT), ""])


def share_of_the_limit(results: dict[tuple[str, str], Result], kind: str) -> float:
    """Return what the bridge forwards, of the most that who is compared does."""
    speeds = {name: results[name, kind].median_of("msg/s") for name in FORWARDING if (name, kind) in results}
    return speeds["bridge"] / max(speeds.values())


def _cost_ratio(results: dict[tuple[str, str], Result], kind: str) -> float:
    return results["bridge", kind].median_of(ALL_IN) / results["Shovel", kind].median_of(ALL_IN)


def _both(results: dict[tuple[str, str], Result], name: str, quantity: str, unit: str = "") -> str:
    known = [results[name, kind] for kind in QUEUE_TYPES if (name, kind) in results]
    return " / ".join(three_digits(result.median_of(quantity)) for result in known) + unit if known else ""


def flow_table() -> str:
    """Return the highest rate that is held live, and the latency at shares of it, in Markdown."""
    results = {(result.contestant, result.cell.queue_type): result for result in report.load(FLOW)}
    heads = [f"at {share} %: p50, p99, p99.9" for share in FLOW_SHARES]
    lines = [f"| RabbitMQ 4.3, 256 B | messages/s held | {' | '.join(heads)} |", f"|{'---|' * (2 + len(heads))}"]
    for (name, kind), result in sorted(results.items(), key=lambda item: item[0][1]):
        ways = [
            ", ".join(f"{result.median_of(f'{place} ms at {share} %'):.3g}" for place in ("p50", "p99", "p99.9"))
            for share in FLOW_SHARES
        ]
        cells = [f"{kind}, {name}", three_digits(result.median_of("msg/s")), *(f"{way} ms" for way in ways)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _provenance(FLOW), ""])


def many_table() -> str:
    """Return what each of many bridges costs, and on paper what a thousand idle ones do, in Markdown."""
    results = report.load(MANY)
    lines = [
        "| bridges | CPU, % of a core, each | MB each | descriptors each | connections each | CPU s to start, each |",
        f"|{'---|' * 6}",
    ]
    for result in results:
        cells = [f"{result.median_of(name):.3g}" for name in _COSTS]
        lines.append(f"| {' | '.join([result.contestant, *cells])} |")
    (idle,) = (result for result in results if result.contestant == "20 idle")
    cpu, memory, descriptors, connections, start_s = (1000 * value for value in _values(idle))
    lines.append(
        f"| 1,000 idle, on paper, all together | {cpu / 100:.2g} cores | {memory / 1000:.2g} GB | {descriptors:,.0f} | "
        f"{connections:,.0f} | {start_s:,.0f} |"
    )
    return "\n".join([*lines, "", _provenance(MANY), ""])


_COSTS = ("CPU % each", "MB each", "descriptors each", "connections each", "start CPU s each")


def _values(result: Result) -> Iterable[float]:
    return (result.median_of(name) for name in _COSTS)


def _provenance(path: Path) -> str:
    document = json.loads(path.read_text())
    rounds = max(len(result["rounds"]) for result in document["results"])
    often = f"medians of {rounds} interleaved rounds" if rounds > 1 else "one round"
    return f"Measured on {document['date'][:10]}, {document['machine']['cores']} cores, {often}."
