"""The rooms of `bridge/`: imports go one way, the pure modules stay pure, and few know the AMQP library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import coverage_by_file

PACKAGE = Path(__file__).parent.parent / "bridge"
MODULES = {path.stem: path for path in PACKAGE.glob("*.py")}

ORDER = (
    *("__init__", "errors", "books", "content", "frames", "events", "wire", "memory"),
    *("settlement", "publishes", "blame", "pace", "aside", "window"),
    *("consumer", "quarantine", "relay", "watchdog", "backoff"),
    *("status", "values", "side", "settings", "conflicts", "environment", "log", "metrics", "http"),
    *("diagnosis", "tap", "session", "keeper", "supervisor", "inquiry", "inspection", "check", "cli", "__main__"),
)
"""Each module imports only from those before it."""

PURE = set(ORDER[1 : ORDER.index("status")])
"""Bytes, events and numbers in, bytes and decisions out: time and chance are arguments."""
IMPURE_LIBRARIES = {"asyncio", "datetime", "logging", "os", "random", "secrets", "selectors", "socket", "ssl"}
IMPURE_LIBRARIES |= {"subprocess", "threading", "time", "uvloop"}
AMQP_LIBRARIES = {"aio_pika", "aiormq", "pamqp"}
KNOW_AMQP_LIBRARIES = {"tap", "session", "diagnosis", "inquiry"}

modules = pytest.mark.parametrize("module", sorted(MODULES))


def imports(module: str) -> set[str]:
    """Full names of what a module imports, anywhere in it, for types only included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def libraries(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)}


def test_every_module_has_its_place() -> None:
    assert set(ORDER) == set(MODULES)


@modules
def test_imports_go_one_way(module: str) -> None:
    own = {name.split(".")[1] for name in imports(module) if name.startswith("bridge.")}
    before = set(ORDER[: ORDER.index(module)])
    assert own <= before, f"{module} must not import {own - before}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_know_no_clock_no_chance_and_no_io(module: str) -> None:
    assert not libraries(module) & (IMPURE_LIBRARIES | AMQP_LIBRARIES)
    assert not {"open", "print", "input"} & {
        node.func.id
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@modules
def test_only_the_control_plane_knows_the_amqp_library(module: str) -> None:
    assert module in KNOW_AMQP_LIBRARIES or not libraries(module) & AMQP_LIBRARIES


@modules
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


def test_the_pure_modules_are_those_that_are_covered_file_by_file() -> None:
    """What only holds numbers has no branch to cover."""
    assert set(coverage_by_file.MODULES) == PURE - {"errors", "books", "events"}
