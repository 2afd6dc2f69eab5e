"""How a setting is written in JSON: tables of AMQP, as `parsers` has the other kinds.

What AMQP cannot carry is refused here.
"""

from __future__ import annotations

import json
import re
from math import isinf
from typing import TYPE_CHECKING, NoReturn

from bridge.settings.parsers import MAX_SHORTSTR_BYTES, is_utf8, quoted, validator

if TYPE_CHECKING:
    from pydantic import PlainValidator

STREAM_OFFSET = '[0-9]+|"(first|last|next|0*[1-9][0-9]*[YMDhms])"'
"""A consumer's `x-stream-offset` in JSON, which has no AMQP timestamp. The units are those of `x-max-age`."""
RESERVED_HEADERS = frozenset(
    {
        *("cc", "bcc", "x-death", "x-delivery-count", "x-acquired-count", "x-stream-offset", "x-exchange"),
        *("x-routing-key", "x-received-from", "x-shovelled", "x-shovelled-timestamp", "timestamp_in_ms", "x-routed-by"),
    }
)
"""Headers that RabbitMQ and its plugins write, or act upon when they are published, in lower case."""
RESERVED_PREFIXES = ("x-bridge-", "x-first-death-", "x-last-death-", "x-opt-")
"""How other headers begin that brokers, or the bridge itself, write."""
MOST_ADDED_BYTES = 3000
"""Of all headers to be added: they must fit into the smallest frame that AMQP allows, 4096 bytes, with some room."""


def table() -> PlainValidator:
    """AMQP arguments as a JSON object."""
    return validator(_parse_table, type=["object", "string"], pattern=r"^\s*\{")


def consumer_arguments() -> PlainValidator:
    """Arguments for a consumer, of which a stream's offset is known here: RabbitMQ may fail on a wrong one."""

    def parse(text: str) -> dict[str, object]:
        value = _parse_table(text)
        offset = value.get("x-stream-offset", 0)
        if not re.fullmatch(STREAM_OFFSET, json.dumps(offset)):
            raise ValueError(
                f'x-stream-offset is {quoted(offset)}; expected "first", "last", "next", a whole number from 0 on, or '
                'an interval, such as "7D" or "1h", in Y, M, D, h, m or s'
            )
        return value

    return validator(parse, type=["object", "string"], pattern=r"^\s*\{")


def _refuse_constant(number: str) -> NoReturn:
    raise ValueError(f"{number} has no place in JSON")


def parse_json(text: str, example: str) -> object:
    """Return a value from JSON that AMQP can carry. Raises ValueError with what is expected, such as the `example`."""
    faults = []

    def from_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            faults.append("a name twice in one object; expected each once")
        return found

    def from_digits(digits: str) -> float:
        number = float(digits)
        if isinf(number):
            faults.append("a number of more than 64 bits, which would be infinite; expected a smaller one")
        return number

    try:
        value: object = json.loads(
            text, parse_constant=_refuse_constant, parse_float=from_digits, object_pairs_hook=from_pairs
        )
        misfit = _misfit(value) or next(iter(faults), "")
    except (ValueError, RecursionError):
        raise ValueError(f"{quoted(text)} is not JSON; expected {example}") from None
    if misfit:
        raise ValueError(f"{quoted(text)} has {misfit}")
    return value


def _parse_table(text: str) -> dict[str, object]:
    value = parse_json(text, 'an object such as {"x-name": "value"}')
    if not isinstance(value, dict):
        # A ValueError, since pydantic takes no other for an answer.
        raise ValueError(f'{quoted(text)} is not a JSON object; expected one such as {{"x-name": "value"}}')  # noqa: TRY004
    return value


def headers() -> PlainValidator:
    """Headers as a JSON object of texts, whole numbers, booleans and null."""

    def parse(text: str) -> dict[str, object]:
        value = _parse_table(text)
        for name, each in value.items():
            if not name:
                raise ValueError(f"{quoted(text)} has a header without a name; expected a name")
            if name.lower() in RESERVED_HEADERS or name.lower().startswith(RESERVED_PREFIXES):
                raise ValueError(f"{quoted(name)} is a header that brokers or the bridge write; expected another name")
            if not isinstance(each, str | int | bool | None):
                # A ValueError, since pydantic takes no other for an answer.
                expected = "expected a text, a whole number, true, false or null"
                raise ValueError(f"{quoted(name)} is {quoted(each)}; {expected}")  # noqa: TRY004
        if (size := len(json.dumps(value, ensure_ascii=False).encode())) > MOST_ADDED_BYTES:
            raise ValueError(f"it has {size} bytes; expected at most {MOST_ADDED_BYTES}, to fit into any frame")
        return value

    return validator(parse, type=["object", "string"], pattern=r"^\s*\{")


def _misfit(value: object) -> str:
    """Return what of a value from JSON AMQP cannot carry, and what is expected; empty where it carries everything."""
    match value:
        case str() if not is_utf8(value):
            return "half a surrogate pair, which is no text; expected text"
        case int() if not -(2**63) <= value < 2**63:
            return "a number of more than 64 bits; expected a smaller one"
        case dict() if any(len(name.encode("utf-8", "surrogatepass")) > MAX_SHORTSTR_BYTES for name in value):
            return "a name of more than 255 bytes; expected shorter names"
        case dict():
            return _misfit([*value, *value.values()])
        case list():
            return next(filter(None, map(_misfit, value)), "")
        case _:
            return ""
