"""The rooms of `bridge/`: imports go down only, the pure layers stay pure, and few know the AMQP library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "bridge"

LAYERS = ("amqp", "settings", "window", "relay", "observe", "connection", "check")
"""The folders from the bottom up: each imports only from itself and from those before it."""
BOTTOM = {"__init__", "errors", "words"}
"""Files beside the folders that every layer may import; all others there are on top and may import everything."""
PURE = {"amqp", "window", "relay"}
"""Bytes, events and numbers in, bytes and decisions out: time and chance are arguments."""
KNOWS_AMQP_LIBRARIES = {"connection", "check"}

IMPURE_LIBRARIES = {"asyncio", "datetime", "logging", "os", "random", "secrets", "selectors", "socket", "ssl"}
IMPURE_LIBRARIES |= {"subprocess", "threading", "time", "uvloop"}
AMQP_LIBRARIES = {"aio_pika", "aiormq", "pamqp"}

TREES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Each file's syntax tree, by its name below `bridge`."""

modules = pytest.mark.parametrize("module", TREES)
pure_modules = pytest.mark.parametrize("module", [name for name in TREES if name.split(".")[0] in PURE])


def imports(module: str) -> set[str]:
    """Full names of what a module imports, anywhere in it, for types only included."""
    found: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def libraries(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)}


def test_the_folders_are_the_layers() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(LAYERS)


@modules
def test_imports_go_down_only(module: str) -> None:
    layer = module.split(".", maxsplit=1)[0]
    own = {name.split(".")[1] for name in imports(module) if name.startswith("bridge.")}
    if layer in LAYERS:
        above = own - set(LAYERS[: LAYERS.index(layer) + 1]) - BOTTOM
    else:
        above = own - BOTTOM if layer in BOTTOM else set()
    assert not above, f"{module} must not import {above}"


@pytest.mark.parametrize("layer", LAYERS)
def test_within_a_layer_imports_have_no_cycle(layer: str) -> None:
    prefix = f"bridge.{layer}."
    waiting = {
        name: {found.removeprefix(prefix).split(".")[0] for found in imports(name) if found.startswith(prefix)}
        for name in TREES
        if name.startswith(f"{layer}.") and not name.endswith("__init__")
    }
    while free := [name for name, needs in waiting.items() if not needs]:
        for name in free:
            del waiting[name]
        done = {name.split(".")[1] for name in free}
        waiting = {name: needs - done for name, needs in waiting.items()}
    assert not waiting, "these import each other"


@pure_modules
def test_pure_layers_know_no_clock_no_chance_and_no_io(module: str) -> None:
    assert not libraries(module) & (IMPURE_LIBRARIES | AMQP_LIBRARIES)
    assert not {"open", "print", "input"} & {
        node.func.id
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


@modules
def test_only_the_control_plane_knows_the_amqp_library(module: str) -> None:
    assert module.split(".", maxsplit=1)[0] in KNOWS_AMQP_LIBRARIES or not libraries(module) & AMQP_LIBRARIES


@modules
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_says_where_to_begin(layer: str) -> None:
    assert "Begin with" in (ast.get_docstring(TREES[f"{layer}.__init__"]) or "")
