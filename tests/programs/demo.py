"""`make demo`: the bridge's main job, done for real and counted at the destination.

Two private brokers on loopback, numbered messages, the bridge as a process of its own, and the source broker SIGKILLed
on the way, at a moment when the bridge holds messages: the destination is frozen before, until the window is full. Exit
status 1 if anything is lost or arrives twice. Nothing is left behind.
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
MESSAGES = 100_000
SIZE_BYTES = 256
KILL_AT = 0.4
_STUCK_AFTER_S = 120
_WAIT_S = 30
"""How long the bridge may take to fill its window, and to notice that its source is gone."""

console = Console(highlight=False)


@dataclass
class Run:
    """What is known of the run so far."""

    messages: int
    began_s: float = field(default_factory=time.monotonic)
    frozen_s: float = 0
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
    parser.add_argument("--messages", type=int, default=MESSAGES, help="how many (default %(default)s)")
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
        f"the way the first broker is killed (SIGKILL) while messages are in flight, and started again. Then what "
        f"arrived is counted, one by one. It takes about half a minute on an idle machine.\n"
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
    console.print()
    console.print(verdict(run, audit))
    failed = bool(audit.lost or audit.duplicates or status)
    if not failed:
        console.print(NEXT, markup=False)
    return int(failed)


NEXT = """
Next, with brokers of your own:
  pip install .                      in an environment of yours; or `pipx install .`
  amqp-bridge                        prints the first steps
  amqp-bridge check                  tries your settings and moves nothing
README.md has the rest; `make demo ARGS=--help` has more of this demo."""


def verdict(run: Run, audit: Audit) -> str:
    """Return the result in one line."""
    stale = run.count("bridge_messages_stale_discarded_total")
    if audit.lost or audit.duplicates:
        return f"[red]{len(audit.lost):,} messages were lost and {audit.duplicates:,} arrived twice.[/]"
    return (
        f"[green]The source broker was killed with {stale:,} messages in flight: none was lost, none arrived twice.[/] "
        "A consumer that works on what it has prefetched would have forwarded those again."
    )


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
            _disturb(run, source, destination, bridge)
            if time.monotonic() - run.began_s > _STUCK_AFTER_S:
                console.print(f"[red]Not done after {_STUCK_AFTER_S} s.[/] The bridge's log ends so:")
                console.print(bridge.logs[-4000:], markup=False)
                break
            time.sleep(0.05)
        run.ended_s = time.monotonic()
        return run, bridge.terminate()


def _is_complete(run: Run, source: Node) -> bool:
    return run.flowing_s > 0 and not run.count("bridge_messages_in_flight") and source.queue_depth(QUEUE) == 0


def _disturb(run: Run, source: Node, destination: Node, bridge: BridgeProcess) -> None:
    """Kill the source broker when its time has come, start it again, and note when it and the messages are back."""
    if not run.killed_s and run.arrived >= KILL_AT * run.messages:
        run.frozen_s = time.monotonic()
        destination.freeze()
        try:
            before = _Flight()
            in_flight = bridge.wait_for(before.is_full, "the window to be full", _WAIT_S)
            source.kill()
            run.killed_s = time.monotonic()
            discarded = "bridge_messages_stale_discarded_total"
            bridge.wait_for(lambda now: now.total(discarded) > 0, "the bridge to notice the loss", _WAIT_S)
        finally:
            destination.thaw()
        count = int(in_flight.total("bridge_messages_in_flight"))
        console.print(f"  {run.arrived:,} have arrived; the destination is frozen until {count:,} are in flight;")
        console.print("  [red]the source broker is SIGKILLed[/], the destination goes on, the source is started again")
        source.start()
    elif run.killed_s and not run.back_s and is_listening(source.amqp_port):
        run.back_s = time.monotonic()
        run.arrived_before = run.arrived
        console.print(f"  it accepts connections again after {run.back_s - run.killed_s:.1f} s")
    elif run.back_s and not run.flowing_s and run.arrived > run.arrived_before:
        run.flowing_s = time.monotonic()
        console.print(f"  messages arrive again {run.flowing_s - run.back_s:.1f} s later")


class _Flight:
    """Sees when nothing more is received: the window is full, or the queue is empty."""

    def __init__(self) -> None:
        self._received = -1.0

    def is_full(self, metrics: Metrics) -> bool:
        """Whether messages are in flight, and as many have been received as at the last look."""
        before, self._received = self._received, metrics.total("bridge_messages_received_total")
        return self._received == before and metrics.total("bridge_messages_in_flight") > 0


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
    outage_s = run.back_s - run.frozen_s
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
        ("  of it with a broker frozen or dead", f"{outage_s:.1f} s"),
        ("throughput, that outage left out", f"{audit.sent / (took_s - outage_s):,.0f} msg/s"),
    ]
    for name, value in rows:
        colour = "[red]" if name == "lost" and value else ""
        table.add_row(name, colour + (f"{value:,}" if isinstance(value, int) else str(value)))
    return table


if __name__ == "__main__":
    sys.exit(main())
