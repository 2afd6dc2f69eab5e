"""The cutter: the same events, control bytes and work, wherever the chunks end; and never an error but its own."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from struct import pack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.amqp.content import (
    DELIVERY_MODE,
    EMPTY_TABLE,
    HEADERS,
    PROPERTY_FLAGS,
    TIMESTAMP,
    join_properties,
    long_string,
    split_properties,
    table_with,
)
from bridge.amqp.cutter import Cutter
from bridge.amqp.events import (
    Blocked,
    Close,
    Confirm,
    ConsumerCancelled,
    Deliveries,
    Delivery,
    Dropped,
    Return,
    Unblocked,
)
from bridge.amqp.pieces import LARGE_BYTES
from bridge.amqp.preparer import UNSEEN_MASK, ContentPreparer, HeaderPolicy, Prepared
from bridge.errors import MalformedFrameError
from tests.support import frames
from tests.support.frames import PERSISTENT, Properties, confirm, content, deliver, method, returned, short, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

NOW_S = 12.5
ROUTE = short("ex") + short("key")


@dataclass
class Sample:
    """A stream, written down with what must come out of it."""

    stream: bytes = b""
    events: list[object] = field(default_factory=list)
    control: bytes = b""

    def add(self, raw: bytes, *events: object) -> Sample:
        """Bytes that the bridge keeps, and the events that they complete."""
        self.stream += raw
        self.events += events
        return self

    def add_control(self, raw: bytes, *events: object) -> Sample:
        """A frame that the control plane sees, too."""
        self.control += raw
        return self.add(raw, *events)

    def deliver(
        self, delivery_tag: int, message: bytes, size: int, *, redelivered: int = 0, key: str = "key"
    ) -> Sample:
        """A delivery that is published as it comes."""
        route = short("ex") + short(key)
        delivery = Delivery(delivery_tag, redelivered, 0, route, message, size, NOW_S)
        return self.add(deliver(delivery_tag, message, redelivered=redelivered, routing_key=key), delivery)


def feed(chunks: Iterable[bytes], frame_max: int = 0, cutter: Cutter | None = None) -> tuple[list[object], bytes]:
    """Events, runs of deliveries taken apart, and the control plane's bytes."""
    cutter = cutter or Cutter(ContentPreparer(HeaderPolicy()))
    cutter.agree(frame_max)
    events: list[object] = []
    for chunk in chunks:
        for event in cutter.feed(chunk, NOW_S):
            if isinstance(event, Deliveries):
                assert event.notable == any(d.redelivered for d in event.items)
                events += event.items
            else:
                events.append(event)
    return events, cutter.take_control()


def chunked(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]


IDENTIFIED = PERSISTENT | {"message_id": b"m-1", "content_type": b"text/plain"}
COUNTED = PERSISTENT | {"headers": frames.table({"x-delivery-count": b"l" + pack(">q", 3), "k": frames.text("v")})}
WITHOUT_COUNT = PERSISTENT | {"headers": frames.table({"k": frames.text("v")})}


def deliveries() -> Sample:
    sample = Sample()
    tag = 0
    for size in (0, 1, 256, 0, 0, 256, 256, 1, 256):
        for properties in (PERSISTENT, IDENTIFIED, WITHOUT_COUNT):
            tag += 1
            sample.deliver(tag, content(b"x" * size, properties), size, redelivered=tag % 5 == 0)
    return sample


def bodies_of_many_frames() -> Sample:
    sample = Sample()
    for tag, (size, step) in enumerate([(256, 256), (256, 100), (300, 100), (8, 1), (256, 256), (9, 4)], 1):
        sample.deliver(tag, content(bytes(range(8)) * 40 if size == 320 else b"b" * size, step=step), size)
    return sample


def changed_on_the_way() -> Sample:
    """Deliveries whose contents are not published as they came."""
    sample = Sample()
    route = short("ex") + short("key")
    for tag, redelivered, count in ((1, 1, 3), (2, 0, 0), (3, 1, 3), (7, 0, 0)):
        # A count is the queue's only where the broker says that it delivered the message before.
        expected = content(b"body", WITHOUT_COUNT)
        raw = deliver(tag, content(b"body", COUNTED), redelivered=redelivered)
        sample.add(raw, Delivery(tag, redelivered, count, route, expected, 4, NOW_S))
    for tag, properties in ((4, {"delivery_mode": b"\x01"}), (5, {}), (6, {"user_id": b"eve"})):
        user = {"headers": frames.table({"x-bridge-user-id": frames.text("eve")})} if "user_id" in properties else {}
        expected = content(b"body", PERSISTENT | user)
        sample.add(deliver(tag, content(b"body", properties)), Delivery(tag, 0, 0, route, expected, 4, NOW_S))
    return sample


def changing_routes_and_consumers() -> Sample:
    sample = Sample()
    for tag, key in enumerate(["a", "a", "b", "longer", "longer", "", "a"], 1):
        sample.deliver(tag, content(b"m"), 1, key=key)
    other = deliver(8, content(b"m"), consumer_tag="another")
    return sample.add(other, Delivery(8, 0, 0, short("ex") + short("key"), content(b"m"), 1, NOW_S))


def confirms() -> Sample:
    sample = Sample()
    for seqno, multiple, accepted, channel in (
        (1, False, True, 1),
        (9, True, True, 1),
        (10, True, False, 2),
        (0, True, True, 1),
    ):
        raw = confirm(seqno, multiple=multiple, accepted=accepted, channel=channel)
        sample.add(raw, Confirm(channel, seqno, multiple, accepted))
    return sample


def returns() -> Sample:
    sample = Sample()
    for body, channel in ((b"", 1), (b"lost", 1), (b"q" * 256, 2)):
        message = content(body, IDENTIFIED, channel=channel, step=100)
        event = Return(channel, 312, "NO_ROUTE", short("ex") + short("key"), message, len(body))
        sample.add(returned(message, channel=channel), event)
        sample.add(confirm(1, channel=channel), Confirm(channel, 1, multiple=False, accepted=True))
    return sample


def notices() -> Sample:
    sample = Sample()
    sample.add_control(frames.HEARTBEAT)
    sample.add_control(frames.BLOCKED, Blocked("low on memory"))
    sample.add_control(frames.UNBLOCKED, Unblocked())
    sample.add_control(frames.CANCEL, ConsumerCancelled(by_us=False, consumer_tag="ct"))
    sample.add(frames.CANCEL_OK, ConsumerCancelled(by_us=True, consumer_tag="ct"))
    sample.add_control(frames.QUEUE_DECLARE_OK)
    # The control plane's own channels: nothing on them is the data plane's.
    sample.add_control(confirm(4, channel=3))
    sample.add_control(method(3, 60, 31, short("ct")))
    for raw in (
        method(3, 60, 71, pack(">QB", 1, 0) + short("") + short("") + pack(">I", 0)),
        content(b"got", channel=3),
    ):
        for frame in (raw,) if raw[0] == 1 else (frames.header(3, PERSISTENT, 3), frames.frame(3, 3, b"got")):
            sample.add_control(frame)
    sample.add_control(frames.close(1, 406, "PRECONDITION_FAILED"), Close(1, 406, "PRECONDITION_FAILED"))
    return sample.add_control(frames.close(0, 320, "CONNECTION_FORCED é"), Close(0, 320, "CONNECTION_FORCED é"))


def control_in_the_middle_of_a_message() -> Sample:
    """Frames of other channels stand between the frames of one message (AMQP 0-9-1, 4.2.6)."""
    sample = Sample()
    between = (frames.HEARTBEAT, frames.QUEUE_DECLARE_OK, frames.frame(3, 3, b"body elsewhere"))
    for tag in (1, 2, 3):
        message = content(b"z" * 50, step=20)
        raw = deliver(tag, message)
        cuts = [len(raw) - len(message), len(raw) - len(message) + len(frames.header(50, PERSISTENT))]
        cuts += [cuts[1] + 28, cuts[1] + 56, len(raw)]
        start = 0
        for number, cut in enumerate(cuts):
            route = short("ex") + short("key")
            done = [Delivery(tag, 0, 0, route, message, 50, NOW_S)] if cut == len(raw) else []
            sample.add(raw[start:cut], *done)
            start = cut
            sample.add_control(between[number % 3])
        sample.add(confirm(tag, channel=2), Confirm(2, tag, multiple=False, accepted=True))
    return sample


def everything() -> Sample:
    whole = Sample()
    for part in (
        notices(),
        deliveries(),
        control_in_the_middle_of_a_message(),
        bodies_of_many_frames(),
        returns(),
        confirms(),
    ):
        whole.stream += part.stream
        whole.events += part.events
        whole.control += part.control
    return whole


SAMPLES = {
    make.__name__: make()
    for make in (
        *(deliveries, bodies_of_many_frames, changed_on_the_way, changing_routes_and_consumers, confirms, returns),
        *(notices, control_in_the_middle_of_a_message, everything),
    )
}
samples = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


@samples
@pytest.mark.parametrize("size", (1, 2, 3, 7, 8, 64, 1 << 20))
def test_chunks_of_any_size_give_the_same(sample: Sample, size: int) -> None:
    assert feed(chunked(sample.stream, size)) == (sample.events, sample.control)


@samples
def test_a_cut_at_every_byte_gives_the_same(sample: Sample) -> None:
    stream = sample.stream
    for cut in range(len(stream) + 1):
        assert feed((stream[:cut], stream[cut:])) == (sample.events, sample.control), f"cut at {cut}"


@given(cuts=st.lists(st.integers(0, len(SAMPLES["everything"].stream)), max_size=12))
def test_any_cuts_give_the_same(cuts: list[int]) -> None:
    sample = SAMPLES["everything"]
    edges = [0, *sorted(cuts), len(sample.stream)]
    chunks = [sample.stream[a:b] for a, b in pairwise(edges)]
    assert feed(chunks) == (sample.events, sample.control)


class Tail(list[bytes]):
    """The chunks that wait for the rest of their frame; counts the bytes that are joined."""

    joined = 0

    def clear(self) -> None:
        """They have been joined."""
        self.joined += sum(map(len, self))
        super().clear()


@pytest.mark.parametrize("size", (1, 7, 1000))
@pytest.mark.parametrize(
    "stream",
    (
        deliver(1, content(b"x" * 100_000)),
        deliver(1, content(b"x" * 100_000, step=4000)),
        returned(content(b"x" * 100_000)),
        frames.frame(3, 3, b"x" * 100_000),
        SAMPLES["everything"].stream,
    ),
    ids=("one frame", "many frames", "returned", "control", "everything"),
)
def test_the_work_is_linear_in_the_bytes(stream: bytes, size: int) -> None:
    """What a chunk leaves over is joined with the next ones when its frame is there, not at every chunk."""
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    tail = Tail()
    cutter._tail = tail
    for chunk in chunked(stream, size):
        cutter.feed(chunk, NOW_S)
    assert tail.joined <= 2 * len(stream) + size


def test_a_body_is_let_through_piece_by_piece() -> None:
    """The pieces of a body frame are kept as they come: none is joined before the message is whole."""
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    tail = Tail()
    cutter._tail = tail
    stream = deliver(1, content(b"x" * 100_000))
    cutter.feed(stream[:200], NOW_S)
    for chunk in chunked(stream[200:], 100):
        cutter.feed(chunk, NOW_S)
    assert tail.joined < 200, "only what the first chunk brought"


LARGE = b"x" * LARGE_BYTES
CHUNK_BYTES = 250_000


@pytest.mark.parametrize(
    ("before", "after", "count"),
    ((PERSISTENT, PERSISTENT, 0), (COUNTED, WITHOUT_COUNT, 3), ({}, PERSISTENT, 0)),
)
@pytest.mark.parametrize("redelivered", (0, 1))
def test_a_large_content_is_in_memory_once(before: Properties, after: Properties, count: int, redelivered: int) -> None:
    stream = deliver(1, content(LARGE, before, step=130_000), redelivered=redelivered) + deliver(2, content(b"next"))
    expected = content(LARGE, after, step=130_000)
    chunks = chunked(stream, CHUNK_BYTES)
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    tracemalloc.start()
    runs = [cutter.feed(chunk, NOW_S) for chunk in chunks]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found = [delivery for run in runs for event in run if isinstance(event, Deliveries) for delivery in event.items]
    assert found[0] == Delivery(1, redelivered, count * redelivered, ROUTE, expected, LARGE_BYTES, NOW_S)
    assert found[1].delivery_tag == 2
    assert peak < 1.3 * LARGE_BYTES, "an eighth more while it grows"


def test_of_a_large_message_that_was_returned_the_header_is_kept() -> None:
    events, _ = feed(chunked(returned(content(LARGE, step=130_000)), CHUNK_BYTES))
    assert events == [Return(1, 312, "NO_ROUTE", ROUTE, frames.header(LARGE_BYTES, PERSISTENT), LARGE_BYTES)]


def test_a_large_content_is_gone_with_its_delivery() -> None:
    """At once, and not when the garbage collector comes round, which is rarely."""
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    chunks = chunked(deliver(1, content(LARGE, step=130_000)), CHUNK_BYTES)
    gc.disable()
    try:
        tracemalloc.start()
        for chunk in chunks:
            cutter.feed(chunk, NOW_S)
        left, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    finally:
        gc.enable()
    assert left < LARGE_BYTES // 10


class Narrow(BytesIO):
    """A buffer that memory has no room for."""

    def write(self, data: Buffer) -> int:
        """Refuse to grow above half of the content."""
        if self.tell() > LARGE_BYTES // 2:
            raise MemoryError
        return super().write(data)


def test_a_large_content_that_memory_has_no_room_for_is_dropped_and_what_follows_is_not() -> None:
    cutter = Cutter(ContentPreparer(HeaderPolicy()), new_buffer=Narrow)
    stream = deliver(1, content(LARGE, step=130_000), redelivered=1) + deliver(2, content(b"next"))
    events, _ = feed(chunked(stream, CHUNK_BYTES), cutter=cutter)
    assert events == [Dropped(1, 1, LARGE_BYTES), Delivery(2, 0, 0, ROUTE, content(b"next"), 4, NOW_S)]


def test_a_large_content_is_dropped_like_any() -> None:
    stream = deliver(1, content(LARGE, step=130_000))
    assert feed_dropping(((True, stream),), CHUNK_BYTES) == [Dropped(1, 0)]


def test_deliveries_of_one_chunk_come_as_one_run() -> None:
    """The first of its kind by itself, then all that begin alike together."""
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    stream = b"".join(deliver(tag, content(b"m" * 100)) for tag in range(1, 101))
    runs = cutter.feed(stream, NOW_S)
    assert [len(run.items) for run in runs if isinstance(run, Deliveries)] == [1, 99]
    assert [run.notable for run in runs if isinstance(run, Deliveries)] == [False, False]


@pytest.mark.parametrize(
    "chunks", ((b"AMQP\0\0\x09\x01",), (b"A", b"MQP", b"\0\0\x09\x01"), (b"", b"AMQP\0\0\x09\x01"))
)
def test_a_brokers_protocol_header_is_the_control_planes(chunks: tuple[bytes, ...]) -> None:
    """A broker that refuses the protocol version answers with a bare header and closes (AMQP 0-9-1, 4.2.2)."""
    events, control = feed(chunks)
    assert events == []
    assert control == b"AMQP\0\0\x09\x01"


# --- Dropping ------------------------------------------------------------------------------------------------


def feed_dropping(pieces: Iterable[tuple[bool, bytes]], size: int) -> list[object]:
    """Events of a stream in pieces, each with whether deliveries are dropped from there on."""
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    events: list[object] = []
    for dropping, piece in pieces:
        cutter.drop(on=dropping)
        for chunk in chunked(piece, size):
            for event in cutter.feed(chunk, NOW_S):
                events += event.items if isinstance(event, Deliveries) else (event,)
    assert not cutter.take_control()
    return events


chunk_sizes = pytest.mark.parametrize("size", (1, 7, 50, 1 << 20))


@chunk_sizes
def test_what_is_dropped_comes_out_in_stream_order_with_all_else(size: int) -> None:
    before, after = deliveries(), returns()
    after.stream += deliveries().stream
    after.events += deliveries().events
    dropped = b"".join(
        (
            deliver(1, content(b"x" * 300, step=100)),
            confirm(9),
            deliver(2, content(b"", COUNTED), redelivered=1),
            deliver(3, content(b"x" * 20), redelivered=1),
            returned(content(b"lost")),
            deliver(4, content(b"x" * 20)),
        )
    )
    between = [
        *(Dropped(1, 0), Confirm(1, 9, multiple=False, accepted=True), Dropped(2, 1), Dropped(3, 1)),
        *(Return(1, 312, "NO_ROUTE", ROUTE, content(b"lost"), 4), Dropped(4, 0)),
    ]
    events = feed_dropping(((False, before.stream), (True, dropped), (False, after.stream)), size)
    assert events == [*before.events, *between, *after.events]


@chunk_sizes
@pytest.mark.parametrize("message", (content(b"begun" * 20), content(b"begun" * 20, step=7)))
def test_what_has_begun_comes_out_as_it_would_have(message: bytes, size: int) -> None:
    """Wherever in a delivery the dropping begins or ends."""
    raw, next_raw = deliver(1, message), deliver(2, content(b"next"))
    method_size = len(raw) - len(message)
    whole = [Delivery(n, 0, 0, ROUTE, m, s, NOW_S) for n, m, s in ((1, message, 100), (2, content(b"next"), 4))]
    for cut in range(method_size, len(raw)):
        begun, rest = raw[:cut], raw[cut:]
        assert feed_dropping(((False, begun), (True, rest + next_raw)), size) == [whole[0], Dropped(2, 0)]
        assert feed_dropping(((True, begun), (False, rest + next_raw)), size) == [Dropped(1, 0), whole[1]]


def test_dropping_keeps_no_more_than_a_chunk_however_large_the_bodies() -> None:
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    cutter.drop(on=True)
    chunks = chunked(deliver(1, content(b"x" * 4_000_000, step=130_000)), 10_000)
    events: list[object] = []
    tracemalloc.start()
    for chunk in chunks:
        events += cutter.feed(chunk, NOW_S)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert events == [Dropped(1, 0)]
    assert peak < 5 * 10_000


def test_a_delivery_on_the_quarantine_s_channel_is_not_dropped_but_refused() -> None:
    """It consumes nothing there, and an ack on the other channel would be of another message, or of none."""
    with pytest.raises(MalformedFrameError):
        feed_dropping(((True, deliver(1, content(b"x", channel=2), channel=2)),), 1 << 20)


def test_a_header_that_cannot_be_read_does_not_matter_when_it_is_dropped() -> None:
    assert feed_dropping(((True, headless(14)),), 1 << 20) == [Dropped(2, 0)]


# --- Malformed -----------------------------------------------------------------------------------------------

GOOD = deliver(1, content(b"good"))
"""Makes the cutter try its shortcut on what follows."""
NO_END = b"\0"


def headless(size: int) -> bytes:
    """A delivery whose content header has this payload size, too small for its fields."""
    return deliver(2, frames.frame(2, 1, (pack(">HHQH", 60, 0, 0, 0x1000) + b"\x02")[:size]))


MALFORMED = {
    "a frame type that does not exist": frames.frame(4, 1, b""),
    "the same, cut": frames.frame(9, 1, b"abc")[:8],
    "a method without its end": confirm(1)[:-1] + NO_END,
    "a heartbeat without its end": frames.HEARTBEAT[:-1] + NO_END,
    "a delivery's method without its end": deliver(2, b"")[:-1] + NO_END + content(b"x"),
    "a header without its end": deliver(2, frames.header(0, PERSISTENT)[:-1] + NO_END),
    "a body without its end": deliver(2, content(b"body"))[:-1] + NO_END,
    "a body longer than announced": deliver(2, frames.header(3, PERSISTENT) + frames.frame(3, 1, b"body")),
    "a second body longer than announced": deliver(
        2, frames.header(5, PERSISTENT) + frames.frame(3, 1, b"body") + frames.frame(3, 1, b"body")
    ),
    "a body before its header": deliver(2, frames.frame(3, 1, b"body")),
    "two headers": deliver(2, frames.header(3, PERSISTENT) * 2),
    "a method in the middle of a message": deliver(2, frames.header(3, PERSISTENT)) + confirm(1),
    "a delivery in the middle of another channel's message": deliver(2, b"") + deliver(1, b"", channel=2),
    "a delivery on a channel that consumes nothing": deliver(2, content(b"x", channel=2), channel=2),
    "a method frame without a method": frames.frame(1, 1, b""),
    "a confirm without its number": method(1, 60, 80),
    "a close without its code": method(1, 20, 40),
    "a close without its text": method(1, 20, 40, b"\0\0"),
    "a blocked without its reason": method(0, 10, 60),
    "a delivery without its fields": method(1, 60, 60) + content(b"x"),
    "a delivery without its route": method(1, 60, 60, short("ct") + pack(">QB", 2, 0)) + content(b"x"),
    "a delivery with half a route": method(1, 60, 60, short("ct") + pack(">QB", 2, 0) + short("ex")) + content(b"x"),
    "a delivery with more than a route": method(1, 60, 60, short("ct") + pack(">QB", 2, 0) + short("ex") * 3)
    + content(b"x"),
    "a delivery whose route has the size of the last one's and is none": deliver(2, content(b"x")).replace(
        short("ex") + short("key"), b"\x01ex" + short("key")
    ),
    "the same, with more of the chunk after it": deliver(2, content(b"x")).replace(
        short("ex") + short("key"), b"\x01ex" + short("key")
    )
    + deliver(3, content(b"x")),
    "a return without its fields": method(1, 60, 50) + content(b"x"),
    "a return without its route": method(1, 60, 50, pack(">H", 312) + short("text")) + content(b"x"),
    "a header too short for its flags": headless(13),
    "a header too short for its size": headless(4),
    "a header of nothing": headless(0),
    "properties that the flags do not tell": deliver(2, frames.frame(2, 1, pack(">HHQH", 60, 0, 0, 0x0000) + b"extra")),
    "properties that run out": deliver(2, frames.frame(2, 1, pack(">HHQH", 60, 0, 0, 0x8000) + b"\xffshort")),
    "a header table that runs out": deliver(
        2, frames.frame(2, 1, pack(">HHQH", 60, 0, 0, 0x3000) + b"\0\0\0\x09x\x02")
    ),
}


@pytest.mark.parametrize("before", (b"", GOOD), ids=("first", "after a good one"))
@pytest.mark.parametrize("malformed", MALFORMED.values(), ids=MALFORMED)
def test_malformed_bytes_are_refused(malformed: bytes, before: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        feed((before + malformed,))
    with pytest.raises(MalformedFrameError):
        feed(chunked(before + malformed, 1))


def test_a_frame_larger_than_agreed_is_refused_before_it_is_read() -> None:
    """Else a broken peer could fill the memory."""
    body = deliver(1, content(b"x" * 4089))
    assert feed((deliver(1, content(b"x" * 4088)),), frame_max=4096)[0]
    with pytest.raises(MalformedFrameError, match="at most 4088"):
        feed((body[: body.index(b"xxx")],), frame_max=4088)


def large(size: int) -> frames.Properties:
    """Properties of a message whose header grew on its way through the broker, past what was agreed."""
    return PERSISTENT | {"headers": frames.table({"x-death": frames.text("d" * size)})}


@pytest.mark.parametrize("size", (1, 1000, 1 << 20))
def test_a_content_header_larger_than_agreed_is_read(size: int) -> None:
    """RabbitMQ does not hold itself to `frame_max` there; refused, the message would come again for ever."""
    sample = Sample()
    for tag, properties in ((1, PERSISTENT), (2, large(9000)), (3, large(9000)), (4, PERSISTENT)):
        sample.deliver(tag, content(b"body", properties), 4)
    sample.add(returned(content(b"", large(9000))), Return(1, 312, "NO_ROUTE", ROUTE, content(b"", large(9000)), 0))
    assert feed(chunked(sample.stream, size), frame_max=4096) == (sample.events, b"")


def test_a_content_header_is_bounded_too_before_it_is_read() -> None:
    def bounded() -> Cutter:
        return Cutter(ContentPreparer(HeaderPolicy()), header_max_bytes=8192)

    stream = deliver(1, content(b"", large(8200)))
    cut = stream.index(b"ddd")
    with pytest.raises(MalformedFrameError, match="at most 8192"):
        feed((stream[:cut],), 4096, bounded())
    assert feed((stream,), 9000, bounded())[0], "where more was agreed, more is read"
    assert feed((stream,), 0, bounded())[0], "or where no limit was"


@settings(max_examples=300)
@given(data=st.data())
def test_whatever_is_changed_in_a_stream_only_malformed_is_raised(data: st.DataObject) -> None:
    stream = bytearray(data.draw(st.sampled_from([s.stream for s in SAMPLES.values()])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        how = data.draw(st.sampled_from(("change", "insert", "delete")))
        if how == "change":
            stream[at] = data.draw(st.integers(0, 255))
        elif how == "insert":
            stream[at:at] = data.draw(st.binary(max_size=9))
        else:
            del stream[at : at + data.draw(st.integers(1, 40))]
        if not stream:
            return
    cut = data.draw(st.integers(0, len(stream)))
    with suppress(MalformedFrameError):
        feed((bytes(stream[:cut]), bytes(stream[cut:])), frame_max=data.draw(st.sampled_from((0, 4096))))


@pytest.mark.parametrize("step", (1, 50, 333))
def test_what_is_unfinished_changes_with_every_chunk_until_it_is_complete(step: int) -> None:
    """So that a large message on a slow way is seen to move."""
    cutter = Cutter(ContentPreparer(HeaderPolicy()))
    stream = deliver(1, content(b"x" * 1000, step=400))
    seen = [cutter.unfinished]
    for start in range(0, len(stream), step):
        cutter.feed(stream[start : start + step], NOW_S)
        seen.append(cutter.unfinished)
    assert all(before != after for before, after in pairwise(seen))
    assert seen[0] == seen[-1] == (0, 0, 0)


class Adding(ContentPreparer):
    """As if the preparer added a header of its own to every message."""

    unseen_flags = -1

    def prepare(self, header: bytes) -> Prepared | None:
        """Add it, whatever else is done."""
        prepared = super().prepare(header) or Prepared(header, 0)
        properties = split_properties(prepared.header)
        properties[HEADERS] = table_with(properties.get(HEADERS, EMPTY_TABLE), {b"via": long_string(b"bridge")})
        return Prepared(join_properties(prepared.header, properties), prepared.delivery_count)


@pytest.mark.parametrize("size", (1, 1000, 1 << 20))
def test_a_header_that_content_adds_reaches_every_message_wherever_the_chunks_end(size: int) -> None:
    """What may pass unseen is said in one place: the cutter asks it, also where it cuts messages whole."""
    kinds: tuple[Properties, ...] = (
        *(PERSISTENT, PERSISTENT, {"delivery_mode": b"\x01"}, {}, {**PERSISTENT, "content_type": b"text/plain"}),
        *({**PERSISTENT, "headers": table({"k": b"V"})}, {**PERSISTENT, "user_id": b"somebody"}),
    )
    stream = b"".join(deliver(tag, content(b"body", kind)) for tag, kind in enumerate(kinds * 2, 1))
    cutter = Cutter(Adding(HeaderPolicy()))
    runs = [event for chunk in chunked(stream, size) for event in cutter.feed(chunk, NOW_S)]
    found = [delivery.content for run in runs if isinstance(run, Deliveries) for delivery in run.items]
    assert len(found) == len(kinds) * 2
    assert all(b"\x03viaS\0\0\0\x06bridge" in each for each in found)


def test_only_what_has_a_delivery_mode_and_nothing_before_it_passes_unseen() -> None:
    """The one place that says so, against all flags there are: whatever passes unseen, `prepare` leaves as it is."""
    preparer = ContentPreparer(HeaderPolicy())
    for flags in range(0, 1 << 16, 4):
        if flags & UNSEEN_MASK == preparer.unseen_flags:
            present = [flag for flag in PROPERTY_FLAGS if flags & flag]
            assert present[0] == DELIVERY_MODE
            values = {flag: b"\0" * (8 if flag == TIMESTAMP else 1) for flag in present} | {DELIVERY_MODE: b"\x02"}
            assert preparer.prepare(join_properties(content(b""), values)) is None
