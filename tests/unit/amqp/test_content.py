"""Contents: what must change changes, all else stays byte for byte, and one message is told from another."""

from __future__ import annotations

from contextlib import suppress
from struct import pack
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp import content
from bridge.amqp.additions import Additions, Scalar
from bridge.amqp.content import ContentPreparer, Counts, HeaderPolicy, Treatment
from bridge.amqp.fields import read_table
from bridge.errors import MalformedFrameError
from tests.support import frames
from tests.support.frames import PERSISTENT, Properties, table, text

FIELD_TYPES = {
    "boolean": b"t\x01",
    "int8": b"b\xff",
    "uint8": b"B\xff",
    "int16": b"s" + pack(">h", -2),
    "uint16": b"u" + pack(">H", 65535),
    "int32": b"I" + pack(">i", -3),
    "uint32": b"i" + pack(">I", 1 << 31),
    "int64": b"l" + pack(">q", -4),
    "uint64": b"L" + pack(">Q", 1 << 63),
    "float": b"f" + pack(">f", 0.1),
    "double": b"d" + pack(">d", float("nan")),
    "decimal": b"D" + pack(">BI", 2, 12345),
    "long string": text("text é"),
    "empty string": text(""),
    "byte array": b"x" + pack(">I", 3) + b"\0\xce\xff",
    "timestamp": b"T" + pack(">Q", 1_700_000_000),
    "void": b"V",
    "array": b"A" + pack(">I", 9) + b"t\x01" + text("a") + b"V",
    "table": b"F" + table({"nested": b"F" + table({"deep": b"l" + pack(">q", 1)}), "x": b"V"}),
}
"""Raw values of every field type that RabbitMQ reads."""

EVERY_PROPERTY: Properties = {
    "content_type": b"text/plain",
    "content_encoding": b"gzip",
    "headers": table(FIELD_TYPES),
    "delivery_mode": b"\x02",
    "priority": b"\x09",
    "correlation_id": b"correlation",
    "reply_to": b"amq.rabbitmq.reply-to",
    "expiration": b"60000",
    "message_id": b"m-1",
    "timestamp": pack(">Q", 1_700_000_000),
    "type": b"order",
    "app_id": b"app",
    "cluster_id": b"cluster",
}
"""All but `user_id`, which does not always stay."""

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


@pytest.mark.parametrize("name", (*content.COUNTS, *content.COPIES))
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

BAD_TABLES = {
    "a type that RabbitMQ does not know": table({"k": b"?\0\0\0\0"}),
    "a name that runs out": pack(">I", 2) + b"\x05k",
    "a name without a value": pack(">I", 2) + b"\x01k",
    "a fixed value that runs out": table({"k": b"l\0\0"}),
    "a long value without its length": table({"k": b"S\0"}),
    "a long value that runs out": table({"k": b"S" + pack(">I", 9) + b"short"}),
}


@pytest.mark.parametrize("bad", BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_cannot_be_read_is_malformed(bad: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="header table"):
        list(content.table_fields(bad))
    with pytest.raises(MalformedFrameError):
        published({"headers": bad})


@pytest.mark.parametrize("flags", (0x0001, 0x0002, 0x8000, 0x4000, 0x2000, 0x1000, 0x0040, 0x0010, 0x3000))
def test_a_header_that_does_not_hold_what_its_flags_say_is_malformed(flags: int) -> None:
    raw = frames.frame(2, 1, pack(">HHQH", 60, 0, 0, flags))
    with pytest.raises(MalformedFrameError):
        content.split_properties(raw)
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
    for read in (content.split_properties, ContentPreparer(HeaderPolicy()).prepare):
        with pytest.raises(MalformedFrameError):
            read(frames.frame(2, 1, whole[:size]))


@given(flags=st.integers(0, 0xFFFF), rest=st.binary(max_size=60))
def test_whatever_a_header_holds_only_malformed_is_raised(flags: int, rest: bytes) -> None:
    raw = frames.frame(2, 1, pack(">HHQH", 60, 0, 0, flags) + rest)
    with suppress(MalformedFrameError):
        ContentPreparer(HeaderPolicy()).prepare(raw)
    content.message_id(raw)


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
    assert not any(flags & content.UNSEEN_MASK == unseen for flags in range(1 << 16))


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
