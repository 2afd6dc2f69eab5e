"""Two receipts held against each other, sans-I/O: what one drain moved, and what the next one took."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.drain.receipt import VERSION
from bridge.drain.request import WrongUseError
from bridge.observe.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

Document = dict[str, Any]
COMPARED = (("messages", "moved"), ("bytes", "bytes"), ("digest", "digest"))
"""What is compared, and the field of a receipt that has it."""


class Compared(NamedTuple):
    """One field of two receipts."""

    field: str
    first: str
    second: str

    @property
    def agrees(self) -> bool:
        """Whether both say the same."""
        return self.first == self.second


def read(name: str, text: str) -> Document:
    """Return a receipt. Raises `WrongUseError` for what is none."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    fields = {"version", "source", "destination", *(field for _, field in COMPARED)}
    if not isinstance(document, dict) or not fields <= document.keys():
        raise WrongUseError(f"{printable(name)} is no receipt of `amqp-bridge drain`")
    if document["version"] != VERSION:
        found = printable(str(document["version"]))
        raise WrongUseError(f"{printable(name)} is a receipt of version {found}, and this program reads {VERSION}")
    return document


def compare(first: Document, second: Document) -> list[Compared]:
    """Return what the first moved beside what the second took and moved on, field by field."""
    queues = [Compared("queue", _name(first, "destination"), _name(second, "source"))]
    return queues + [Compared(name, str(first[field]), str(second[field])) for name, field in COMPARED]


def _name(document: Document, end: str) -> str:
    found = document[end]
    return str(found.get("name", "")) if isinstance(found, dict) else ""


def remarks(second: Document) -> list[str]:
    """Return what explains a difference."""
    names: Mapping[str, str] = {
        "returned": "were returned to the queue by the second drain",
        "refused": "were refused by the second drain's destination",
        "suppressed": "came to the second drain again, and were not moved again",
        "left": "were left by the second drain",
    }
    found = ((second.get(name), what) for name, what in names.items())
    return [f"{count} messages {what}" for count, what in found if isinstance(count, int) and count]


def as_text(compared: list[Compared], explained: list[str]) -> str:
    """Return the comparison for people."""
    lines = [
        f"{'ok' if each.agrees else 'differs':8} {each.field:9} {printable(each.first)}"
        + ("" if each.agrees else f" != {printable(each.second)}")
        for each in compared
    ]
    agree = all(each.agrees for each in compared)
    lines += ["what the first moved is what the second took" if agree else "the receipts differ"]
    return "\n".join([*lines, *([] if agree else explained)]) + "\n"
