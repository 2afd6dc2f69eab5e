"""What a connection that carries no messages needs of a receiver: it listens for a close, or that it is blocked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.amqp.cutter import Cutter
from bridge.amqp.events import Blocked, Close
from bridge.amqp.frames import DATA_CHANNEL
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy

if TYPE_CHECKING:
    from collections.abc import Callable


class QuietReceiver:
    """Listens to the broker of a link without relay: what it hears is no data."""

    def __init__(self, closed: Callable[[Close, float], None], blocked: Callable[[str, float], None]) -> None:
        self._cutter = Cutter(ContentPreparer(HeaderPolicy()))
        self._closed = closed
        self._blocked = blocked

    def receive(self, data: bytes, now_s: float) -> bool:
        """Take a chunk; there is never anything to write. Raises `MalformedFrameError`."""
        for event in self._cutter.feed(data, now_s):
            if isinstance(event, Close) and event.channel in {0, DATA_CHANNEL}:
                self._closed(event, now_s)
            elif isinstance(event, Blocked):
                self._blocked(event.reason, now_s)
        return False

    def take_control(self) -> bytes:
        """Hand over what has come for the control plane: whole frames, in order."""
        return self._cutter.take_control()
