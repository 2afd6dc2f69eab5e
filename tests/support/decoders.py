"""Decoders of other authors beside the cutter: what pamqp and pika make of a stream, in the same form."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pika.frame
import pika.spec
from pamqp import base, commands, header
from pamqp.body import ContentBody
from pamqp.frame import unmarshal

from bridge.amqp.events import Confirm, Deliveries, Delivery, Return
from tests.support import frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bridge.amqp.events import Event


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


def of_events(events: Iterable[Event | Delivery]) -> list[Seen]:
    """What the cutter has seen on channel 1."""
    return [each for event in events for each in _of_event(event)]


def _of_event(event: Event | Delivery) -> Iterator[Seen]:
    match event:
        case Deliveries(items, _):
            yield from of_events(items)
        case Delivery():
            body = b"".join(frame[7:-1] for frame in frames.split(bytes(event.content))[1:])
            yield Seen("deliver", event.delivery_tag, bool(event.redelivered), *_names(event.route), body)
        case Confirm(1, publish_seqno, multiple, accepted):
            yield Seen("ack" if accepted else "nack", publish_seqno, multiple, "", "", b"")
        case Return(channel=1):
            yield RETURNED
        case _:
            pass


def _names(route: bytes) -> tuple[str, str]:
    size = route[0]
    return route[1 : 1 + size].decode(errors="replace"), route[2 + size :].decode(errors="replace")


class _Assembler:
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
    """What comes out, and whether all was read."""
    found = _Assembler()
    while data:
        try:
            size, channel, frame = unmarshal(data)
            _take_pamqp(found, channel, frame)
        except Exception:  # noqa: BLE001 - pamqp raises all kinds of a damaged frame
            return found.seen, False
        data = data[size:]
    return found.seen, True


def _take_pamqp(found: _Assembler, channel: int, frame: base.Frame | object) -> None:
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
        case ContentBody():
            found.body(frame.value)
        case _:
            pass


def by_pika(data: bytes) -> tuple[list[Seen], bool]:
    """As `by_pamqp`."""
    found = _Assembler()
    while data:
        try:
            size, frame = pika.frame.decode_frame(data)
            if frame is None:
                return found.seen, False
            _take_pika(found, frame)
        except Exception:  # noqa: BLE001 - pika raises all kinds of a damaged frame
            return found.seen, False
        data = data[size:]
    return found.seen, True


def _take_pika(found: _Assembler, frame: pika.frame.Frame) -> None:
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


def agreed(data: bytes) -> list[Seen]:
    """Return what both others say, as far as they say the same."""
    found = []
    for one, other in zip(by_pamqp(data)[0], by_pika(data)[0], strict=False):
        if one != other:
            break
        found.append(one)
    return found


def confirms(mine: Seen, theirs: Seen) -> bool:
    """Whether the cutter says what both others say.

    Any bit of the octet counts as redelivered, where the standard has one of them: the memory is asked.
    """
    return mine._replace(flag=theirs.flag) == theirs and mine.flag >= theirs.flag
