"""What an idle bridge costs: `python -m tests.programs.idle` prints wake-ups, CPU and memory between two real brokers.

Wake-ups are voluntary context switches of all threads: each is a thread that slept and was woken.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import NamedTuple

from tests.rig.bridge_process import BridgeProcess, bridge_settings
from tests.rig.node import Node

SETTLE_S = 15.0
"""After the start: a young generation is looked at often for ten seconds."""


class Cost(NamedTuple):
    """What a process has cost in so many seconds."""

    seconds: float
    wake_ups: int
    cpu_seconds: float


def wake_ups(pid: int) -> int:
    """Return the voluntary context switches of all threads so far."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(n) for text in texts for n in re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE))


def proportional_bytes(pid: int) -> int:
    """Return the memory of a process, shared pages by their share."""
    (kib,) = re.findall(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(kib) << 10


def cost(bridge: BridgeProcess, seconds: float) -> Cost:
    """Let it be for so long, and return what it has cost."""
    began_s, switches, cpu_s = time.monotonic(), wake_ups(bridge.pid), bridge.cpu_seconds()
    time.sleep(seconds)
    return Cost(time.monotonic() - began_s, wake_ups(bridge.pid) - switches, bridge.cpu_seconds() - cpu_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--version", default="4.3", help="of RabbitMQ")
    options = parser.parse_args()
    with Node(options.version) as source, Node(options.version) as destination:
        for node in (source, destination):
            node.declare("orders")
        with BridgeProcess(bridge_settings(source, destination, "orders")) as bridge:
            bridge.wait_ready()
            time.sleep(SETTLE_S)
            found = cost(bridge, options.seconds)
            print(f"wake-ups per second: {found.wake_ups / found.seconds:.2f}")
            print(f"CPU: {100 * found.cpu_seconds / found.seconds:.3f} % of a core")
            print(f"memory: {proportional_bytes(bridge.pid) / (1 << 20):.1f} MiB (PSS)")


if __name__ == "__main__":
    main()
