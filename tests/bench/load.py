"""What the contestants are given to do, and how what they did is seen: by the destination's depth, from outside."""

from __future__ import annotations

import os
import statistics
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pika

from tests.rig.client import encode_properties
from tests.rig.raw import RawClient
from tests.rig.usage import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.bench.contestants import Route

HEADERS: dict[int, dict[str, object] | None] = {
    0: None,
    3: {"origin": "bench", "attempt": 1, "trace": "0af7651916cd43dd"},
}

_POLL_S = 0.02
_BATCH_BYTES = 4_000_000
_STAMP_BYTES = 8


def fill(url: str, queue: str, count: int, size: int, headers: int = 0) -> None:
    """Publish ``count`` persistent messages of ``size`` bytes, with message ids, and wait for their confirms."""
    mark = b"#" * 12
    properties = pika.BasicProperties(delivery_mode=2, message_id=mark.decode(), headers=HEADERS[headers])
    before, _, after = encode_properties(properties).partition(mark)
    body = b"." * size
    batch = max(1, min(500, _BATCH_BYTES // size))
    with RawClient(url) as client:
        client.confirm_select()
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            client.publish_many("", queue, [(before + b"%012d" % number + after, body) for number in numbers])
            client.wait_confirms(leave=10 * batch)
        client.wait_confirms()


def fill_by_keys(url: str, exchange: str, keys: Sequence[str], size: int) -> None:
    """Publish a persistent message of ``size`` bytes with each of the keys, and wait for their confirms."""
    properties = encode_properties(pika.BasicProperties(delivery_mode=2))
    body = b"." * size
    with RawClient(url) as client:
        client.confirm_select()
        for key in keys:
            client.publish(exchange, key, properties, body)
        client.wait_confirms()


class Sample(NamedTuple):
    """How many messages had arrived at a time, and the CPU seconds spent until then."""

    at: float
    arrived: int
    contestant_cpu_s: float
    broker_cpu_s: float


def watch_arrivals(
    client: RawClient, route: Route, count: int, pids: Sequence[int], timeout_s: float
) -> Iterator[Sample]:
    """Sample until ``count`` messages have arrived.

    Raises TimeoutError when that takes longer than ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    arrived = 0
    while arrived < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{arrived} of {count} messages arrived within {timeout_s} s")
        arrived = client.ready(route.destination_queue)
        yield Sample(time.monotonic(), arrived, sum(map(cpu_seconds, pids)), route.node.cpu_seconds())
        time.sleep(_POLL_S)


def watch_to_the_end(
    client: RawClient, route: Route, count: int, begin_s: float, stopped_s: float
) -> tuple[int, float]:
    """Wait until ``count`` messages have arrived, or none for ``stopped_s``.

    Return how many have, and how many seconds after ``begin_s`` the last of them came.
    """
    arrived, last_s = 0, begin_s
    while arrived < count and time.monotonic() - last_s < stopped_s:
        found = client.ready(route.destination_queue)
        if found > arrived:
            arrived, last_s = found, time.monotonic()
        time.sleep(_POLL_S)
    return arrived, last_s - begin_s


def steady_part(samples: list[Sample], count: int) -> tuple[Sample, Sample]:
    """The samples around the middle 80 %: without the start, and without the end, when the source runs dry."""
    begin = max(sample for sample in samples if sample.arrived <= count * 0.1)
    end = min(sample for sample in samples if sample.arrived >= count * 0.9)
    return begin, end


def round_trip_s(url: str, queue: str) -> float:
    """How long an idle broker's answer takes: somewhat more than what a proxy was told to delay by."""
    with RawClient(url) as client:
        times_s = []
        for _ in range(20):
            begin = time.monotonic()
            client.ready(queue)
            times_s.append(time.monotonic() - begin)
    return statistics.median(times_s)


def windowed_rate(url: str, queue: str, count: int, size: int, window: int) -> float:
    """Publish with at most ``window`` messages unconfirmed; return the messages a second after the first window."""
    properties = encode_properties(pika.BasicProperties(delivery_mode=2))
    batch = max(1, window // 100)
    with RawClient(url) as client:
        client.confirm_select()
        begin = time.monotonic()
        for first in range(0, count + window, batch):
            client.publish_many("", queue, [(properties, b"." * size)] * batch)
            client.wait_confirms(leave=window - batch)
            if first < window:
                begin, counted_from = time.monotonic(), first + batch
        elapsed_s = time.monotonic() - begin
    return (count + window - counted_from) / elapsed_s


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Have this work done in a thread of its own; it ends when the event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def confine(pid: int, cores: set[int]) -> None:
    """Let the threads of a process, and what they begin, run on these cores only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def first_arrival(client: RawClient) -> float:
    """Wait for a delivery to a client that consumes; when it came."""
    message = next(client.deliveries())
    at = time.monotonic()
    client.ack(message.delivery_tag)
    return at


def arrivals(client: RawClient, count: int) -> list[float]:
    """Take ``count`` messages; when each came."""
    came_s: list[float] = []
    for message in client.deliveries():
        came_s.append(time.monotonic())
        if len(came_s) % 50 == 0 or len(came_s) == count:
            client.ack(message.delivery_tag, multiple=True)
        if len(came_s) == count:
            break
    return came_s


def send_stamped(url: str, queue: str, count: int, rate_per_s: float, size: int) -> threading.Thread:
    """Begin to publish messages that carry the time at which they were sent, evenly, in a thread of its own."""
    properties = encode_properties(pika.BasicProperties(delivery_mode=2))
    filling = b"." * (size - _STAMP_BYTES)

    def send() -> None:
        with RawClient(url) as client:
            begin = time.monotonic()
            for number in range(count):
                if (wait_s := begin + number / rate_per_s - time.monotonic()) > 0:
                    time.sleep(wait_s)
                client.publish("", queue, properties, time.monotonic_ns().to_bytes(_STAMP_BYTES) + filling)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def receive_stamped(client: RawClient, count: int) -> list[float]:
    """The seconds that each of ``count`` stamped messages was on its way, in order of arrival."""
    ways = []
    for message in client.deliveries():
        ways.append((time.monotonic_ns() - int.from_bytes(message.body[:_STAMP_BYTES])) / 1e9)
        if len(ways) % 50 == 0:
            client.ack(message.delivery_tag, multiple=True)
        if len(ways) == count:
            break
    return ways
