"""Walls hold for attributes as they do for imports: nobody changes what is another object's; no query changes anything.

What an object is made of is changed by its own methods alone, named for what has happened; lists are handed over by
swap. The tests walk the syntax trees; a local name for another object's list counts as that list.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.unit.test_architecture import PACKAGE, TREES, modules

if TYPE_CHECKING:
    from pathlib import Path

MUTATORS = {
    *("add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "insert"),
    *("intersection_update", "pop", "popitem", "popleft", "remove", "reverse", "setdefault", "sort"),
    *("symmetric_difference_update", "update"),
}
"""Methods by which a list, a deque, a set or a dict changes."""
WRITES_ALLOWED = {
    "books": "plain numbers, which everybody counts in who has something to count (see `window/books`)",
    "root.handlers": "the root logger belongs to the process, and this is where the process sets it up",
    "threading.excepthook": "Python's way to say what is done about what ends a thread",
    "sys.stdout": "Python's way to put a stream in the place of one that was closed when it started",
    "sys.stderr": "the same",
    "context.verify_flags": "the ssl library's way to set an option of a context",
    "context.check_hostname": "the same",
    "context.verify_mode": "the same",
}
"""Attributes of another object that may be written to, and why."""
CACHES = {"ContentPreparer._table": "keeps what it has read, so that the next message with that table finds it"}
"""Queries that keep what they have worked out, which nobody can tell from outside."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_own(node: ast.expr) -> bool:
    """Whether it is an attribute of `self` or `cls`, or an entry of one."""
    node = without_index(node)
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def without_index(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def changed(node: ast.AST) -> list[ast.expr]:
    """What a statement assigns to or deletes, or a call changes in place."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            found = targets
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            found = [target]
        case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in MUTATORS:
            return [value]
        case _:
            return []
    flat = [each for one in found for each in (one.elts if isinstance(one, ast.Tuple | ast.List) else [one])]
    # To give a name another value changes nobody.
    return [each for each in flat if not isinstance(each, ast.Name)]


def local_names(function: Function) -> dict[str, ast.expr]:
    """Local names for attributes of other objects, as in `held = source.held`."""
    names: dict[str, ast.expr] = {}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = [*zip(target.elts, node.value.elts, strict=True)]
            for name, value in pairs:
                if isinstance(name, ast.Name) and isinstance(value, ast.Attribute) and not is_own(value):
                    names[name.id] = value
    return names


def foreign_writes(tree: ast.AST) -> set[str]:
    """What of other objects is changed within, as source text."""
    found: set[str] = set()
    for function in ast.walk(tree):
        if not isinstance(function, Function):
            continue
        names = local_names(function)
        for node in ast.walk(function):
            for target in map(without_index, changed(node)):
                what = names.get(target.id) if isinstance(target, ast.Name) else target
                if isinstance(what, ast.Attribute) and not is_own(what):
                    found.add(ast.unparse(what))
    return found


def exemption(write: str) -> str | None:
    return next((each for each in WRITES_ALLOWED if write == each or each in write.split(".")[:-1]), None)


@modules
def test_nobody_changes_what_is_another_objects(module: str) -> None:
    writes = {write for write in foreign_writes(TREES[module]) if exemption(write) is None}
    assert not writes, f"{module} changes {writes}: ask the owner to, by a method named for what has happened"


def test_every_exemption_is_needed() -> None:
    writes = {write for tree in TREES.values() for write in foreign_writes(tree)}
    assert {exemption(write) for write in writes} == WRITES_ALLOWED.keys()


@pytest.mark.parametrize(
    "statement",
    (
        "self.window.pace.trouble = 1",
        "window.size += 1",
        "window.size: int = 1",
        "del window.sizes[0]",
        "window.sizes[0] = 1",
        "window.held.clear()",
        "self.a, window.held = window.held, []",
        "held = window.held; held.popleft()",
        "first, held = 1, window.held; held[0] = 2",
    ),
)
def test_a_wall_that_is_broken_is_seen(statement: str) -> None:
    assert foreign_writes(ast.parse(f"def command(self, window):\n    {statement}"))


@pytest.mark.parametrize(
    "statement",
    (
        "self.size = 1",
        "self.held.clear()",
        "self.held, held = [], self.held; held.clear()",
        "held = window.take(); held.sort()",
        "size = window.size; size = 2",
        "window.release('shutdown')",
    ),
)
def test_what_is_ones_own_may_be_changed(statement: str) -> None:
    assert not foreign_writes(ast.parse(f"def command(self, window):\n    {statement}"))


# --- Queries --------------------------------------------------------------------------------------------------


def is_query(function: Function) -> bool:
    """Whether it is a property, or says of itself that it only answers."""
    decorators = {ast.unparse(each) for each in function.decorator_list}
    return "property" in decorators or (ast.get_docstring(function) or "").startswith(("Return", "Whether", "Yield"))


def changing_queries(tree: ast.AST) -> set[str]:
    """Queries that change an attribute of their object."""
    return {
        f"{owner.name}.{function.name}"
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for function in owner.body
        if isinstance(function, Function)
        and is_query(function)
        and any(is_own(target) for node in ast.walk(function) for target in changed(node))
    }


@modules
def test_a_query_changes_nothing(module: str) -> None:
    queries = changing_queries(TREES[module]) - CACHES.keys()
    assert not queries, f"{queries} in {module} answer and change: make them commands that say first what they do"


def test_every_cache_is_one() -> None:
    assert {query for tree in TREES.values() for query in changing_queries(tree) if query in CACHES} == CACHES.keys()


@pytest.mark.parametrize(
    "definition",
    (
        "@property\n    def size(self):\n        self.asked += 1",
        "def size(self):\n        'Return the size.'\n        self.sizes.clear()",
        "def empty(self):\n        'Whether it is empty.'\n        del self.sizes[0]",
    ),
)
def test_a_query_that_changes_something_is_seen(definition: str) -> None:
    assert changing_queries(ast.parse(f"class Window:\n    {definition}"))


# --- Tests ----------------------------------------------------------------------------------------------------

TESTS = PACKAGE.parent / "tests"
REPLACED_ALLOWED = {
    "bridge.window.window.fit_content": "a mutant of the simulation, which breaks the bridge on purpose"
}
"""What of a module of the bridge a test may replace, and why. A class's method may be: that is how a bug is seeded."""
replacements_in = pytest.mark.parametrize(
    "path",
    [path for path in sorted(TESTS.rglob("*.py")) if ".setattr(" in path.read_text()],
    ids=lambda path: path.stem,
)


def is_module(name: str) -> bool:
    return PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file() if name.startswith("bridge.") else False


def imported(tree: ast.AST) -> dict[str, str]:
    """Full names of what is imported, by the names that it has here."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def replaced(tree: ast.AST) -> set[str]:
    """Full names of what `monkeypatch.setattr` puts something else in the place of, of the bridge's alone."""
    names = imported(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[ast.Constant(value=str() as name), _]):
                found.add(name)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[owner, ast.Constant(value=str() as name), _]):
                root, _, rest = ast.unparse(owner).partition(".")
                found.add(".".join(filter(None, (names.get(root, root), rest, name))))
    return {name for name in found if name.startswith("bridge.")}


def is_constant(name: str) -> bool:
    """Whether it is a name in a module, or is written as constants are, wherever it stands."""
    owner, _, last = name.rpartition(".")
    return is_module(owner) or last.lstrip("_").isupper()


@replacements_in
def test_no_test_replaces_a_constant_or_a_function_of_the_bridge(path: Path) -> None:
    """Limits, clocks and chance are arguments: what is tested is then what runs."""
    names = {name for name in replaced(ast.parse(path.read_text())) if is_constant(name)} - REPLACED_ALLOWED.keys()
    assert not names, f"{path.relative_to(TESTS)} replaces {names}: make them arguments with defaults"


def test_every_replacement_that_is_allowed_is_needed() -> None:
    found = {name for path in TESTS.rglob("*.py") for name in replaced(ast.parse(path.read_text()))}
    assert found >= REPLACED_ALLOWED.keys()


@pytest.mark.parametrize(
    "statements",
    (
        "from bridge.window import memory as module\nmonkeypatch.setattr(module, 'ACKED_MESSAGES', 3)",
        "from bridge.window import memory\nmonkeypatch.setattr(memory, 'identity', None)",
        "from bridge.amqp.preparer import ContentPreparer\npatch.setattr(ContentPreparer, 'CACHE_SIZE', 1)",
        "monkeypatch.setattr('bridge.amqp.cutter.HEADER_MAX_BYTES', 1)",
        "monkeypatch.setattr('bridge.observe.http.EVERY_S', 1)",
    ),
)
def test_a_replaced_constant_is_seen(statements: str) -> None:
    assert any(map(is_constant, replaced(ast.parse(statements))))


@pytest.mark.parametrize(
    "statements",
    (
        "import time\nmonkeypatch.setattr(time, 'monotonic', None)",
        "from bridge.window.memory import Memory\nmonkeypatch.setattr(Memory, 'recall', None)",
        "monkeypatch.setattr('bridge.observe.backlog.Backlog.answered', None)",
    ),
)
def test_a_seeded_bug_is_none(statements: str) -> None:
    assert not any(map(is_constant, replaced(ast.parse(statements))))
