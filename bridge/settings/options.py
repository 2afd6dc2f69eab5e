"""Every setting as a row: what it is called, its default, what is said about it, and its value in effect.

`--help`, the documents, `config/bridge.env` and the chart are made from or checked against these rows.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any, Literal, NamedTuple

from bridge.settings import bindings
from bridge.settings.settings import Settings, variable


class Option(NamedTuple):
    """One setting, for help texts and tables."""

    variable: str
    default: str
    """As shown to users; empty where not set is the default."""
    default_is_value: bool
    """Whether the variable could be set to it; otherwise it is a description."""
    description: str
    secret: bool


def options() -> list[Option]:
    """Return every setting, in the order in which they are explained."""
    found = []
    for name, field in Settings.model_fields.items():
        extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        shown = str(extra.get("shown", _shown(field.default)))
        found.append(
            Option(
                variable(name),
                shown,
                field.default is not None,
                field.description or "",
                bool(extra.get("secret", False)),
            )
        )
    return found


def settings_help() -> str:
    """Return every setting as text for a terminal."""
    lines = []
    for option in options():
        lines.append(f"  {option.variable}" + (f"  [{option.default}]" if option.default else ""))
        lines += textwrap.wrap(option.description, 92, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


class Effective(NamedTuple):
    """What a setting is in effect, and by whose word."""

    variable: str
    value: str
    """In the form in which it could be set; empty where nothing is; secrets hidden."""
    origin: Literal["environment", "default", "source"]
    """`source`: the destination's is the source's."""


def effective(settings: Settings) -> list[Effective]:
    """Return every setting's effective value."""
    found = []
    for field in Settings.model_fields:
        used = settings.field_used(field)
        origin: Literal["environment", "default", "source"] = "default"
        if used in settings.model_fields_set:
            origin = "environment" if used == field else "source"
        if field in {"source_url", "destination_url"}:
            side = settings.source if field == "source_url" else settings.destination
            value = ",".join(side.safe_urls)
        elif field == "quarantine_queue":
            value = settings.quarantine_queue_name
        else:
            value = _shown(getattr(settings, used))
        found.append(Effective(variable(field), value, origin))
    return found


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool() | dict():
            return json.dumps(value)
        case tuple() if value and isinstance(value[0], bindings.Binding):
            return json.dumps([each.as_json for each in value])
        case tuple():
            return ",".join(map(str, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)
