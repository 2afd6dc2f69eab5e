"""A partial content, sans-I/O: a message of which some frames have not come yet.

Its frames are kept as they came, and joined when the last is there. A large body is collected in one buffer instead; of
one that nobody needs, or that memory has no room for, only the size is followed.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from bridge.amqp.frames import BASIC_RETURN
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BytesIO

_method_id = Struct(">I")
_content_head = Struct(">BHI4xQH")


class PartialContent:
    """A content of which some frames have not come yet."""

    __slots__ = (
        *("add_piece", "body_left", "body_size", "buffer", "channel"),
        *("delivery_count", "dropped", "frames", "header", "method", "unfit_bytes"),
    )

    def __init__(self, channel: int, method: bytes, *, dropped: bool) -> None:
        """`method` is the frame of the method that brings it; `dropped` says that nobody needs it."""
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
        """Whether all of it has come."""
        return bool(self.header) and self.body_left == 0

    @property
    def is_return(self) -> bool:
        """Whether `basic.return` brings it; otherwise `basic.deliver` does."""
        return bool(_method_id.unpack_from(self.method, 7)[0] == BASIC_RETURN)

    def begin(self, header: bytes) -> None:
        """Its header frame has come."""
        self.header = header
        _, _, _, self.body_size, _ = _content_head.unpack_from(header)
        self.body_left = self.body_size

    def collect(self, header: bytes, delivery_count: int, buffer: BytesIO) -> None:
        """Collect a large content in one buffer, which grows in its place: joined in the end, it would be there twice.

        CPython's `BytesIO` hands its buffer over uncopied, and the C library moves one of this size by its pages.
        """
        self.delivery_count = delivery_count
        self.buffer = buffer
        self.buffer.write(header)
        self.add_piece = self._grow

    def _grow(self, piece: bytes) -> None:
        assert self.buffer is not None  # noqa: S101 - `collect` has set it
        try:
            self.buffer.write(piece)
        except MemoryError:
            # The rest goes by unread, and what comes after it on this connection is cut as usual.
            self.buffer = None
            self.dropped, self.unfit_bytes = True, self.body_size
            self.ignore_body()

    def take_collected(self) -> bytes:
        """Hand over the large content.

        The object lets go of it: it refers to itself by its method, and lives on until the garbage collector runs.
        """
        assert self.buffer is not None  # noqa: S101 - `collect` has set it
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
