"""What the chart says of itself and of the service's settings, kept true by `python -m tests.deploy.chart`.

The README's tables come from the comments in `values.yaml` and from the alerting rules, the schema's settings from
`bridge.settings.settings`, and `files/` holds copies of what `config/` has: a chart that is copied or packaged alone is
whole. The tests fail when a file is not what this would write.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from bridge.settings.settings import Settings, variable
from tests.deploy.tools import CHART, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

README = CHART / "README.md"
SCHEMA = CHART / "values.schema.json"
VALUES = CHART / "values.yaml"
RULES = ROOT / "config" / "prometheus-rules.yml"
DASHBOARD = ROOT / "config" / "grafana-dashboard.json"
THRESHOLD = re.compile(r" > ([0-9.]+)$")
"""How the expression of an alert ends whose threshold is a value of the chart."""

PREFIX = "BRIDGE_"
SECRETS = {"BRIDGE_SOURCE_PASSWORD": "source.password", "BRIDGE_DESTINATION_PASSWORD": "destination.password"}
"""Settings that have values of their own, since they belong in a Secret."""


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
    """Return the chart's README with its tables of now."""
    values = "".join(f"| `{key}` | `{default}` | {said} |\n" for key, default, said in value_rows(VALUES.read_text()))
    rows = "".join(map(_alert_row, alerts()))
    tables = {
        "values": f"| value | default | |\n|---|---|---|\n{values}",
        "alerts": f"| alert | severity | `for` | `threshold` |\n|---|---|---|---|\n{rows}",
    }
    text = README.read_text()
    for name, table in tables.items():
        head, mark, rest = text.partition(f"<!-- {name}: written by `python -m tests.deploy.chart` -->\n")
        _, end, tail = rest.partition("<!-- end -->\n")
        assert mark, name
        assert end, name
        text = f"{head}{mark}\n{table}\n{end}{tail}"
    return text


def _alert_row(rule: dict[str, Any]) -> str:
    threshold = THRESHOLD.search(rule["expr"])
    cells = (rule["alert"], rule["labels"]["severity"], rule.get("for", ""), threshold[1] if threshold else "")
    return "| " + " | ".join(f"`{cell}`" if cell else "" for cell in cells) + " |\n"


def schema() -> str:
    """Return the chart's schema with the settings that the service has, and the alerts of its rules."""
    whole = json.loads(SCHEMA.read_text())
    whole["definitions"]["settings"]["properties"] = {
        value_name(name): _accepted(name, accepted) for name, accepted in _schemas().items()
    }
    whole["properties"]["monitoring"]["properties"]["prometheusRule"]["properties"]["alerts"]["properties"] = {
        rule["alert"]: {"$ref": f"#/definitions/{'threshold' if THRESHOLD.search(rule['expr']) else 'alert'}"}
        for rule in alerts()
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def ranges() -> str:
    """Return what the chart's templates check of a setting, since a JSON schema cannot, or cannot say well."""
    found: dict[str, dict[str, Any]] = {}
    for variable_name, accepted in _schemas().items():
        name = value_name(variable_name)
        if "anyOf" in accepted:
            found[name] = {"unit": "number or 0", **accepted["anyOf"][1]}
        elif "x-unit" in accepted:
            found[name] = {"unit": accepted["x-unit"], **{key: accepted[key] for key in ("minimum", "maximum")}}
        elif "object" in accepted.get("type", ""):
            found[name] = {"unit": "table"}
        elif "array" in accepted.get("type", ""):
            found[name] = {"unit": "bindings"}
        elif "maxLength" in accepted:
            found[name] = {"unit": "name", "nonAsciiBytes": accepted.get("x-non-ascii-bytes", accepted["maxLength"])}
        elif variable_name in BROKER_URLS:
            found[name] = {"unit": "urls"}
        elif "pattern" in accepted and variable_name.endswith(tuple(OAUTH_UNITS)):
            unit = next(unit for ending, unit in OAUTH_UNITS.items() if variable_name.endswith(ending))
            found[name] = {"unit": unit, "pattern": accepted["pattern"]}
    return json.dumps(found, indent=2) + "\n"


def alerts() -> list[dict[str, Any]]:
    """Return the alerts among the rules, as they stand in the file."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def _schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each setting that is a value, by its variable."""
    properties = Settings.model_json_schema(mode="validation")["properties"]
    found = {variable(field): accepted for field, accepted in properties.items()}
    return {name: accepted for name, accepted in found.items() if name not in SECRETS}


def _accepted(variable_name: str, accepted: dict[str, Any]) -> dict[str, Any]:
    """Return what YAML may hold for a setting: what the service accepts as text, in YAML's own types."""
    chosen = {key: accepted[key] for key in ("description", *_ASSERTIONS) if key in accepted}
    if "anyOf" in accepted:
        chosen |= {"minimum": 0, "maximum": accepted["anyOf"][1]["maximum"]}
    if variable_name in BROKER_URLS:
        chosen |= {"type": ["string", "array"], "items": {"type": "string"}}
    if variable_name == "BRIDGE_HTTP_PORT":
        chosen["minimum"] = 1  # a probe must know the port
    # Null unsets what `defaults` have set.
    if "enum" in chosen:
        return chosen | {"enum": [*chosen["enum"], None]}
    types = [chosen["type"]] if isinstance(chosen["type"], str) else chosen["type"]
    return chosen | {"type": [*types, "null"]}


BROKER_URLS = {"BRIDGE_SOURCE_URL", "BRIDGE_DESTINATION_URL"}
"""Settings that may be lists."""
OAUTH_UNITS = {"_OAUTH_TOKEN_URL": "token url", "_OAUTH_SCOPE": "scope"}
"""By how their variables end, settings that the templates hold to the service's own patterns."""
_ASSERTIONS = ("type", "enum", "minimum", "maximum", "maxLength")
"""Without `pattern`: no operator can act on "does not match"; the templates say what is expected."""


def written() -> dict[Path, str]:
    """Return the text of every file that this program writes."""
    return {
        README: readme(),
        SCHEMA: schema(),
        CHART / "files" / "settings.json": ranges(),
        CHART / "files" / RULES.name: RULES.read_text(),
        CHART / "files" / DASHBOARD.name: DASHBOARD.read_text(),
    }


def main() -> None:
    """Write them."""
    for path, text in written().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
