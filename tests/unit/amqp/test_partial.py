"""A partial content: complete with its last byte, never larger than announced, and collected or ignored as told."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.frames import BASIC_DELIVER, BASIC_RETURN, method_frame
from bridge.amqp.partial import PartialContent
from bridge.errors import MalformedFrameError
from tests.support.frames import PERSISTENT, header

if TYPE_CHECKING:
    from typing_extensions import Buffer


def partial(size: int, method: int = BASIC_DELIVER, *, dropped: bool = False) -> PartialContent:
    """One whose header has come."""
    found = PartialContent(1, method_frame(1, method, b""), dropped=dropped)
    found.begin(header(size, PERSISTENT))
    return found


def test_it_is_complete_with_its_header_and_the_last_byte_of_its_body() -> None:
    found = PartialContent(1, method_frame(1, BASIC_DELIVER, b""), dropped=False)
    assert not found.complete
    found.begin(header(5, PERSISTENT))
    assert (found.complete, found.body_size, found.body_left) == (False, 5, 5)
    found.add_body(b"frame one", 2)
    assert (found.complete, found.body_left) == (False, 3)
    found.add_body(b"frame two", 3)
    assert found.complete
    assert found.frames == [b"frame one", b"frame two"]
    assert partial(0).complete


def test_it_knows_which_method_brings_it() -> None:
    assert not partial(1).is_return
    assert partial(1, BASIC_RETURN).is_return


def test_more_than_was_announced_is_malformed() -> None:
    with pytest.raises(MalformedFrameError, match="a body with 2 bytes more than its header announced"):
        partial(3).add_body(b"frame", 5)


def test_of_one_that_nobody_needs_only_the_size_is_followed() -> None:
    found = partial(5, dropped=True)
    found.add_body(b"frame", 5)
    assert found.complete
    assert not found.frames
    ignored = partial(5)
    ignored.ignore_body()
    ignored.add_body(b"frame", 5)
    assert (ignored.complete, ignored.frames) == (True, [])


def test_a_large_one_is_collected_and_handed_over_once() -> None:
    found = partial(10)
    found.collect(b"prepared", 3, BytesIO())
    found.add_body(b" begun", 10)
    found.add_piece(b" ended")
    assert (found.take_collected(), found.delivery_count, found.frames) == (b"prepared begun ended", 3, [])
    assert found.buffer is None


class Full(BytesIO):
    """A buffer that memory has no room for, but for the header."""

    def write(self, data: Buffer) -> int:
        """Refuse a second piece."""
        if self.tell():
            raise MemoryError
        return super().write(data)


def test_one_that_memory_has_no_room_for_is_dropped_and_followed_to_its_end() -> None:
    found = partial(10)
    found.collect(b"prepared", 0, Full())
    found.add_body(b"begun", 10)
    found.add_piece(b"ended")
    assert (found.dropped, found.unfit_bytes, found.buffer, found.complete) == (True, 10, None, True)
