"""Writes what of the documents is not prose: settings from the settings, figures from what was measured.

`python -m tests.programs.documents` does; `tests/documents/test_documents.py` checks that it was done. Throughput and
times come from `tests/measured/bench.json`, lost and doubled messages from `tests/measured/faults.md`.
"""

from __future__ import annotations

import json
import statistics
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bridge.settings.options import Option, options
from tests.bench import report
from tests.programs import loads
from tests.programs.bridge_env import SECTIONS
from tests.programs.figures import name_size, three_digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.bench.report import Result

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OPERATIONS = ROOT / "config" / "README.md"
TESTING = ROOT / "tests" / "README.md"
MEASURED = ROOT / "tests" / "measured" / "bench.json"
MOVES = ROOT / "tests" / "measured" / "drain.json"
MATRIX = ROOT / "tests" / "measured" / "faults.md"

CONTESTANTS = ("bridge", "Shovel", "aio-pika loop")
FORWARDERS = ("bridge", "steered", "Shovel")
"""In the fault matrix."""
QUEUE_TYPES = ("classic", "quorum")
CURRENT = "4.3"
"""The version of RabbitMQ whose figures stand in the documents."""
SHOWN_IN_MB = 100_000
"""Bytes of a message from which on its throughput is told in MB/s."""
EVERYDAY = (
    *("SOURCE_URL", "SOURCE_QUEUE", "DESTINATION_URL", "DESTINATION_QUEUE"),
    *("SOURCE_PASSWORD_FILE", "DESTINATION_PASSWORD_FILE", "SOURCE_CA_FILE", "DESTINATION_CA_FILE"),
)
"""The settings that everybody needs."""


# --- Settings --------------------------------------------------------------------------------------------


def everyday_settings() -> str:
    """Return the settings that everybody needs, as a table in Markdown."""
    found = {option.variable: option for option in options()}
    return _settings_table(found[f"BRIDGE_{name}"] for name in EVERYDAY)


def settings_reference() -> str:
    """Return every setting in Markdown: a heading and a table for each topic."""
    parts: list[str] = []
    topic: list[Option] = []
    for option in [*options(), None]:
        if option is None or option.variable in SECTIONS:
            parts += [_settings_table(topic)] if topic else []
            parts += [f"### {SECTIONS[option.variable]}\n"] if option else []
            topic = []
        topic += [option] if option else []
    return "\n".join(parts)


def _settings_table(chosen: Iterable[Option]) -> str:
    lines = ["| variable | default | |", "|---|---|---|"]
    for option in chosen:
        default = f"`{option.default}`" if option.default_is_value and option.default else option.default
        default = default.replace("<", "&lt;").replace(">", "&gt;")
        lines.append(f"| `{option.variable}` | {default} | {option.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


# --- Faults ----------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """One row of the fault matrix."""

    sent: int
    lost: int
    doubled: int
    stuck: bool


@cache
def outcomes() -> dict[tuple[str, str, str, str], Outcome]:
    """Return the fault matrix by version, queue type, fault and who forwards."""
    found = {}
    for line in MATRIX.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) > 1 and cells[0][0].isdigit():
            version, kind, fault, who, sent, _, lost, doubled, *_, recovery = cells
            found[version, kind, fault, who] = Outcome(int(sent), int(lost), int(doubled), recovery == "never")
    return found


def fault_table() -> str:
    """Return lost / doubled for each fault on the current version, as a table in Markdown."""
    columns = [(who, kind) for who in FORWARDERS for kind in QUEUE_TYPES]
    lines = [
        f"| fault, RabbitMQ {CURRENT} | sent | {' | '.join(f'{who}, {kind}' for who, kind in columns)} |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for fault in dict.fromkeys(fault for version, _, fault, _ in outcomes() if version == CURRENT):
        row = [outcomes().get((CURRENT, kind, fault, who)) for who, kind in columns]
        sent = next(outcome.sent for outcome in row if outcome)
        lines.append(f"| {fault} | {sent:,} | {' | '.join(map(_lost_and_doubled, row))} |")
    return "\n".join(lines) + "\n"


def _lost_and_doubled(outcome: Outcome | None) -> str:
    if outcome is None:
        return "\N{EN DASH}"
    return "stuck" if outcome.stuck else f"{outcome.lost:,} / {outcome.doubled:,}"


def fault(name: str, who: str, kind: str) -> Outcome:
    """Return one outcome on the current version."""
    return outcomes()[CURRENT, kind, name, who]


# --- Throughput and times --------------------------------------------------------------------------------


@cache
def _results() -> list[Result]:
    return [result for path in (MEASURED, *loads.LIMITS) for result in report.load(path)]


def measured(row: str, contestant: str, kind: str, quantity: str, **cell: object) -> float:
    """Return the median of a quantity in one cell on the current version."""
    (found,) = (
        result
        for result in _results()
        if (result.version, result.row, result.contestant) == (CURRENT, row, contestant)
        and result.cell.queue_type == kind
        and all(getattr(result.cell, name) == value for name, value in cell.items())
    )
    return statistics.median(found.values(quantity))


def throughput_table() -> str:
    """Return the table in Markdown: medians on classic / on quorum queues, and ratios of medians."""
    found: dict[tuple[str, int, int], dict[tuple[str, str], Result]] = {}
    for result in _results():
        if result.row == "throughput":
            cell = result.cell
            same = found.setdefault((result.version, cell.size, cell.headers), {})
            same[result.contestant, cell.queue_type] = result
    lines = [
        "| RabbitMQ, messages | bridge | Shovel | aio-pika loop | ÷ Shovel | ÷ loop | CPU: bridge | broker |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (version, size, headers), results in sorted(found.items(), key=lambda item: (-float(item[0][0]), item[0][1:])):
        quantity, unit = ("MB/s", "MB/s") if size >= SHOWN_IN_MB else ("msg/s", "")
        speeds = [_both(results, contestant, quantity, unit) for contestant in CONTESTANTS]
        ratios = [
            " / ".join(
                f"{results['bridge', kind].median_of('msg/s') / results[other, kind].median_of('msg/s'):.2f}"
                for kind in QUEUE_TYPES
            )
            for other in CONTESTANTS[1:]
        ]
        cpu = [_both(results, "bridge", f"{whose} CPU µs/msg", "µs") for whose in ("own", "broker")]
        what = f"{version}, {name_size(size)}{f', {headers} headers' if headers else ''}"
        lines.append(f"| {' | '.join([what, *speeds, *ratios, *cpu])} |")
    return "\n".join(lines) + "\n"


def _both(results: dict[tuple[str, str], Result], contestant: str, quantity: str, unit: str) -> str:
    medians = (statistics.median(results[contestant, kind].values(quantity)) for kind in QUEUE_TYPES)
    return f"{' / '.join(map(three_digits, medians))} {unit}".rstrip()


def _of_both_kinds(row: str, contestant: str, quantity: str, pattern: str, **cell: object) -> str:
    return " / ".join(format(measured(row, contestant, kind, quantity, **cell), pattern) for kind in QUEUE_TYPES)


def _ratio(row: str, above: str, below: str, **cell: object) -> str:
    return " / ".join(
        f"{measured(row, above, kind, 'msg/s', **cell) / measured(row, below, kind, 'msg/s', **cell):.2f}"
        for kind in QUEUE_TYPES
    )


def times_table() -> str:
    """Return latency, outages, distance and what features cost, as a table in Markdown."""
    bridge, shovel = CONTESTANTS[:2]
    rows = []
    for quantile in ("p50", "p99"):
        cells = [_of_both_kinds("latency", who, f"{quantile} ms", ".2f") + " ms" for who in (bridge, shovel)]
        rows.append((f"latency at 500 messages/s, {quantile}", *cells))
    rows.append(("start of the process to the first message", _of_both_kinds("start", bridge, "s", ".2f") + " s", ""))
    for outage, what in (
        ("connection", "connection cut for 1 s, then the first message"),
        ("broker", "source SIGKILLed and started, then the first message"),
    ):
        cells = [_of_both_kinds("reconnect", who, "s", ".2f", outage=outage) + " s" for who in (bridge, shovel)]
        rows.append((what, *cells))
    rows += [
        ("TLS on both sides: throughput, of plain", _ratio("tls", "bridge, TLS", "bridge", size=256), ""),
        ("a scrape each second: throughput, of unscraped", _ratio("scrape", "bridge, scraped", "bridge"), ""),
    ]
    (away_ms,) = {result.cell.round_trip_ms for result in _results() if result.row == "distance"}
    for prefetch in (100, 1000):
        cells = [
            _of_both_kinds("distance", who, "of window ÷ round trip", ".2f", prefetch=prefetch)
            for who in (bridge, shovel)
        ]
        rows.append((f"a destination {away_ms} ms away: of window ÷ round trip, prefetch {prefetch}", *cells))
    head = f"| RabbitMQ {CURRENT}, 256 B, classic / quorum | bridge | Shovel |\n|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def moves_table() -> str:
    """Return in Markdown how fast what a queue has is moved once, and how much of it never came."""
    document = json.loads(MOVES.read_text())
    results = report.load(MOVES)
    names = tuple(dict.fromkeys(result.contestant for result in results))
    found = {(result.contestant, result.cell.queue_type): result for result in results}
    (rounds,) = {len(result.rounds) for result in results}
    lines = [
        f"| RabbitMQ {CURRENT}, 256 B, classic / quorum | messages | per second | never came |",
        "|---|---|---|---|",
    ]
    for name in names:
        (count,) = {int(found[name, kind].values("messages")[0]) for kind in QUEUE_TYPES}
        never = " / ".join(f"{sum(found[name, kind].values('never came')):.0f}" for kind in QUEUE_TYPES)
        lines.append(f"| {name} | {count:,} | {_both(found, name, 'msg/s', '')} | {never} |")
    machine = document["machine"]
    lines += ["", f"Measured on {document['date'][:10]}, {machine['cores']} cores, medians of {rounds} rounds.", ""]
    return "\n".join(lines)


def limits() -> str:
    """Return in Markdown what the broker itself allows."""
    bridge, shovel = CONTESTANTS[:2]
    broker = [_of_both_kinds("limit", who, "broker CPU µs/msg", ".0f", size=256) for who in (bridge, shovel)]
    local = " / ".join(three_digits(measured("limit", "local Shovel", kind, "msg/s", size=256)) for kind in QUEUE_TYPES)
    apart = [_ratio("apart", bridge, shovel, size=size) for size in (256, 4096)]
    busiest = {
        (kind, size): measured("bottleneck", bridge, kind, "busiest %", size=size)
        for kind, size in (("quorum", 256), ("classic", 256), ("classic", 4096), ("classic", 100_000))
    }
    channel = measured("bottleneck", bridge, "quorum", "channels %", size=100_000)
    two, one = (measured("limit", who, "quorum", "msg/s", size=100_000) for who in ("two bridges", bridge))
    return (
        f"**The broker is the limit.** With the bridge, RabbitMQ {CURRENT} spends {broker[0]} µs of CPU per message of "
        f"256 B (classic / quorum), with Shovel within it {broker[1]} µs. Whoever forwards, one of the broker's "
        f"processes is busy nearly all the time (`make bench ROWS=bottleneck`): the log of all quorum queues "
        f"({busiest['quorum', 256]:.0f} %), the destination's classic queue at 256 B "
        f"({busiest['classic', 256]:.0f} %), the message store at 4 kB ({busiest['classic', 4096]:.0f} %), the "
        f"source's classic queue at 100 kB ({busiest['classic', 100_000]:.0f} %), and with quorum queues of 100 kB the "
        f"source's channel ({channel:.0f} %), which reads one body after the other from a file: two bridges on the "
        f"queue, which have two channels, forward {two / one:.2f} times what one does. RabbitMQ's local shovel, which "
        f"does without connections and channels, forwards {local} messages of 256 B per second. With the broker on one "
        f"core and the rest on the other, as when the bridge has a machine of its own (`make bench ROWS=apart`), the "
        f"bridge forwards {apart[0]} times what Shovel does at 256 B and {apart[1]} times at 4 kB.\n"
    )


def provenance() -> str:
    """Return in Markdown where the figures come from."""
    document = json.loads(MEASURED.read_text())
    machine = document["machine"]
    throughput = [result for result in _results() if result.row == "throughput"]
    (rounds,) = {len(result.rounds) for result in throughput}
    (prefetch,) = {result.cell.prefetch for result in throughput}
    return (
        f"Measured on {document['date'][:10]} on a virtual machine with {machine['cores']} cores "
        f"({machine['processor']}, Python {machine['python']}) that broker, bridge and load share, over loopback, with "
        f"persistent messages and a prefetch of {prefetch}; medians of {rounds} interleaved rounds, on classic / on "
        "quorum queues.\n"
    )


# --- The first page --------------------------------------------------------------------------------------


def six_numbers() -> str:
    """Return the six figures of the first page, as a table in Markdown."""
    kills, deleted = "source SIGKILLed 10 times", "destination queue deleted"

    def lost(name: str, who: str) -> str:
        return " / ".join(f"{fault(name, who, kind).lost:,}" for kind in QUEUE_TYPES)

    def doubled(name: str, who: str) -> str:
        return " / ".join(f"{fault(name, who, kind).doubled:,}" for kind in QUEUE_TYPES)

    def cpu(whose: str, who: str) -> str:
        return _of_both_kinds("throughput", who, f"{whose} CPU µs/msg", ".0f", size=256, headers=0, prefetch=1000)

    rows = [
        (
            f"lost, of {fault(kills, 'bridge', 'classic').sent:,} while the source is SIGKILLed 10 times",
            *(lost(kills, who) for who in CONTESTANTS[:2]),
        ),
        ("arrived twice, of the same", *(doubled(kills, who) for who in CONTESTANTS[:2])),
        (
            f"lost, of {fault(deleted, 'bridge', 'classic').sent:,} while the destination queue is deleted",
            *(lost(deleted, who) for who in CONTESTANTS[:2]),
        ),
        ("messages of 256 B per second", *(speed(who) for who in CONTESTANTS[:2])),
        ("the broker's CPU per message, µs", *(cpu("broker", who) for who in CONTESTANTS[:2])),
        (
            "latency at 500 messages/s, p99, ms",
            *(_of_both_kinds("latency", who, "p99 ms", ".1f") for who in CONTESTANTS[:2]),
        ),
    ]
    head = f"| RabbitMQ {CURRENT}, classic / quorum queues | bridge | Shovel |\n|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def speed(who: str) -> str:
    """Return the throughput at 256 B, in messages per second, on classic / on quorum queues."""
    cell = {"size": 256, "headers": 0, "prefetch": 1000}
    return " / ".join(three_digits(measured("throughput", who, kind, "msg/s", **cell)) for kind in QUEUE_TYPES)


def comparison() -> str:
    """Return the bridge beside what else there is, as a table of twelve rows in Markdown."""
    kills = {
        (who, kind): fault("source SIGKILLed 10 times", who, kind) for who in CONTESTANTS[:2] for kind in QUEUE_TYPES
    }
    refused = fault("one user_id in 50", "Shovel", "quorum")
    rows = (
        ("", "amqp-bridge", "Shovel", "Federation", "Redpanda Connect", "a script"),
        ("---", "---", "---", "---", "---", "---"),
        ("is", "a process of its own", "a plugin", "a plugin", "a process of its own", "your code"),
        ("is configured by", "environment variables", "parameters in the broker", "policies", "YAML", "code"),
        ("moves", "a queue", "a queue", "queues and exchanges", "streams", "what you like"),
        ("speaks", "AMQP 0-9-1", "AMQP 0-9-1 and 1.0", "AMQP 0-9-1", "hundreds of systems", "what you like"),
        ("transforms messages", "no", "adds properties", "no", "**yes, it is made for that**", "yes"),
        (
            "source broker killed 10 times: arrived twice",
            f"{kills['bridge', 'classic'].doubled:,} / {kills['bridge', 'quorum'].doubled:,}",
            f"{kills['Shovel', 'classic'].doubled:,} / {kills['Shovel', 'quorum'].doubled:,}",
            "not measured",
            "not measured",
            "a prefetch per kill, or more",
        ),
        (
            "destination queue deleted",
            "holds, loses nothing",
            f"lost {fault('destination queue deleted', 'Shovel', 'quorum').lost} messages",
            *("not measured", "not measured", "lost unless `mandatory` is set"),
        ),
        (
            "one message that the destination refuses",
            "to the quarantine, the others pass",
            f"stuck / lost {refused.lost} of {refused.sent}",
            *("not measured", "not measured", "yours to handle"),
        ),
        (
            "messages of 256 B per second",
            speed("bridge"),
            speed("Shovel"),
            *("not measured", "not measured", speed("aio-pika loop")),
        ),
        (
            "reports",
            "metrics, alerts, dashboard, reasons",
            "its state",
            "its links' state",
            "metrics",
            "what you build",
        ),
        ("needs to run", "a container or Python", "**nothing more**", "**nothing more**", "a container", "Python"),
        (
            "choose it for",
            "a queue that must arrive, and be watched",
            "a simple move that may duplicate, with nothing to deploy",
            "many brokers that share exchanges",
            "pipelines between different systems",
            "a one-off",
        ),
    )
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in rows).replace(
        "| --- | --- | --- | --- | --- | --- |", "|---|---|---|---|---|---|"
    )


# --- Writing ---------------------------------------------------------------------------------------------

BLOCKS: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"numbers": six_numbers, "comparison": comparison},
    OPERATIONS: {"everyday settings": everyday_settings, "settings": settings_reference},
    TESTING: {
        "provenance": provenance,
        "faults": fault_table,
        "throughput": throughput_table,
        "limits": limits,
        "times": times_table,
        "moves": moves_table,
        "limit": loads.limit_table,
        "flow": loads.flow_table,
        "many": loads.many_table,
    },
}
"""By document and by the mark that a block stands behind, up to the next `<!-- end -->`."""


def written(path: Path) -> str:
    """Return a document with its blocks of now. Raises ValueError when a mark is missing."""
    text = path.read_text()
    for name, block in BLOCKS[path].items():
        mark = f"<!-- {name}: written by `python -m tests.programs.documents` -->\n"
        begin = text.index(mark) + len(mark)
        text = f"{text[:begin]}\n{block()}\n{text[text.index('<!-- end -->', begin) :]}"
    return text


if __name__ == "__main__":
    for document in BLOCKS:
        document.write_text(written(document))
