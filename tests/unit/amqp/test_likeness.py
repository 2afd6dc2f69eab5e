"""Likeness: whatever a broker is known to change, the message that came back is among those that it may be about."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp.likeness import required, traits, unchanged
from bridge.amqp.pieces import LARGE_BYTES
from tests.support import frames
from tests.support.frames import PERSISTENT, Properties, short, table, text

BIG = pack(">Q", 1 << 63)
FIELDS = {"zone": text("eu"), "n": b"I" + pack(">i", 7), "at": b"T" + pack(">Q", 1_700_000_000)}
PUBLISHED: Properties = PERSISTENT | {
    "content_type": b"text/plain",
    "headers": table(FIELDS),
    "priority": b"\x09",
    "correlation_id": b"correlation",
    "expiration": b"60000",
    "message_id": b"m-1",
    "timestamp": pack(">Q", 1_600_000_000),
    "type": b"order",
    "app_id": b"app",
}


def content(changes: Properties | None = None, body: bytes = b"the body", step: int = 1 << 20) -> bytes:
    return frames.content(body, PUBLISHED | (changes or {}), step=step)


def with_fields(*fields: tuple[str, bytes]) -> bytes:
    """A message with these headers, of which a name may stand twice."""
    body = b"".join(short(name) + value for name, value in fields)
    return content({"headers": pack(">I", len(body)) + body})


def may_have_become(published: bytes, returned: bytes) -> bool:
    return unchanged(published) == unchanged(returned) and required(published) <= traits(returned)


NESTED = b"F" + table({"deep": b"L" + BIG, "flag": b"t\x05", "z": b"V"})
CHANGES = {
    "nothing": (content(), content()),
    "the cut of the body": (content(), content(step=3)),
    "the order of the headers": (content(), content({"headers": table(dict(sorted(FIELDS.items())))})),
    "an interceptor's headers": (
        content(),
        content({"headers": table(FIELDS | {"timestamp_in_ms": b"l" + BIG, "x-routed-by": text("node")})}),
    ),
    "an interceptor's headers, overwritten": (
        with_fields(("timestamp_in_ms", b"l" + pack(">q", 1)), ("x-routed-by", text("before"))),
        with_fields(("timestamp_in_ms", b"l" + pack(">q", 2)), ("x-routed-by", text("after"))),
    ),
    "an interceptor's timestamp": (content(), content({"timestamp": pack(">Q", 1_700_000_000)})),
    "a timestamp that was not there": (
        frames.content(b"", {"message_id": b"m"}),
        frames.content(b"", {"message_id": b"m", "timestamp": pack(">Q", 1_700_000_000)}),
    ),
    "headers that were not there": (
        frames.content(b"", {"message_id": b"m"}),
        frames.content(b"", {"message_id": b"m", "headers": table({"added": text("by a plugin")})}),
    ),
    "a long that is unsigned": (with_fields(("n", b"L" + BIG)), with_fields(("n", b"l" + BIG))),
    "a boolean that is neither 0 nor 1": (with_fields(("flag", b"t\x05")), with_fields(("flag", b"t\x01"))),
    "what is nested": (
        with_fields(("nested", NESTED)),
        with_fields(("nested", b"F" + table({"deep": b"l" + BIG, "flag": b"t\x01", "z": b"V"}))),
    ),
    "the first of two headers of a name": (
        with_fields(("twice", text("1")), ("k", b"V"), ("twice", text("2"))),
        with_fields(("k", b"V"), ("twice", text("1"))),
    ),
    "the last of two headers of a name": (
        with_fields(("twice", text("1")), ("k", b"V"), ("twice", text("2"))),
        with_fields(("k", b"V"), ("twice", text("2"))),
    ),
    "blind copies": (with_fields(("BCC", NESTED), ("k", b"V")), with_fields(("k", b"V"))),
    "leading zeros of the expiration": (content({"expiration": b"00060000"}), content()),
    "an expiration of nothing but zeros": (content({"expiration": b"000"}), content({"expiration": b"0"})),
}
"""What was published, and what came back of it."""


@pytest.mark.parametrize(("published", "returned"), CHANGES.values(), ids=CHANGES)
def test_a_message_may_have_become_what_brokers_make_of_it(published: bytes, returned: bytes) -> None:
    assert may_have_become(published, returned)


OTHERS = {
    "another body": content(body=b"another!"),
    "another id": content({"message_id": b"m-2"}),
    "another property": content({"type": b"other"}),
    "a property in another's place": content({"type": b"app", "app_id": b"order"}),
    "another expiration": content({"expiration": b"600000"}),
    "another header": content({"headers": table({**FIELDS, "zone": text("us")})}),
    "another boolean": with_fields(("flag", b"t\x00")),
    "one header more": content({"headers": table({**FIELDS, "x-retry": text("1")})}),
    "a name in another case": content({"headers": table({"bcc": NESTED})}),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_message_has_not_become_it(other: bytes) -> None:
    """It has something that the returned one has not."""
    returned = content() if other != OTHERS["another boolean"] else with_fields(("flag", b"t\x01"))
    assert not may_have_become(other, returned)


def test_a_message_that_has_less_may_have_become_it() -> None:
    """Brokers add headers, and which ones a plugin's interceptor adds, nobody knows."""
    assert may_have_become(content(), content({"headers": table({**FIELDS, "x-retry": text("1")})}))


def test_a_message_that_cannot_be_read_may_have_become_anything_that_cannot() -> None:
    unreadable_table = content({"headers": pack(">I", 3) + b"\x01k?"})
    unreadable = frames.frame(2, 1, pack(">HHQH", 60, 0, 0, 0x8000) + b"\xffshort")
    assert required(unreadable_table) == required(unreadable) == traits(unreadable) == frozenset()
    assert unchanged(unreadable_table) == unchanged(content())
    assert unchanged(unreadable) is None


values = st.sampled_from((text("a"), text("b"), b"V", b"t\x05", b"t\x00", b"L" + BIG, b"I" + pack(">i", 1), NESTED))
names = st.sampled_from(("a", "b", "c", "BCC", "timestamp_in_ms"))


@given(fields=st.lists(st.tuples(names, values), max_size=6), added=st.dictionaries(st.text("xyz", max_size=2), values))
def test_whatever_a_broker_with_interceptors_makes_of_headers_is_recognised(
    fields: list[tuple[str, bytes]], added: dict[str, bytes]
) -> None:
    first: dict[str, bytes] = {}
    for name, value in fields:
        normal = {b"t\x05": b"t\x01", b"L" + BIG: b"l" + BIG}.get(value, value)
        first.setdefault(name, normal)
    first.pop("BCC", None)
    returned = {**{name: value for name, value in added.items() if name not in first}, **first}
    if "timestamp_in_ms" in first:
        returned["timestamp_in_ms"] = b"l" + BIG
    assert may_have_become(with_fields(*fields), with_fields(*sorted(returned.items())))


def test_of_a_large_body_only_the_size_counts() -> None:
    """What is returned of it is its header alone: to keep the rest would take its size once more."""
    body = b"x" * LARGE_BYTES
    assert may_have_become(content(body=body), frames.header(LARGE_BYTES, PUBLISHED))
    assert not may_have_become(content(body=body + b"x"), frames.header(LARGE_BYTES, PUBLISHED))
    assert not may_have_become(content(body=body), frames.header(LARGE_BYTES, PUBLISHED | {"message_id": b"m-2"}))
