"""What the README says is so: its table of settings, its metrics, its verbs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.observe.metrics import BridgeCollector
from bridge.observe.status import Status
from bridge.window.books import Books
from tests.programs.readme import README, with_tables

TEXT = README.read_text()


def test_its_tables_are_those_of_the_service_and_of_the_bench() -> None:
    """`python -m tests.programs.readme` writes them."""
    assert with_tables(TEXT) == TEXT


def test_its_metrics_are_those_of_the_service_and_none_is_left_out() -> None:
    """By name, as Prometheus shows them."""
    families = BridgeCollector(lambda: (Books(), Status(), 0.0)).collect()
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert set(re.findall(r"`(bridge_[a-z_]+)[`{]", TEXT)) == names


def test_its_verbs_are_those_of_the_makefile() -> None:
    """Also those in the middle of a sentence."""
    makefile = Path(README.parent, "Makefile").read_text()
    verbs = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    mentioned = set(re.findall(r"make ([a-z-]+)", TEXT))
    assert mentioned
    assert mentioned <= verbs


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:bridge|config|helm|tests)/[\w./-]*)`", TEXT))))
def test_its_paths_exist(path: str) -> None:
    """Every file and folder that it names in backticks."""
    assert (README.parent / path).exists()
