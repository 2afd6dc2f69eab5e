"""Large contents, pure: written piece by piece, so that a socket is given no more of one than it takes.

A large message is in memory once. It is collected in one buffer that grows in its place (see `cutter`), and on its way
out a piece is made when the socket has room for it. Written at once it would be there two to four times: TLS encrypts
what it is given at once, and frames for another channel or of another size are copies.

Each piece is of whole frames, so that others may write between two of them.
"""

from __future__ import annotations

from struct import Struct

from bridge.amqp.content import FRAME_OVERHEAD, header_frame_size
from bridge.amqp.frames import BODY

LARGE_BYTES = 4 << 20
"""Contents from this size on are collected and written so. Below it, joining costs less than it saves."""
PIECE_BYTES = 256 << 10
"""Size of a piece, about: a quarter of what a socket's buffer takes (see `tap`)."""

_frame_head = Struct(">BHI")


class Pieces:
    """A content that is being written. `take` hands over the next piece, and nothing when there is no more."""

    def __init__(self, content: bytes, channel: int, frame_max: int = 0, *, header: bytes = b"") -> None:
        """The `channel` is the one to write it on; `frame_max` is what its connection agreed on, 0 for no limit.

        A `header` frame takes the place of the content's own.
        """
        self._content = memoryview(content)
        self._header = header
        self._channel = channel
        self._as_it_is = not header and not frame_max and channel == int.from_bytes(content[1:3], "big")
        self._room = frame_max - FRAME_OVERHEAD if frame_max else len(content)
        self._frame = header_frame_size(content) if header else 0
        """Where the frame begins that is next."""
        self._written = 0
        """How much of its payload has been taken."""

    @property
    def left_bytes(self) -> int:
        """How much of the content is to come."""
        return len(self._content) - self._frame - self._written

    def take(self) -> bytes | memoryview:
        """Hand over the next piece."""
        if self._as_it_is:
            start = self._frame
            while self._frame < len(self._content) and self._frame - start < PIECE_BYTES:
                self._frame += FRAME_OVERHEAD + self._payload_size()
            return self._content[start : self._frame]
        return self._take_anew()

    def _take_anew(self) -> bytes:
        """Make the next frames, for the channel and cut to fit. A header frame cannot be cut."""
        parts: list[bytes | memoryview] = []
        size = 0
        if self._header:
            header, self._header = self._header, b""
            parts += (header[:1], self._channel.to_bytes(2, "big"), header[3:])
        while self._frame < len(self._content) and size < PIECE_BYTES:
            kind, payload_size = self._content[self._frame], self._payload_size()
            step = min(payload_size - self._written, self._room if kind == BODY else payload_size)
            start = self._frame + FRAME_OVERHEAD - 1 + self._written
            payload = self._content[start : start + step]
            parts += (_frame_head.pack(kind, self._channel, step), payload, b"\xce")
            size += step
            self._written += step
            if self._written == payload_size:
                self._frame += FRAME_OVERHEAD + payload_size
                self._written = 0
        return b"".join(parts)

    def _payload_size(self) -> int:
        size: int = _frame_head.unpack_from(self._content, self._frame)[2]
        return size
