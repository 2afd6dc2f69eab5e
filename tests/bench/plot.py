"""Draw what the bench has written as JSON, as an SVG: a panel for each of these rows that there are results of.

- ``throughput`` and ``limit``: messages per second by size; with ``limit``, the most that anybody forwards is a line
- ``prefetch``: messages per second by prefetch
- ``flow``: latency (p99) by the share of the highest rate that each holds
- ``many``: CPU of each bridge by their number

``python -m tests.bench.plot RESULTS.json… --output FILE.svg``. Both axes are logarithmic; a point is the median of the
rounds, the bar through it goes from the least to the most.
"""

from __future__ import annotations

import argparse
import math
import statistics
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from tests.bench.report import Result, load
from tests.bench.rows import FLOW_SHARES, FORWARDING

if TYPE_CHECKING:
    from collections.abc import Callable

_COLOURS = {"bridge": "#1f6feb", "Shovel": "#d1570a", "aio-pika loop": "#57606a"}
"""Of who is in all pictures; all others have one colour."""
_WIDTH, _HEIGHT = 420, 300  # of one panel's axes, in pixels
_LEFT, _TOP, _BOTTOM, _GAP = 70, 60, 50, 90
_TEXT = 'font-family="sans-serif" font-size="12" fill="#24292f"'


class _Axis:
    """A logarithmic axis over whole decades."""

    def __init__(self, values: list[float], first_px: float, last_px: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._first_px, self._last_px = first_px, last_px

    def px(self, value: float) -> float:
        """Where a value stands."""
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return round(self._first_px + part * (self._last_px - self._first_px), 1)

    @property
    def ticks(self) -> list[float]:
        """The powers of ten."""
        return [10**exponent for exponent in range(self._low, self._high + 1)]


class _Point(NamedTuple):
    x: float
    values: list[float]


_Lines = dict[str, list[_Point]]
"""The points of each line, from left to right, by its name."""


def _panel(lines: _Lines, title: str, x_label: Callable[[float], str], left: int) -> str:
    right, bottom = left + _WIDTH, _TOP + _HEIGHT
    points = [point for line in lines.values() for point in line]
    x_axis = _Axis([point.x for point in points], left, right)
    y_axis = _Axis([value for point in points for value in point.values], bottom, _TOP)
    parts = [f'<text x="{left}" y="{_TOP - 34}" font-weight="bold" {_TEXT}>{escape(title)}</text>']
    for tick in y_axis.ticks:
        y = y_axis.px(tick)
        parts.append(f'<path d="M{left} {y}H{right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" {_TEXT}>{tick:,}</text>')
    for tick in x_axis.ticks:
        x = x_axis.px(tick)
        parts.append(f'<path d="M{x} {_TOP}V{bottom}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle" {_TEXT}>{x_label(tick)}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS.get(name, "#8250df")
        places = [(x_axis.px(x), y_axis.px(statistics.median(values))) for x, values in line]
        for (x, y), (_, values) in zip(places, line, strict=True):
            low, high = (y_axis.px(pick(values)) for pick in (min, max))
            parts.append(f'<path d="M{x} {low}V{high}" stroke="{colour}" stroke-width="4" opacity="0.4"/>')
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        parts += (
            f'<path d="M{a} {b}L{c} {d}" stroke="{colour}" stroke-width="2"/>' for (a, b), (c, d) in pairwise(places)
        )
        legend = f'x="{left + 105 * number}" y="{_TOP - 14}"'
        parts.append(f"<text {legend} {_TEXT.replace('#24292f', colour)}>{escape(name)}</text>")
    return "\n".join(parts)


def _bytes(value: float) -> str:
    thousands = round(math.log10(value)) // 3
    return f"{value / 1000**thousands:g} {('B', 'kB', 'MB')[thousands]}"


def _speeds(results: list[Result], x_of: Callable[[Result], float]) -> _Lines:
    lines: _Lines = {}
    for result in sorted(results, key=x_of):
        lines.setdefault(result.contestant, []).append(_Point(x_of(result), result.values("msg/s")))
    return lines


def _limit(results: list[Result]) -> _Lines:
    """The bridge, Shovel, and the most that anybody forwards: a line of medians."""
    lines = _speeds(results, lambda result: result.cell.size)
    medians: dict[float, list[float]] = {}
    for name in FORWARDING & lines.keys():
        for x, values in lines[name]:
            medians.setdefault(x, []).append(statistics.median(values))
    most = [_Point(x, [max(values)]) for x, values in sorted(medians.items())]
    return {name: line for name, line in lines.items() if name in _COLOURS} | {"the limit": most}


def _latency(results: list[Result]) -> _Lines:
    return {
        result.contestant: [_Point(share, result.values(f"p99 ms at {share} %")) for share in FLOW_SHARES]
        for result in results
    }


def _costs(results: list[Result]) -> _Lines:
    lines: _Lines = {}
    for result in results:
        name = "idle" if "idle" in result.contestant else "busy"
        lines.setdefault(name, []).append(_Point(result.median_of("bridges"), result.values("CPU % each")))
    return lines


def draw(results: list[Result], version: str, queue_type: str) -> str:
    """The SVG. Raises ValueError when there are no results of this version and queue type."""
    shown = [
        result
        for result in results
        if result.version == version and result.cell.queue_type == queue_type and result.cell.headers == 0
    ]
    where = f"RabbitMQ {version}, {queue_type} queues"
    panels: list[tuple[str, Callable[[list[Result]], _Lines], str, Callable[[float], str]]] = [
        ("throughput", lambda found: _speeds(found, lambda result: result.cell.size), "msg/s by message size", _bytes),
        ("limit", _limit, "msg/s by message size", _bytes),
        (
            "prefetch",
            lambda found: _speeds(found, lambda result: result.cell.prefetch),
            "msg/s by prefetch, 256 B",
            "{:g}".format,
        ),
        ("flow", _latency, "p99 in ms by % of the highest rate held", "{:g}".format),
        ("many", _costs, "CPU % of each bridge by their number", "{:g}".format),
    ]
    drawn: list[str] = []
    for row, lines_of, title, x_label in panels:
        if of_row := [result for result in shown if result.row == row]:
            left = _LEFT + len(drawn) * (_WIDTH + _GAP)
            drawn.append(_panel(lines_of(of_row), f"{title}: {where}", x_label, left))
    if not drawn:
        raise ValueError(f"nothing to draw was measured on {where}")
    width, height = _LEFT + len(drawn) * (_WIDTH + _GAP), _TOP + _HEIGHT + _BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *drawn, "</svg>\n"])


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plot", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--version", help="of RabbitMQ (default: the last one measured)")
    parser.add_argument("--queue-type", default="classic")
    arguments = parser.parse_args()
    results = [result for path in arguments.results for result in load(path)]
    version = arguments.version or results[-1].version
    arguments.output.write_text(draw(results, version, arguments.queue_type))


if __name__ == "__main__":
    main()
