"""Large contents in pieces: whole frames, together what one write would have been."""

from __future__ import annotations

import pytest

from bridge.amqp.pieces import PIECE_BYTES, Pieces
from tests.support import frames
from tests.support.frames import PERSISTENT, content

BODY = bytes(range(251)) * 4000
"""Nearly 1 MB, and nothing in it repeats at a frame's distance."""
STEP = 100_000


def taken(pieces: Pieces) -> list[bytes]:
    """All pieces; what is left becomes less with each."""
    found: list[bytes] = []
    left_bytes = pieces.left_bytes
    while piece := pieces.take():
        assert pieces.left_bytes < left_bytes
        left_bytes = pieces.left_bytes
        found.append(bytes(piece))
    assert left_bytes == 0
    return found


def whole_frames(raw: bytes) -> bool:
    """Whether the bytes are frames and nothing else."""
    position = 0
    while position < len(raw):
        position += 8 + int.from_bytes(raw[position + 3 : position + 7], "big")
        assert raw[position - 1] == 0xCE
    return position == len(raw)


def test_a_content_that_can_stay_as_it_is_is_cut_between_frames_and_not_copied() -> None:
    message = content(BODY, step=STEP)
    pieces = Pieces(message, 1)
    assert isinstance(pieces.take(), memoryview)
    found = taken(Pieces(message, 1))
    assert b"".join(found) == message
    assert all(map(whole_frames, found))
    assert {len(piece) // PIECE_BYTES for piece in found[:-1]} == {1}, "some 256 KiB each"


@pytest.mark.parametrize(("channel", "frame_max"), ((2, 0), (2, STEP + 8), (1, 4096), (2, 1 << 20)))
def test_frames_are_made_anew_for_another_channel_or_a_smaller_size(channel: int, frame_max: int) -> None:
    found = taken(Pieces(content(BODY, step=STEP), channel, frame_max))
    assert all(map(whole_frames, found))
    room = min(STEP, frame_max - 8) if frame_max else STEP
    steps = [BODY[start : start + STEP] for start in range(0, len(BODY), STEP)]
    expected = [frames.header(len(BODY), PERSISTENT, channel)]
    expected += [frames.frame(3, channel, s[at : at + room]) for s in steps for at in range(0, len(s), room)]
    assert b"".join(found) == b"".join(expected)


def test_a_frame_without_bounds_is_cut_as_well() -> None:
    """The source may have agreed on none."""
    found = taken(Pieces(content(BODY), 1, 4096))
    assert all(map(whole_frames, found))
    assert len(found) == 4


def test_another_header_takes_the_place_of_the_contents_own() -> None:
    message = content(BODY, step=STEP)
    header = frames.header(len(BODY), PERSISTENT | {"message_id": b"m-1"})
    expected = content(BODY, PERSISTENT | {"message_id": b"m-1"}, channel=2, step=STEP)
    assert b"".join(taken(Pieces(message, 2, STEP + 8, header=header))) == expected
