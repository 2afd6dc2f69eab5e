"""Live flow: a publisher at the source, a consumer at the destination, and no backlog between them.

A rate is held when the messages under way do not become more. Each message carries the time at which it was to be sent:
one that had to wait for its publisher was late all the same.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import pika

from tests.rig.client import encode_properties
from tests.rig.raw import RawClient, publish_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MARK = b"@sent at@"
_STAMP_BYTES = 8
_TURN_S = 0.002
"""How often the publisher writes: what is due by then, at once."""
_GROWTH = 0.02
"""Of what is sent in a second: by how much more may be under way in the last third of the time than in the second."""
_LEAD_S = 2.0
"""Until the first message: whoever forwards has started by then."""
_SILENCE_S = 5.0
"""Who delivers nothing for so long does not hold a rate."""
_SLACK = 50
"""Messages that are under way more or less at any time."""


class Stream(NamedTuple):
    """What is sent, evenly."""

    rate_per_s: float
    seconds: float
    size: int
    """Bytes of a message's body."""


class Flow(NamedTuple):
    """What came of a rate."""

    ways_ms: list[float]
    """How long each message was on its way, without those of the first third of the time."""
    held: bool
    """Whether no backlog grew."""


def flow(url: str, source: str, destination: str, stream: Stream) -> Flow:
    """Publish to the source, take all that comes, and see how long it was on its way."""
    context = multiprocessing.get_context("spawn")
    arrived: list[tuple[float, float]] = []
    with RawClient(url, timeout_s=_SILENCE_S) as client:
        client.consume(destination)
        begin = time.monotonic() + _LEAD_S
        publisher = context.Process(target=_publish, args=(url, source, stream, begin))
        publisher.start()
        try:
            for sent_s, came_s in _arrivals(client, until_s=begin + stream.seconds):
                arrived.append((sent_s - begin, came_s - begin))
        finally:
            publisher.terminate()
            publisher.join()
            client.abandon()
    later = [came_s - sent_s for sent_s, came_s in arrived if sent_s > stream.seconds / 3]
    return Flow([way_s * 1000 for way_s in later], held(arrived, stream))


def held(arrived: list[tuple[float, float]], stream: Stream) -> bool:
    """Whether as much arrived as was to be sent, in the last third of the time as in the second."""
    rate_per_s, seconds, _ = stream

    def under_way(at_s: float) -> float:
        return rate_per_s * at_s - sum(came_s <= at_s for _, came_s in arrived)

    middle, late = (
        statistics.median(under_way(seconds * (third + n / 10) / 3) for n in range(1, 10)) for third in (1, 2)
    )
    return late - middle <= _GROWTH * rate_per_s * seconds / 3 + _SLACK


def highest_rate(holds: Callable[[float], bool], guess_per_s: float, steps: int) -> float:
    """Return the highest of the tried rates that was held.

    From a guess it goes up or down by half, and from where the answer changes on it halves the distance: so many steps,
    and more only while none was held. Raises RuntimeError when not even one message a second is.
    """
    low, high = 0.0, 0.0
    rate_per_s = guess_per_s
    while steps > 0 or not low:
        if holds(rate_per_s):
            low = rate_per_s
        else:
            high = rate_per_s
        rate_per_s = (low + high) / 2 if low and high else low * 1.5 or high / 1.5
        steps -= 1
        if rate_per_s < 1:
            raise RuntimeError("no rate was held")
    return low


def _publish(url: str, queue: str, stream: Stream, begin_s: float) -> None:
    """In a process of its own, until it is ended."""
    rate_per_s, seconds, size = stream
    properties = encode_properties(pika.BasicProperties(delivery_mode=2, message_id="#" * 12))
    body = _MARK + bytes(_STAMP_BYTES) + b"." * (size - len(_MARK) - _STAMP_BYTES)
    with RawClient(url) as client:
        message = publish_frames("", queue, properties, body, client.frame_max)
        before, _, after = message.partition(_MARK + bytes(_STAMP_BYTES))
        sent = 0
        while sent < rate_per_s * seconds:
            due = int((time.monotonic() - begin_s) * rate_per_s)
            if due > sent:
                stamps = (begin_s + number / rate_per_s for number in range(sent, due))
                client.send_raw(b"".join(b"%b%b%b%b" % (before, _MARK, _stamp(at_s), after) for at_s in stamps))
                sent = due
            time.sleep(_TURN_S)


def _stamp(at_s: float) -> bytes:
    return round(at_s * 1e9).to_bytes(_STAMP_BYTES)


def _arrivals(client: RawClient, until_s: float) -> Iterator[tuple[float, float]]:
    """Yield when each message was to be sent, and when it came; ack them by chunks."""
    rest, taken = b"", 0
    while time.monotonic() < until_s:
        try:
            data = rest + client.receive_raw()
        except TimeoutError:
            return
        came_s = time.monotonic()
        stamps, rest = stamped(data)
        taken += len(stamps)
        if taken > 1 and stamps:
            client.ack(taken - 1, multiple=True)  # the last may not be there yet
        yield from ((sent_s, came_s) for sent_s in stamps)


def stamped(data: bytes) -> tuple[list[float], bytes]:
    """Return the times that stand in what has come, and what is to be read again with what comes next."""
    last = data.rfind(_MARK)
    cut = last if last >= 0 and len(data) - last < len(_MARK) + _STAMP_BYTES else len(data)
    parts = data[:cut].split(_MARK)[1:]
    return [int.from_bytes(part[:_STAMP_BYTES]) / 1e9 for part in parts], data[
        min(cut, max(0, len(data) - len(_MARK) + 1)) :
    ]
