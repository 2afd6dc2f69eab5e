"""The results: as JSON, and as the tables that are printed."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.rows import Cell, Measured

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = Cell()


@dataclass
class Result:
    """One contestant in one cell: what was measured, round by round."""

    version: str
    row: str
    cell: Cell
    contestant: str
    rounds: list[Measured] = field(default_factory=list)

    def values(self, quantity: str) -> list[float]:
        """What was measured of a quantity, round by round."""
        return [measured[quantity] for measured in self.rounds]

    @property
    def quantities(self) -> list[str]:
        """What was measured; the first is the one to compare by."""
        return list(self.rounds[0])

    @property
    def median(self) -> float:
        """The median of the first quantity."""
        return self.median_of(self.quantities[0])

    def median_of(self, quantity: str) -> float:
        """The median of a quantity."""
        return statistics.median(self.values(quantity))


def save(results: Iterable[Result], path: Path, about: dict[str, Any]) -> None:
    """Write all results and what is known about the run."""
    machine = {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()}
    document = {**about, "machine": machine, "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def load(path: Path) -> list[Result]:
    """Read back what ``save`` has written."""
    document = json.loads(path.read_text())
    return [Result(**{**result, "cell": Cell(**result["cell"])}) for result in document["results"]]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def table(results: list[Result]) -> str:
    """The contestants of one cell: medians, least and most, and how the first one compares with each other.

    The last column is the first contestant's median of the first quantity, divided by this contestant's.
    """
    first = results[0]
    head = [describe(first.cell), *first.quantities, f"{first.contestant} ÷ it"]
    lines = [
        [result.contestant, *(_spread(result.values(name)) for name in result.quantities), _ratio(first, result)]
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rows = ("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (head, *lines))
    return "\n".join(rows)


def describe(cell: Cell) -> str:
    """The circumstances that are not the plain ones, and always queue and size."""
    always = f"{cell.queue_type}, {cell.size} B, {cell.headers or 'no'} headers"
    others = (each.name for each in fields(Cell) if each.name not in ("queue_type", "size", "headers"))
    names = [f"{name} {getattr(cell, name)}" for name in others if getattr(cell, name) != getattr(_PLAIN, name)]
    return ", ".join([always, *names])


def _ratio(first: Result, result: Result) -> str:
    return f"{first.median / result.median:.2f}" if result is not first and result.median else ""


def _spread(values: list[float]) -> str:
    low, middle, high = (_number(value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
