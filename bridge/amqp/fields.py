"""A header table's values, read, sans-I/O: for what a message says of itself, such as where it was dead-lettered.

What is forwarded is never decoded; a drain looks into the headers of the messages that it may move.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from bridge.amqp.content import header_frame, split_properties, table_fields, table_place
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value = str | bytes | int | float | bool | list["Value"] | dict[str, "Value"] | None
"""What a field holds; a timestamp is a number of seconds."""

DEEPEST = 32
"""Tables and arrays may stand in each other so deep: whoever writes deeper ones means no good."""

_u32, _f32, _f64 = Struct(">I"), Struct(">f"), Struct(">d")
_SIZES = {
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"lLdT", 8),
    ord("D"): 5,
    ord("V"): 0,
}


def _double(data: bytes) -> Value:
    (value,) = _f64.unpack(data)
    return float(value)


def _single(data: bytes) -> Value:
    (value,) = _f32.unpack(data)
    return float(value)


def _signed(data: bytes) -> Value:
    return int.from_bytes(data, "big", signed=True)


def _unsigned(data: bytes) -> Value:
    return int.from_bytes(data, "big")


def _decimal(data: bytes) -> Value:
    return int.from_bytes(data[1:], "big", signed=True) / 10.0 ** data[0]


_SCALARS: dict[int, Callable[[bytes], Value]] = {
    **dict.fromkeys(b"bsIl", _signed),
    **dict.fromkeys(b"BuiLT", _unsigned),
    ord("S"): lambda data: text(data[4:]),
    ord("x"): lambda data: data[4:],
    ord("t"): lambda data: data != b"\0",
    ord("d"): _double,
    ord("f"): _single,
    ord("D"): _decimal,
    ord("V"): lambda _: None,
}
"""Readers by type octet, as RabbitMQ reads them (its errata to AMQP 0-9-1, section 3)."""


def headers(content: bytes) -> dict[str, Value]:
    """Return the headers of a message; empty where it has none. Raises `MalformedFrameError`."""
    start, stop = table_place(content)
    return read_table(content[start:stop]) if stop > start else {}


def properties(content: bytes) -> dict[int, bytes]:
    """Return the raw properties of a message. Raises `MalformedFrameError` for what cannot be read."""
    return split_properties(header_frame(content))


def read_table(table: bytes, depth: int = 0) -> dict[str, Value]:
    """Return a table, its length first; of a name that stands twice the last. Raises `MalformedFrameError`."""
    return {text(name): _read(value, depth) for name, value in table_fields(table)}


def text(value: bytes) -> str:
    """Return a text; what is not UTF-8 in it comes back as it was by `raw`."""
    return value.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    """Return the bytes that `text` was made of."""
    return value.encode("utf-8", "surrogateescape")


def _read(value: bytes, depth: int) -> Value:
    """Return a raw value, its type octet first, which fits its type."""
    kind, data = value[0], value[1:]
    if kind in _SCALARS:
        return _SCALARS[kind](data)
    if depth >= DEEPEST:
        raise MalformedFrameError(f"headers with more than {DEEPEST} tables in each other")
    return read_table(data, depth + 1) if kind == ord("F") else _read_array(data[4:], depth + 1)


def _read_array(data: bytes, depth: int) -> list[Value]:
    found: list[Value] = []
    position = 0
    while position < len(data):
        kind = data[position]
        if kind in _SIZES:
            stop = position + 1 + _SIZES[kind]
        elif kind in b"SAFx" and position + 5 <= len(data):
            stop = position + 5 + _u32.unpack_from(data, position + 1)[0]
        else:
            break
        if stop > len(data):
            break
        found.append(_read(data[position:stop], depth))
        position = stop
    if position != len(data):
        raise MalformedFrameError(f"an array that cannot be read at byte {position} of {len(data)}")
    return found


def string(table: Mapping[str, Value], name: str) -> str:
    """Return a text of a table; empty where there is none."""
    value = table.get(name)
    return value if isinstance(value, str) else ""


def number(table: Mapping[str, Value], name: str) -> int | None:
    """Return a whole number of a table; None where there is none."""
    value = table.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
