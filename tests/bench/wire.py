"""The bridge's data plane alone, between two scripted peers over loopback: what of its CPU is the kernel's.

`python -m tests.bench.wire SIZE COUNT [--floor]` prints the CPU per message as JSON, its own and the kernel's, and page
faults. The taps, the relay and the window are the bridge's own; the peers send deliveries and confirms that were made
beforehand, on another core. With `--floor`, the bytes are only read and written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from struct import unpack_from

from uvloop import new_event_loop

from bridge.cli import heap
from bridge.connection.tap import Pump, Tap
from tests.budget.planes import Planes
from tests.budget.workload import Kind, Sender
from tests.support.frames import confirm

_WINDOW_BYTES = 64 << 20
_WINDOW = 1000
_BLOCK_BYTES = 512 << 10
_ACK_BYTES = 21
_WARM_UP = 5
"""A part of so many is not counted."""


def measure(size: int, count: int, *, floor: bool) -> dict[str, float]:
    """Run it in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.wire", str(size), str(count), *(["--floor"] if floor else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _source(listening: socket.socket, size: int, count: int, *, floor: bool) -> None:
    """Deliver, at most a window ahead of the acks."""
    connection, _ = listening.accept()
    acked, moved = 0, threading.Condition()

    def read_acks() -> None:
        nonlocal acked
        data = b""
        while piece := connection.recv(1 << 16):
            data += piece
            if whole := len(data) // _ACK_BYTES * _ACK_BYTES:
                with moved:
                    (acked,) = unpack_from(">Q", data, whole - _ACK_BYTES + 11)
                    moved.notify()
                data = data[whole:]

    thread = threading.Thread(target=read_acks)
    thread.start()
    sender = Sender(Kind(body_bytes=size))
    block = max(1, min(256, _BLOCK_BYTES // size))
    window = max(2 * block, min(_WINDOW, _WINDOW_BYTES // size))
    for first in range(0, count, block):
        number = min(block, count - first)
        with moved:
            while not floor and first + number - acked > window:
                moved.wait()
        connection.sendall(b"".join(step.deliveries for step in sender.steps(number)))
    thread.join()


def _destination(listening: socket.socket, publish_bytes: int, *, floor: bool) -> None:
    """Take publishes, and confirm all that are whole after each read."""
    connection, _ = listening.accept()
    buffer = memoryview(bytearray(1 << 20))
    received = confirmed = 0
    while number := connection.recv_into(buffer):
        received += number
        if not floor and received // publish_bytes > confirmed:
            confirmed = received // publish_bytes
            connection.sendall(confirm(confirmed, multiple=True))


def _only_copy(source: socket.socket, destination: socket.socket, total_bytes: int) -> None:
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    copied = 0
    while copied < total_bytes:
        number = source.recv_into(buffer)
        destination.sendall(buffer[:number])
        copied += number


def _same(tap: Tap) -> Tap:
    return tap


async def _forward(planes: Planes, ports: tuple[int, int], count: int) -> resource.struct_rusage:
    """Forward, and return what had been used when the part that is not counted was done."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    relay = planes.relay
    pump = Pump(relay)
    taps = []
    for receiver, port in zip((relay.source, relay.destination), ports, strict=True):
        tap = Tap(asyncio.StreamReader(), receiver, lambda *_: over.set(), pump.run)
        await loop.create_connection(partial(_same, tap), "127.0.0.1", port)
        taps.append(tap)
    pump.attach("destination", taps[1])
    pump.attach("source", taps[0])
    heap.prepare()

    async def until(accepted: int) -> None:
        while relay.window.accepted < accepted and not over.is_set():
            pump.run(loop.time())
            await asyncio.sleep(0.002)

    await until(count // _WARM_UP)
    begin = resource.getrusage(resource.RUSAGE_SELF)
    await until(count)
    for tap in taps:
        tap.abort()
    if relay.window.accepted < count:
        raise RuntimeError(f"{relay.window.accepted} of {count} messages were forwarded")
    return begin


def main() -> None:
    """Run one of the two, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.wire", description=__doc__)
    parser.add_argument("size", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--floor", action="store_true")
    arguments = parser.parse_args()
    size, count, floor = arguments.size, arguments.count, arguments.floor
    step = next(Sender(Kind(body_bytes=size)).steps(1, chunk_messages=2))
    planes = Planes(own_keys=False)
    planes.consume(0.0)
    publish_bytes = sum(map(len, planes.source_sends(step.deliveries, 0.0).to_destination))
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = listening[0].getsockname()[1], listening[1].getsockname()[1]
    own, *others = sorted(os.sched_getaffinity(0))
    children = []
    peers = (
        partial(_source, listening[0], size, count, floor=floor),
        partial(_destination, listening[1], publish_bytes, floor=floor),
    )
    for peer in peers:
        pid = os.fork()
        if not pid:
            os.sched_setaffinity(0, others or {own})
            with suppress(ConnectionError):
                peer()
            os._exit(0)
        children.append(pid)
    os.sched_setaffinity(0, {own})
    if floor:
        with (
            socket.create_connection(("127.0.0.1", ports[0])) as one,
            socket.create_connection(("127.0.0.1", ports[1])) as two,
        ):
            begin = resource.getrusage(resource.RUSAGE_SELF)
            _only_copy(one, two, count * len(step.deliveries))
        counted = count
    else:
        planes = Planes(own_keys=False)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            loop = runner.get_loop()
            planes.consume(loop.time())
            begin = runner.run(_forward(planes, ports, count))
        counted = count - count // _WARM_UP
    end = resource.getrusage(resource.RUSAGE_SELF)
    for pid in children:
        os.waitpid(pid, 0)
    kernel_us, own_us = (
        (b - a) / counted * 1e6 for a, b in ((begin.ru_stime, end.ru_stime), (begin.ru_utime, end.ru_utime))
    )
    faults = (end.ru_minflt - begin.ru_minflt) / counted
    print(json.dumps({"CPU µs/msg": own_us + kernel_us, "of it the kernel": kernel_us, "page faults": faults}))


if __name__ == "__main__":
    main()
