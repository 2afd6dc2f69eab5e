"""What fits into a frame: which of the bridge's headers give way, and in which order."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.amqp.content import header_frame_size
from bridge.amqp.fitting import Fitted, clipped, fit, fit_content
from bridge.errors import MalformedFrameError
from tests.support.frames import PERSISTENT, content, header, table, text

REASON, CODE, WHY = b"x-bridge-reason", b"x-bridge-reply-code", b"x-bridge-reply-text"
ADDITIONS = {REASON: text("poison"), CODE: b"I" + pack(">I", 406), WHY: text("because")}
MOVED = {"x-bridge-cc": text("c"), "x-bridge-bcc": text("b"), "x-bridge-user-id": text("alice")}


def with_fields(fields: dict[str, bytes], size: int = 1) -> bytes:
    return header(size, PERSISTENT | ({"headers": table(fields)} if fields else {}))


def named(additions: dict[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in additions.items()}


@pytest.mark.parametrize(
    ("most", "expected"), ((9, "grün"), (5, "grün"), (4, "grü"), (3, "gr"), (2, "gr"), (0, "")), ids=str
)
def test_a_text_is_cut_between_two_characters(most: int, expected: str) -> None:
    assert clipped("grün".encode(), most) == expected.encode()


@pytest.mark.parametrize("frame_max", (0, 131_072))
def test_all_is_added_where_there_is_room(frame_max: int) -> None:
    expected = with_fields({"own": b"V"} | named(ADDITIONS))
    assert fit(with_fields({"own": b"V"}), frame_max, ADDITIONS) == Fitted(expected, 0)
    assert fit(with_fields({}), len(with_fields(named(ADDITIONS))), ADDITIONS) == Fitted(
        with_fields(named(ADDITIONS)), 0
    )


def test_what_has_the_name_of_an_addition_gives_place_to_it() -> None:
    before = with_fields({"x-bridge-reason": text("of another time"), "own": b"V"})
    assert fit(before, 0, ADDITIONS) == Fitted(with_fields({"own": b"V"} | named(ADDITIONS)), 0)


def test_a_text_that_may_be_shortened_is_cut_and_then_left_out() -> None:
    whole = len(with_fields(named(ADDITIONS)))
    for less in range(1, 7):
        expected = with_fields(named(ADDITIONS | {WHY: text("because"[: 7 - less])}))
        assert fit(with_fields({}), whole - less, ADDITIONS, shortened=WHY) == Fitted(expected, 0)
    expected = with_fields(named({REASON: ADDITIONS[REASON], CODE: ADDITIONS[CODE]}))
    assert fit(with_fields({}), whole - 7, ADDITIONS, shortened=WHY) == Fitted(expected, 1)
    assert fit(with_fields({}), whole - 1, ADDITIONS) == Fitted(expected, 1), "none may be shortened"


def test_the_least_useful_gives_way_first_and_then_what_was_moved() -> None:
    own = {"own": b"V"}
    names = ["x-bridge-user-id", "x-bridge-bcc", "x-bridge-cc", *(name.decode() for name in ADDITIONS)]
    fields = MOVED | named(ADDITIONS)
    for number in range(len(names) + 1):
        kept = {name: fields[name] for name in [*MOVED, *named(ADDITIONS)] if name in names[:number]}
        expected = with_fields(own | kept)
        assert fit(with_fields(own | MOVED), len(expected), ADDITIONS) == Fitted(expected, len(names) - number)
    assert fit(with_fields(own | MOVED), len(with_fields(own)) - 1, ADDITIONS) is None


def test_what_is_dispensable_gives_way_before_all_else() -> None:
    before = with_fields({"site": text("berlin")} | MOVED)
    without = with_fields(MOVED | named(ADDITIONS))
    assert fit(before, len(without), ADDITIONS, dispensable=[b"site"]) == Fitted(without, 1)
    others = {name: value for name, value in ADDITIONS.items() if name != WHY}
    kept = with_fields({"site": text("berlin")} | MOVED | named(others))
    assert fit(before, len(without), ADDITIONS) == Fitted(kept, 1)


def test_no_table_is_left_where_nothing_is_in_it() -> None:
    bare = with_fields({})
    assert fit(bare, len(bare), ADDITIONS) == Fitted(bare, 3)
    assert fit(bare, len(bare) - 1, ADDITIONS) is None


def test_a_content_is_made_to_fit_without_what_was_moved_and_its_body_stays() -> None:
    before = content(b"body", PERSISTENT | {"headers": table({"own": b"V", "x-bridge-user-id": text("alice")})})
    after = content(b"body", PERSISTENT | {"headers": table({"own": b"V"})})
    assert fit_content(before, header_frame_size(before)) == (before, 0)
    assert fit_content(before, header_frame_size(before) - 1) == (after, 1)
    assert fit_content(before, header_frame_size(after) - 1) is None


def test_a_table_that_cannot_be_read_raises() -> None:
    with pytest.raises(MalformedFrameError):
        fit(with_fields({"own": b"?"}), 0)
