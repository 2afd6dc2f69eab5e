"""The receive buffer: what it hands out is what was read, and stays as it is."""

from __future__ import annotations

from bridge.connection.buffer import FIRST_BYTES, MOST_BYTES, ReceiveBuffer


def read(buffer: ReceiveBuffer, data: bytes) -> bytes:
    """Have a socket write this into the buffer; return what it hands out."""
    buffer.room[: len(data)] = data
    return buffer.take(len(data))


def test_it_hands_out_what_was_read_and_that_does_not_change() -> None:
    buffer = ReceiveBuffer()
    first = read(buffer, b"first of all")
    second = read(buffer, b"then")
    assert (first, second) == (b"first of all", b"then")


def test_it_doubles_when_a_read_has_filled_it_up_to_its_most() -> None:
    buffer = ReceiveBuffer()
    sizes = []
    for number in range(6):
        size = len(buffer.room)
        sizes.append(size)
        assert read(buffer, bytes([number]) * size) == bytes([number]) * size
        room = buffer.room
        read(buffer, b"not all of it")
        assert buffer.room is room
    assert sizes == [FIRST_BYTES * factor for factor in (1, 2, 4, 8, 8, 8)]
    assert sizes[-1] == MOST_BYTES
