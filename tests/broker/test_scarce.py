"""Memory and descriptors are used up: nothing is lost, no core is kept busy, and the log says what it was in a line."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import in_flight, scene, settings
from tests.rig.bridge_process import BridgeProcess
from tests.rig.ports import LOOPBACK
from tests.rig.raw import RawClient
from tests.rig.tuning import limited
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.scene import Scene
    from tests.rig.node import Node

EX_TEMPFAIL = 75
ADDRESS_SPACE_BYTES = 200 << 20
NARROW = ("env", "MALLOC_ARENA_MAX=1", "prlimit", f"--as={ADDRESS_SPACE_BYTES}")
"""The C library would set 64 MiB of address space aside for each of the first threads, used or not: a scrape would
then find no room for its thread before there is a large message."""
LARGE_BYTES = 120_000_000
PASSING_BYTES = 16_000_000
NEIGHBOURS = 20
CLIENTS = 40
WATCHED_S = 2.0
PAGE_BYTES = resource.getpagesize()
DISK_PAGES = 16


def answers(bridge: BridgeProcess) -> bool:
    """Whether a request is answered: those who still wait before it may have it sent away."""
    try:
        return bridge.get("/healthz")[0] == 200
    except OSError:
        return False


def settled(this: Scene) -> bool:
    """Whether nothing is in flight; a request for which there is no descriptor is not answered."""
    try:
        return in_flight(this.metrics()) == 0
    except OSError:
        return False


def test_a_message_that_does_not_fit_into_memory_ends_the_process_in_order(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """Twice: the second process begins with one message, and touches no other. Then there is room."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    roomy = this.bridge
    narrow = BridgeProcess(
        settings(source, destination, this.queue_in, this.queue_out),
        wrapper=NARROW,
    )
    with limited(source, max_message_size=1 << 27), limited(destination, max_message_size=1 << 27):
        this.bridge = narrow
        with narrow:
            this.see_one_through()
            with RawClient(source.url) as client:
                client.confirm_select()
                body = b"%012d" % this.sent + b"." * (LARGE_BYTES - 12)
                client.publish("", this.queue_in, b"\x10\x00\x02", body)
                client.wait_confirms()
            this.sent += 1
            assert narrow.wait() == EX_TEMPFAIL
        this.publish(NEIGHBOURS)
        with narrow:
            assert narrow.wait() == EX_TEMPFAIL
        assert source.queue_depth(this.queue_in) == 1 + NEIGHBOURS
        said = [event["event"] for event in narrow.events if event["level"] == "critical"]
        assert len(said) == 2, "once each"
        assert all(f"for a message of {LARGE_BYTES} bytes" in text for text in said)
        assert "Traceback" not in narrow.logs
        this.bridge = roomy
        this.ended_before = 1
        with roomy:
            this.wait_done()
    audit = this.audit()
    assert not audit.lost, audit
    assert not audit.duplicates, audit


def test_large_messages_pass_where_memory_is_limited(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """More of them than the address space would hold, one or two at a time."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    narrow = {"BRIDGE_MAX_IN_FLIGHT_BYTES": str(2 * PASSING_BYTES)}
    this.bridge = BridgeProcess(this.bridge.settings | narrow, wrapper=NARROW)
    with this.bridge:
        this.see_one_through()
        this.publish(2 * ADDRESS_SPACE_BYTES // PASSING_BYTES, size=PASSING_BYTES)
        this.wait_done()
        assert "Traceback" not in this.bridge.logs
    assert this.audit().is_perfect


def test_half_sent_requests_keep_no_core_busy_when_descriptors_are_used_up(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = scene(source, destination, name=queue_name)
    with this.bridge, ExitStack() as stack:
        this.see_one_through()
        pid = this.bridge.pid
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection((LOOPBACK, this.bridge.http_port)))
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
        busy_s, began_s = this.bridge.cpu_seconds(), time.monotonic()
        wait_until(lambda: time.monotonic() - began_s >= WATCHED_S, "a while to pass")
        assert this.bridge.cpu_seconds() - busy_s < 0.5 * (time.monotonic() - began_s)
        this.publish(NEIGHBOURS)
        wait_until(lambda: destination.queue_ready(this.queue_out) == this.sent, "forwarding to go on")
        stack.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert in_flight(this.wait_done()) == 0
        assert "Traceback" not in this.bridge.logs
    assert this.audit().is_perfect


@pytest.mark.parametrize("descriptors", (24, 32))
def test_a_low_limit_of_descriptors_leaves_the_brokers_connections_theirs(
    source: Node, destination: Node, queue_name: str, descriptors: int
) -> None:
    """Half-sent requests hold whatever they may; a broker that comes back is connected to all the same."""
    this = scene(source, destination, name=queue_name)
    this.bridge = BridgeProcess(
        settings(source, destination, this.queue_in, this.queue_out), wrapper=("prlimit", f"--nofile={descriptors}")
    )
    with this.bridge, ExitStack() as stack:
        this.see_one_through()
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection((LOOPBACK, this.bridge.http_port)))
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
        source.close_connections()
        destination.close_connections()
        this.publish(NEIGHBOURS)
        wait_until(lambda: destination.queue_ready(this.queue_out) == this.sent, "forwarding to go on")
        stack.close()
        wait_until(lambda: settled(this), "everything to be settled")
        assert "Traceback" not in this.bridge.logs
    assert this.audit().is_perfect


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of some pages; skips where this user may mount none."""
    size = f"size={DISK_PAGES * PAGE_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("NOT TESTED: a file system of its own cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(disk: Path) -> Path:
    """Leave no page of it free; what a file has of its last page stays its own."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(os.statvfs(disk).f_bavail * PAGE_BYTES))
    assert not os.statvfs(disk).f_bavail
    return ballast


def test_a_disk_that_fills_up_with_the_log_stops_nothing(
    source: Node, destination: Node, queue_name: str, tmp_path: Path
) -> None:
    """What cannot be logged is not, and logging goes on when there is room; a line that was torn is the only damage."""
    this = scene(source, destination, name=queue_name, extra={"BRIDGE_RECONNECT_MAX": "0.2"})

    def reconnect() -> None:
        """For a reason of its own, since the same again is not logged; and have the next forwarded."""
        source.close_connections(f"for the {this.sent}th time")
        this.publish(1)
        wait_until(lambda: destination.queue_ready(this.queue_out) == this.sent, "the next to be forwarded")

    with small_disk(tmp_path) as disk:
        log = disk / "log"
        this.bridge = BridgeProcess(this.bridge.settings, wrapper=("bash", "-c", f'exec "$@" 2>>{log}', "bash"))
        with this.bridge:
            reconnect()
            ballast = fill_up(disk)
            while log.stat().st_size % PAGE_BYTES:
                reconnect()
            full = log.stat().st_size
            reconnect()
            assert log.stat().st_size == full
            ballast.unlink()
            reconnect()
            wait_until(lambda: log.stat().st_size > full, "logging to go on")
            assert this.bridge.terminate() == 0
        lines = log.read_text().splitlines()
    assert this.bridge.log_lines == []
    assert sum(not is_event(line) for line in lines) <= 1
    assert is_event(lines[-1])
    assert this.audit().is_perfect
    assert source.queue_depth(this.queue_in) == 0


def is_event(line: str) -> bool:
    """Whether it is a whole one."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
