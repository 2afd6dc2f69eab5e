"""Measure the bridge beside RabbitMQ's Shovel and an idiomatic aio-pika loop, on brokers of its own on loopback.

The contestants of a cell take turns (A B C A B C), so that what else the machine does touches them alike. Printed are
medians over the rounds, with least and most, and how the first contestant compares with each other.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import report
from tests.bench.report import Result
from tests.bench.rows import ROWS, SHORT, Plan, Row
from tests.rig import installation
from tests.rig.certificates import make_certificates
from tests.rig.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator


def _parse() -> argparse.Namespace:
    installed = ",".join(filter(installation.is_installed, installation.VERSIONS))
    rows = os.environ.get("ROWS") or ",".join(ROWS)  # make passes its command line's variables on
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = parser.add_argument
    add("--rows", type=_words, default=rows, help="by commas (default: $ROWS, else %(default)s)")
    add("--versions", type=_words, default=installed, help="of RabbitMQ (default: what is installed, %(default)s)")
    add("--queue-types", type=_words, default=plan.queue_types, help="classic,quorum (default: both)")
    add("--sizes", type=_numbers, default=plan.sizes, help="of messages, in bytes, in the rows that vary it")
    add("--rounds", type=int, default=5, help="of each cell (default: %(default)s)")
    add("--short", action="store_true", help="only try every part, with sizes, queues and rounds of its own")
    add("--json", type=Path, metavar="FILE", help="write every round's numbers there, after each cell")
    arguments = parser.parse_args()
    if unknown := [row for row in arguments.rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if not arguments.versions:
        parser.error("no RabbitMQ is installed; 'make brokers' installs it")
    return arguments


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _measure_row(name: str, row: Row, node: Node, plan: Plan, rounds: int) -> Iterator[list[Result]]:
    """Measure cell by cell, in each round by round, in each contestant by contestant."""
    for cell in row.cells(plan):
        contestants = row.contestants(node)
        results = [Result(node.version, name, cell, contestant.name) for contestant in contestants]
        for number in range(rounds):
            for contestant, result in zip(contestants, results, strict=True):
                _say(f"{report.describe(cell)}: round {number + 1} of {rounds}, {contestant.name}")
                result.rounds.append(row.measure(node, cell, contestant, plan))
        yield results


def _say(progress: str) -> None:
    """Show where we are, on a terminal, in a line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}\r", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run the bench."""
    arguments = _parse()
    plan, rounds = Plan(sizes=arguments.sizes, queue_types=arguments.queue_types), arguments.rounds
    if arguments.short:
        plan, rounds = SHORT, 1
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "plan": dataclasses.asdict(plan)}
    results: list[Result] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="amqp-bridge-bench-") as folder:
        certificates = make_certificates(Path(folder))
        for version in arguments.versions:
            with Node(version, plugins=["rabbitmq_shovel"], certificates=certificates) as node:
                rows = arguments.rows
                if arguments.short and version != arguments.versions[-1]:
                    rows = rows[:1]  # one row shows that the contestants run there, too
                for name in rows:
                    row = ROWS[name]
                    print(f"\n{row.title} ({name}), RabbitMQ {version}\n", flush=True)
                    for of_cell in _measure_row(name, row, node, plan, row.rounds or rounds):
                        _say("")
                        print(f"{report.table(of_cell)}\n", flush=True)
                        results += of_cell
                        if arguments.json:
                            report.save(results, arguments.json, about)
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
