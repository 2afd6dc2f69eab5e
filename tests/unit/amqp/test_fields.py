"""A header table's values, read: each type that RabbitMQ knows, and what cannot be read."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.amqp.fields import DEEPEST, Value, headers, number, properties, raw, read_table, string
from bridge.errors import MalformedFrameError
from tests.support.frames import PERSISTENT, content, table, text


def array(*values: bytes) -> bytes:
    body = b"".join(values)
    return b"A" + pack(">I", len(body)) + body


@pytest.mark.parametrize(
    ("value", "read"),
    (
        (text("naïve"), "naïve"),
        (b"S" + pack(">I", 1) + b"\xff", "\udcff"),
        (b"x" + pack(">I", 2) + b"\0\1", b"\0\1"),
        (b"t\1", True),
        (b"t\0", False),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I" + pack(">i", -3), -3),
        (b"i" + pack(">I", 4), 4),
        (b"l" + pack(">q", -5), -5),
        (b"L" + pack(">Q", 1 << 63), 1 << 63),
        (b"T" + pack(">Q", 1_700_000_000), 1_700_000_000),
        (b"f" + pack(">f", 0.5), 0.5),
        (b"d" + pack(">d", 0.25), 0.25),
        (b"D\2" + pack(">i", 314), 3.14),
        (b"V", None),
        (b"F" + table({"k": text("v")}), {"k": "v"}),
        (array(text("a"), b"t\1", b"F" + table({"k": b"V"}), array()), ["a", True, {"k": None}, []]),
    ),
)
def test_every_type_is_read(value: bytes, read: Value) -> None:
    assert read_table(table({"name": value})) == {"name": read}


def test_what_is_not_utf_8_comes_back_as_it_was() -> None:
    (found,) = read_table(table({"name": b"S" + pack(">I", 2) + b"\xff\xfe"})).values()
    assert raw(str(found)) == b"\xff\xfe"


@pytest.mark.parametrize("broken", (b"A\0\0\0\2S\0", b"A\0\0\0\1Z", b"A\0\0\0\6S\0\0\0\2a", b"A\0\0\0\3I\0\0"))
def test_an_array_that_cannot_be_read_is_malformed(broken: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="array"):
        read_table(table({"name": broken}))


def test_tables_in_tables_end_somewhere() -> None:
    value = text("deep")
    for _ in range(DEEPEST):
        value = b"F" + table({"k": value})
    assert read_table(table({"k": value}))
    with pytest.raises(MalformedFrameError, match="in each other"):
        read_table(table({"k": array(b"F" + table({"k": value}))}))


def test_the_headers_of_a_message_are_read() -> None:
    message = content(b"body", PERSISTENT | {"headers": table({"k": text("v")}), "message_id": b"id"})
    assert headers(message) == {"k": "v"}
    assert headers(content(b"body")) == {}
    assert len(properties(message)) == 3


def test_what_is_of_another_type_is_none() -> None:
    found: dict[str, Value] = {"text": "t", "number": 1, "flag": True}
    assert (string(found, "text"), string(found, "number"), string(found, "missing")) == ("t", "", "")
    assert (number(found, "number"), number(found, "flag"), number(found, "text")) == (1, None, None)
