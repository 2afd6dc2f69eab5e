"""What a socket is read into: one buffer for the life of a connection, handed out as `bytes` that are not a copy.

asyncio makes a new object of each read and copies into it, and uvloop reads 256 kB at most. Where messages are large,
copies, fresh pages of memory, and a turn of the event loop for every second message cost as much as the kernel does.
"""

from __future__ import annotations

from io import BytesIO

FIRST_BYTES = 64 << 10
MOST_BYTES = 512 << 10
"""The size at first, and the size it grows to. 1 MiB saves no more; 256 KiB take 1.3 times the CPU for 100 kB."""


class ReceiveBuffer:
    """Written by a socket, then read, in turns. It doubles when a read has filled it."""

    def __init__(self) -> None:
        self._allocate(FIRST_BYTES)

    def _allocate(self, size_bytes: int) -> None:
        # One byte more is never written: a slice that is not all of an object is a copy, so nobody who keeps slices
        # keeps the buffer. `BytesIO` would copy it before the next write, to be safe.
        self._size_bytes = size_bytes
        self._buffer = BytesIO(bytes(size_bytes + 1))

    def room(self) -> memoryview:
        """Return where the next read goes; what was there before is not needed any more."""
        return self._buffer.getbuffer()[: self._size_bytes]

    def filled(self, size_bytes: int) -> bytes:
        """Return the buffer, whose first `size_bytes` have been read into it; all of it, what stands behind, too."""
        content = self._buffer.getvalue()
        if size_bytes == self._size_bytes < MOST_BYTES:
            self._allocate(2 * size_bytes)
        return content
