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
LIMIT, MANY = MEASURED / "limit.json", MEASURED / "many.json"
LIMITS = (LIMIT, MEASURED / "limit-3.10.json", MEASURED / "tls.json")
FLOWS = (MEASURED / "flow.json", MEASURED / "flow-quorum.json")
QUEUE_TYPES = ("classic", "quorum")
ALL_IN = "CPU µs/msg"


def limit_table() -> str:
    """Return the bridge beside what the broker allows, in Markdown: medians on classic / on quorum queues.

    Over TLS only what was measured in one run is compared.
    """
    found: dict[tuple[str, int], dict[tuple[str, str], Result]] = {}
    over_tls: dict[tuple[str, int], dict[tuple[str, str], Result]] = {}
    for result in (result for path in LIMITS for result in report.load(path)):
        rows = {"limit": found, "tls": over_tls}.get(result.row)
        if rows is not None:
            same = rows.setdefault((result.version, result.cell.size), {})
            same[result.contestant, result.cell.queue_type] = result
    costs = ("CPU all in: bridge", "Shovel", "÷ Shovel")
    speeds = ("messages/s: bridge", "two bridges", "Shovel", "of the limit", "local shovel", "publisher", "consumer")
    heads = (*costs, *speeds, "TLS: of plain", "of the limit")
    lines = [f"| RabbitMQ, messages | {' | '.join(heads)} |", f"|{'---|' * (1 + len(heads))}"]
    for (version, size), results in sorted(found.items(), key=lambda item: (-float(item[0][0]), item[0][1])):
        names = ("bridge", "two bridges", "Shovel", "local Shovel")
        alone = ("none: a publisher alone", "none: a consumer alone")
        costs_us = [_both(results, name, ALL_IN, " µs") for name in ("bridge", "Shovel")]
        ratio = " / ".join(f"{_cost_ratio(results, kind):.2f}" for kind in QUEUE_TYPES)
        share = " / ".join(f"{share_of_the_limit(results, kind):.2f}" for kind in QUEUE_TYPES)
        rates = [_both(results, name, "msg/s") for name in (*names, *alone)]
        tls = over_tls.get((version, size), {})
        shares = [_over_tls(tls, "bridge"), _over_tls(tls, "bridge, TLS", "two bridges, TLS")]
        cells = [f"{version}, {name_size(size)}", *costs_us, ratio, *rates[:3], share, *rates[3:], *shares]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(_provenance(path) for path in LIMITS), ""])


def _over_tls(results: dict[tuple[str, str], Result], *others: str) -> str:
    """Return how fast the bridge is over TLS, of the fastest of some; empty where that was not measured."""
    shares = []
    for kind in QUEUE_TYPES if results else ():
        bridge, *compared = (results[name, kind].median_of("msg/s") for name in ("bridge, TLS", *others))
        shares.append(f"{bridge / max(compared):.2f}")
    return " / ".join(shares)


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
    found = (result for path in FLOWS for result in report.load(path))
    results = {(result.contestant, result.cell.queue_type): result for result in found}
    heads = [f"at {share} %: p50, p99, p99.9" for share in FLOW_SHARES]
    lines = [f"| RabbitMQ 4.3, 256 B | messages/s held | {' | '.join(heads)} |", f"|{'---|' * (2 + len(heads))}"]
    for (name, kind), result in sorted(results.items(), key=lambda item: item[0][1]):
        ways = [
            ", ".join(f"{result.median_of(f'{place} ms at {share} %'):.3g}" for place in ("p50", "p99", "p99.9"))
            for share in FLOW_SHARES
        ]
        cells = [f"{kind}, {name}", three_digits(result.median_of("msg/s")), *(f"{way} ms" for way in ways)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(_provenance(path) for path in FLOWS), ""])


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
    rounds = sorted({len(result["rounds"]) for result in document["results"]})
    often = "one round" if rounds == [1] else f"medians of {' or '.join(map(str, rounds))} rounds"
    what = sorted({f"{result['row']} {result['version']}" for result in document["results"]})
    machine = document["machine"]
    return (
        f"- [{path.name}](measured/{path.name}) ({', '.join(what)}), {document['date'][:10]}, "
        f"{machine['cores']} cores ({machine['processor']}), {often}"
    )
