"""What the documents say is so: their tables and figures, their metrics, their verbs, their links."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from bridge.observe.metrics import BridgeCollector
from bridge.observe.status import Status, TrackingStatus
from bridge.relay.queue import QueueState
from tests.documents.markdown import DOCUMENTS, ROOT, anchors, links
from tests.programs.documents import BLOCKS, OPERATIONS, README, written
from tests.support.seen import seen

README_WORDS = 1200
"""The first page is read in some minutes, or not at all."""

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@pytest.mark.parametrize("path", BLOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_and_figures_are_those_of_the_service_and_of_what_was_measured(path: Path) -> None:
    """`python -m tests.programs.documents` writes them."""
    assert path.read_text() == written(path)


def test_the_first_page_is_short() -> None:
    words = [word for word in README.read_text().split() if re.search(r"\w", word)]
    assert len(words) <= README_WORDS


def metric_names() -> set[str]:
    """By name, as Prometheus shows them; those too that are there only while they are known."""
    names = set()
    for stream in (False, True):
        status = Status(tracking=TrackingStatus(stored=7))
        for side in (status.source, status.destination):
            side.backlog.answered(QueueState(1, 1), 0.0, stream=stream)
        families = BridgeCollector(partial(seen, status=status)).collect()
        names |= {family.name + ("_total" if family.type == "counter" else "") for family in families}
    return names


def test_the_metrics_are_those_of_the_service_and_none_is_left_out() -> None:
    section = OPERATIONS.read_text().partition("\n## Watching\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(bridge_[a-z_]+)[`{]", section)) == metric_names()


@documents
def test_every_metric_that_is_mentioned_exists(path: Path) -> None:
    assert set(re.findall(r"`(bridge_[a-z_]+)[`{]", path.read_text())) <= metric_names()


@documents
def test_every_verb_that_is_mentioned_exists(path: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = set(re.findall(r"`(?:PYTHON=\S+ )?make ([a-z-]+)", path.read_text()))
    mentioned |= set(re.findall(r"^make ([a-z-]+)", path.read_text(), re.MULTILINE))
    assert mentioned <= verbs


@documents
def test_every_path_in_backticks_exists(path: Path) -> None:
    for named in set(re.findall(r"`((?:bridge|config|helm|tests)/[\w./-]*)`", path.read_text())):
        assert (ROOT / named).exists(), named


@documents
def test_every_link_leads_somewhere(path: Path) -> None:
    """To a file or folder of the project, and to a heading in it where it names one; addresses are not asked."""
    for target in links(path.read_text()):
        file, _, fragment = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        goal = (path.parent / file) if file else path
        assert goal.exists(), f"{target}: there is no {goal}"
        if fragment:
            assert fragment in anchors(goal.read_text()), f"{target}: {goal} has no such heading"


@documents
def test_no_two_headings_of_a_document_have_one_anchor(path: Path) -> None:
    found = anchors(path.read_text())
    repeated = {"added", "changed", "fixed"} if path.name == "CHANGELOG.md" else set()
    assert {anchor for anchor in found if found.count(anchor) > 1} <= repeated


@documents
def test_lines_can_be_read_in_a_terminal(path: Path) -> None:
    """But for tables and what a program writes."""
    for line in path.read_text().splitlines() if path.parent.name != "measured" else ():
        assert len(line) <= 140 or line.startswith(("|", "!", "**The broker", "Measured on")), line


@pytest.mark.parametrize("house", ("bridge", "tests"))
def test_each_room_of_a_house_is_explained_in_its_readme(house: str) -> None:
    rooms = {path.parent.name for path in Path(ROOT, house).glob("*/*.py")}
    assert rooms <= {target.strip("/") for target in links(Path(ROOT, house, "README.md").read_text())}


def test_every_folder_that_has_a_reader_of_its_own_explains_itself() -> None:
    for folder in ("", "bridge", "config", "tests", "helm/amqp-bridge"):
        assert Path(ROOT, folder, "README.md") in DOCUMENTS
