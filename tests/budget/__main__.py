"""Count the instructions that a message costs in the pure layers, and compare them with what is recorded.

Exit status: 0 when every kind of message is within 3 % of the record; 1 when one is dearer, cheaper or missing; 3 when
nothing could be compared, because there is no record for this Python or nothing could be counted.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tests.budget import counting, record
from tests.budget.workload import KINDS, MESSAGES, REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PASSED, FAILED, NOT_COMPARED = 0, 1, 3


def main(
    arguments: Sequence[str] | None = None,
    *,
    path: Path = record.RECORD,
    count: Callable[[Sequence[str], int], dict[str, float]] = counting.count,
) -> int:
    """Count and compare, or record; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.budget", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the counts down as what a message may cost")
    options = parser.parse_args(arguments)
    python = record.this_python()
    recorded = record.read(path).get(python)
    if recorded is None and not options.record:
        print(f"There is no record for {python} to compare with. '{record.HELP}' makes one.", file=sys.stderr)
        return NOT_COMPARED
    try:
        counts = {subject: round(number) for subject, number in count([*KINDS, REFERENCE], MESSAGES).items()}
    except counting.CountingError as error:
        print(error, file=sys.stderr)
        return NOT_COMPARED
    rows = record.compare(recorded or {}, counts)
    print(record.as_table(rows))
    if options.record:
        record.write(path, python, counts)
        print(f"Recorded for {python} in {path.name}.")
        return PASSED
    if recorded is not None and not record.same_build(recorded, counts):
        print(
            f"This {python} is built in another way than the one that was recorded: code that is not the bridge's costs"
            f" {counts[REFERENCE]:,} instructions instead of {recorded[REFERENCE]:,}. Use that one, or record this one"
            f" with '{record.HELP}'.",
            file=sys.stderr,
        )
        return NOT_COMPARED
    complaints = record.complaints(rows)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return FAILED if complaints else PASSED


if __name__ == "__main__":
    sys.exit(main())
