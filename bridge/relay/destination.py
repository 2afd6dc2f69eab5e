"""The destination's port, sans-I/O: confirms and returns in, publishes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.amqp.content import reframe
from bridge.amqp.events import Blocked, Close, Confirm, Return, Unblocked
from bridge.amqp.frames import DATA_CHANNEL, publish_frame
from bridge.amqp.pieces import LARGE_BYTES, Pieces
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.errors import MalformedFrameError
from bridge.relay.port import Port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.amqp.events import Event
    from bridge.relay.port import Closed
    from bridge.relay.source import Source
    from bridge.relay.steering import Steering
    from bridge.window.window import Window

PUBLISH_BATCH_BYTES = 256 << 10
"""About so much is encoded at a time, so that a slow destination's socket holds little of the window."""
Output = list[bytes | memoryview]
"""Whole frames."""
JOIN_BYTES = 8 << 10
"""Contents up to this size on average are joined into one buffer; larger ones go to the socket uncopied."""


class Destination(Port):
    """One connection to the destination."""

    def __init__(self, window: Window, steering: Steering, source: Callable[[], Source], closed: Closed) -> None:
        """`source` returns the port to the source: what a confirm decides is encoded there."""
        super().__init__(ContentPreparer(HeaderPolicy()), closed)
        self._window, self._steering, self._source = window, steering, source
        self.blocked_reason = ""
        """The broker's words when it last blocked."""
        self._keeps_keys = window.target.keeps_keys
        self._publish = publish_frame(DATA_CHANNEL, window.target.route)
        self._unwritten: Pieces | None = None
        """A large content of which the socket has been given a part."""

    @property
    def unwritten_bytes(self) -> int:
        """How much is to come of a large content that has been begun."""
        return 0 if self._unwritten is None else self._unwritten.left_bytes

    def opened(self, frame_max: int) -> None:
        """The channel is open and confirms: a generation begins."""
        self._begin(frame_max)
        self._window.destination_opened(frame_max)

    def missing(self) -> None:
        """There is no such queue or exchange: what was published to it could not be confirmed (3.10 says nothing)."""
        self._window.trouble.explained()

    def _end(self, now_s: float) -> None:
        self._unwritten = None
        self._window.destination_lost(self.close, now_s)
        self._source().quarantine(now_s)

    def take(self, events: Iterable[Event], now_s: float) -> None:
        """Act on what was cut. Raises `MalformedFrameError` for what cannot be."""
        if self._steering.abandoned:
            return
        window = self._window
        for event in events:
            match event:
                case Confirm(_, publish_seqno, multiple, accepted):
                    window.confirm(publish_seqno, now_s, multiple=multiple, accepted=accepted)
                case Return():
                    window.returned(event)
                case Blocked(reason):
                    self.blocked_reason = reason
                    window.destination_blocked(now_s)
                case Unblocked():
                    window.destination_unblocked(now_s)
                case Close():
                    self._note(event)
                case _:
                    message = f"a {type(event).__name__} from the destination"
                    raise MalformedFrameError(message)
        self._source().settle(now_s)

    def data_to_send(self, now_s: float) -> Output:
        """Hand over the next publishes, some 256 KiB; empty when there is nothing to write now.

        What has been begun is written to its end, whatever happens: nothing else can follow on its channel.
        """
        if self._unwritten is not None:
            if piece := self._unwritten.take():
                return [piece]
            self._unwritten = None
        if not self._steering.publishes:
            return []
        window = self._window
        batch = window.take(PUBLISH_BATCH_BYTES, now_s)
        if window.condemned:
            self._source().quarantine(now_s)
        if not batch:
            return []
        batch = window.target.addressed(batch)
        contents: Output = [delivery.content for delivery in batch]
        if limit := window.frame_limit:
            contents = [
                reframe(d.content, DATA_CHANNEL, limit) if limit < len(d.content) < LARGE_BYTES else d.content
                for d in batch
            ]
        if len(batch[-1].content) >= LARGE_BYTES:  # `take` adds nothing after it
            self._unwritten = Pieces(batch[-1].content, DATA_CHANNEL, limit)
            contents[-1] = self._unwritten.take()
        if self._keeps_keys:
            methods = [publish_frame(DATA_CHANNEL, route) for route in window.target.routes([d.route for d in batch])]
            return [part for pair in zip(methods, contents, strict=True) for part in pair]
        if len(contents[0]) > JOIN_BYTES or len(contents[-1]) > JOIN_BYTES:
            return [part for content in contents for part in (self._publish, content)]
        # Every publish begins with the same frame: to join by it costs a tenth of interleaving it.
        return [self._publish.join([b"", *contents])]
