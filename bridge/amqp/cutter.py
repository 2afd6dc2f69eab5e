"""The cutter, sans-I/O: cuts the frames of AMQP 0-9-1 out of a byte stream, and says what they mean.

A `Cutter` is fed the chunks of one connection in order. What belongs to the data plane comes out as events,
in stream order: deliveries, confirms, returns, and the notices that decide a generation's fate. All other
bytes are the control plane's and come out as they went in, frame by frame.

A chunk ends anywhere, and a message can span thousands of chunks: no byte is copied more than a fixed number
of times, so the work is linear. How a frame is made up is in `frames`, what a method says in `methods`, what a
content is in `content`, and how one is collected whose frames come one by one in `partial`.
"""

from __future__ import annotations

import struct
from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING

from bridge.amqp.content import FRAME_OVERHEAD, PERSISTENT, PROPERTIES_AT
from bridge.amqp.events import Confirm, Deliveries, Delivery, Dropped, Event
from bridge.amqp.frames import (
    BASIC_ACK,
    BASIC_CANCEL_OK,
    BASIC_DELIVER,
    BASIC_NACK,
    BASIC_RETURN,
    BODY,
    DATA_CHANNEL,
    DATA_CHANNELS,
    FRAME_END,
    HEADER,
    HEARTBEAT,
    METHOD,
)
from bridge.amqp.methods import basic_return, cancel_ok, checked_route, notice
from bridge.amqp.partial import PartialContent
from bridge.amqp.pieces import LARGE_BYTES
from bridge.amqp.preparer import UNSEEN_MASK, ContentPreparer
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Callable

# Not imported from `frames`: CPython 3.11 calls a method of an imported name through a bound object, and that costs the
# cutting of a message 6 to 9 %.
_frame_head = Struct(">BHI")
_method_id = Struct(">I")
_confirm = Struct(">QB")
_content_head = Struct(">BHI4xQH")

HEADER_MAX_BYTES = 16 << 20
"""The largest content header that is read where `frame_max` is smaller, in bytes.

RabbitMQ (3.10.8, 4.3.6) does not hold itself to `frame_max` there: a header of 130,900 bytes outgrows it when the
message is dead-lettered or its deliveries are counted.
"""
_HEAD_SIZE = 7
"""Bytes of a frame before its payload: type, channel and size."""
_MESSAGE_ENDS_SHORT = 21
"""Bytes of a header frame up to its properties: what must be there before a look at them."""


class Cutter:
    """Cuts one connection's incoming bytes. `feed` raises `MalformedFrameError`; the cutter is spent then."""

    def __init__(
        self,
        preparer: ContentPreparer,
        *,
        header_max_bytes: int = HEADER_MAX_BYTES,
        new_buffer: Callable[[], BytesIO] = BytesIO,
    ) -> None:
        """`new_buffer` makes what a large content is collected in."""
        self._header_max_bytes = header_max_bytes
        self._new_buffer = new_buffer
        self._control: list[bytes] = []
        """Frames for the control plane, in order."""
        self._frame_max = 0
        """The largest frame that the connection agreed on, in bytes; 0 for no limit. See `HEADER_MAX_BYTES`, too."""
        self._preparer = preparer
        self._raw = False
        self._begun = False
        self._tail: list[bytes] = []
        """How a frame has begun of which the rest has not come."""
        self._tail_size = 0
        self._needed = _HEAD_SIZE
        """Bytes of that frame, or of its head while that has not come."""
        self._partial: PartialContent | None = None
        self._dropping = False
        self._body_rest = 0
        """Bytes to come of a body frame that is let through in pieces, its end octet included."""
        self._head = b""
        """How the last delivery's method frame began, up to its delivery tag: the next one's is the same.

        Empty while nothing can be cut whole: before the first delivery, and while deliveries are dropped.
        """
        self._method_size = 0

    @property
    def unfinished(self) -> tuple[int, int, int]:
        """What has not arrived yet of a frame or content that has begun, in numbers that change while it arrives."""
        partial = self._partial
        return self._tail_size, self._body_rest, partial.body_left if partial is not None else 0

    def agree(self, frame_max: int) -> None:
        """The connection has agreed on this largest frame, in bytes; 0 for no limit."""
        self._frame_max = frame_max

    def take_control(self) -> bytes:
        """Hand over what has come for the control plane: whole frames, in order."""
        if not self._control:
            return b""
        control, self._control = self._control, []
        return b"".join(control)

    def drop(self, *, on: bool) -> None:
        """Begin or cease to drop deliveries: they come out as `Dropped`, in stream order, whatever they hold unread.

        Memory is bounded however large they are: bodies go by in pieces, and a header frame is held to its bound. It
        counts for deliveries that begin from now on; one that has begun comes out as it would have.
        """
        if on is not self._dropping:
            self._dropping = on
            self._head = b""

    def feed(self, data: bytes, now_s: float) -> list[Event]:
        """Take the next chunk; return the events that it completes."""
        try:
            return self._feed(data, now_s)
        except (IndexError, struct.error) as error:
            message = f"a frame that is shorter than what it says it holds ({error})"
            raise MalformedFrameError(message) from error

    def _feed(self, data: bytes, now_s: float) -> list[Event]:
        events: list[Event] = []
        end = len(data)
        if not self._begun and end:
            # A broker that refuses our protocol version answers with a bare header (AMQP 0-9-1, 4.2.2).
            self._begun = True
            self._raw = data[:1] == b"A"
        if self._raw:
            self._control.append(data)
            return events
        position = 0
        if self._tail_size:
            position = self._continue_frame(data, now_s, events)
        if self._body_rest and position < end:
            position = self._continue_body(data, position, now_s, events)
        while position < end:
            if self._partial is None and self._head:
                position = self._cut_whole(data, position, now_s, events)
            if end - position < FRAME_OVERHEAD:
                break
            kind, channel, size = _frame_head.unpack_from(data, position)
            stop = position + FRAME_OVERHEAD + size
            self._check(kind, size)
            if stop > end:
                break
            self._frame(kind, channel, data[position:stop], now_s, events)
            position = stop
        if position < end:
            self._keep(data[position:])
        return events

    def _keep(self, piece: bytes) -> None:
        """Keep how a frame begins, until the rest of it has come; of a body, it is taken as it comes."""
        self._tail.append(piece)
        self._tail_size += len(piece)
        if self._needed == _HEAD_SIZE <= self._tail_size:
            begun = b"".join(self._tail)
            kind, channel, size = _frame_head.unpack_from(begun)
            self._check(kind, size)
            self._needed = FRAME_OVERHEAD + size
            partial = self._partial
            if kind == BODY and partial is not None and partial.channel == channel:
                self._body_rest = self._needed - len(begun)
                self._forget_tail()
                partial.add_body(begun, size)

    def _forget_tail(self) -> None:
        self._tail.clear()
        self._tail_size = 0
        self._needed = _HEAD_SIZE

    def _continue_frame(self, data: bytes, now_s: float, events: list[Event]) -> int:
        """Go on with the frame of which only the beginning was there; return where the next one begins."""
        position = 0
        while self._tail_size and position < len(data):
            piece = data[position : position + self._needed - self._tail_size]
            position += len(piece)
            self._keep(piece)
            if self._tail_size == self._needed:
                frame = b"".join(self._tail)
                self._forget_tail()
                kind, channel, _ = _frame_head.unpack_from(frame)
                self._frame(kind, channel, frame, now_s, events)
        return position

    def _check(self, kind: int, size: int) -> None:
        most = max(self._frame_max, self._header_max_bytes) if kind == HEADER else self._frame_max
        if kind not in {METHOD, HEADER, BODY, HEARTBEAT} or (self._frame_max and size > most):
            message = f"a frame of type {kind} and {size} bytes, where at most {most} are read"
            raise MalformedFrameError(message)

    def _cut_whole(  # noqa: C901, PLR0912, PLR0915 - one loop, run for every message: a call each would cost a tenth
        self, data: bytes, position: int, now_s: float, events: list[Event]
    ) -> int:
        """Cut the deliveries that lie whole in the chunk and begin like the last one; return where they end.

        The hot path. Three look-ups by offset and one slice a message, where the frame-by-frame way below
        takes three times as long. Whatever is unusual is left to that way, errors included.
        """
        head, head_size, method_size = self._head, len(self._head), self._method_size
        route_at = head_size + 9
        end = len(data) - _MESSAGE_ENDS_SHORT
        prepare, unseen_flags = self._preparer.prepare, self._preparer.unseen_flags
        make = tuple.__new__
        deliveries: list[Delivery] = []
        append = deliveries.append
        notable = 0
        known_route = b""
        while data[position : position + head_size] == head:
            header = position + method_size
            if header > end:
                break
            kind, channel, size, body_size, flags = _content_head.unpack_from(data, header)
            body = header + FRAME_OVERHEAD + size
            if body_size:
                if body > end:
                    break
                stop = body + FRAME_OVERHEAD + body_size
                if stop > end + _MESSAGE_ENDS_SHORT or _frame_head.unpack_from(data, body) != (
                    BODY,
                    DATA_CHANNEL,
                    body_size,
                ):
                    break
            else:
                stop = body
                if stop > end + _MESSAGE_ENDS_SHORT:
                    break
            if (
                kind != HEADER
                or channel != DATA_CHANNEL
                or data[header - 1] != FRAME_END
                or data[body - 1] != FRAME_END
                or data[stop - 1] != FRAME_END
            ):
                break
            route = data[position + route_at : header - 1]
            if route != known_route:
                # As `checked_route`, which would be a call per message where each has a key of its own.
                key_at = 1 + route[0]
                if key_at + 1 + route[key_at] != len(route):
                    break
                known_route = route
            delivery_tag, redelivered = _confirm.unpack_from(data, position + head_size)
            notable |= redelivered
            count = 0
            if flags & UNSEEN_MASK == unseen_flags and data[header + PROPERTIES_AT] == PERSISTENT:
                prepared = None
            else:
                prepared = prepare(data[header:body])
            if prepared is None:
                content = data[header:stop]
            else:
                replaced, delivery_count = prepared
                if redelivered:
                    count = delivery_count  # otherwise it is not the queue's own, see `Delivery`
                content = replaced + data[body:stop]
            append(
                make(
                    Delivery,
                    (
                        delivery_tag,
                        redelivered,
                        count,
                        route,
                        content,
                        body_size,
                        now_s,
                    ),
                )
            )
            position = stop
        if deliveries:
            events.append(Deliveries(deliveries, notable != 0))
        return position

    def _continue_body(self, data: bytes, position: int, now_s: float, events: list[Event]) -> int:
        """Take the next piece of the body frame that has begun; return where it ends."""
        partial = self._partial
        assert partial is not None  # noqa: S101 - a body's rest without its content is a bug of this class
        piece = data[position : position + self._body_rest]
        partial.add_piece(piece)
        self._body_rest -= len(piece)
        if self._body_rest == 0:
            if piece[-1] != FRAME_END:
                message = "a body frame without its end octet"
                raise MalformedFrameError(message)
            if partial.complete:
                self._finish(partial, now_s, events)
        return position + len(piece)

    def _frame(self, kind: int, channel: int, frame: bytes, now_s: float, events: list[Event]) -> None:
        if frame[-1] != FRAME_END:
            message = f"a frame of type {kind} on channel {channel} without its end octet"
            raise MalformedFrameError(message)
        partial = self._partial
        if partial is not None and channel == partial.channel:
            if kind == HEADER and not partial.header:
                partial.begin(frame)
                if partial.body_size >= LARGE_BYTES and not partial.dropped:
                    self._begin_large(partial)
            elif kind == BODY and partial.header:
                partial.add_body(frame, len(frame) - FRAME_OVERHEAD)
            else:
                message = f"a frame of type {kind} in the middle of a message on channel {channel}"
                raise MalformedFrameError(message)
            if partial.complete:
                self._finish(partial, now_s, events)
        elif kind == METHOD:
            self._method(channel, frame, events)
        else:
            self._control.append(frame)

    def _begin_large(self, partial: PartialContent) -> None:
        if partial.is_return:
            partial.ignore_body()  # see `likeness`: nobody looks at it
            return
        header, delivery_count = partial.header, 0
        if (prepared := self._preparer.prepare(header)) is not None:
            header, delivery_count = prepared
        partial.collect(header, delivery_count, self._new_buffer())

    def _method(self, channel: int, frame: bytes, events: list[Event]) -> None:
        (method,) = _method_id.unpack_from(frame, 7)
        if channel in DATA_CHANNELS:
            if method in {BASIC_DELIVER, BASIC_RETURN}:
                if self._partial is not None:
                    message = "a message on one channel in the middle of another's: the bridge reads one at a time"
                    raise MalformedFrameError(message)
                if method == BASIC_DELIVER and channel != DATA_CHANNEL:
                    message = f"a delivery on channel {channel}, which has no consumer"
                    raise MalformedFrameError(message)
                dropped = self._dropping and method == BASIC_DELIVER
                self._partial = PartialContent(channel, frame, dropped=dropped)
                return
            if method in {BASIC_ACK, BASIC_NACK}:
                publish_seqno, bits = _confirm.unpack_from(frame, 11)
                events.append(Confirm(channel, publish_seqno, bool(bits & 1), method == BASIC_ACK))
                return
            if method == BASIC_CANCEL_OK:
                events.append(cancel_ok(frame))
                return
        if (event := notice(channel, method, frame)) is not None:
            events.append(event)
        self._control.append(frame)

    def _finish(self, partial: PartialContent, now_s: float, events: list[Event]) -> None:
        self._partial = None
        method, header = partial.method, partial.header
        if partial.is_return:
            content = b"".join((header, *partial.frames))
            events.append(basic_return(partial.channel, method, content, partial.body_size))
            return
        tag_at = 12 + method[11]
        delivery_tag, redelivered = _confirm.unpack_from(method, tag_at)
        if partial.dropped:
            events.append(Dropped(delivery_tag, redelivered, partial.unfit_bytes))
            return
        route = checked_route(method[tag_at + 9 : -1])
        if not self._dropping:
            self._head = method[:tag_at]
            self._method_size = len(method)
        if partial.buffer is not None:
            content, delivery_count = partial.take_collected(), partial.delivery_count
        else:
            delivery_count = 0
            if (prepared := self._preparer.prepare(header)) is not None:
                header, delivery_count = prepared
            content = b"".join((header, *partial.frames))
        count = delivery_count if redelivered else 0
        delivery = Delivery(delivery_tag, redelivered, count, route, content, partial.body_size, now_s)
        events.append(Deliveries([delivery], redelivered != 0))
