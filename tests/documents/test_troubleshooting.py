"""Whatever an operator may read at night has an entry in `config/README.md`: log lines, reasons, results, alerts."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bridge.observe.metrics import CONNECT_RESULTS, END_REASONS
from bridge.observe.status import SideStatus
from tests.documents.markdown import ROOT, anchors
from tests.programs.documents import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = OPERATIONS.read_text()
TROUBLESHOOTING = TEXT.partition("\n## Troubleshooting\n")[2].partition("\n## ")[0]
SPANS = re.findall(r"`([^`\n]+)`", TROUBLESHOOTING)
RULES = (ROOT / "config" / "prometheus-rules.yml").read_text()
TREES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "bridge").rglob("*.py"))}
HINDRANCES = {
    "hindrance",
    "hindrances",
    "_obstacles",
    "rejected",
    "unrouted",
    "stuck",
    "_refused",
    "refused",
    "without_route",
}
"""Functions that return reasons of `/readyz` and `/healthz`, or take one."""


def pattern(node: ast.expr) -> str:
    """Return a pattern of what an expression of text makes: literal parts, and anything where a value goes."""
    match node:
        case ast.Constant(value=str() as text):
            return ".+".join(re.escape(part) for part in re.split(r"%[sdrg]|%\.\d+f", text))
        case ast.JoinedStr(values=values):
            return "".join(pattern(value) if isinstance(value, ast.Constant) else ".+" for value in values)
        case _:
            return ".+"


def says_something(found: str) -> bool:
    """Whether there is more in a pattern than values."""
    return len(re.sub(r"\.\+|\W", "", found)) > len("source")


def constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The values of a module's constants by name."""
    assigned = (node for node in tree.body if isinstance(node, ast.Assign))
    return {target.id: node.value for node in assigned for target in node.targets if isinstance(target, ast.Name)}


def texts(node: ast.expr | None, named: dict[str, ast.expr]) -> Iterator[str]:
    """The texts that an expression may be, as patterns."""
    match node:
        case ast.Constant() | ast.JoinedStr():
            yield pattern(node)
        case ast.Name(id=name) if name in named:
            yield from texts(named[name], named)
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body, named)
            yield from texts(orelse, named)


def log_lines() -> Iterator[str]:
    """The lines that the bridge logs, as patterns."""
    for tree in TREES.values():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.args
            ):
                yield pattern(node.args[0])


def reasons() -> Iterator[str]:
    """The reasons of `/readyz` and `/healthz`, as patterns."""
    yield re.escape(SideStatus("source").reason)
    for tree in TREES.values():
        named = constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name in HINDRANCES:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return):
                        yield from texts(inner.value, named)
                    if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
                        yield from (pattern(a) for a in inner.args if inner.func.attr == "append")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in HINDRANCES:
                yield from (pattern(a) for a in node.args if isinstance(a, (ast.Constant, ast.JoinedStr)))


def entries(patterns: Iterator[str]) -> list[str]:
    return sorted({found for found in patterns if says_something(found)})


@pytest.mark.parametrize("line", entries(log_lines()))
def test_each_log_line_has_an_entry(line: str) -> None:
    assert any(re.fullmatch(line, span) for span in SPANS)


@pytest.mark.parametrize("reason", entries(reasons()))
def test_each_reason_of_readyz_has_an_entry(reason: str) -> None:
    assert any(re.search(reason, span) for span in SPANS)


@pytest.mark.parametrize("word", sorted({*CONNECT_RESULTS, *END_REASONS}))
def test_each_result_and_reason_of_a_generation_has_a_row(word: str) -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", TROUBLESHOOTING, re.MULTILINE)
    assert rows.count(word) == (word in CONNECT_RESULTS) + (word in END_REASONS)


@pytest.mark.parametrize("alert", re.findall(r"- alert: (\w+)", RULES))
def test_each_alert_leads_to_its_heading(alert: str) -> None:
    (anchor,) = (found for found in anchors(TEXT) if found == alert.lower())
    (rule,) = (rule for rule in RULES.split("- alert: ")[1:] if rule.startswith(f"{alert}\n"))
    path, _, fragment = re.findall(r"runbook_url: (\S+)", rule)[0].partition("#")
    assert (Path(ROOT, path), fragment) == (OPERATIONS, anchor)
