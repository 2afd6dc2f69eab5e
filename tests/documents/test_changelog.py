"""The changelog keeps its form: each kind of change once per version, and no gap among its entries."""

from __future__ import annotations

import re

import pytest

from tests.documents.markdown import ROOT

VERSIONS = {
    version[1]: version[2].strip()
    for version in re.finditer(
        r"^## \[([^]]+)\][^\n]*\n(.*?)(?=^## |\Z)", (ROOT / "CHANGELOG.md").read_text(), re.DOTALL | re.MULTILINE
    )
}


def misshapen(version: str) -> list[str]:
    """What of a version's notes is out of form."""
    kinds = re.findall(r"^### (.+)$", version, re.MULTILINE)
    found = [f"{kind} stands twice" for kind in set(kinds) if kinds.count(kind) > 1]
    for part in re.split(r"^### ", version, flags=re.MULTILINE)[1:]:
        kind, _, entries = part.strip().partition("\n\n")
        found += [f"a gap in {kind}"] * ("\n\n" in entries)
        found += [f"no entry: {line}" for line in entries.split("\n") if not line.startswith(("- ", "  "))]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_versions_notes_are_in_form(version: str) -> None:
    assert misshapen(VERSIONS[version]) == []


def test_each_release_is_dated_the_latest_first_and_there_is_room_for_the_next() -> None:
    first, *releases = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == "[Unreleased]"
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d\d-\d\d)", release) for release in releases]
    numbers = [tuple(map(int, match.groups()[:3])) for match in found if match]
    assert len(numbers) == len(releases), "each has a number and a date"
    assert numbers == sorted(numbers, reverse=True)
    assert "[0.1.0] - 2026-11-25" in releases


@pytest.mark.parametrize(
    ("version", "said"),
    (
        ("### Added\n\n- one\n\n- two", ["a gap in Added", "no entry: "]),
        ("### Added\n\n- one\n\n### Added\n\n- two", ["Added stands twice"]),
        ("### Fixed\n\n- one\nand more", ["no entry: and more"]),
        ("### Fixed\n\n- one\n  and more\n- two", []),
    ),
)
def test_what_is_out_of_form_is_seen(version: str, said: list[str]) -> None:
    assert misshapen(version) == said
