"""Headers on request: their bytes, what they overwrite, and how hops are counted."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.amqp.additions import HOPS, SOURCE_BYTES, Additions, Scalar, encode_scalar, hops_of
from bridge.amqp.content import MOST_INTEGER
from bridge.amqp.fields import read_table
from bridge.errors import MalformedFrameError
from tests.support.frames import PERSISTENT, content, table, text

HEADERS: dict[str, Scalar] = {"site": "bérlin", "shard": -7, "test": False, "live": True, "none": None}


def hops(number: int) -> bytes:
    return b"l" + pack(">q", number)


def decoded(body: bytes) -> dict[str, object]:
    return dict(read_table(len(body).to_bytes(4, "big") + body))


@pytest.mark.parametrize(
    ("value", "raw"),
    (
        ("é", text("é")),
        ("", text("")),
        (-1, b"l" + pack(">q", -1)),
        ((1 << 63) - 1, b"l" + pack(">q", (1 << 63) - 1)),
        (True, b"t\x01"),
        (False, b"t\x00"),
        (None, b"V"),
    ),
)
def test_a_value_is_written_in_the_type_that_it_has_in_json(value: str | int | None, raw: bytes) -> None:
    assert encode_scalar(value) == raw


def test_nothing_is_added_unless_asked_for() -> None:
    assert Additions.of({}) is None


def test_what_is_added_can_be_read() -> None:
    additions = Additions.of(HEADERS, "amqp://h/ orders")
    assert additions is not None
    assert decoded(additions.after(0)) == HEADERS | {"x-bridge-source": "amqp://h/ orders", "x-bridge-hops": 1}
    assert additions.names == {*(name.encode() for name in HEADERS), b"x-bridge-source", HOPS}
    assert b"\x04site" in additions.marks


def test_without_a_source_no_hops_are_counted() -> None:
    additions = Additions.of({"a": 1})
    assert additions is not None
    assert decoded(additions.added_to([(HOPS, hops(3)), (b"a", b"V")])) == {"x-bridge-hops": 3, "a": 1}


def test_a_long_name_of_the_source_is_cut_between_two_characters() -> None:
    additions = Additions.of({}, "é" * SOURCE_BYTES)
    assert additions is not None
    assert decoded(additions.after(0))["x-bridge-source"] == "é" * (SOURCE_BYTES // 2)


@pytest.mark.parametrize(
    ("found", "after"),
    (
        ((), 1),
        ((hops(0),), 1),
        ((hops(4),), 5),
        ((hops(4), hops(2)), 5),
        ((b"I" + pack(">i", 4),), 5),
        ((hops(-9),), 1),
        ((hops(MOST_INTEGER),), MOST_INTEGER),
        ((text("many"),), 1),
    ),
)
def test_a_message_has_passed_one_bridge_more_than_it_says(found: tuple[bytes, ...], after: int) -> None:
    additions = Additions.of({"a": 1}, "s")
    assert additions is not None
    body = additions.added_to([*((HOPS, value) for value in found), (b"k", b"V"), (b"a", b"t\0")])
    assert decoded(body) == {"k": None, "a": 1, "x-bridge-source": "s", "x-bridge-hops": after}
    assert body.count(HOPS) == 1


@pytest.mark.parametrize(
    ("headers", "passed"),
    (
        ({}, 0),
        ({"x-bridge-hops": hops(3)}, 3),
        ({"note": text("\x0dx-bridge-hops")}, 0),
        ({"x-bridge-hops": text("3")}, 0),
    ),
)
def test_the_hops_of_a_message_stand_at_the_top_level_of_its_headers(headers: dict[str, bytes], passed: int) -> None:
    assert hops_of(content(b"\x0dx-bridge-hopsl", PERSISTENT | {"headers": table(headers)})) == passed
    assert hops_of(content(b"x", PERSISTENT)) == 0


def test_headers_that_cannot_be_read_are_an_error() -> None:
    with pytest.raises(MalformedFrameError):
        hops_of(content(b"", PERSISTENT | {"headers": table({"x-bridge-hops": b"?"})}))
