"""Contents made ready: what must change changes, and all else stays byte for byte."""

from __future__ import annotations

from contextlib import suppress
from struct import pack
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp import content, preparer
from bridge.amqp.additions import Additions, Scalar
from bridge.amqp.fields import read_table
from bridge.amqp.preparer import ContentPreparer, Counts, HeaderPolicy, Treatment
from bridge.errors import MalformedFrameError
from tests.support import frames
from tests.support.frames import BAD_TABLES, EVERY_PROPERTY, FIELD_TYPES, PERSISTENT, Properties, table, text

COUNTS = {"x-delivery-count": b"l" + pack(">q", 4), "x-acquired-count": b"l" + pack(">q", 5)}
CC = {"CC": b"A" + pack(">I", len(text("copies"))) + text("copies")}
BCC = {"BCC": text("copies")}
"""As a publisher with MQTT 5 or AMQP 1.0 can bring it: one with AMQP 0-9-1 is refused with 406."""


def header(properties: Properties) -> bytes:
    return frames.header(7, properties)


def published(properties: Properties, policy: HeaderPolicy | None = None) -> bytes:
    """The header frame that goes to the destination."""
    delivered = header(properties)
    prepared = ContentPreparer(policy or HeaderPolicy()).prepare(delivered)
    return delivered if prepared is None else prepared.header


# --- What stays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_PROPERTY)
def test_a_persistent_message_with_any_one_property_stays_as_it_is(name: str) -> None:
    delivered = header(PERSISTENT | {name: EVERY_PROPERTY[name]})
    assert ContentPreparer(HeaderPolicy()).prepare(delivered) is None


def test_a_persistent_message_with_every_property_stays_as_it_is() -> None:
    assert ContentPreparer(HeaderPolicy()).prepare(header(EVERY_PROPERTY)) is None


@pytest.mark.parametrize("name", EVERY_PROPERTY)
def test_a_property_stays_when_another_must_change(name: str) -> None:
    delivered = {name: EVERY_PROPERTY[name]} | {"delivery_mode": b"\x01"}
    assert published(delivered) == header(delivered | PERSISTENT)


@pytest.mark.parametrize("value", FIELD_TYPES.values(), ids=FIELD_TYPES)
def test_every_type_of_header_field_stays_when_another_field_must_go(value: bytes) -> None:
    fields = {"before": value, "x-delivery-count": b"l" + pack(">q", 1), "after": value}
    kept = {"before": value, "after": value}
    assert published(PERSISTENT | {"headers": table(fields)}) == header(PERSISTENT | {"headers": table(kept)})


def test_fields_of_one_name_and_their_order_stay() -> None:
    """Nothing forbids a name to stand twice in a table; a `dict` would lose one."""
    twice = frames.short("b") + b"V" + frames.short("a") + b"t\x01" + frames.short("b") + b"t\x00"
    added = frames.short("x-bridge-user-id") + text("eve")
    delivered = PERSISTENT | {"headers": pack(">I", len(twice)) + twice, "user_id": b"eve"}
    expected = PERSISTENT | {"headers": pack(">I", len(twice + added)) + twice + added}
    assert published(delivered) == header(expected)


def test_a_value_that_only_looks_like_a_count_stays() -> None:
    delivered = PERSISTENT | {
        "headers": table({"note": text("x-delivery-count"), "n": text("\x02CC"), "bcc": text("\x03BCC")})
    }
    assert published(delivered) == header(delivered)


# --- What changes (invariant 7) ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ({}, {"delivery_mode": b"\x01"}, {"delivery_mode": b"\x00"}))
def test_every_message_becomes_persistent(before: Properties) -> None:
    assert published({"type": b"t"} | before) == header({"type": b"t"} | PERSISTENT)


@pytest.mark.parametrize(
    ("treatment", "headers", "after"),
    (
        ("keep", None, {"user_id": b"eve"}),
        ("drop", None, {}),
        ("move", None, {"headers": table({"x-bridge-user-id": text("eve")})}),
        ("keep", {"k": b"V"}, {"user_id": b"eve", "headers": table({"k": b"V"})}),
        ("drop", {"k": b"V"}, {"headers": table({"k": b"V"})}),
        ("move", {"k": b"V"}, {"headers": table({"k": b"V", "x-bridge-user-id": text("eve")})}),
        # It has crossed a bridge before.
        (
            "move",
            {"x-bridge-user-id": text("bob"), "k": b"V"},
            {"headers": table({"k": b"V", "x-bridge-user-id": text("eve")})},
        ),
    ),
)
def test_a_foreign_user_id(treatment: Treatment, headers: dict[str, bytes] | None, after: Properties) -> None:
    delivered = PERSISTENT | {"user_id": b"eve"} | ({} if headers is None else {"headers": table(headers)})
    policy = HeaderPolicy(destination_user=b"bridge", user_id=treatment)
    assert published(delivered, policy) == header(PERSISTENT | after)


@pytest.mark.parametrize("treatment", ("keep", "drop", "move"))
def test_the_destinations_own_user_id_stays(treatment: Treatment) -> None:
    delivered = PERSISTENT | {"user_id": b"bridge"}
    assert published(delivered, HeaderPolicy(destination_user=b"bridge", user_id=treatment)) == header(delivered)


@pytest.mark.parametrize(
    ("treatment", "after"),
    (
        ("keep", CC | {"k": b"V"} | BCC),
        ("drop", {"k": b"V"}),
        ("move", {"x-bridge-cc": CC["CC"], "k": b"V", "x-bridge-bcc": BCC["BCC"]}),
    ),
)
def test_carbon_copies(treatment: Treatment, after: dict[str, bytes]) -> None:
    delivered = PERSISTENT | {"headers": table(CC | {"k": b"V"} | BCC)}
    assert published(delivered, HeaderPolicy(cc=treatment)) == header(PERSISTENT | {"headers": table(after)})


@pytest.mark.parametrize("name", ("CC", "BCC"))
@pytest.mark.parametrize("value", FIELD_TYPES.values(), ids=FIELD_TYPES)
def test_either_kind_of_copy_alone_and_of_any_type_moves(name: str, value: bytes) -> None:
    delivered = PERSISTENT | {"headers": table({name: value})}
    assert published(delivered) == header(PERSISTENT | {"headers": table({f"x-bridge-{name.lower()}": value})})


@pytest.mark.parametrize("name", (*preparer.COUNTS, *preparer.COPIES))
def test_none_of_the_fields_that_may_not_pass_is_overlooked(name: bytes) -> None:
    fields = {"a": text("b"), name.decode(): b"V", "c": text("d")}
    dropped = HeaderPolicy(cc="drop", delivery_count="drop")
    assert published(PERSISTENT | {"headers": table(fields)}, dropped) == header(
        PERSISTENT | {"headers": table({"a": text("b"), "c": text("d")})}
    )


@pytest.mark.parametrize("treatment", ("keep", "drop"))
def test_delivery_counts_are_read_and_dropped_or_kept(treatment: Literal["keep", "drop"]) -> None:
    delivered = header(PERSISTENT | {"headers": table({"k": b"V"} | COUNTS)})
    after = {"k": b"V"} | (COUNTS if treatment == "keep" else {})
    prepared = ContentPreparer(HeaderPolicy(delivery_count=treatment)).prepare(delivered)
    assert prepared == (header(PERSISTENT | {"headers": table(after)}), 4)


@pytest.mark.parametrize(
    ("value", "expected"),
    (
        (b"b\x07", 7),
        (b"B\xff", 255),
        (b"s" + pack(">h", 7), 7),
        (b"u" + pack(">H", 65535), 65535),
        (b"I" + pack(">i", -1), 0),
        (b"i" + pack(">I", 1 << 31), 1 << 31),
        (b"l" + pack(">q", -1), 0),
        (b"L" + pack(">Q", 1 << 63), 1 << 63),
        (text("7"), 0),
        (b"V", 0),
    ),
)
def test_a_delivery_count_of_any_type(value: bytes, expected: int) -> None:
    prepared = ContentPreparer(HeaderPolicy()).prepare(
        header(PERSISTENT | {"headers": table({"x-delivery-count": value})})
    )
    assert prepared is not None
    assert prepared.delivery_count == expected


@pytest.mark.parametrize(
    ("counts", "delivered", "acquired", "expected"),
    (
        *(("any", 5, None, 5), ("any", 25, 1, 1), ("any", None, 3, 0), ("acquired", 25, None, 0)),
        *(("acquired", 25, 2, 2), ("acquired", 2, 3, 2), ("none", 5, 5, 0)),
    ),
)
def test_a_count_that_is_not_the_queues_own_is_not_believed(
    counts: Counts, delivered: int | None, acquired: int | None, expected: int
) -> None:
    """An application or a shovel may have copied another queue's."""
    named = {"x-acquired-count": acquired, "x-delivery-count": delivered}
    fields = {name: b"l" + pack(">q", value) for name, value in named.items() if value is not None}
    preparer = ContentPreparer(HeaderPolicy())
    preparer.believe(counts)
    prepared = preparer.prepare(header(PERSISTENT | {"headers": table(fields)}))
    assert prepared is not None
    assert prepared.delivery_count == expected


def test_a_message_without_headers_has_none_after_its_counts_are_dropped() -> None:
    """RabbitMQ 3.10 gives each message of a quorum queue a header table for its count."""
    assert published(PERSISTENT | {"headers": table(COUNTS)}) == header(PERSISTENT)


def test_an_empty_header_table_stays() -> None:
    empty = {"headers": table({})}
    assert published(PERSISTENT | empty) == header(PERSISTENT | empty)
    assert published(empty) == header(PERSISTENT | empty)


def test_the_channel_and_the_body_size_stay() -> None:
    prepared = ContentPreparer(HeaderPolicy()).prepare(frames.header(1 << 40, {}, channel=9))
    assert prepared == (frames.header(1 << 40, PERSISTENT, channel=9), 0)


def test_tables_that_repeat_are_read_once_and_few_are_kept() -> None:
    preparer = ContentPreparer(HeaderPolicy())
    for number in range(3 * preparer.CACHE_SIZE):
        for _ in range(2):
            counts = table({"x-delivery-count": b"l" + pack(">q", number)})
            assert preparer.prepare(header(PERSISTENT | {"headers": counts})) == (header(PERSISTENT), number)
        assert len(preparer._tables) <= preparer.CACHE_SIZE
    large = {"large": text("x" * preparer.CACHED_BYTES)}
    kept = len(preparer._tables)
    assert preparer.prepare(header({"headers": table(large | COUNTS)})) == (
        header(PERSISTENT | {"headers": table(large)}),
        4,
    )
    assert len(preparer._tables) == kept


some_fields = st.dictionaries(
    st.sampled_from(("a", "b", "CC", "BCC", "x-delivery-count", "x-acquired-count", "x-bridge-user-id", "zé")),
    st.sampled_from(tuple(FIELD_TYPES.values())),
)
some_properties = st.dictionaries(st.sampled_from((*EVERY_PROPERTY, "user_id")), st.just(b"")).flatmap(
    lambda names: st.fixed_dictionaries(
        {
            name: {
                "headers": some_fields.map(table),
                "delivery_mode": st.sampled_from((b"\x01", b"\x02")),
                "user_id": st.sampled_from((b"eve", b"bridge")),
            }.get(name, st.just(EVERY_PROPERTY.get(name, b"")))
            for name in names
        }
    )
)
treatments = st.sampled_from(("move", "keep", "drop"))


@given(
    properties=some_properties,
    policy=st.builds(HeaderPolicy, st.just(b"bridge"), treatments, treatments, st.sampled_from(("drop", "keep"))),
)
def test_any_message_is_published_as_the_rules_say(properties: Properties, policy: HeaderPolicy) -> None:
    """The rules of invariant 7 once more, written plainly over names and values."""
    expected = properties | PERSISTENT
    fields = list(content.table_fields(properties.get("headers", table({}))))
    after = []
    for name, value in fields:
        if name in {b"x-delivery-count", b"x-acquired-count"} and policy.delivery_count == "drop":
            continue
        copies = name in {b"CC", b"BCC"}
        if copies and policy.cc == "drop":
            continue
        after.append((b"x-bridge-" + name.lower() if copies and policy.cc == "move" else name, value))
    has_headers = "headers" in properties and (after or not fields)
    if properties.get("user_id") == b"eve" and policy.user_id != "keep":
        del expected["user_id"]
        if policy.user_id == "move":
            after = [(n, v) for n, v in after if n != b"x-bridge-user-id"]
            after.append((b"x-bridge-user-id", text("eve")))
            has_headers = True
    expected.pop("headers", None)
    if has_headers:
        body = b"".join(frames.short(name) + value for name, value in after)
        expected["headers"] = pack(">I", len(body)) + body
    assert published(properties, policy) == header(expected)


# --- Malformed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_cannot_be_read_is_malformed(bad: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="header table"):
        published({"headers": bad})


@pytest.mark.parametrize("flags", (0x0001, 0x0002, 0x8000, 0x4000, 0x2000, 0x1000, 0x0040, 0x0010, 0x3000))
def test_a_header_that_does_not_hold_what_its_flags_say_is_malformed(flags: int) -> None:
    raw = frames.frame(2, 1, pack(">HHQH", 60, 0, 0, flags))
    with pytest.raises(MalformedFrameError):
        ContentPreparer(HeaderPolicy()).prepare(raw)


def test_headers_that_only_the_queue_added_go_also_where_more_has_to_change() -> None:
    counted = {"delivery_mode": b"\x01", "headers": table({"x-delivery-count": b"l" + pack(">q", 3)})}
    prepared = ContentPreparer(HeaderPolicy()).prepare(frames.header(0, counted))
    assert prepared is not None
    assert prepared == (frames.header(0, PERSISTENT), 3)


@pytest.mark.parametrize("size", range(15))
def test_a_header_cut_short_is_malformed(size: int) -> None:
    whole = pack(">HHQH", 60, 0, 0, 0x1000) + b"\x02"
    with pytest.raises(MalformedFrameError):
        ContentPreparer(HeaderPolicy()).prepare(frames.frame(2, 1, whole[:size]))


@given(flags=st.integers(0, 0xFFFF), rest=st.binary(max_size=60))
def test_whatever_a_header_holds_only_malformed_is_raised(flags: int, rest: bytes) -> None:
    raw = frames.frame(2, 1, pack(">HHQH", 60, 0, 0, flags) + rest)
    with suppress(MalformedFrameError):
        ContentPreparer(HeaderPolicy()).prepare(raw)


# --- Headers on request ------------------------------------------------------------------------------------------

ADDED: dict[str, Scalar] = {"site": "berlin", "shard": 7}
ADDITIONS = Additions.of(ADDED, "amqp://h/ sq")
ON_TOP: dict[str, object] = {**ADDED, "x-bridge-source": "amqp://h/ sq", "x-bridge-hops": 1}


def with_additions(properties: Properties, policy: HeaderPolicy | None = None) -> dict[int, bytes]:
    """Prepare a header with additions; return its properties, which must be whole."""
    preparer = ContentPreparer(policy or HeaderPolicy(additions=ADDITIONS))
    prepared = preparer.prepare(frames.header(0, properties))
    assert prepared is not None
    again = preparer.prepare(frames.header(0, properties))
    assert again == prepared, "what is kept of a table is the same"
    return content.split_properties(prepared.header)


def test_with_additions_no_header_frame_passes_unseen() -> None:
    unseen = ContentPreparer(HeaderPolicy(additions=ADDITIONS)).unseen_flags
    assert not any(flags & preparer.UNSEEN_MASK == unseen for flags in range(1 << 16))


@pytest.mark.parametrize("delivery_mode", (b"\x01", b"\x02", None))
@pytest.mark.parametrize("with_headers", (False, True))
def test_every_message_gets_the_additions_and_keeps_all_else(
    delivery_mode: bytes | None,
    with_headers: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    before = {name: value for name, value in EVERY_PROPERTY.items() if name not in {"headers", "delivery_mode"}}
    plain = before | ({} if delivery_mode is None else {"delivery_mode": delivery_mode})
    plain |= {"headers": table(FIELD_TYPES)} if with_headers else {}
    found = with_additions(plain)
    after = content.table_fields(found[content.HEADERS])
    kept = {name.decode(): value for name, value in after}
    assert list(kept)[-len(ON_TOP) :] == [*ON_TOP]
    assert {name: value for name, value in kept.items() if name not in ON_TOP} == (FIELD_TYPES if with_headers else {})
    assert found[content.DELIVERY_MODE] == b"\x02"
    expected = content.split_properties(frames.header(0, before | {"delivery_mode": b"\x02"}))
    assert {flag: value for flag, value in found.items() if flag != content.HEADERS} == expected


@pytest.mark.parametrize(
    ("headers", "after"),
    (
        ({"site": text("forged"), "a": b"V"}, {"a": None} | ON_TOP),
        ({"x-bridge-hops": b"l" + pack(">q", 2), "x-bridge-source": text("forged")}, ON_TOP | {"x-bridge-hops": 3}),
        ({"x-delivery-count": b"l" + pack(">q", 2)}, ON_TOP),
        ({"a": text("-count")}, {"a": "-count"} | ON_TOP),
        (CC, {"x-bridge-cc": ["copies"]} | ON_TOP),
        ({"note": text("\x04site")}, {"note": "\x04site"} | ON_TOP),
    ),
)
def test_additions_overwrite_what_a_message_carries_and_nothing_else(
    headers: dict[str, bytes], after: dict[str, object]
) -> None:
    found = with_additions(PERSISTENT | {"headers": table(headers)})
    assert read_table(found[content.HEADERS]) == after


def test_a_user_id_moves_beside_the_additions() -> None:
    found = with_additions(PERSISTENT | {"user_id": b"alice"})
    assert read_table(found[content.HEADERS]) == ON_TOP | {"x-bridge-user-id": "alice"}


def test_a_delivery_count_is_known_beside_the_additions() -> None:
    prepared = ContentPreparer(HeaderPolicy(additions=ADDITIONS)).prepare(
        frames.header(0, PERSISTENT | {"headers": table(COUNTS)})
    )
    assert prepared is not None
    assert prepared.delivery_count == 4
