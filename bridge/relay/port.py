"""A port, sans-I/O: one connection of a side, bytes in and bytes out, from the first byte to the connection's end.

The caller feeds a port every chunk that the socket has (`receive`), hands what is the control plane's on
(`take_control`), and writes what the port has to say (`data_to_send`). It knows nothing else of either side. When the
broker closes the channel or the connection, the port calls `closed`: in stream order, after all that came before it.

What it does not do: decide anything, which is `window`'s and `steering`'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from bridge.amqp.cutter import Cutter
from bridge.amqp.frames import DATA_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.amqp.events import Close, Event
    from bridge.amqp.preparer import ContentPreparer

    Closed = Callable[[Close, float], None]
    """Called with the broker's close of the channel or the connection, and with the time in monotonic seconds."""


class Port(ABC):
    """What the connections of both sides have in common."""

    def __init__(self, preparer: ContentPreparer, closed: Closed) -> None:
        self._cutter = Cutter(preparer)
        self._closed = closed
        self.close: Close | None = None
        """The broker's own close of the channel or the connection; the first counts."""
        self._open = False
        """Whether a generation is under way."""
        self._lost = False

    def receive(self, data: bytes, now_s: float) -> bool:
        """Take a chunk; return whether anything has come of it: there may be data to send.

        Raises `MalformedFrameError` for what cannot be; the port is spent then.
        """
        events = self._cutter.feed(data, now_s)
        if not events or self._lost:
            return False
        self.take(events, now_s)
        if self.close is not None:
            self._closed(self.close, now_s)
        return True

    def take_control(self) -> bytes:
        """Hand over what has come for the control plane: whole frames, in order."""
        return self._cutter.take_control()

    @abstractmethod
    def take(self, events: Iterable[Event], now_s: float) -> None:
        """Act on what was cut. Raises `MalformedFrameError` for what cannot be."""

    def lost(self, now_s: float) -> None:
        """The connection is gone, or is not to be listened to any more; the first call counts."""
        if self._lost:
            return
        self._lost = True
        if self._open:
            self._open = False
            self._end(now_s)

    @abstractmethod
    def _end(self, now_s: float) -> None:
        """The generation has ended."""

    def _begin(self, frame_max: int) -> None:
        """A generation begins; `frame_max` is the largest frame that the connection agreed on, 0 for no limit."""
        self._cutter.agree(frame_max)
        self._open = True

    def _note(self, close: Close) -> None:
        if close.channel in {0, DATA_CHANNEL} and self.close is None:
            self.close = close
