"""The receive buffer: what it hands out is what was read, uncopied, and stays as it is for who keeps a part of it."""

from __future__ import annotations

import pytest

from bridge.connection.buffer import FIRST_BYTES, MOST_BYTES, ReceiveBuffer


def read(buffer: ReceiveBuffer, data: bytes) -> bytes:
    """Have a socket write this into the buffer; return what it hands out of it."""
    buffer.room()[: len(data)] = data
    return buffer.filled(len(data))[: len(data)]


def test_it_hands_out_what_was_read_and_a_kept_part_does_not_change() -> None:
    buffer = ReceiveBuffer()
    first = read(buffer, b"first of all")
    second = read(buffer, b"then")
    assert (first, second) == (b"first of all", b"then")


def test_nothing_is_copied_and_nothing_new_is_allocated_while_it_is_not_full() -> None:
    buffer = ReceiveBuffer()
    places = set()
    for _ in range(5):
        room = buffer.room()
        room[:3] = b"abc"
        room.release()
        places.add(id(buffer.filled(3)))
    assert len(places) == 1


def test_it_doubles_when_a_read_has_filled_it_up_to_its_most() -> None:
    buffer = ReceiveBuffer()
    sizes = []
    for number in range(6):
        size = len(buffer.room())
        sizes.append(size)
        assert read(buffer, bytes([number]) * size) == bytes([number]) * size
    assert sizes == [FIRST_BYTES * factor for factor in (1, 2, 4, 8, 8, 8)]
    assert sizes[-1] == MOST_BYTES


@pytest.mark.parametrize("part", (slice(None), slice(0, FIRST_BYTES)))
def test_what_somebody_keeps_is_not_written_over(part: slice) -> None:
    """Also where it is the whole object, for which nothing but a copy would do."""
    buffer = ReceiveBuffer()
    buffer.room()[:3] = b"one"
    kept = buffer.filled(3)[part]
    buffer.room()[:3] = b"two"
    assert kept[:3] == b"one"
