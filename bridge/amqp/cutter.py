"""The wire, sans-I/O: cut the frames of AMQP 0-9-1 out of a byte stream, and say what they mean.

A `Cutter` is fed the chunks of one connection in order. What belongs to the data plane comes out as events,
in stream order: deliveries, confirms, returns, and the notices that decide a generation's fate. All other
bytes are the control plane's and come out as they went in, frame by frame.

A chunk ends anywhere, and a message can span thousands of chunks: no byte is copied more than a fixed number
of times, so the work is linear. How a frame is made up is in `frames`, and what a content is in `content`.
"""

from __future__ import annotations

import struct
from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING

from bridge.amqp.content import FRAME_OVERHEAD, PERSISTENT, PROPERTIES_AT, UNSEEN_MASK, ContentPreparer
from bridge.amqp.events import (
    Blocked,
    Close,
    Confirm,
    ConsumerCancelled,
    Deliveries,
    Delivery,
    Dropped,
    Event,
    Return,
    Unblocked,
)
from bridge.amqp.frames import (
    BASIC_ACK,
    BASIC_CANCEL,
    BASIC_CANCEL_OK,
    BASIC_DELIVER,
    BASIC_NACK,
    BASIC_RETURN,
    BODY,
    CHANNEL_CLOSE,
    CONNECTION_BLOCKED,
    CONNECTION_CLOSE,
    CONNECTION_UNBLOCKED,
    DATA_CHANNEL,
    DATA_CHANNELS,
    FRAME_END,
    HEADER,
    HEARTBEAT,
    METHOD,
)
from bridge.amqp.pieces import LARGE_BYTES
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Callable

# Not imported from `frames`: CPython 3.11 calls a method of an imported name through a bound object, and that costs the
# cutting of a message 6 to 9 %.
_frame_head = Struct(">BHI")
_method_id = Struct(">I")
_close = Struct(">H")
_confirm = Struct(">QB")
_content_head = Struct(">BHI4xQH")

HEADER_MAX_BYTES = 16 << 20
"""The largest content header that is read where `frame_max` is smaller, in bytes.

RabbitMQ (3.10.8, 4.3.6) does not hold itself to `frame_max` there: a header of 130,900 bytes outgrows it when the
message is dead-lettered or its deliveries are counted.
"""
_MESSAGE_ENDS_SHORT = 21
"""Bytes of a header frame up to its properties: what must be there before a look at them."""


class _Assembly:
    """A content of which some frames have not come yet."""

    __slots__ = (
        *("add_piece", "body_left", "body_size", "buffer", "channel"),
        *("delivery_count", "dropped", "frames", "header", "method", "unfit_bytes"),
    )

    def __init__(self, channel: int, method: bytes, *, dropped: bool) -> None:
        self.channel = channel
        self.method = method
        self.header = b""
        self.body_size = 0
        self.body_left = 0
        self.dropped = dropped
        self.frames: list[bytes] = []
        self.add_piece: Callable[[bytes], object] = _ignore if dropped else self.frames.append
        """Takes what has come next of the body's frames."""
        self.buffer: BytesIO | None = None
        """Header and body so far, of a large content."""
        self.delivery_count = 0
        """As the header of a large content has it."""
        self.unfit_bytes = 0
        """Size of a body that memory has no room for."""

    @property
    def complete(self) -> bool:
        return bool(self.header) and self.body_left == 0

    @property
    def is_return(self) -> bool:
        return bool(_method_id.unpack_from(self.method, 7)[0] == BASIC_RETURN)

    def begin(self, header: bytes) -> None:
        """Its header frame has come."""
        self.header = header
        _, _, _, self.body_size, _ = _content_head.unpack_from(header)
        self.body_left = self.body_size

    def collect(self, header: bytes, delivery_count: int) -> None:
        """Collect a large content in one buffer, which grows in its place: joined in the end, it would be there twice.

        CPython's `BytesIO` hands its buffer over uncopied, and the C library moves one of this size by its pages.
        """
        self.delivery_count = delivery_count
        self.buffer = BytesIO()
        self.buffer.write(header)
        self.add_piece = self._grow

    def _grow(self, piece: bytes) -> None:
        assert self.buffer is not None  # noqa: S101 - `collect` has made it
        try:
            self.buffer.write(piece)
        except MemoryError:
            # The rest goes by unread, and what comes after it on this connection is cut as ever.
            self.buffer = None
            self.dropped, self.unfit_bytes = True, self.body_size
            self.ignore_body()

    def take_collected(self) -> bytes:
        """Hand over the large content.

        The assembly lets go of it: it refers to itself by its method, and lives on until the collector comes round.
        """
        assert self.buffer is not None  # noqa: S101 - `collect` has made it
        content = self.buffer.getvalue()
        self.buffer = None
        self.ignore_body()
        return content

    def ignore_body(self) -> None:
        """Keep no more than the header."""
        self.add_piece = _ignore

    def add_body(self, frame: bytes, size: int) -> None:
        """A body frame with so many bytes of payload has begun; `frame` is what has come of it."""
        self.body_left -= size
        if self.body_left < 0:
            message = f"a body with {-self.body_left} bytes more than its header announced"
            raise MalformedFrameError(message)
        self.add_piece(frame)


def _ignore(_: bytes) -> None:
    """Take a piece that nobody needs."""


class Cutter:
    """Cuts one connection's incoming bytes. `feed` raises `MalformedFrameError`; the cutter is spent then."""

    def __init__(self, preparer: ContentPreparer) -> None:
        self._control: list[bytes] = []
        """Frames for the control plane, in order."""
        self._frame_max = 0
        """The largest frame that the connection agreed on, in bytes; 0 for no limit. See `HEADER_MAX_BYTES`, too."""
        self._preparer = preparer
        self._raw = False
        self._begun = False
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._needed = 0
        self._assembly: _Assembly | None = None
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
        """What is still to come of a frame or content that has begun, in numbers that change while it comes."""
        assembly = self._assembly
        return self._tail_size, self._body_rest, assembly.body_left if assembly is not None else 0

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

    def _feed(self, data: bytes, now_s: float) -> list[Event]:  # noqa: C901, PLR0912 - one loop, run for every frame
        events: list[Event] = []
        position = 0
        if self._tail_size:
            self._tail.append(data)
            self._tail_size += len(data)
            if self._tail_size < self._needed:
                return events
            data = b"".join(self._tail)
            self._tail.clear()
            self._tail_size = 0
        elif self._body_rest:
            position = self._continue_body(data, now_s, events)
        elif not self._begun and data:
            # A broker that refuses our protocol version answers with a bare header (AMQP 0-9-1, 4.2.2).
            self._begun = True
            self._raw = data[:1] == b"A"
        if self._raw:
            self._control.append(data)
            return events

        end = len(data)
        while position < end:
            if self._assembly is None and self._head:
                position = self._cut_whole(data, position, now_s, events)
            if end - position < FRAME_OVERHEAD:
                break
            kind, channel, size = _frame_head.unpack_from(data, position)
            stop = position + FRAME_OVERHEAD + size
            self._check(kind, size)
            if stop > end:
                assembly = self._assembly
                if kind != BODY or assembly is None or assembly.channel != channel:
                    break
                assembly.add_body(data[position:], size)
                self._body_rest = stop - end
                return events
            if data[stop - 1] != FRAME_END:
                message = f"a frame of type {kind} on channel {channel} without its end octet"
                raise MalformedFrameError(message)
            self._frame(kind, channel, data[position:stop], now_s, events)
            position = stop
        if position < end:
            rest = data[position:]
            self._tail.append(rest)
            self._tail_size = len(rest)
            self._needed = FRAME_OVERHEAD
            if len(rest) >= FRAME_OVERHEAD - 1:
                kind, _, size = _frame_head.unpack_from(rest)
                self._check(kind, size)
                self._needed += size
        return events

    def _check(self, kind: int, size: int) -> None:
        most = max(self._frame_max, HEADER_MAX_BYTES) if kind == HEADER else self._frame_max
        if kind not in {METHOD, HEADER, BODY, HEARTBEAT} or (self._frame_max and size > most):
            message = f"a frame of type {kind} and {size} bytes, where at most {most} are read"
            raise MalformedFrameError(message)

    def _cut_whole(  # noqa: C901, PLR0912 - one loop, run for every message: a call each would cost a tenth
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
                    count = delivery_count  # else it is no queue's, see `Delivery`
                content = replaced + data[body:stop]
            append(
                make(
                    Delivery,
                    (
                        delivery_tag,
                        redelivered,
                        count,
                        data[position + route_at : header - 1],
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

    def _continue_body(self, data: bytes, now_s: float, events: list[Event]) -> int:
        """Take the next piece of the body frame that the last chunk began; return where it ends."""
        assembly = self._assembly
        assert assembly is not None  # noqa: S101 - a body's rest without its assembly is a bug of this class
        piece = data[: self._body_rest]
        assembly.add_piece(piece)
        self._body_rest -= len(piece)
        if self._body_rest == 0:
            if piece[-1] != FRAME_END:
                message = "a body frame without its end octet"
                raise MalformedFrameError(message)
            if assembly.complete:
                self._finish(assembly, now_s, events)
        return len(piece)

    def _frame(self, kind: int, channel: int, frame: bytes, now_s: float, events: list[Event]) -> None:
        assembly = self._assembly
        if assembly is not None and channel == assembly.channel:
            if kind == HEADER and not assembly.header:
                assembly.begin(frame)
                if assembly.body_size >= LARGE_BYTES and not assembly.dropped:
                    self._begin_large(assembly)
            elif kind == BODY and assembly.header:
                assembly.add_body(frame, len(frame) - FRAME_OVERHEAD)
            else:
                message = f"a frame of type {kind} in the middle of a message on channel {channel}"
                raise MalformedFrameError(message)
            if assembly.complete:
                self._finish(assembly, now_s, events)
        elif kind == METHOD:
            self._method(channel, frame, events)
        else:
            self._control.append(frame)

    def _begin_large(self, assembly: _Assembly) -> None:
        if assembly.is_return:
            assembly.ignore_body()  # see `likeness`: nobody looks at it
            return
        header, delivery_count = assembly.header, 0
        if (prepared := self._preparer.prepare(header)) is not None:
            header, delivery_count = prepared
        assembly.collect(header, delivery_count)

    def _method(self, channel: int, frame: bytes, events: list[Event]) -> None:
        (method,) = _method_id.unpack_from(frame, 7)
        if channel in DATA_CHANNELS:
            if method in {BASIC_DELIVER, BASIC_RETURN}:
                if self._assembly is not None:
                    message = "a message on one channel in the middle of another's: the bridge reads one at a time"
                    raise MalformedFrameError(message)
                dropped = self._dropping and channel == DATA_CHANNEL and method == BASIC_DELIVER
                self._assembly = _Assembly(channel, frame, dropped=dropped)
                return
            if method in {BASIC_ACK, BASIC_NACK}:
                publish_seqno, bits = _confirm.unpack_from(frame, 11)
                events.append(Confirm(channel, publish_seqno, bool(bits & 1), method == BASIC_ACK))
                return
            if method == BASIC_CANCEL_OK:
                events.append(ConsumerCancelled(by_us=True, consumer_tag=_short_string(frame, 11)))
                return
        if method == BASIC_CANCEL:
            events.append(ConsumerCancelled(by_us=False, consumer_tag=_short_string(frame, 11)))
        elif method in {CHANNEL_CLOSE, CONNECTION_CLOSE}:
            (code,) = _close.unpack_from(frame, 11)
            events.append(Close(channel, code, _short_string(frame, 13)))
        elif method == CONNECTION_BLOCKED:
            events.append(Blocked(_short_string(frame, 11)))
        elif method == CONNECTION_UNBLOCKED:
            events.append(Unblocked())
        self._control.append(frame)

    def _finish(self, assembly: _Assembly, now_s: float, events: list[Event]) -> None:
        self._assembly = None
        method, header = assembly.method, assembly.header
        if assembly.is_return:
            (code,) = _close.unpack_from(method, 11)
            text = _short_string(method, 13)
            route = _checked_route(method[14 + method[13] : -1])
            content = b"".join((header, *assembly.frames))
            events.append(Return(assembly.channel, code, text, route, content, assembly.body_size))
            return
        tag_at = 12 + method[11]
        delivery_tag, redelivered = _confirm.unpack_from(method, tag_at)
        if assembly.dropped:
            events.append(Dropped(delivery_tag, redelivered, assembly.unfit_bytes))
            return
        route = _checked_route(method[tag_at + 9 : -1])
        if not self._dropping:
            self._head = method[:tag_at]
            self._method_size = len(method)
        if assembly.buffer is not None:
            content, delivery_count = assembly.take_collected(), assembly.delivery_count
        else:
            delivery_count = 0
            if (prepared := self._preparer.prepare(header)) is not None:
                header, delivery_count = prepared
            content = b"".join((header, *assembly.frames))
        count = delivery_count if redelivered else 0
        delivery = Delivery(delivery_tag, redelivered, count, route, content, assembly.body_size, now_s)
        events.append(Deliveries([delivery], redelivered != 0))


def _short_string(frame: bytes, at: int) -> str:
    stop = at + 1 + frame[at]
    if stop >= len(frame):
        message = f"a short string of {frame[at]} bytes where its frame ends"
        raise MalformedFrameError(message)
    return frame[at + 1 : stop].decode("utf-8", "replace")


def _checked_route(value: bytes) -> bytes:
    key_at = 1 + value[0]
    if key_at + 1 + value[key_at] != len(value):
        message = f"an exchange and a routing key that do not fill their {len(value)} bytes"
        raise MalformedFrameError(message)
    return value
