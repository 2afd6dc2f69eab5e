"""Many bridges on one machine: what each costs while it has nothing to do, and while it forwards little.

Each has a source queue and a destination queue of its own. CPU is that of all their processes over some seconds, memory
is proportional: pages that several share count for each by its share.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pika

from tests.bench.load import beside
from tests.programs.idle import SETTLE_S, proportional_bytes
from tests.rig.bridge_process import BridgeProcess
from tests.rig.client import encode_properties
from tests.rig.raw import RawClient
from tests.rig.usage import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from threading import Event

    from tests.rig.node import Node

BUSY_PER_S = 100
"""Messages a second for each bridge that is busy."""


@contextmanager
def bridges(node: Node, number: int, queue_type: str) -> Iterator[list[BridgeProcess]]:
    """Start so many, one after the other, each with queues of its own."""
    with ExitStack() as stack:
        running = []
        for index in range(number):
            settings = {
                "BRIDGE_SOURCE_URL": node.url,
                "BRIDGE_SOURCE_QUEUE": f"in.{index}",
                "BRIDGE_DESTINATION_URL": node.url,
                "BRIDGE_DESTINATION_QUEUE": f"out.{index}",
            }
            for queue in ("in", "out"):
                node.declare(f"{queue}.{index}", queue_type, {"x-max-length": 1000} if queue == "out" else None)
            running.append(stack.enter_context(BridgeProcess(settings)))
        for bridge in running:
            bridge.wait_ready()
        yield running


def publishing(node: Node, number: int, size: int) -> AbstractContextManager[None]:
    """Publish evenly to the sources of so many bridges, in a thread of its own."""
    properties = encode_properties(pika.BasicProperties(delivery_mode=2, message_id="#" * 12))

    def publish(ended: Event) -> None:
        with RawClient(node.url) as client:
            begin, turn = time.monotonic(), 0
            while not ended.wait(max(0.0, begin + turn / BUSY_PER_S - time.monotonic())):
                client.publish_each("", [(f"in.{index}", properties, b"." * size) for index in range(number)])
                turn += 1

    return beside(publish)


def cost(running: list[BridgeProcess], seconds: float) -> dict[str, float]:
    """What each of them costs on average."""
    time.sleep(min(SETTLE_S, seconds))
    begin, cpu_s = time.monotonic(), _cpu_seconds(running)
    time.sleep(seconds)
    share = (_cpu_seconds(running) - cpu_s) / (time.monotonic() - begin)
    number = len(running)
    return {
        "CPU % each": 100 * share / number,
        "MB each": sum(proportional_bytes(bridge.pid) for bridge in running) / number / 1e6,
        "descriptors each": sum(len([*Path(f"/proc/{bridge.pid}/fd").iterdir()]) for bridge in running) / number,
        "start CPU s each": cpu_s / number,
        "bridges": number,
    }


def _cpu_seconds(running: list[BridgeProcess]) -> float:
    return sum(cpu_seconds(bridge.pid) for bridge in running)
