"""HTTP clients by the thousand beside a bridge that forwards: all is forwarded, and nothing of theirs is left."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bridge.observe.http import MAX_CLIENTS
from tests.broker.scene import in_flight, scene
from tests.rig.ports import LOOPBACK
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.bridge_process import BridgeProcess
    from tests.rig.node import Node

SCRAPES = 10_000
PIPELINED = 250
"""Requests that a scraping client writes before it reads its answers."""
IDLE = 1000
MESSAGES = 20_000


def threads_and_descriptors(bridge: BridgeProcess) -> tuple[int, int]:
    """Of the process."""
    process = Path(f"/proc/{bridge.pid}")
    return sum(1 for _ in (process / "task").iterdir()), sum(1 for _ in (process / "fd").iterdir())


def scraped(bridge: BridgeProcess, times: int) -> int:
    """Scrape so often over one connection; return how many answers were whole."""
    answered = 0
    with socket.create_connection((LOOPBACK, bridge.http_port), timeout=60) as client:
        writer = threading.Thread(target=client.sendall, args=(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * times,))
        writer.start()
        with client.makefile("rb") as answers:
            while answered < times:
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                head = b"".join(iter(answers.readline, b"\r\n"))
                length = re.search(rb"Content-Length: ([0-9]+)", head)
                assert length
                assert b"\nbridge_messages_forwarded_total " in answers.read(int(length[1]))
                answered += 1
        writer.join()
    return answered


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_ten_thousand_scrapes_and_a_thousand_half_sent_requests_leave_nothing_behind(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = scene(source, destination, name=queue_name)
    with this.bridge, ExitStack() as stack:
        this.see_one_through()
        before = threads_and_descriptors(this.bridge)
        this.publish(MESSAGES)
        answered = 0
        while answered < SCRAPES:
            for _ in range(IDLE * PIPELINED // SCRAPES):
                client = stack.enter_context(socket.create_connection((LOOPBACK, this.bridge.http_port)))
                client.sendall(b"GET /metrics")
            answered += scraped(this.bridge, PIPELINED)
            assert threads_and_descriptors(this.bridge)[0] <= before[0] + MAX_CLIENTS
        this.publish(MESSAGES)
        stack.close()
        assert in_flight(this.wait_done()) == 0
        wait_until(lambda: threads_and_descriptors(this.bridge) <= before, "their threads and descriptors to be gone")
        assert "Traceback" not in this.bridge.logs
    assert this.audit().is_perfect
