"""The budget: what passes, what fails and what it says then; and that a count repeats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.budget import counting, record
from tests.budget.__main__ import FAILED, NOT_COMPARED, PASSED, main
from tests.budget.workload import KINDS, REFERENCE, run, run_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FEW = 40
RECORDED = dict.fromkeys([*KINDS, REFERENCE], 10_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record of this Python: 10,000 instructions for everything."""
    file = tmp_path / "budget.json"
    record.write(file, record.this_python(), RECORDED)
    return file


@pytest.fixture
def _valgrind() -> None:
    """Skip without valgrind, but not in CI; the summary of the tests says it loudly (`tests/conftest.py`)."""
    if not counting.is_installed():
        if os.environ.get("CI") == "true":
            pytest.fail("valgrind is not installed, and in CI it must be")
        pytest.skip("NOT TESTED: valgrind is not installed; 'make budget' installs it")


def counts(**changed: float) -> Callable[[Sequence[str], int], dict[str, float]]:
    """A count that finds what is recorded, but for these."""
    names = {kind.replace(" ", "_"): kind for kind in RECORDED}
    return lambda _subjects, _messages: RECORDED | {names[name]: value for name, value in changed.items()}


# --- Comparing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", (9_800.0, 10_000.0, 10_200.0))
def test_a_message_within_two_percent_of_the_record_passes(
    now: float, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], path=path, count=counts(plain_4_kB=now)) == PASSED
    output = capsys.readouterr()
    assert not output.err
    assert "plain 4 kB" in output.out


def test_a_message_that_is_four_percent_dearer_fails_by_its_name(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], path=path, count=counts(plain_4_kB=10_400.0)) == FAILED
    (complaint,) = capsys.readouterr().err.splitlines()
    assert complaint.startswith("plain 4 kB: a message costs 4.0% more")
    assert "--record" in complaint


def test_a_message_that_is_four_percent_cheaper_fails_until_it_is_recorded(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = counts(plain_4_kB=9_600.0)
    assert main([], path=path, count=count) == FAILED
    (complaint,) = capsys.readouterr().err.splitlines()
    assert complaint.startswith("plain 4 kB: a message costs 4.0% less")
    assert main(["--record"], path=path, count=count) == PASSED
    assert main([], path=path, count=count) == PASSED


def test_a_kind_that_only_the_record_or_only_the_count_knows_fails(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = {("a former kind" if kind == "plain 4 kB" else kind): number for kind, number in RECORDED.items()}
    record.write(path, record.this_python(), recorded)
    assert main([], path=path, count=counts()) == FAILED
    assert capsys.readouterr().err.splitlines() == [
        "a former kind: it is recorded and not counted any more. Remove it with 'python -m tests.budget --record'.",
        "plain 4 kB: there is no record of it. Record it with 'python -m tests.budget --record'.",
    ]


def test_a_python_without_a_record_does_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "budget.json"
    record.write(path, "cpython-2.7.18-vax", RECORDED)
    assert main([], path=path, count=counts()) == NOT_COMPARED
    assert record.this_python() in capsys.readouterr().err


def test_recording_for_one_python_keeps_the_records_of_others(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    record.write(path, "cpython-2.7.18-vax", RECORDED)
    assert main(["--record"], path=path, count=counts()) == PASSED
    assert record.read(path) == {"cpython-2.7.18-vax": RECORDED, record.this_python(): RECORDED}


def test_a_python_that_is_built_in_another_way_is_not_taken_for_the_recorded_one(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], path=path, count=counts(reference=7_000.0)) == NOT_COMPARED
    assert "built in another way" in capsys.readouterr().err


def test_what_could_not_be_counted_does_not_pass(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def count(_subjects: Sequence[str], _messages: int) -> dict[str, float]:
        raise counting.CountingError("no valgrind")

    assert main([], path=path, count=count) == NOT_COMPARED
    assert capsys.readouterr().err == "no valgrind\n"


def test_there_is_a_record_of_every_kind() -> None:
    records = record.read(record.RECORD)
    assert records
    for recorded in records.values():
        assert {*recorded} == {*KINDS, REFERENCE}


# --- Counting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_of_a_kind_is_forwarded_and_acked(kind: str) -> None:
    """Or `run` fails. Two marks say what counts."""
    marks: list[None] = []
    run(KINDS[kind], FEW, lambda: marks.append(None))
    assert len(marks) == 2


def test_the_reference_is_marked_as_a_kind_is() -> None:
    marks: list[None] = []
    run_reference(FEW, lambda: marks.append(None))
    assert len(marks) == 2


@pytest.mark.usefixtures("_valgrind")
def test_a_count_repeats_to_the_instruction() -> None:
    first, second = (counting.count(["plain 256 B"], FEW) for _ in range(2))
    assert first == second
    assert first["plain 256 B"] > 1000


@pytest.mark.usefixtures("_valgrind")
def test_a_workload_that_fails_is_not_counted() -> None:
    with pytest.raises(counting.CountingError, match="KeyError: 'no such kind'"):
        counting.count(["no such kind"], FEW)


def test_counters_without_both_marks_are_not_counted(tmp_path: Path) -> None:
    counters = tmp_path / "counters"
    counters.write_text("totals: 1000\ntotals: 20\n")
    with pytest.raises(counting.CountingError, match="saw 1 calls"):
        counting._marked(counters)
