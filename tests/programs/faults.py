"""The fault matrix: each fault, on each broker, with each kind of queue, for the bridge and for RabbitMQ's own Shovel.

Numbered messages go in on one private node and are counted on another; whoever forwards them runs on its own, the
Shovel on a third node. Prints a Markdown table. Exit status 1 if the bridge loses or strands anything.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pika

from tests.broker.scene import FAST, alice
from tests.programs.helm import STEERED, Helm
from tests.rig import installation
from tests.rig.bridge_process import BridgeProcess
from tests.rig.client import audit, drain, number_of, publish_numbered
from tests.rig.node import Node
from tests.rig.shovel import Shovel
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

MESSAGES = 60_000
KILLS = 10
MANY = 100
DELIVERY_LIMIT = {"x-delivery-limit": 20}
"""RabbitMQ 4's default for a quorum queue, which 3.10 does not have by itself."""
ROOM = 300
"""Messages in the queue that is full."""
BRAKED = {"BRIDGE_DESTINATION_MAX_READY": str(ROOM), "BRIDGE_SOURCE_PREFETCH": "100"}
OUTAGE_S = 3.0
"""How long an outage lasts that does not end by itself."""
GIVE_UP_S = 60.0
"""Time after a fault in which everything must have arrived."""
HEARTBEAT = "?heartbeat=2"


@dataclass
class Stage:
    """Two nodes, a queue on each, and what has been sent and counted so far."""

    source: Node
    destination: Node
    queue_in: str
    queue_out: str
    queue_type: str
    settings: Mapping[str, str] = field(default_factory=dict)
    bridge: BridgeProcess | None = None
    """None where Shovel forwards."""
    sent: int = 0
    arrived: list[int] = field(default_factory=list)

    def publish(self, count: int, url: str = "", properties: pika.BasicProperties | None = None) -> None:
        """Publish the next numbered messages."""
        publish_numbered(url or self.source.url, self.queue_in, count, first=self.sent, properties=properties)
        self.sent += count

    def collect(self) -> None:
        """Count what is at the destination now."""
        self.arrived += map(number_of, drain(self.destination.url, self.queue_out))

    def collect_all(self) -> None:
        """Count what is at the destination, with what a consumer there has been sent and will give back."""

        def empty() -> bool:
            self.collect()
            return self.destination.queue_depth(self.queue_out) == 0

        wait_until(empty, "the destination to be empty", GIVE_UP_S)

    def forwarded(self) -> int:
        """How many messages have come to the destination."""
        return len(self.arrived) + self.destination.queue_depth(self.queue_out)

    def wait_forwarded(self, count: int) -> None:
        """Wait until so many messages have come to the destination."""
        wait_until(lambda: self.forwarded() >= count, f"{count} messages to arrive", GIVE_UP_S)

    def is_done(self) -> bool:
        """Whether the source has nothing more, unacked messages included."""
        return self.source.queue_depth(self.queue_in) == 0


@dataclass(frozen=True)
class Fault:
    """Something that happens to a stage."""

    name: str
    happens: Callable[[Stage], None]
    messages: int = MESSAGES
    """Waiting in the source before anybody forwards."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Of the destination's queue."""
    source_arguments: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the bridge, besides the usual ones."""
    queue_types: tuple[str, ...] = ("classic", "quorum")
    by: tuple[str, ...] = ("bridge", "steered", "Shovel")
    """To whom it can happen."""


def restart(node: Node) -> None:
    """Stop in good order, and start."""
    node.restart()


def kill(node: Node) -> None:
    """SIGKILL, and start."""
    node.kill()
    node.start().wait_ready()


def freeze(node: Node) -> None:
    """SIGSTOP for longer than heartbeats of 2 s may be missing."""
    node.freeze()
    time.sleep(2.5 * OUTAGE_S)
    node.thaw()


def block(node: Node) -> None:
    """Raise a memory alarm for a while."""
    node.alarm(on=True)
    time.sleep(OUTAGE_S)
    node.alarm(on=False)


def close(node: Node) -> None:
    """Close all connections, as the management API does."""
    node.close_connections()


def _at_source(act: Callable[[Node], None], times: int = 1) -> Callable[[Stage], None]:
    def happens(stage: Stage) -> None:
        for n in range(1, times + 1):
            stage.wait_forwarded(n * MESSAGES // 10)
            act(stage.source)

    return happens


def _at_destination(act: Callable[[Node], None]) -> Callable[[Stage], None]:
    def happens(stage: Stage) -> None:
        stage.wait_forwarded(MESSAGES // 10)
        act(stage.destination)

    return happens


def _deleted(stage: Stage) -> None:
    stage.wait_forwarded(stage.sent)
    stage.collect_all()
    stage.destination.delete(stage.queue_out)
    stage.publish(100)
    time.sleep(OUTAGE_S)
    stage.destination.declare(stage.queue_out, stage.queue_type)


def _full(stage: Stage) -> None:
    stage.wait_forwarded(ROOM)
    time.sleep(OUTAGE_S)
    stage.collect()


def _poison(stage: Stage) -> None:
    stage.publish(1, alice(stage.source), pika.BasicProperties(user_id="alice"))
    stage.publish(25)


def _restarted_often(stage: Stage) -> None:
    for _ in range(MANY):
        stage.publish(1000)
        stage.destination.restart()


def _poisoned_often(stage: Stage) -> None:
    """Each closes the destination's channel twice, among others and alone."""
    for _ in range(MANY):
        _poison(stage)


def _bridge_restarted(stage: Stage) -> None:
    assert stage.bridge
    for n in range(1, 4):
        stage.wait_forwarded(n * MESSAGES // 5)
        stage.bridge.terminate()
        stage.bridge.start()


def _bridge_killed(stage: Stage) -> None:
    assert stage.bridge
    stage.wait_forwarded(MESSAGES // 10)
    stage.bridge.kill()
    stage.bridge.start()


def _paused_often(stage: Stage) -> None:
    assert stage.bridge
    bridge = stage.bridge
    for n in range(1, MANY + 1):
        stage.wait_forwarded(n * MESSAGES // (2 * MANY))
        bridge.pause()
        wait_until(lambda: bridge.status()["consumer"]["state"] == "paused", "the bridge to be paused", GIVE_UP_S)
        bridge.resume()


def _left_alone(stage: Stage) -> None:
    """Nobody takes from the destination for a while, several times."""
    for _ in range(KILLS):
        wait_until(lambda: stage.destination.queue_depth(stage.queue_out) >= ROOM, "the queue to be full", GIVE_UP_S)
        time.sleep(0.1)
        stage.collect()


def _rested_and_killed(stage: Stage) -> None:
    """A brake, a rate and a source that is killed meanwhile."""
    _left_alone(stage)
    kill(stage.source)


FAULTS = (
    Fault("source restarted", _at_source(restart)),
    Fault(f"source SIGKILLed {KILLS} times", _at_source(kill, KILLS), 3 * MESSAGES),
    Fault("source closes the connection", _at_source(close)),
    Fault("source frozen", _at_source(freeze)),
    Fault("destination restarted", _at_destination(restart)),
    Fault("destination SIGKILLed", _at_destination(kill)),
    Fault("destination closes the connection", _at_destination(close)),
    Fault("destination frozen", _at_destination(freeze)),
    Fault("destination blocked", _at_destination(block)),
    Fault("destination queue deleted", _deleted, 1000),
    Fault("destination full", _full, 2 * ROOM, {"x-max-length": ROOM, "x-overflow": "reject-publish"}),
    Fault("one user_id in 50", _poison, 24),
    Fault(
        f"destination restarted {MANY} times",
        _restarted_often,
        1000,
        source_arguments=DELIVERY_LIMIT,
        queue_types=("quorum",),
        by=("bridge", "steered"),
    ),
    Fault(
        f"channel closed {MANY} times by a user_id",
        _poisoned_often,
        1000,
        source_arguments=DELIVERY_LIMIT,
        settings={"BRIDGE_USER_ID": "keep"},
        queue_types=("quorum",),
        by=("bridge", "steered"),
    ),
    Fault(
        f"bridge paused {MANY} times",
        _paused_often,
        by=("bridge",),
    ),
    Fault(
        f"destination full {KILLS} times, braked",
        _left_alone,
        20 * ROOM,
        settings=BRAKED,
        by=("bridge",),
    ),
    Fault(
        "source SIGKILLed, braked and held to a rate",
        _rested_and_killed,
        20 * ROOM,
        settings=BRAKED | {"BRIDGE_MAX_RATE": "2000"},
        by=("bridge",),
    ),
    Fault("bridge restarted 3 times", _bridge_restarted, by=("bridge", "steered")),
    Fault("bridge SIGKILLed", _bridge_killed, by=("bridge", "steered")),
)


class Contestant(Protocol):
    """Who forwards."""

    def __call__(self, stage: Stage) -> AbstractContextManager[object]:
        """Forward from entry to exit."""


def bridge(stage: Stage, steering: Mapping[str, str] | None = None) -> AbstractContextManager[object]:
    """The bridge, a process of its own."""
    stage.bridge = BridgeProcess(
        {
            "BRIDGE_SOURCE_URL": stage.source.url + HEARTBEAT,
            "BRIDGE_SOURCE_QUEUE": stage.queue_in,
            "BRIDGE_DESTINATION_URL": stage.destination.url + HEARTBEAT,
            "BRIDGE_DESTINATION_QUEUE": stage.queue_out,
            "BRIDGE_CONFIRM_TIMEOUT": "5s",  # in proportion to how long the faults here last
            **FAST,
            **(steering or {}),
            **stage.settings,
        }
    )
    return stage.bridge


def steered(stage: Stage) -> AbstractContextManager[object]:
    """The same, held to a rate, and paused and braked all the while."""
    bridge(stage, STEERED)
    assert stage.bridge
    return Helm(stage.bridge, stage.destination.url, stage.queue_out)


def shovel_on(node: Node) -> Contestant:
    """RabbitMQ's Shovel on this node."""

    def shovel(stage: Stage) -> AbstractContextManager[object]:
        return Shovel(
            node,
            source_url=stage.source.url.rstrip("/") + HEARTBEAT,
            source_queue=stage.queue_in,
            destination_url=stage.destination.url.rstrip("/") + HEARTBEAT,
            destination_queue=stage.queue_out,
        )

    return shovel


@dataclass(frozen=True)
class Row:
    """What became of the messages."""

    cells: tuple[object, ...]
    is_sound: bool
    """Nothing lost, and everything arrived in time."""

    def __str__(self) -> str:
        """A line of a Markdown table."""
        return f"| {' | '.join(map(str, self.cells))} |"


HEADER = (
    "RabbitMQ",
    "queue",
    "fault",
    "by",
    "sent",
    "arrived",
    "lost",
    "doubled",
    "misordered",
    "requeued",
    "recovery",
)


def measure(stage: Stage, fault: Fault, contestant: Contestant, name: str) -> Row:
    """Let the fault happen to the contestant, wait for the end, count."""
    stage.source.declare(stage.queue_in, stage.queue_type, fault.source_arguments)
    stage.destination.declare(stage.queue_out, stage.queue_type, fault.arguments)
    stage.publish(fault.messages)
    recovery, requeued, set_apart = "never", "-", 0
    with contestant(stage):
        fault.happens(stage)
        began_s, before = time.monotonic(), stage.forwarded()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: stage.forwarded() > before or stage.is_done(), "recovery", GIVE_UP_S)
            recovered_s = time.monotonic() - began_s

            def ended() -> bool:
                if fault.arguments or "BRIDGE_DESTINATION_MAX_READY" in fault.settings:
                    stage.collect()  # to make room; else at the end, since taking while more comes may misorder it
                return stage.is_done()

            wait_until(ended, "the end", GIVE_UP_S, interval_s=0.1)
            came_late = before >= stage.sent and fault.messages >= MESSAGES
            recovery = "came too late" if came_late else f"{recovered_s:.1f} s"
        if stage.bridge is not None:
            metrics = stage.bridge.metrics()
            requeued = f"{metrics.total('bridge_messages_requeued_total'):.0f}"
            set_apart = int(metrics.total("bridge_messages_quarantined_total"))
            stage.bridge.terminate()
    stage.collect_all()
    left = {number_of(message) for message in drain(stage.source.url, stage.queue_in)}
    if set_apart:
        left |= {number_of(message) for message in drain(stage.source.url, f"{stage.queue_in}.quarantine")}
    found = audit(stage.arrived, stage.sent)
    lost = sum(number not in left for number in found.lost)
    place = (stage.source.version, stage.queue_type, fault.name, name)
    counts = (found.sent, found.arrived, lost, found.duplicates, found.out_of_order)
    return Row((*place, *counts, requeued, recovery), is_sound=lost == 0 and recovery != "never")


def _mend(*nodes: Node) -> None:
    for node in nodes:
        if not node.is_running:
            node.start()
        node.thaw()
        node.wait_ready().alarm(on=False)
        node.delete_all_queues()


def _parse() -> argparse.Namespace:
    installed = ",".join(filter(installation.is_installed, installation.VERSIONS))
    parser = argparse.ArgumentParser(prog="python -m tests.programs.faults", description=__doc__)
    add = parser.add_argument
    add("--versions", default=installed, help="of RabbitMQ (default: what is installed, %(default)s)")
    add("--queue-types", default="classic,quorum", help="(default: %(default)s)")
    add("--faults", default="", metavar="WORD", help="only those with this word in their name")
    add("--by", default="bridge,steered,Shovel", help="(default: %(default)s; steered: a bridge, see the helm)")
    return parser.parse_args()


def main() -> None:
    """Print the table, row by row."""
    arguments = _parse()
    print(Row(HEADER, is_sound=True), Row(("---",) * len(HEADER), is_sound=True), sep="\n", flush=True)
    sound = True
    number = 0
    for version in arguments.versions.split(","):
        with Node(version) as source, Node(version) as destination, Node(version, plugins=["rabbitmq_shovel"]) as third:
            contestants = {"bridge": bridge, "steered": steered, "Shovel": shovel_on(third)}
            for fault in (fault for fault in FAULTS if arguments.faults in fault.name):
                for queue_type in sorted({*arguments.queue_types.split(",")} & {*fault.queue_types}):
                    for name in arguments.by.split(","):
                        if name not in fault.by:
                            continue
                        number += 1
                        _mend(source, destination)
                        stage = Stage(source, destination, f"in-{number}", f"out-{number}", queue_type, fault.settings)
                        row = measure(stage, fault, contestants[name], name)
                        sound = sound and (row.is_sound or name == "Shovel")
                        print(row, flush=True)
    sys.exit(not sound)


if __name__ == "__main__":
    main()
