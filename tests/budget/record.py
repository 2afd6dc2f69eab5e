"""The record of what a message costs, by Python, and how a count is compared with it.

A count holds for one build of CPython. There is no measure that holds for several: beside the reference, which is plain
Python that does much the same, a message of one kind cost 4 % less on 3.12 than on 3.11, another 4 % more, and on 3.13
up to 16 % more. So there is a record for each Python that somebody recorded, and without one nothing is compared. The
reference tells a Python of the same version that was built in another way.
"""

from __future__ import annotations

import json
import platform
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.budget.workload import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

RECORD = Path(__file__).parents[1] / "measured" / "budget.json"
TOLERANCE = 0.03
"""What a kind of message may cost more or less than recorded, as a fraction. By itself a count moves by up to 0.6 %."""
BUILD_TOLERANCE = 0.01
"""What the reference may cost more or less on the same build of Python. By itself it moves by up to 0.3 %."""

HELP = "python -m tests.budget --record"


class Verdict(Enum):
    """How a count compares with the record."""

    WITHIN = "within"
    DEARER = "dearer"
    CHEAPER = "cheaper"
    UNRECORDED = "not recorded"
    UNCOUNTED = "not counted"


class Row(NamedTuple):
    """A kind of message, and its instructions per message; None where there is no such number."""

    kind: str
    recorded: int | None
    now: int | None

    @property
    def change(self) -> float:
        """What is added to the recorded cost, as a fraction of it; 0 where one of the numbers is missing."""
        return self.now / self.recorded - 1 if self.now and self.recorded else 0.0

    @property
    def verdict(self) -> Verdict:
        """How the two numbers compare."""
        if self.recorded is None:
            return Verdict.UNRECORDED
        if self.now is None:
            return Verdict.UNCOUNTED
        if abs(self.change) <= TOLERANCE:
            return Verdict.WITHIN
        return Verdict.DEARER if self.change > 0 else Verdict.CHEAPER


Counts = dict[str, int]
"""Instructions per message by kind, and those of the reference."""


def this_python() -> str:
    """Return the name under which the counts of this Python are recorded."""
    return f"{sys.implementation.name}-{platform.python_version()}-{platform.machine()}"


def read(path: Path) -> dict[str, Counts]:
    """Return the recorded counts by Python."""
    recorded: dict[str, Counts] = json.loads(path.read_text()) if path.exists() else {}
    return recorded


def write(path: Path, python: str, counts: Counts) -> None:
    """Record the counts of one Python; those of others stay."""
    path.write_text(json.dumps(read(path) | {python: counts}, indent=1) + "\n")


def same_build(recorded: Mapping[str, int], counts: Mapping[str, int]) -> bool:
    """Whether the Python is built like the one that was recorded: the reference costs the same."""
    return abs(counts[REFERENCE] / recorded[REFERENCE] - 1) <= BUILD_TOLERANCE


def compare(recorded: Mapping[str, int], counts: Mapping[str, int]) -> list[Row]:
    """Return a row for each kind that is in one of them."""
    kinds = dict.fromkeys((*recorded, *counts))
    return [Row(kind, recorded.get(kind), counts.get(kind)) for kind in kinds if kind != REFERENCE]


def as_table(rows: list[Row]) -> str:
    """Return the comparison for a terminal."""
    lines = [f"{'instructions per message':28}{'recorded':>10}{'now':>10}{'change':>10}"]
    for row in rows:
        recorded, now = ("-" if number is None else f"{number:,}" for number in (row.recorded, row.now))
        change = "-" if row.recorded is None or row.now is None else f"{row.change:+.1%}"
        lines.append(f"{row.kind:28}{recorded:>10}{now:>10}{change:>10}")
    return "\n".join(lines)


def complaints(rows: list[Row]) -> list[str]:
    """Return what keeps the comparison from passing, and what to do about it; empty when it passes."""
    lines = []
    for row in rows:
        kind = row.kind
        match row.verdict:
            case Verdict.DEARER:
                lines.append(
                    f"{kind}: a message costs {row.change:.1%} more than recorded. Mend it; or, where it is worth its"
                    f" price, record it with '{HELP}' and say why in the commit."
                )
            case Verdict.CHEAPER:
                lines.append(
                    f"{kind}: a message costs {-row.change:.1%} less than recorded. Record it with '{HELP}', so that"
                    " what was gained cannot be lost unseen."
                )
            case Verdict.UNRECORDED:
                lines.append(f"{kind}: there is no record of it. Record it with '{HELP}'.")
            case Verdict.UNCOUNTED:
                lines.append(f"{kind}: it is recorded and not counted any more. Remove it with '{HELP}'.")
    return lines
