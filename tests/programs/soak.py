"""The soak: full load and random faults on both sides for as long as asked, then the audit and what the bridge used.

Exit status 1 if anything was lost, more was doubled than the bridge counted as possible, the books are out of balance,
or connections or threads were left behind.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.broker.scene import imbalance
from tests.programs.faults import Stage, block, bridge, close, freeze, kill, restart
from tests.rig import installation
from tests.rig.client import audit
from tests.rig.node import Node
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.bridge_process import BridgeProcess

BATCH = 20_000
"""Messages published for each fault."""
SLACK = 3
"""File descriptors and threads more than at the start, of a scrape or a name lookup that is just being done."""
FAULTS = {
    "source": (restart, kill, freeze, close),
    "destination": (restart, kill, freeze, close, block),
}


class Used(NamedTuple):
    """What the bridge's process holds."""

    resident_mib: float
    descriptors: int
    tasks: int
    """Threads, as the kernel counts them."""

    @classmethod
    def by(cls, process: BridgeProcess) -> Self:
        """Look at the process."""
        descriptors, tasks = (len(list(Path(f"/proc/{process.pid}/{of}").iterdir())) for of in ("fd", "task"))
        return cls(process.rss_bytes() / 2**20, descriptors, tasks)

    def __str__(self) -> str:
        """A part of a line."""
        return f"{self.resident_mib:.1f} MiB resident, {self.descriptors} file descriptors, {self.tasks} tasks"

    def leaked_since(self, before: Used) -> bool:
        """Whether connections or threads were left behind: each life of a side would add one of its own."""
        return self.descriptors > before.descriptors + SLACK or self.tasks > before.tasks + SLACK


def soak(stage: Stage, minutes: float, chance: random.Random) -> bool:
    """Run one stage for so long; return whether it was sound."""
    ends_s = time.monotonic() + minutes * 60
    stage.source.declare(stage.queue_in, stage.queue_type)
    stage.destination.declare(stage.queue_out, stage.queue_type)
    with bridge(stage):
        process = stage.bridge
        assert process
        stage.publish(BATCH)
        stage.wait_forwarded(BATCH)
        began = Used.by(process)
        faults = 0
        while time.monotonic() < ends_s:
            stage.publish(BATCH)
            stage.wait_forwarded(stage.sent - BATCH // 2)
            side = chance.choice(list(FAULTS))
            act = chance.choice(FAULTS[side])
            act(stage.source if side == "source" else stage.destination)
            faults += 1
            stage.collect()
            print(
                f"{faults}: {side} {act.__name__}, {stage.sent} sent, {Used.by(process)}", file=sys.stderr, flush=True
            )
        wait_until(stage.is_done, "everything to be forwarded", 120)
        metrics = process.metrics()
        ended = Used.by(process)
        process.terminate()
    stage.collect()
    found = audit(stage.arrived, stage.sent)
    possible = metrics.total("bridge_duplicates_possible_total")
    print(
        f"RabbitMQ {stage.source.version}, {stage.queue_type}: {faults} faults; {found}; {possible:.0f} duplicates "
        f"possible, books out by {imbalance(metrics):.0f}; first {began}, last {ended}",
        flush=True,
    )
    sound = not found.lost and found.duplicates <= possible and imbalance(metrics) == 0
    return sound and not ended.leaked_since(began)


def main() -> None:
    """Soak each broker and each kind of queue for its share of the time."""
    installed = ",".join(filter(installation.is_installed, installation.VERSIONS))
    parser = argparse.ArgumentParser(prog="python -m tests.programs.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="all together (default: %(default)s)")
    parser.add_argument("--versions", default=installed, help="of RabbitMQ (default: what is installed, %(default)s)")
    parser.add_argument("--queue-types", default="classic,quorum", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the faults' order")
    arguments = parser.parse_args()
    versions, queue_types = arguments.versions.split(","), arguments.queue_types.split(",")
    share = arguments.minutes / len(versions) / len(queue_types)
    chance = random.Random(arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    sound = True
    for version in versions:
        with Node(version) as source, Node(version) as destination:
            for queue_type in queue_types:
                stage = Stage(source, destination, f"in-{queue_type}", f"out-{queue_type}", queue_type)
                sound = soak(stage, share, chance) and sound
    sys.exit(not sound)


if __name__ == "__main__":
    main()
