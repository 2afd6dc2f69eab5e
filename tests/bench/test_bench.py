"""The bench works: every row with every contestant, in its short form. No time is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench import plot, report
from tests.bench.load import Sample, steady_part
from tests.bench.report import Result
from tests.bench.rows import ROWS, Cell

_ROOT = Path(__file__).resolve().parents[2]
_HANGS_S = 400


def _throughput(row: str, cell: Cell, contestant: str, *values: float) -> Result:
    return Result("4.3", row, cell, contestant, [{"msg/s": value} for value in values])


@pytest.mark.broker
def test_every_row_runs_with_every_contestant(tmp_path: Path) -> None:
    """Each result has numbers for each quantity, and JSON keeps them."""
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.bench", "--short", "--json", str(file)]
    run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_HANGS_S, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    results = report.load(file)
    assert {result.row for result in results} == set(ROWS)
    assert {"bridge", "Shovel", "aio-pika loop"} <= {result.contestant for result in results}
    for result in results:
        assert result.rounds, result
        assert result.median > 0, result
        assert result.contestant in run.stdout


def test_steady_part_leaves_out_start_and_end() -> None:
    samples = [Sample(at, arrived, 0, 0) for at, arrived in ((0, 0), (1, 0), (2, 9), (3, 50), (4, 93), (9, 100))]
    begin, end = steady_part(samples, 100)
    assert (begin.arrived, end.arrived) == (9, 93)


def test_steady_part_of_a_burst_is_all_of_it() -> None:
    begin, end = steady_part([Sample(0, 0, 0, 0), Sample(1, 100, 0, 0)], 100)
    assert (begin.arrived, end.arrived) == (0, 100)


def test_table_shows_medians_spread_and_ratio_to_the_first() -> None:
    cell = Cell(prefetch=10)
    text = report.table([_throughput("prefetch", cell, "bridge", 10, 30, 20), _throughput("prefetch", cell, "slow", 8)])
    head, bridge, slow = text.splitlines()
    assert head.split("  ")[0] == "classic, 256 B, no headers, prefetch 10"
    assert bridge.split() == ["bridge", "20.0", "(10.0", "to", "30.0)"]
    assert slow.split() == ["slow", "8.00", "2.50"]


def test_results_survive_saving(tmp_path: Path) -> None:
    results = [_throughput("throughput", Cell("quorum", 10, 3), "bridge", 1.5)]
    report.save(results, tmp_path / "results.json", {})
    assert report.load(tmp_path / "results.json") == results


def test_plot_has_a_panel_for_each_row_and_a_point_for_each_result() -> None:
    results = [
        *(_throughput("throughput", Cell(size=size), "bridge", 1, 2) for size in (10, 1000)),
        *(_throughput("prefetch", Cell(prefetch=prefetch), "Shovel", 3) for prefetch in (1, 10, 100)),
        _throughput("throughput", Cell(headers=3), "bridge", 5),
    ]
    svg = ET.fromstring(plot.draw(results, "4.3", "classic"))  # noqa: S314 - our own
    name = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{name}circle")) == 5
    assert sum(text.get("font-weight") == "bold" for text in svg.findall(f"{name}text")) == 2


def test_plot_of_nothing_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"RabbitMQ 4\.3, quorum queues"):
        plot.draw([_throughput("throughput", Cell(), "bridge", 1)], "4.3", "quorum")
