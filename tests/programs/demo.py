"""`make demo`: the bridge's main job, done for real and counted at the destination.

Two private brokers on loopback, numbered messages, the bridge as a process of its own, and the source broker SIGKILLed
on the way. Exit status 1 if anything is lost. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.rig import installation
from tests.rig.bridge_process import BridgeProcess, Metrics, bridge_settings
from tests.rig.client import Audit, drain_and_audit, publish_numbered
from tests.rig.node import Node
from tests.rig.ports import is_listening
from tests.rig.raw import RawClient

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUE = "demo"
SIZE_BYTES = 256
KILL_AT = 0.4
_STUCK_AFTER_S = 120

console = Console(highlight=False)


@dataclass
class Run:
    """What is known of the run so far."""

    messages: int
    began_s: float = field(default_factory=time.monotonic)
    killed_s: float = 0
    back_s: float = 0
    flowing_s: float = 0
    ended_s: float = 0
    arrived: int = 0
    """Messages in the destination's queue."""
    arrived_before: int = 0
    """As many were there when the source broker came back."""
    metrics: Metrics = field(default_factory=Metrics)

    def count(self, name: str, **labels: str) -> int:
        """A metric's value at the last scrape."""
        return int(self.metrics.total(name, **labels))

    def books(self) -> str:
        """Where every delivery has gone, as an equation."""
        parts = {
            "forwarded": self.count("bridge_messages_forwarded_total"),
            "suppressed": self.count("bridge_messages_suppressed_total"),
            "quarantined": self.count("bridge_messages_quarantined_total"),
            "requeued": self.count("bridge_messages_requeued_total"),
            "stale": self.count("bridge_messages_stale_discarded_total"),
            "in flight": self.count("bridge_messages_in_flight"),
        }
        received = self.count("bridge_messages_received_total")
        balance = "=" if received == sum(parts.values()) else "[red]≠[/]"
        return f"{received:,} received {balance} " + " + ".join(f"{value:,} {name}" for name, value in parts.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000, help="how many (default %(default)s)")
    parser.add_argument("--queue-type", choices=("classic", "quorum"), default="classic", help="default %(default)s")
    parser.add_argument(
        "--broker", choices=installation.VERSIONS, default="3.10", help="3.10 is the distribution's own"
    )
    options = parser.parse_args(arguments)
    if any(name.startswith("BRIDGE_") for name in os.environ):
        console.print("BRIDGE_ variables are set; the demo leaves them and your brokers alone: it brings its own.")
        console.print("To forward from your own broker, run [b]amqp-bridge run[/] with these variables.\n")
    console.print(
        f"Two private RabbitMQ brokers are started on loopback. {options.messages:,} numbered messages of "
        f"{SIZE_BYTES} B wait in a {options.queue_type} queue of the first; the bridge brings them to the second. On "
        f"the way the first broker is killed (SIGKILL) and started again. Then what arrived is counted, one by one.\n"
    )
    try:
        with Node(options.broker) as source, Node(options.broker) as destination:
            for node in (source, destination):
                node.declare(QUEUE, options.queue_type)
            console.print(f"The brokers are up; publishing {options.messages:,} messages …")
            publish_numbered(source.url, QUEUE, options.messages, size=SIZE_BYTES)
            run, status = _forward(source, destination, options.messages)
            audit = drain_and_audit(destination.url, QUEUE, options.messages)
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything that was started is ended.")
        return 130
    console.print()
    console.print(_report(run, audit))
    if status:
        console.print(f"[red]The bridge ended with exit status {status}, not 0.[/]")
    return 1 if audit.lost or status else 0


def _forward(source: Node, destination: Node, messages: int) -> tuple[Run, int]:
    progress = Progress(
        TextColumn("arrived"),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    task = progress.add_task("", total=messages, rate="")
    with (
        BridgeProcess(bridge_settings(source, destination, QUEUE)) as bridge,
        RawClient(destination.url) as counter,
        Live(progress, console=console, refresh_per_second=8) as live,
    ):
        run = Run(messages)
        while not _is_complete(run, source):
            run.metrics = bridge.metrics()
            run.arrived = counter.ready(QUEUE)
            rate = f"{progress.tasks[task].speed or 0:,.0f} msg/s"
            progress.update(task, completed=min(run.arrived, messages), rate=rate)
            live.update(Group(progress, _state(run)))
            _disturb(run, source)
            if time.monotonic() - run.began_s > _STUCK_AFTER_S:
                console.print(f"[red]Not done after {_STUCK_AFTER_S} s.[/] The bridge's log ends so:")
                console.print(bridge.logs[-4000:], markup=False)
                break
            time.sleep(0.05)
        run.ended_s = time.monotonic()
        return run, bridge.terminate()


def _is_complete(run: Run, source: Node) -> bool:
    return run.flowing_s > 0 and not run.count("bridge_messages_in_flight") and source.queue_depth(QUEUE) == 0


def _disturb(run: Run, source: Node) -> None:
    """Kill the source broker when its time has come, start it again, and note when it and the messages are back."""
    if not run.killed_s and run.arrived >= KILL_AT * run.messages:
        source.kill()
        run.killed_s = time.monotonic()
        console.print(f"  {run.arrived:,} have arrived: [red]the source broker is SIGKILLed[/] and started again")
        source.start()
    elif run.killed_s and not run.back_s and is_listening(source.amqp_port):
        run.back_s = time.monotonic()
        run.arrived_before = run.arrived
        console.print(f"  it accepts connections again after {run.back_s - run.killed_s:.1f} s")
    elif run.back_s and not run.flowing_s and run.arrived > run.arrived_before:
        run.flowing_s = time.monotonic()
        console.print(f"  messages arrive again {run.flowing_s - run.back_s:.1f} s later")


def _state(run: Run) -> str:
    up = {True: "[green]up[/]", False: "[red]down[/]"}
    sides = [
        f"{side} {up[run.count('bridge_connection_up', side=side) == 1]}, generation "
        f"{run.count('bridge_generation', side=side)}"
        for side in ("source", "destination")
    ]
    return f"{'; '.join(sides)}\n{run.books()}"


def _report(run: Run, audit: Audit) -> Table:
    took_s = run.ended_s - run.began_s
    outage_s = run.back_s - run.killed_s
    table = Table("counted at the destination", "", title="The result", title_justify="left", show_header=False)
    table.columns[1].justify = "right"
    rows: list[tuple[str, object]] = [
        ("sent", audit.sent),
        ("arrived", audit.arrived),
        ("lost", len(audit.lost)),
        ("duplicates", audit.duplicates),
        ("out of order", audit.out_of_order),
        ("stale discarded", run.count("bridge_messages_stale_discarded_total")),
        ("redeliveries suppressed", run.count("bridge_messages_suppressed_total")),
        ("time, bridge started to queue empty", f"{took_s:.1f} s"),
        ("  of it without a source broker", f"{outage_s:.1f} s"),
        ("throughput, that outage left out", f"{audit.sent / (took_s - outage_s):,.0f} msg/s"),
    ]
    for name, value in rows:
        colour = "[red]" if name == "lost" and value else ""
        table.add_row(name, colour + (f"{value:,}" if isinstance(value, int) else str(value)))
    return table


if __name__ == "__main__":
    sys.exit(main())
