"""The effective settings as text: `amqp-bridge config`. Secrets are hidden."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bridge.settings.options import effective

if TYPE_CHECKING:
    from collections.abc import Collection

    from bridge.settings.settings import Settings


def as_json(settings: Settings, from_file: Collection[str]) -> str:
    """Return every setting for machines; `from_file` are the variables of the file."""
    return json.dumps(_entries(settings, from_file), indent=2) + "\n"


def as_table(settings: Settings, from_file: Collection[str]) -> str:
    """Return every setting for a terminal, a line each; `from_file` are the variables of the file."""
    entries = _entries(settings, from_file)
    names, values = (max(len(entry[column]) for entry in entries) for column in ("variable", "value"))
    return "".join(
        f"{entry['variable']:{names}}  {_visible(entry['value']):{values}}  {_origin(entry['origin'])}\n"
        for entry in entries
    )


def _entries(settings: Settings, from_file: Collection[str]) -> list[dict[str, str]]:
    return [
        entry._asdict() | ({"origin": "file"} if entry.origin == "environment" and entry.variable in from_file else {})
        for entry in effective(settings)
    ]


def _visible(value: str) -> str:
    """Return a value as one line that no terminal obeys: the environment may have been copied from anywhere."""
    return value if value.isprintable() else json.dumps(value)


def _origin(word: str) -> str:
    return "the source's" if word == "source" else word
