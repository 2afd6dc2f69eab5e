"""Code of others: what is declared is used, what is used is declared, and every pin has its hash."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

import pytest

from tests.programs import licences
from tests.programs.licences import DOCUMENT, LOCK, ROOT, licence, pins
from tests.unit.test_architecture import TREES, libraries

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted([*ROOT.glob("*.lock"), *ROOT.glob("tests/deploy/*.lock")])
OTHER_HALF = {"pydantic-core"}
"""What pydantic pins to the one version that belongs to it: a pin of ours could only contradict."""
TOOLS = {
    "codespell",
    "coverage",
    "editables",
    "hatchling",
    "mypy",
    "pytest-asyncio",
    "pytest-xdist",
    "ruff",
    "hypothesis",
    "types-oauthlib",
}
"""Of the development's dependencies, those that are run or plugged in, and need not be imported."""
PERMISSIVE = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "PSF-2.0", "MIT OR Apache-2.0"}
PERMISSIVE |= {"Apache-2.0 AND BSD-2-Clause", "Apache-2.0 OR MIT"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    """The names in requirements such as `rich~=14.1`."""
    return {normal(re.split(r"[ ~=<>!;\[]", text, maxsplit=1)[0]) for text in requirements}


def imported(trees: list[ast.Module]) -> set[str]:
    """The distributions that files import, Python's own and the project's left out."""
    by_module = packages_distributions()
    names = set().union(*(libraries(tree) for tree in trees)) - sys.stdlib_module_names - {"bridge", "tests", "."}
    return {normal(name) for module in names for name in by_module.get(module, [module])[:1]}


EXTRAS = declared([text for extra in PROJECT["project"]["optional-dependencies"].values() for text in extra])
"""Of them the image has all."""


def test_what_the_bridge_imports_is_what_it_declares() -> None:
    """What others bring along may be gone with their next version; what nobody uses may be attacked."""
    project = PROJECT["project"]
    assert imported([*TREES.values()]) - OTHER_HALF == declared(project["dependencies"]) | EXTRAS


def test_what_is_declared_for_the_development_is_used_and_the_other_way_round() -> None:
    groups = PROJECT["dependency-groups"]
    wanted = declared([text for group in groups.values() for text in group if isinstance(text, str)])
    own = declared(PROJECT["project"]["dependencies"]) | EXTRAS | OTHER_HALF
    deployment = declared((ROOT / "tests" / "deploy" / "requirements.txt").read_text().splitlines())
    files = [path for path in sorted((ROOT / "tests").rglob("*.py")) if "deploy" not in path.parts]
    used = imported([ast.parse(path.read_text()) for path in files])
    assert wanted - used - TOOLS - EXTRAS == set(), "declared and not used"
    assert used - wanted - own - deployment - BROUGHT_ALONG == set(), "used and not declared"


BROUGHT_ALONG = {"cryptography", "typing-extensions"}
"""What trustme makes its certificates of, and returns; and what pydantic brings to Python 3.11."""


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_its_hash_and_no_lock_names_an_index(lock: Path) -> None:
    found = pins(lock)
    assert found
    assert [pin.name for pin in found if not pin.hashes] == []
    lines = [line for line in lock.read_text().splitlines() if line and not line.startswith((" ", "#"))]
    assert len(lines) == len(found), "nothing but pins"
    assert "://" not in lock.read_text()


def test_an_image_installs_what_the_package_declares_and_what_that_needs() -> None:
    """And the locks of the development hold the same versions."""
    names = {normal(pin.name) for pin in pins(LOCK)}
    project = PROJECT["project"]
    assert declared(project["dependencies"]) | EXTRAS <= names
    versions = {pin.name: pin.version for pin in pins(LOCK)}
    for lock in (ROOT / "requirements-dev.lock", ROOT / "requirements-demo.lock"):
        others = {pin.name: pin.version for pin in pins(lock)}
        assert {name: others[name] for name in versions.keys() & others.keys()} == {
            name: version for name, version in versions.items() if name in others
        }


def test_the_licences_of_all_that_is_installed_are_listed_and_ask_for_no_more_than_a_notice() -> None:
    assert DOCUMENT.read_text() == licences.document()
    assert {pin.name: licence(pin.name) for pin in pins(LOCK) if licence(pin.name) not in PERMISSIVE} == {}


def test_what_is_unused_undeclared_or_without_a_hash_is_seen(tmp_path: Path) -> None:
    assert imported([ast.parse("import yaml_of_nobody")]) == {"yaml-of-nobody"}
    assert declared(["Some.Name[extra]~=1.0; python_version < '4'"]) == {"some-name"}
    (tmp_path / "lock").write_text("a==1 \\\n    --hash=sha256:00\nb==2\n")
    assert [(pin.name, pin.hashes) for pin in pins(tmp_path / "lock")] == [("a", 1), ("b", 0)]
