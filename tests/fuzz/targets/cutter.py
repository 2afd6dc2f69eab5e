"""The cutter: a byte stream in two sets of chunks.

Input: an octet of options, another of the chunks' sizes, the stream. Where the chunks end changes nothing; nothing is
kept or made that has not come in; pamqp and pika, where both agree, say what the cutter says.
"""

from __future__ import annotations

import io
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from bridge.amqp.cutter import Cutter
from bridge.amqp.events import Deliveries, Delivery, Dropped, Return
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.errors import MalformedFrameError
from tests.support.decoders import agreed, confirms, of_events

if TYPE_CHECKING:
    from bridge.amqp.events import Event

KEEP = HeaderPolicy(user_id="keep", cc="keep", delivery_count="keep")
MOVE = HeaderPolicy(destination_user=b"bridge")
FRAME_MAX = (131_072, 4096, 0, 131_072)
MAX_BYTES = 512
"""Of an input: longer ones reach nothing else."""
DROPS, MOVES, COMPARES = 4, 8, 16
"""Options: deliveries are dropped; properties are moved; the others are asked."""
ADDED_BYTES = 64
"""More than what the moved properties of a message add to it."""


class Cut(NamedTuple):
    """What has come of a stream."""

    events: list[Event | Delivery]
    control: bytes
    malformed: bool
    waits: bool
    """Whether a frame has begun that is not read before it is whole."""


class Buffer(io.BytesIO):
    """What a large content is collected in; knows its largest."""

    largest = 0

    def write(self, data: bytes, /) -> int:  # type: ignore[override] # what the cutter writes is bytes
        """Take a piece."""
        written = super().write(data)
        Buffer.largest = max(Buffer.largest, self.tell())
        return written


def run(data: bytes) -> None:
    """Cut a stream in one chunk and in several."""
    if len(data) < 3:
        return
    options, stream = data[0], data[2:]
    whole, parts = cut([stream], options), cut(chunks(stream, data[1]), options)
    compare(whole, parts)
    limit = len(stream) + ADDED_BYTES * len(whole.events)
    assert Buffer.largest <= limit, "a buffer of a size that was only declared"
    Buffer.largest = 0
    kept = sum(len(event.content) for event in parts.events if isinstance(event, Delivery | Return))
    assert kept + len(parts.control) <= limit, "more than has come"
    if options & COMPARES and not options & (DROPS | MOVES) and FRAME_MAX[options & 3] == FRAME_MAX[0]:
        ask_others(parts, stream)


def chunks(stream: bytes, sizes: int) -> list[bytes]:
    """Cut the stream, by an octet that holds two sizes which take turns."""
    found, position = [], 0
    turns = cycle((1 + (sizes & 15), 1 + (sizes >> 4) * 8))
    while position < len(stream):
        size = next(turns)
        found.append(stream[position : position + size])
        position += size
    return found


def cut(data: list[bytes], options: int) -> Cut:
    """Feed the chunks to a cutter of its own."""
    cutter = Cutter(ContentPreparer(MOVE if options & MOVES else KEEP), new_buffer=Buffer)
    cutter.agree(FRAME_MAX[options & 3])
    cutter.drop(on=bool(options & DROPS))
    events: list[Event] = []
    try:
        for chunk in data:
            events += cutter.feed(chunk, 0.0)
    except MalformedFrameError:
        return Cut(flat(events), cutter.take_control(), malformed=True, waits=False)
    return Cut(flat(events), cutter.take_control(), malformed=False, waits=cutter.unfinished[0] > 0)


def flat(events: list[Event]) -> list[Event | Delivery]:
    """Have each delivery alone: how many lie in a chunk is no event."""
    found: list[Event | Delivery] = []
    for event in events:
        if isinstance(event, Deliveries):
            assert event.notable == any(item.redelivered for item in event.items), "a look that is needed, or is not"
            found += event.items
        else:
            assert not (isinstance(event, Dropped) and event.unfit_bytes), "no room for what has come"
            found.append(event)
    return found


def compare(whole: Cut, parts: Cut) -> None:
    """Complain where the chunks make a difference. What came before what is malformed is lost with its chunk."""
    if whole.malformed != parts.malformed:
        assert (parts if whole.malformed else whole).waits, f"malformed by its chunks: {whole} {parts}"
        return
    assert whole.control == parts.control, "another control plane"
    assert whole.malformed or whole.events == parts.events, f"other events: {whole.events} {parts.events}"


def ask_others(ours: Cut, stream: bytes) -> None:
    """Complain where both others say something else."""
    if stream[:1] == b"A":
        return  # a broker that speaks no AMQP 0-9-1: what follows is left to the control plane
    mine, theirs = of_events(ours.events), agreed(stream)
    for one, other in zip(mine, theirs, strict=False):
        assert confirms(one, other), f"{one}, where both others say {other}"
    assert ours.malformed or ours.waits or len(mine) >= len(theirs), f"not seen: {theirs[len(mine) :]}"
