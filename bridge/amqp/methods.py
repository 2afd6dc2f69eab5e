"""Method frames, sans-I/O: what their arguments mean, read from the frame as it stands on the wire.

Only the methods that the data plane acts on are read, and of them what it needs. Confirms are read by the `cutter`
itself, since they come by the thousand.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from bridge.amqp.events import Blocked, Close, ConsumerCancelled, Return, Unblocked
from bridge.amqp.frames import (
    BASIC_CANCEL,
    CHANNEL_CLOSE,
    CONNECTION_BLOCKED,
    CONNECTION_CLOSE,
    CONNECTION_UNBLOCKED,
)
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from bridge.amqp.events import Event

ARGUMENTS_AT = 11
"""Where a method's arguments begin in its frame: type, channel, size, class and method come first."""

_u16 = Struct(">H")


def notice(channel: int, method: int, frame: bytes) -> Event | None:
    """Return the event of a method that decides a generation's fate; None for any other, which is the control plane's.

    The control plane is told of it as well. Raises `MalformedFrameError` for a text that does not fit its frame.
    """
    if method == BASIC_CANCEL:
        return ConsumerCancelled(by_us=False, consumer_tag=text_at(frame, ARGUMENTS_AT))
    if method in {CHANNEL_CLOSE, CONNECTION_CLOSE}:
        (code,) = _u16.unpack_from(frame, ARGUMENTS_AT)
        return Close(channel, code, text_at(frame, ARGUMENTS_AT + 2))
    if method == CONNECTION_BLOCKED:
        return Blocked(text_at(frame, ARGUMENTS_AT))
    return Unblocked() if method == CONNECTION_UNBLOCKED else None


def cancel_ok(frame: bytes) -> ConsumerCancelled:
    """Return the event of a `cancel-ok`; raises as `notice` does."""
    return ConsumerCancelled(by_us=True, consumer_tag=text_at(frame, ARGUMENTS_AT))


def basic_return(channel: int, frame: bytes, content: bytes, body_size: int) -> Return:
    """Return the event of a `basic.return` with its content; raises as `notice` does."""
    (code,) = _u16.unpack_from(frame, ARGUMENTS_AT)
    text_size_at = ARGUMENTS_AT + 2
    route = checked_route(frame[text_size_at + 1 + frame[text_size_at] : -1])
    return Return(channel, code, text_at(frame, text_size_at), route, content, body_size)


def text_at(frame: bytes, at: int) -> str:
    """Return the short string that begins there. Raises `MalformedFrameError` where it does not fit its frame."""
    stop = at + 1 + frame[at]
    if stop >= len(frame):
        message = f"a short string of {frame[at]} bytes where its frame ends"
        raise MalformedFrameError(message)
    return frame[at + 1 : stop].decode("utf-8", "replace")


def checked_route(value: bytes) -> bytes:
    """Return what must be an exchange and a routing key. Raises `MalformedFrameError` where it is more or less."""
    key_at = 1 + value[0]
    if key_at + 1 + value[key_at] != len(value):
        message = f"an exchange and a routing key that do not fill their {len(value)} bytes"
        raise MalformedFrameError(message)
    return value
