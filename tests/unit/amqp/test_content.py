"""Contents, read: properties and tables as they stand on the wire, and what else a message says of itself."""

from __future__ import annotations

from contextlib import suppress
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp import content
from bridge.errors import MalformedFrameError
from tests.support import frames
from tests.support.frames import BAD_TABLES, EVERY_PROPERTY, FIELD_TYPES, PERSISTENT, Properties, table, text

# --- Properties and tables -----------------------------------------------------------------------------------


def test_properties_come_apart_by_their_flags_and_together_again() -> None:
    header = frames.header(7, EVERY_PROPERTY | {"user_id": b"eve"})
    properties = content.split_properties(header)
    assert list(properties) == list(content.PROPERTY_FLAGS)
    assert properties[content.USER_ID] == b"\x03eve"
    assert content.join_properties(header, properties) == header


def test_the_fields_of_a_table_come_apart_whatever_their_types() -> None:
    expected = [(name.encode(), value) for name, value in FIELD_TYPES.items()]
    assert list(content.table_fields(table(FIELD_TYPES))) == expected


def test_fields_are_put_at_the_end_of_a_table_in_the_place_of_their_namesakes() -> None:
    before = table({"a": text("1"), "b": text("2")})
    assert content.table_with(before, {b"a": text("3")}) == table({"b": text("2"), "a": text("3")})


@pytest.mark.parametrize("bad", BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_cannot_be_read_is_malformed(bad: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="header table"):
        content.raw_fields(bad)


@pytest.mark.parametrize("flags", (0x0001, 0x0002, 0x8000, 0x4000, 0x2000, 0x1000, 0x0040, 0x0010, 0x3000))
def test_a_header_that_does_not_hold_what_its_flags_say_is_malformed(flags: int) -> None:
    with pytest.raises(MalformedFrameError):
        content.split_properties(frames.frame(2, 1, pack(">HHQH", 60, 0, 0, flags)))


@pytest.mark.parametrize("size", range(15))
def test_a_header_cut_short_is_malformed(size: int) -> None:
    whole = pack(">HHQH", 60, 0, 0, 0x1000) + b"\x02"
    with pytest.raises(MalformedFrameError):
        content.split_properties(frames.frame(2, 1, whole[:size]))


@given(flags=st.integers(0, 0xFFFF), rest=st.binary(max_size=60))
def test_whatever_a_header_holds_only_malformed_is_raised(flags: int, rest: bytes) -> None:
    raw = frames.frame(2, 1, pack(">HHQH", 60, 0, 0, flags) + rest)
    with suppress(MalformedFrameError):
        content.split_properties(raw)
    content.message_id(raw)


def test_a_name_and_a_text_as_they_stand_in_a_table() -> None:
    assert content.encode_field(b"k", content.long_string(b"text")) == b"\x01k" + text("text")


@pytest.mark.parametrize(("value", "number"), ((b"l" + pack(">q", -4), -4), (b"B\xff", 255), (text("4"), 0)))
def test_a_raw_value_as_a_whole_number(value: bytes, number: int) -> None:
    assert content.integer_of(value) == number


# --- Which message is which ----------------------------------------------------------------------------------


def whole(changes: Properties | None = None, body: bytes = b"the body", step: int = 1 << 20) -> bytes:
    return frames.content(body, EVERY_PROPERTY | (changes or {}), step=step)


def test_a_message_id_for_the_log() -> None:
    assert content.message_id(whole()) == "m-1"
    assert content.message_id(whole({"message_id": b"\xff"})) == "\ufffd"
    assert content.message_id(frames.content(b"body")) == ""
    assert content.message_id(frames.frame(2, 1, pack(">HHQH", 60, 0, 0, 0x1000))) == "", "cut short"


# --- Streams --------------------------------------------------------------------------------------------------

OFFSET = {"x-stream-offset": b"l" + pack(">q", 7_000_000_000)}


@pytest.mark.parametrize("before", ((), ("content_type",), ("content_encoding",), ("content_type", "content_encoding")))
def test_a_streams_offset_is_read_wherever_its_header_table_lies(before: tuple[str, ...]) -> None:
    properties = {name: EVERY_PROPERTY[name] for name in before} | {"headers": table({"k": b"V"} | OFFSET)}
    assert content.stream_offset(frames.content(b"body", properties)) == 7_000_000_000
    assert content.stream_offset(frames.content(b"", EVERY_PROPERTY | {"headers": table(OFFSET)})) == 7_000_000_000


MARK = frames.short("x-stream-offset") + OFFSET["x-stream-offset"]


@pytest.mark.parametrize(
    "other",
    (
        frames.content(b"body"),
        frames.content(b"body", EVERY_PROPERTY),
        frames.content(MARK, {"headers": table({"k": b"V"})}),
        frames.content(b"", {"message_id": MARK, "headers": table({})}),
        frames.content(b"", {"content_type": MARK}),
        frames.content(b"", {"headers": table({"k": text(MARK.decode("latin-1"))})}),
        frames.content(b"", {"headers": table({"k": b"F" + table(OFFSET)})}),
        frames.content(b"", {"headers": table({"x-stream-offset": text("next")})}),
        frames.content(b"", {"headers": table({"x-stream-offset": text("l")} | {"k": b"x" + pack(">I", 25) + MARK})}),
        frames.content(b"", {"headers": pack(">I", len(MARK) - 1) + MARK[:-1]}),
    ),
    ids=(
        *("no headers", "other headers", "the body", "another property", "a property before the table", "a text"),
        *("a nested table", "another type", "another type and a text", "a table that cannot be read"),
    ),
)
def test_what_only_looks_like_a_streams_offset_is_none(other: bytes) -> None:
    assert content.stream_offset(other) is None


# --- Frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", (0, 1, 91, 92, 93, 184, 1000))
@pytest.mark.parametrize("step", (7, 92, 1 << 20))
def test_a_body_is_cut_again_for_another_channel_and_a_smaller_frame_max(size: int, step: int) -> None:
    body = bytes(number % 251 for number in range(size))
    message = frames.content(body, EVERY_PROPERTY, step=step)
    assert content.reframe(message, 2, 100) == frames.content(body, EVERY_PROPERTY, channel=2, step=92)


def test_without_a_frame_max_the_body_is_one_frame() -> None:
    message = frames.content(b"x" * 100, step=10)
    assert content.reframe(message, 1, 0) == frames.content(b"x" * 100)
    assert content.reframe(frames.content(b""), 1, 0) == frames.content(b"")


def test_a_content_comes_apart_into_header_and_payloads() -> None:
    message = frames.content(b"abcdefgh", EVERY_PROPERTY, step=3)
    assert content.header_frame(message) == frames.header(8, EVERY_PROPERTY)
    assert content.header_frame_size(message) == len(frames.header(8, EVERY_PROPERTY))
    assert [bytes(payload) for payload in content.body_payloads(message)] == [b"abc", b"def", b"gh"]


def test_headers_are_set_where_there_were_none_and_replaced_where_there_were() -> None:
    reasons = {b"x-bridge-reason": text("poison")}
    expected = frames.content(b"body", PERSISTENT | {"headers": table({"x-bridge-reason": text("poison")})})
    assert content.with_headers(frames.content(b"body"), reasons) == expected
    before = PERSISTENT | {"headers": table({"x-bridge-reason": text("too-large"), "k": b"V"})}
    after = PERSISTENT | {"headers": table({"k": b"V", "x-bridge-reason": text("poison")})}
    assert content.with_headers(frames.content(b"body", before), reasons) == frames.content(b"body", after)


def test_an_expiration_is_taken_out_and_told() -> None:
    before = frames.content(b"body", EVERY_PROPERTY | {"expiration": b"60000"})
    after = frames.content(b"body", {name: value for name, value in EVERY_PROPERTY.items() if name != "expiration"})
    assert content.without_expiration(before) == (after, b"60000")
    assert content.without_expiration(after) == (after, b"")


# --- The time of publishing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "expected"),
    (
        (PERSISTENT, None),
        (EVERY_PROPERTY | {"timestamp": pack(">Q", 1_700_000_000)}, 1_700_000_000_000),
        (PERSISTENT | {"headers": table({"timestamp_in_ms": b"l" + pack(">q", 1_700_000_000_123)})}, 1_700_000_000_123),
        (PERSISTENT | {"headers": table({"timestamp_in_ms": text("soon")}), "timestamp": pack(">Q", 3)}, 3000),
        (PERSISTENT | {"headers": table({"other": text("\x0ftimestamp_in_ms")})}, None),
        (PERSISTENT | {"headers": table({"a": b"F" + table({"timestamp_in_ms": b"l" + pack(">q", 1)})})}, None),
    ),
    ids=("none", "property", "header", "a header that is no number", "a value of that name", "within a table"),
)
def test_when_a_message_was_published(properties: Properties, expected: int | None) -> None:
    assert content.timestamp_ms(frames.content(b"body", properties)) == expected


def test_a_header_that_cannot_be_read_tells_no_time() -> None:
    damaged = frames.content(b"", PERSISTENT | {"headers": frames.short("timestamp_in_ms").rjust(24, b"\0")})
    assert content.timestamp_ms(damaged) is None


def test_the_size_of_a_body_is_read_from_the_header() -> None:
    assert content.body_size(whole(body=b"12345")) == 5
