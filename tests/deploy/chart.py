"""What the chart says of itself and of the service's settings, kept true by `python -m tests.deploy.chart`.

The README's table comes from the comments in `values.yaml`, the schema's list of settings from
`bridge.settings.settings`. The tests fail when either file is not what this would write.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from bridge.settings.settings import options
from tests.deploy.tools import CHART

if TYPE_CHECKING:
    from collections.abc import Iterator

README = CHART / "README.md"
SCHEMA = CHART / "values.schema.json"
VALUES = CHART / "values.yaml"

PREFIX = "BRIDGE_"
SECRETS = {"BRIDGE_SOURCE_PASSWORD": "source.password", "BRIDGE_DESTINATION_PASSWORD": "destination.password"}
"""Settings that have values of their own, since they belong in a Secret."""

_BEGIN = "<!-- values: written by `python -m tests.deploy.chart` -->\n"
_END = "<!-- end of values -->\n"


def value_name(variable: str) -> str:
    """Return the key in `settings` of an environment variable: sourceQueue for BRIDGE_SOURCE_QUEUE."""
    first, *others = variable.removeprefix(PREFIX).lower().split("_")
    return first + "".join(word.capitalize() for word in others)


def value_rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and comment of each value; a commented mapping is one value with all that is in it."""
    lines = text.splitlines()

    def comment(line: int) -> str:
        above: list[str] = []
        while line > 0 and lines[line - 1].lstrip().startswith("# "):
            line -= 1
            above.insert(0, lines[line].strip().removeprefix("# "))
            if above[0].startswith("-- "):
                return " ".join(above).removeprefix("-- ")
        return ""

    def walk(node: yaml.MappingNode, path: str) -> Iterator[tuple[str, str, str]]:
        for key, value in node.value:
            name, said = f"{path}{key.value}", comment(key.start_mark.line)
            if isinstance(value, yaml.MappingNode) and value.value and not said:
                yield from walk(value, f"{name}.")
            else:
                default = yaml.safe_load(yaml.serialize(value))
                yield name, json.dumps(default), said

    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    return walk(root, "")


def readme() -> str:
    """Return the chart's README with the table that the values' comments make."""
    head, _, rest = README.read_text().partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    rows = "".join(f"| `{key}` | `{default}` | {said} |\n" for key, default, said in value_rows(VALUES.read_text()))
    return f"{head}{_BEGIN}\n| value | default | |\n|---|---|---|\n{rows}\n{_END}{tail}"


def schema() -> str:
    """Return the chart's schema with the settings that the service has."""
    whole = json.loads(SCHEMA.read_text())
    whole["definitions"]["settings"]["properties"] = {
        value_name(setting.variable): {"description": setting.description, **_types(setting.variable)}
        for setting in options()
        if setting.variable not in SECRETS
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _types(variable: str) -> dict[str, Any]:
    """What YAML may say for a setting. The service checks the rest, with a better message than a schema's."""
    if variable.endswith("_URL"):
        return {"type": ["string", "array"], "items": {"type": "string"}}
    if variable == "BRIDGE_HTTP_PORT":
        return {"type": "integer", "minimum": 1, "maximum": 65535}
    if variable.endswith("_ARGUMENTS"):
        return {"type": ["string", "object"]}
    if re.search("_(TIMEOUT|MIN|MAX)$", variable):
        return {"type": ["string", "number"], "pattern": "^[0-9]+([.][0-9]+)?(ms|s|m|h)?$"}
    return {"type": ["string", "number", "boolean"]}


def main() -> None:
    """Write both files."""
    README.write_text(readme())
    SCHEMA.write_text(schema())


if __name__ == "__main__":
    main()
