"""What pamqp and pika make of a stream, the cutter makes of it too: three decoders that share no line.

Streams of valid and of damaged frames. Where pamqp and pika agree on deliveries, confirms and returns, the cutter must
say the same, in whatever chunks the bytes come; what it refuses may hold nothing that both of them decode whole.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.cutter import Cutter
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.errors import MalformedFrameError
from tests.support import frames
from tests.support.decoders import Seen, agreed, by_pamqp, by_pika, confirms, of_events

if TYPE_CHECKING:
    from bridge.amqp.events import Event

KEEP = HeaderPolicy(user_id="keep", cc="keep", delivery_count="keep")


def by_cutter(data: bytes, step: int) -> tuple[list[Seen], bool]:
    """What comes out, and whether all was read."""
    cutter = Cutter(ContentPreparer(KEEP))
    cutter.agree(131_072)
    events: list[Event] = []
    try:
        for start in range(0, len(data), step):
            events += cutter.feed(data[start : start + step], 0.0)
    except MalformedFrameError:
        return of_events(events), False
    return of_events(events), True


def stream(chance: random.Random) -> bytearray:
    """Valid frames of every kind that the data plane has; pamqp takes numbers above 2^63 for negative ones."""
    out = bytearray()
    for _ in range(chance.randrange(1, 8)):
        properties: frames.Properties = {"delivery_mode": b"\x02"}
        for name in ("content_type", "message_id", "expiration", "app_id", "reply_to", "type"):
            if chance.random() < 0.3:
                properties[name] = chance.randbytes(chance.randrange(8)).hex().encode()
        if chance.random() < 0.4:
            properties["headers"] = frames.table(
                {f"h{number}": frames.text("x" * chance.randrange(30)) for number in range(chance.randrange(4))}
            )
        message = frames.content(
            chance.randbytes(chance.choice((0, 1, 30, 500))), properties, step=chance.choice((64, 4096))
        )
        match chance.randrange(6):
            case 0:
                out += frames.confirm(chance.randrange(1 << 63), multiple=chance.random() < 0.5)
            case 1:
                out += frames.confirm(chance.randrange(1 << 63), accepted=False)
            case 2:
                out += frames.returned(message)
            case 3:
                out += frames.HEARTBEAT
            case _:
                out += frames.deliver(
                    chance.randrange(1 << 63),
                    message,
                    redelivered=chance.randrange(2),
                    exchange="é" * chance.randrange(5),
                    routing_key="k" * chance.randrange(5),
                )
    return out


def damaged(data: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.randrange(1, 3)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(3):
            case 0:
                data[at : at + 1] = chance.randbytes(1)
            case 1:
                del data[at : at + chance.randrange(1, 9)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(data)


def test_of_valid_streams_all_three_say_the_same_in_whatever_chunks() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        data = bytes(stream(chance))
        expected = by_pamqp(data)
        assert expected == by_pika(data), seed
        assert expected[1], seed
        for step in (1, chance.randrange(2, 50), len(data)):
            assert by_cutter(data, step) == expected, seed


def test_of_damaged_streams_it_says_what_the_two_agree_on_as_far_as_they_do() -> None:
    """The cutter looks at the class of a header and at what its flags say; where it refuses more, it has said less."""
    refused = said = 0
    for seed in range(2000):
        chance = random.Random(seed)
        data = damaged(stream(chance), chance)
        (ours, whole), theirs = by_cutter(data, chance.choice((1, 7, 4096))), agreed(data)
        assert all(map(confirms, ours, theirs)), seed
        assert len(ours) >= len(theirs) or not whole, seed
        said += min(len(ours), len(theirs))
        refused += not whole
    assert refused > 200
    assert said > 2000


@pytest.mark.parametrize("decode", (by_pamqp, by_pika))
def test_the_two_are_looked_at(decode: object) -> None:
    data = frames.deliver(7, frames.content(b"body"), redelivered=1)
    expected = [Seen("deliver", 7, flag=True, exchange="ex", routing_key="key", body=b"body")]
    assert decode(data) == (expected, True)  # type: ignore[operator]
