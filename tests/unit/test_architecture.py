"""The rooms of `bridge/`: imports go down only, the pure layers stay pure, and few know the AMQP library."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "bridge"

LAYERS = ("amqp", "settings", "window", "relay", "observe", "connection", "assembly", "check", "drain", "cli")
"""The folders, and the file that puts a bridge together, from the bottom up: each imports only from those before it."""
BOTTOM = {"__init__", "errors", "version", "words"}
"""Files beside the folders that every layer may import."""
FOLDERS = [layer for layer in LAYERS if layer != "assembly"]
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


def imports(tree: ast.AST) -> set[str]:
    """Full names of what a module imports, anywhere in it, for types only included; "." where it imports relatively."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {"." if node.level else f"{node.module}.{alias.name}" for alias in node.names}
    return found


def libraries(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imports(tree)}


def above(module: str, tree: ast.AST) -> set[str]:
    """What a module imports of the layers above its own."""
    layer = module.split(".", maxsplit=1)[0]
    own = {name.split(".")[1] for name in imports(tree) if name.startswith("bridge.")}
    if layer in LAYERS:
        return own - set(LAYERS[: LAYERS.index(layer) + 1]) - BOTTOM
    return own - BOTTOM if layer in BOTTOM else set()


def in_a_cycle(needs: dict[str, set[str]]) -> set[str]:
    """Those that need each other, of modules and what each of them imports."""
    while free := {name for name, others in needs.items() if not others}:
        needs = {name: others - free for name, others in needs.items() if name not in free}
    return set(needs)


def impurities(tree: ast.AST) -> set[str]:
    """What a module has of clocks, chance, I/O or the AMQP library."""
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return libraries(tree) & (IMPURE_LIBRARIES | AMQP_LIBRARIES) | calls & {"open", "print", "input"}


def knows_too_much(module: str, tree: ast.AST) -> bool:
    """Whether it knows the AMQP library and is no part of the control plane."""
    return module.split(".", maxsplit=1)[0] not in KNOWS_AMQP_LIBRARIES and bool(libraries(tree) & AMQP_LIBRARIES)


def classes(trees: dict[str, ast.Module]) -> Counter[str]:
    """How often each name is a class's; a leading underscore does not make another noun of it."""
    return Counter(
        node.name.lstrip("_") for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )


def test_the_folders_are_the_layers() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(FOLDERS)


@modules
def test_imports_go_down_only(module: str) -> None:
    assert "." not in imports(TREES[module]), f"{module} imports relatively"
    assert not (found := above(module, TREES[module])), f"{module} must not import {found}"


@pytest.mark.parametrize("layer", FOLDERS)
def test_within_a_layer_imports_have_no_cycle(layer: str) -> None:
    prefix = f"bridge.{layer}."
    needs = {
        name.split(".")[1]: {found.split(".")[2] for found in imports(tree) if found.startswith(prefix)}
        for name, tree in TREES.items()
        if name.startswith(f"{layer}.") and not name.endswith("__init__")
    }
    assert not in_a_cycle(needs), "these import each other"


@pure_modules
def test_pure_layers_know_no_clock_no_chance_and_no_io(module: str) -> None:
    assert not impurities(TREES[module])


@modules
def test_only_the_control_plane_knows_the_amqp_library(module: str) -> None:
    assert not knows_too_much(module, TREES[module])


def test_no_noun_names_two_classes() -> None:
    assert not [name for name, times in classes(TREES).items() if times > 1]


@modules
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("layer", FOLDERS)
def test_every_layer_says_where_to_begin(layer: str) -> None:
    assert "Begin with" in (ast.get_docstring(TREES[f"{layer}.__init__"]) or "")


# --- Each wall, broken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "statement"),
    (
        ("amqp.frames", "from bridge.window.books import Books"),
        ("window.window", "from bridge.relay.relay import Relay"),
        ("relay.relay", "import bridge.connection.tap"),
        ("observe.status", "from bridge.connection import supervisor"),
        ("settings.settings", "if TYPE_CHECKING:\n    from bridge.relay.queue import QueueType"),
        ("errors", "from bridge.amqp.frames import HEADER"),
    ),
)
def test_an_import_that_goes_up_is_seen(module: str, statement: str) -> None:
    assert above(module, ast.parse(statement))


def test_a_relative_import_is_seen() -> None:
    assert imports(ast.parse("from . import books")) == {"."}


def test_modules_that_import_each_other_are_seen() -> None:
    assert in_a_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    "statement",
    ("import asyncio", "from time import monotonic", "import random", "open('f')", "print()", "import aiormq"),
)
def test_what_is_impure_is_seen(statement: str) -> None:
    assert impurities(ast.parse(f"def f():\n    {statement}"))


@pytest.mark.parametrize("module", ("cli", "observe.http", "settings.sides", "relay.relay"))
def test_the_amqp_library_where_it_does_not_belong_is_seen(module: str) -> None:
    assert knows_too_much(module, ast.parse("from aio_pika.abc import AbstractChannel"))
    assert not knows_too_much("connection.link", ast.parse("import aio_pika"))


def test_a_noun_for_two_classes_is_seen() -> None:
    assert classes({"a": ast.parse("class Side: pass"), "b": ast.parse("class _Side: pass")})["Side"] == 2
