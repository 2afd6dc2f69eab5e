"""The bench works: every row with every contestant, in its short form. No time is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench import plot, report
from tests.bench.alone import Confirmed
from tests.bench.flow import Stream, held, highest_rate, stamped
from tests.bench.load import Sample, steady_part
from tests.bench.report import Result
from tests.bench.rows import FLOW_SHARES, ROWS, Cell
from tests.support.frames import confirm

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


def test_plot_shows_the_limit_the_latency_and_the_cost_of_many() -> None:
    flows = {f"p99 ms at {share} %": share / 10 for share in FLOW_SHARES}
    results = [
        *(_throughput("limit", Cell(size=size), "bridge", 1, 2) for size in (10, 1000)),
        *(_throughput("limit", Cell(size=size), "two bridges", 3) for size in (10, 1000)),
        *(_throughput("limit", Cell(size=size), "none: a publisher alone", 9) for size in (10, 1000)),
        Result("4.3", "flow", Cell(), "bridge", [flows]),
        *(Result("4.3", "many", Cell(), f"{n} idle", [{"CPU % each": 0.1, "bridges": n}]) for n in (1, 20)),
    ]
    svg = ET.fromstring(plot.draw(results, "4.3", "classic"))  # noqa: S314 - our own
    name = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{name}circle")) == 2 + 2 + 3 + 2
    assert [text.text for text in svg.findall(f"{name}text") if text.text in {"the limit", "two bridges"}] == [
        "the limit"
    ]


def test_plot_of_nothing_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"RabbitMQ 4\.3, quorum queues"):
        plot.draw([_throughput("throughput", Cell(), "bridge", 1)], "4.3", "quorum")


def test_confirms_are_counted_once_in_any_order_and_wherever_a_chunk_ends() -> None:
    confirms = [confirm(2), confirm(3), confirm(3, multiple=True), confirm(6), confirm(5, multiple=True), confirm(7)]
    stream = b"".join(confirms)
    for size in (1, 20, 21, 22, len(stream)):
        counting = Confirmed(10)
        for start in range(0, len(stream), size):
            counting.note(stream[start : start + size])
        assert counting.count == 7


def test_times_are_read_wherever_a_chunk_ends() -> None:
    stream = b"".join(b"frames @sent at@%b......" % number.to_bytes(8) for number in (1_000_000_000, 2_000_000_000)) * 2
    for size in range(1, len(stream)):
        rest, times = b"", []
        for start in range(0, len(stream), size):
            found, rest = stamped(rest + stream[start : start + size])
            times += found
        assert times == [1.0, 2.0, 1.0, 2.0], size


def test_a_rate_is_held_when_no_more_is_under_way_at_the_end() -> None:
    stream = Stream(rate_per_s=1000, seconds=9, size=256)
    sent = [number / 1000 for number in range(9000)]
    assert held([(at_s, at_s + 0.5) for at_s in sent], stream), "late, and evenly so"
    assert not held([(at_s, at_s * 1.1) for at_s in sent], stream)
    assert not held([(at_s, at_s) for at_s in sent if at_s < 5], stream), "it stopped"


@pytest.mark.parametrize("limit", (3.0, 900.0, 10_000.0, 123_456.0))
def test_the_highest_rate_that_is_held_is_found(limit: float) -> None:
    found = highest_rate(lambda rate_per_s: rate_per_s <= limit, 10_000, 12)
    assert 0.6 * limit < found <= limit
    with pytest.raises(RuntimeError, match="no rate was held"):
        highest_rate(lambda _: False, 10_000, 12)
