"""What pamqp and pika make of a stream, the cutter makes of it too: three decoders that share no line.

Streams of valid and of damaged frames. Where pamqp and pika agree on deliveries, confirms and returns, the cutter must
say the same, in whatever chunks the bytes come; what it refuses may hold nothing that both of them decode whole.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

import pika.exceptions
import pika.frame
import pika.spec
import pytest
from pamqp import base, body, commands, header
from pamqp.frame import unmarshal

from bridge.amqp.cutter import Cutter
from bridge.amqp.events import Confirm, Deliveries, Return
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.errors import MalformedFrameError
from tests.support import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.amqp.events import Event

KEEP = HeaderPolicy(user_id="keep", cc="keep", delivery_count="keep")


class Seen(NamedTuple):
    """What a decoder has seen: a kind, numbers and names, the body."""

    kind: str
    number: int
    flag: bool
    exchange: str
    routing_key: str
    body: bytes


RETURNED = Seen("return", 0, flag=False, exchange="", routing_key="", body=b"")
"""Of a return the cutter keeps what it is matched by, which is not compared here."""


def by_cutter(data: bytes, step: int) -> tuple[list[Seen], bool]:
    """What comes out, and whether all was read."""
    cutter = Cutter(ContentPreparer(KEEP))
    cutter.agree(131_072)
    events: list[Event] = []
    try:
        for start in range(0, len(data), step):
            events += cutter.feed(data[start : start + step], 0.0)
    except MalformedFrameError:
        return [each for event in events for each in of_event(event)], False
    return [each for event in events for each in of_event(event)], True


def of_event(event: Event) -> Iterator[Seen]:
    match event:
        case Deliveries(items, _):
            for item in items:
                exchange, key = names(item.route)
                whole = bytes(item.content)
                yield Seen("deliver", item.delivery_tag, bool(item.redelivered), exchange, key, body_of(whole))
        case Confirm(_, publish_seqno, multiple, accepted):
            yield Seen("ack" if accepted else "nack", publish_seqno, multiple, "", "", b"")
        case Return():
            yield RETURNED
        case _:
            pass


def names(route: bytes) -> tuple[str, str]:
    size = route[0]
    return route[1 : 1 + size].decode(errors="replace"), route[2 + size :].decode(errors="replace")


def body_of(content: bytes) -> bytes:
    return b"".join(frame[7:-1] for frame in frames.split(content)[1:])


class Assembler:
    """Puts methods, headers and bodies of channel 1 together, of whichever library they are."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._open: Seen | None = None
        self._left = -1

    def method(
        self, kind: str, number: int | None, exchange: str | None, routing_key: str | None, *, flag: bool
    ) -> None:
        """Take a method."""
        assert self._open is None, "in the middle of a message"
        found = Seen(kind, number or 0, flag, exchange or "", routing_key or "", b"")
        if kind in {"deliver", "return"}:
            self._open, self._left = found, -1
        else:
            self.seen.append(found)

    def header(self, size: int) -> None:
        """Take a content header."""
        assert self._open is not None
        assert self._left == -1
        self._left = size
        self._end()

    def body(self, data: bytes) -> None:
        """Take a piece of a body."""
        assert self._open is not None
        assert 0 <= len(data) <= self._left
        self._open = self._open._replace(body=self._open.body + data)
        self._left -= len(data)
        self._end()

    def _end(self) -> None:
        if self._left == 0 and self._open is not None:
            found = self._open if self._open.kind == "deliver" else RETURNED
            self.seen.append(found)
            self._open = None


def by_pamqp(data: bytes) -> tuple[list[Seen], bool]:
    found = Assembler()
    while data:
        try:
            size, channel, frame = unmarshal(data)
            take_pamqp(found, channel, frame)
        except Exception:  # noqa: BLE001 - pamqp raises all kinds of a damaged frame
            return found.seen, False
        data = data[size:]
    return found.seen, True


def take_pamqp(found: Assembler, channel: int, frame: base.Frame | object) -> None:
    if channel != 1:
        return
    match frame:
        case commands.Basic.Deliver():
            flag = bool(frame.redelivered)
            found.method("deliver", frame.delivery_tag, frame.exchange, frame.routing_key, flag=flag)
        case commands.Basic.Return():
            found.method("return", 0, "", "", flag=False)
        case commands.Basic.Ack():
            found.method("ack", frame.delivery_tag, "", "", flag=frame.multiple)
        case commands.Basic.Nack():
            found.method("nack", frame.delivery_tag, "", "", flag=frame.multiple)
        case header.ContentHeader():
            found.header(frame.body_size)
        case body.ContentBody():
            found.body(frame.value)
        case _:
            pass


def by_pika(data: bytes) -> tuple[list[Seen], bool]:
    found = Assembler()
    while data:
        try:
            size, frame = pika.frame.decode_frame(data)
            if frame is None:
                return found.seen, False
            take_pika(found, frame)
        except Exception:  # noqa: BLE001 - pika raises all kinds of a damaged frame
            return found.seen, False
        data = data[size:]
    return found.seen, True


def take_pika(found: Assembler, frame: pika.frame.Frame) -> None:
    if frame.channel_number != 1:
        return
    if isinstance(frame, pika.frame.Header):
        found.header(frame.body_size)
    elif isinstance(frame, pika.frame.Body):
        found.body(frame.fragment)
    elif isinstance(frame, pika.frame.Method):
        method = frame.method
        if isinstance(method, pika.spec.Basic.Deliver):
            found.method(
                "deliver", method.delivery_tag, method.exchange, method.routing_key, flag=bool(method.redelivered)
            )
        elif isinstance(method, pika.spec.Basic.Return):
            found.method("return", 0, "", "", flag=False)
        elif isinstance(method, pika.spec.Basic.Ack | pika.spec.Basic.Nack):
            kind = "ack" if isinstance(method, pika.spec.Basic.Ack) else "nack"
            found.method(kind, method.delivery_tag, "", "", flag=bool(method.multiple))


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
        (ours, whole), (first, _), (second, _) = (
            by_cutter(data, chance.choice((1, 7, 4096))),
            by_pamqp(data),
            by_pika(data),
        )
        agreed = [one for one, other in zip(first, second, strict=False) if one == other]
        shorter = min(len(ours), len(agreed))
        if first[: len(agreed)] == second[: len(agreed)] == agreed:
            for mine, theirs in zip(ours, agreed, strict=False):
                # Any bit of the octet counts as redelivered, where the standard has one of them: the memory is asked.
                assert mine._replace(flag=theirs.flag) == theirs, seed
                assert mine.flag >= theirs.flag, seed
            said += shorter
        refused += not whole
    assert refused > 200
    assert said > 2000


@pytest.mark.parametrize("decode", (by_pamqp, by_pika))
def test_the_two_are_looked_at(decode: object) -> None:
    data = frames.deliver(7, frames.content(b"body"), redelivered=1)
    expected = [Seen("deliver", 7, flag=True, exchange="ex", routing_key="key", body=b"body")]
    assert decode(data) == (expected, True)  # type: ignore[operator]
