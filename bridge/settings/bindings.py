"""Bindings of the source queue: which exchanges bring messages to it, and which of their messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from bridge.settings import parsers, tables

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = {"exchange": str, "routing_key": str, "arguments": dict}
FAULTS: dict[str, Callable[[str], str]] = {
    "exchange": parsers.exchange_fault,
    "routing_key": partial(parsers.short_string_fault, what="a key"),
}
EXAMPLE = '[{"exchange": "orders", "routing_key": "order.#"}]'


@dataclass(frozen=True, slots=True)
class Binding:
    """One binding."""

    exchange: str
    routing_key: str = ""
    arguments: dict[str, object] = field(default_factory=dict)

    @property
    def as_json(self) -> dict[str, object]:
        """As it could be set."""
        shown: dict[str, object] = {"exchange": self.exchange, "routing_key": self.routing_key}
        return shown | ({"arguments": self.arguments} if self.arguments else {})


def parse(text: str) -> tuple[Binding, ...]:
    """Return the bindings of a JSON array of objects. Raises ValueError."""
    value = tables.parse_json(text, EXAMPLE)
    if not isinstance(value, list):
        raise ValueError(f"{parsers.quoted(text)} is not a JSON array; expected one such as {EXAMPLE}")  # noqa: TRY004 - as the other parsers
    return tuple(_binding(number, each) for number, each in enumerate(value, 1))


def _binding(number: int, value: Any) -> Binding:  # noqa: ANN401 - from JSON
    which = f"binding {number}"
    if not isinstance(value, dict) or not value.get("exchange"):
        raise ValueError(f"{which} names no exchange; expected one such as {EXAMPLE}")
    for name, given in value.items():
        if name not in FIELDS:
            raise ValueError(f'{which} has "{name}"; expected exchange, routing_key and arguments alone')
        if not isinstance(given, FIELDS[name]):
            kind = "an object" if FIELDS[name] is dict else "a text"
            raise ValueError(f'{which} has a "{name}" that is not {kind}; expected {kind}')  # noqa: TRY004 - likewise
    for name, fault_of in FAULTS.items():
        if fault := fault_of(value.get(name, "")):
            raise ValueError(f'{which} has a "{name}" that {fault}')
    return Binding(**value)
