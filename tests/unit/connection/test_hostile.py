"""Brokers that send what no broker should, to a bridge that is at work: it drops that generation and goes on.

For each kind of bytes: the process does not end, nothing is allocated by a declared size, nothing spins, no message is
acked that was not confirmed, none is lost, the end is counted, and the next connection comes by the backoff.
"""

from __future__ import annotations

import tracemalloc
from struct import pack
from typing import TYPE_CHECKING

import pytest
from pamqp import commands

from bridge.amqp.cutter import Cutter
from bridge.amqp.events import Deliveries
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.errors import MalformedFrameError
from tests.support import frames
from tests.support.frames import PERSISTENT, content, deliver, header, method, returned, short
from tests.support.scripted import ScriptedBroker, bridge, confirm, eventually, keep

if TYPE_CHECKING:
    from bridge.connection.supervisor import Supervisor
    from tests.support.scripted import Peer

BOTH = {
    "a frame type that does not exist": frames.frame(9, 1, b""),
    "a frame of 4 GiB": pack(">BHI", 1, 1, 0xFFFFFFFF) + b"x" * 64,
    "a frame just above what was agreed": pack(">BHI", 3, 1, 131_073) + b"x" * 64,
    "a frame that says less than it holds": frames.frame(1, 1, b"\0\x3c\0\x50" + b"\0" * 9)[:-4] + b"\xce",
    "a frame without its end": frames.frame(1, 1, b"\0\x3c\0\x50" + b"\0" * 9)[:-1] + b"\0",
    "a method of two bytes": frames.frame(1, 1, b"\0\x3c"),
    "a content header of nothing": method(1, 60, 60, short("x") + pack(">QB", 2, 0) + short("") * 2)
    + frames.frame(2, 1, b""),
    "a body before its header": method(1, 60, 60, short("x") + pack(">QB", 2, 0) + short("") * 2)
    + frames.frame(3, 1, b"x"),
    "a header table of 4 GiB": deliver(2, frames.frame(2, 1, pack(">HHQH", 60, 0, 0, 0x2000) + b"\xff\xff\xff\xff")),
    "noise": bytes(range(1, 256)) * 4,
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4,
}
FROM_THE_SOURCE = {
    "a body longer than declared": deliver(2, header(3, PERSISTENT) + frames.frame(3, 1, b"body")),
    "a delivery without header": deliver(2, b"") + deliver(3, content(b"x")),
    "two headers": deliver(2, header(3, PERSISTENT) * 2),
    "a delivery that was delivered before": deliver(1, content(b"again")),
    "a delivery numbered 0": deliver(0, content(b"zero")),
    "a gap": deliver(3, content(b"three")),
    "the last number there is": deliver(2**64 - 1, content(b"last")),
    "a route of no two names": method(1, 60, 60, short("ct") + pack(">QB", 2, 0) + short("ex")) + content(b"x"),
    "a header field without end": deliver(2, header(0, {"headers": pack(">I", 6) + b"\x02ab" + b"S\0\0"})),
    "arrays in arrays": deliver(
        2, content(b"x", {"headers": frames.table({"a": (b"A\0\0\0\x05" * 5000)[: 5 * 5000]}), "user_id": b"other"})
    ),
    "a confirm of a publish": method(1, 60, 80, pack(">QB", 1, 0)),
    "a return": returned(content(b"x")),
}
FROM_THE_DESTINATION = {
    "a confirm never asked for": method(1, 60, 80, pack(">QB", 7, 0)),
    "a confirm of all up to the last number there is": method(1, 60, 80, pack(">QB", 2**64 - 1, 1)),
    "a rejection never asked for": method(1, 60, 120, pack(">QB", 2**63, 0)),
    "a delivery": deliver(1, content(b"x")),
    "a return whose body is longer than declared": returned(header(1, PERSISTENT) + frames.frame(3, 1, b"xx")),
}
CASES = [
    *(("source", name, data) for name, data in (BOTH | FROM_THE_SOURCE).items()),
    *(("destination", name, data) for name, data in (BOTH | FROM_THE_DESTINATION).items()),
]


async def at_work(source: ScriptedBroker, destination: ScriptedBroker, running: Supervisor) -> Peer:
    """One message was forwarded, delivery 1 and publish 1 are over, and it consumes with its whole prefetch."""
    peer = await source.consumed()
    peer.deliver(b"first")
    await eventually(lambda: running.books.forwarded == 1 and destination.peer.published == [b"first"])
    await eventually(lambda: len(peer.got(commands.Basic.Ack)) == 1, "the ack")
    await eventually(lambda: len(peer.got(commands.Basic.Consume)) == 2, "the whole prefetch")
    return peer


@pytest.mark.parametrize(("side", "name", "data"), CASES, ids=[f"{side}, {name}" for side, name, _ in CASES])
async def test_a_hostile_stream_costs_its_generation_and_nothing_else(side: str, name: str, data: bytes) -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await at_work(source, destination, running)
        attacker = peer if side == "source" else destination.peer
        attacker.send_raw(data)
        ended = running.status.source if side == "source" else running.status.destination
        await eventually(lambda: ended.generations_ended, f"the end of the generation, after {name}")
        assert ended.generations_ended == {"malformed": 1}
        assert ended.last_end is not None
        assert ended.last_end.text.startswith("the broker sent ")
        assert len(peer.got(commands.Basic.Ack)) == 1, "nothing was acked for it"
        if side == "source":
            await eventually(lambda: source.peer is not peer and source.peer.got(commands.Basic.Consume), "a consumer")
        source.peer.deliver(b"second")
        await eventually(lambda: b"second" in destination.peer.published, "the next message to be forwarded")
        await eventually(lambda: running.books.forwarded == 2)
        other = running.status.destination if side == "source" else running.status.source
        assert other.generations_ended == {}


def twice(there: Peer, publish_seqno: int) -> None:
    """Confirm a publish, and again."""
    confirm(there, publish_seqno)
    confirm(there, publish_seqno)


async def test_a_confirm_that_comes_twice_counts_once() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await at_work(source, destination, running)
        destination.published = twice
        peer.deliver(b"second")
        await eventually(lambda: running.books.forwarded == 2)
        destination.published = confirm
        await eventually(lambda: len(peer.got(commands.Basic.Ack)) == 2)
        peer.deliver(b"third")
        await eventually(lambda: running.books.forwarded == 3)
        await eventually(lambda: len(peer.got(commands.Basic.Ack)) == 3)
        assert [ack.delivery_tag for ack in peer.got(commands.Basic.Ack)] == [1, 2, 3]


async def test_what_is_published_when_hostile_bytes_come_is_published_again_and_acked_by_its_own_confirm() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await at_work(source, destination, running)
        destination.published = keep
        peer.deliver(b"second")
        await eventually(lambda: running.books.published == 1)
        attacker = destination.peer
        attacker.send_raw(b"\x01\0\x01\0\0")  # half a frame, and the rest of it is another
        attacker.send_raw(b"\0\x05" + method(1, 60, 80, pack(">QB", 2, 0)))
        await eventually(lambda: running.status.destination.generations_ended == {"malformed": 1})
        await eventually(lambda: destination.peer is not attacker and destination.peer.published == [b"second"])
        assert len(peer.got(commands.Basic.Ack)) == 1
        confirm(destination.peer, 1)
        await eventually(lambda: running.books.forwarded == 2)
        assert running.books.duplicates_possible == 1


@pytest.mark.parametrize("declared", (2**31, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1))
def test_nothing_is_allocated_by_the_size_that_a_header_declares(declared: int) -> None:
    """Its body does not come: what is kept is what has come."""
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    cutter.agree(131_072)
    tracemalloc.start()
    try:
        assert cutter.feed(deliver(1, header(declared, PERSISTENT)), 0.0) == []
        assert cutter.feed(frames.frame(3, 1, b"x" * 100_000), 0.0) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert cutter.unfinished[2] == declared - 100_000


def test_headers_as_large_as_they_may_be_are_read_once_and_in_linear_time() -> None:
    """A thousand fields, and a field of a megabyte."""
    many = {"headers": frames.table({f"h{number}": b"I\0\0\0\1" for number in range(1000)})}
    one = {"headers": frames.table({"h": b"S" + pack(">I", 1 << 20) + b"x" * (1 << 20)})}
    for properties in (many, one, {"headers": pack(">I", 0)}, {}):
        cutter = Cutter(ContentPreparer(HeaderPolicy()))
        cutter.agree(131_072)
        (event,) = cutter.feed(deliver(1, content(b"x", properties)), 0.0)
        assert isinstance(event, Deliveries)
        assert [delivery.body_size for delivery in event.items] == [1]


def test_headers_nested_without_end_are_refused_or_passed_and_never_too_deep_for_the_stack() -> None:
    nested = b""
    for _ in range(20_000):
        nested = pack(">I", len(nested) + 3) + b"\x01aF" + nested if nested else pack(">I", 0)
        if len(nested) > 100_000:
            break
    cutter = Cutter(ContentPreparer(HeaderPolicy(destination_user=b"me")))
    cutter.agree(131_072)
    try:
        events = cutter.feed(deliver(1, content(b"x", {"headers": nested, "user_id": b"other"})), 0.0)
    except MalformedFrameError:
        return
    assert len(events) == 1
