"""`python -m tests.simulation`: play many schedules, or one again, event by event."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from tests.simulation.report import Report, ScheduleError
from tests.simulation.schedule import Schedule

BATCH = 200
"""Schedules that a worker plays at a time."""


def play(first_seed: int) -> tuple[Report, list[str]]:
    """Play a batch; return what it came to, and what failed."""
    report, failures = Report(), []
    for seed in range(first_seed, first_seed + BATCH):
        try:
            report.add(Schedule(seed).run())
        except ScheduleError as error:
            failures.append(str(error))
    return report, failures


def replay(seed: int) -> int:
    """Play one schedule again and tell its events."""
    try:
        report = Schedule(seed, trace=print).run()
    except ScheduleError as error:
        print(error)
        return 1
    print(report)
    return 0


def show(report: Report, failures: int, took_s: float) -> None:
    """Print what was played and which faults were injected."""
    print(
        f"{report.schedules:,} schedules without failure, {failures} with, in {took_s:.0f} s: {report.events:,} events"
    )
    print(
        f"{report.messages:,} messages, 0 lost, {report.arrived:,} arrived, {report.quarantined:,} quarantined, "
        f"{report.suppressed:,} redeliveries suppressed, {report.stale:,} stale discarded, "
        f"{report.duplicates:,} duplicates of {report.duplicates_counted:,} held possible"
    )
    print(f"{report.drains:,} drains have ended by themselves")
    print("faults injected:")
    for name, times in sorted(report.faults.items()):
        print(f"  {name:30}{times:12,}")


def main() -> int:
    """Return the exit status: 1 when a schedule failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000_000, help="how many, from seed --first on")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="play this one again and tell its events")
    options = parser.parse_args()
    if options.seed is not None:
        return replay(options.seed)

    began_s = time.monotonic()
    total, failures = Report(), 0
    seeds = iter(range(options.first, options.first + options.schedules, BATCH))
    with ProcessPoolExecutor(options.jobs) as pool:
        while (took_s := time.monotonic() - began_s) < options.seconds:
            batches = list(islice(seeds, options.jobs * 4))
            if not batches:
                break
            for report, failed in pool.map(play, batches):
                total.add(report)
                failures += len(failed)
                for failure in failed:
                    print(
                        f"FAILED {failure}\n  again: python -m tests.simulation --seed {failure.split()[1].strip(',')}"
                    )
    show(total, failures, took_s)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
