"""Identity: what a source may change between two deliveries of one message does not matter, all else does."""

from __future__ import annotations

from contextlib import suppress
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp.content import raw_fields
from bridge.amqp.identity import IDENTITY_BYTES, has_identity, identity
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.errors import MalformedFrameError
from tests.support import frames
from tests.support.frames import PERSISTENT, Properties, table, text

ROUTE = frames.short("ex") + frames.short("key")
FIELDS = {"zone": text("eu"), "x-retry": b"I" + pack(">i", 0), "at": b"T" + pack(">Q", 1_700_000_000), "none": b"V"}
PROPERTIES: Properties = frames.EVERY_PROPERTY | {"headers": table(FIELDS), "user_id": b"eve"}
COUNTS = {"x-delivery-count": b"l" + pack(">q", 4), "x-acquired-count": b"l" + pack(">q", 5)}


def known(properties: Properties | None = None, body: bytes = b"the body", *, step: int = 1 << 20) -> bytes | None:
    """The identity of a message with all properties but those that are changed."""
    return identity(ROUTE, frames.content(body, PROPERTIES | (properties or {}), step=step))


def with_fields(fields: dict[str, bytes]) -> bytes | None:
    return known({"headers": table(fields)})


# --- What the source may change --------------------------------------------------------------------------------


def test_the_counts_that_a_quorum_queue_adds_do_not_matter_wherever_they_stand() -> None:
    sorted_by_broker = dict(sorted((FIELDS | COUNTS).items()))
    assert {with_fields(FIELDS | COUNTS), with_fields(COUNTS | FIELDS), with_fields(sorted_by_broker)} == {known()}


def test_the_order_of_the_headers_does_not_matter() -> None:
    assert with_fields(dict(sorted(FIELDS.items()))) == with_fields(dict(reversed(FIELDS.items()))) == known()


def test_a_table_that_is_there_only_by_what_the_queue_added_does_not_matter() -> None:
    bare = {name: value for name, value in PROPERTIES.items() if name != "headers"}
    identities = {
        identity(ROUTE, frames.content(b"body", properties))
        for properties in (bare, bare | {"headers": table({})}, bare | {"headers": table(COUNTS)})
    }
    assert len(identities) == 1


@pytest.mark.parametrize("body", (b"", b"x", b"the body", bytes(range(256)), bytes(range(256)) * 8))
def test_how_the_body_is_cut_into_frames_does_not_matter(body: bytes) -> None:
    assert len({known(body=body, step=step) for step in (1, 3, 4, 7, 100, 1000, 1 << 20)}) == 1


def test_a_digest_is_small_whatever_the_message_holds() -> None:
    large = known({"headers": table({"x-death": text("d" * 15_000)})}, b"x" * 3_000_000)
    assert large is not None
    assert len(large) == IDENTITY_BYTES


# --- What tells messages apart ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PROPERTIES.keys() - {"headers"}))
def test_every_property_matters(name: str) -> None:
    changed = PROPERTIES | {name: PROPERTIES[name][:-1] + b"\x07"}
    absent = {key: value for key, value in PROPERTIES.items() if key != name}
    assert len({identity(ROUTE, frames.content(b"body", p)) for p in (PROPERTIES, changed, absent)}) == 3


@pytest.mark.parametrize("name", FIELDS)
def test_every_header_matters(name: str) -> None:
    others = {key: value for key, value in FIELDS.items() if key != name}
    renamed = others | {name + "2": FIELDS[name]}
    retyped = others | {name: b"t\1"}
    assert len({known(), *map(with_fields, (others, renamed, retyped))}) == 4


def test_a_retry_under_the_same_id_is_another_message() -> None:
    """An application counts it in a header, a broker that dead-letters it in `x-death`."""
    deaths = [{"x-death": b"A" + pack(">IcI", 5, b"I", times)} for times in (1, 2)]
    retried = FIELDS | {"x-retry": b"I" + pack(">i", 1)}
    assert len({known(), with_fields(retried), *(with_fields(FIELDS | death) for death in deaths)}) == 4


def test_a_header_that_stands_twice_is_not_taken_for_one() -> None:
    once, twice = (n * (frames.short("a") + b"V") for n in (1, 2))
    assert known({"headers": pack(">I", len(once)) + once}) != known({"headers": pack(">I", len(twice)) + twice})


def test_the_route_matters() -> None:
    message = frames.content(b"body", PROPERTIES)
    routes = [frames.short(exchange) + frames.short(key) for exchange, key in (("", "q"), ("q", ""), ("ex", "key"))]
    assert len({identity(route, message) for route in routes}) == 3


@pytest.mark.parametrize("step", (4, 1 << 20))
def test_the_body_matters(step: int) -> None:
    bodies = (b"", b"one", b"two", b"onetwo", b"one" * 9, b"one" * 8 + b"two", b"two" + b"one" * 8)
    assert len({known(body=body, step=step) for body in bodies}) == len(bodies)


def test_a_property_is_not_taken_for_another() -> None:
    others: tuple[Properties, ...] = (
        {"message_id": b"m", "type": b"t"},
        {"message_id": b"m", "app_id": b"t"},
        {"message_id": b"m", "content_type": b"t"},
        {"message_id": b"m", "headers": table({"t": b"V"})},
    )
    assert len({identity(ROUTE, frames.content(b"", properties)) for properties in others}) == len(others)


def test_a_message_without_an_id_has_no_identity() -> None:
    nameless = frames.content(b"body", {"correlation_id": b"m", "headers": table({})})
    assert not has_identity(nameless)
    assert identity(ROUTE, nameless) is None
    assert has_identity(frames.content(b"", {"message_id": b""}))


# --- What cannot be read ---------------------------------------------------------------------------------------


def test_a_header_table_that_cannot_be_read_has_an_identity_too() -> None:
    one, other = ({"headers": pack(">I", 4) + b"\x01k" + kind + b"x"} for kind in (b"!", b"?"))
    assert len({known(one), known(other), known()}) == 3


@given(flags=st.integers(0, 0xFFFF), rest=st.binary(max_size=60))
def test_what_can_be_published_can_be_identified(flags: int, rest: bytes) -> None:
    """The memory works it out when a generation has ended: that is no time to find a header malformed."""
    raw = frames.frame(2, 1, pack(">HHQH", 60, 0, 0, flags) + rest)
    with suppress(MalformedFrameError):
        prepared = ContentPreparer(HeaderPolicy()).prepare(raw)
        message = raw if prepared is None else prepared.header
        assert (identity(ROUTE, message) is not None) == has_identity(message)


texts = st.text(alphabet="ab", max_size=2).map(str.encode)


@given(
    messages=st.lists(
        st.fixed_dictionaries(
            {"message_id": texts},
            optional={
                **dict.fromkeys(("content_type", "correlation_id", "expiration", "type", "app_id"), texts),
                "headers": st.dictionaries(texts.map(bytes.decode), texts.map(lambda t: text(t.decode()))).map(table),
            },
        ),
        min_size=2,
        max_size=2,
    ),
    bodies=st.lists(st.binary(max_size=2), min_size=2, max_size=2),
)
def test_two_messages_have_one_identity_only_if_they_agree_in_everything(
    messages: list[Properties], bodies: list[bytes]
) -> None:
    one, other = (identity(ROUTE, frames.content(b, PERSISTENT | m)) for m, b in zip(messages, bodies, strict=True))
    rest = [m | {"headers": b""} for m in messages]
    fields = [sorted(raw_fields(m["headers"])) if "headers" in m else [] for m in messages]
    assert (one == other) == (rest[0] == rest[1] and fields[0] == fields[1] and bodies[0] == bodies[1])
