"""Draw throughput against message size and against prefetch, as an SVG, from the JSON that the bench has written.

``python -m tests.bench.plot RESULTS.json --output FILE.svg``. Both axes are logarithmic; a point is the
median of the rounds, the bar through it goes from the least to the most.
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tests.bench.report import Result, load

if TYPE_CHECKING:
    from collections.abc import Callable

_COLOURS = {"bridge": "#1f6feb", "Shovel": "#d1570a", "aio-pika loop": "#57606a"}
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


def _panel(
    results: list[Result], x_of: Callable[[Result], float], title: str, x_label: Callable[[float], str], left: int
) -> str:
    right, bottom = left + _WIDTH, _TOP + _HEIGHT
    x_axis = _Axis([x_of(result) for result in results], left, right)
    y_axis = _Axis([value for result in results for value in result.values("msg/s")], bottom, _TOP)
    parts = [f'<text x="{left}" y="{_TOP - 34}" font-weight="bold" {_TEXT}>{escape(title)}</text>']
    for tick in y_axis.ticks:
        y = y_axis.px(tick)
        parts.append(f'<path d="M{left} {y}H{right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end" {_TEXT}>{tick:,}</text>')
    for tick in x_axis.ticks:
        x = x_axis.px(tick)
        parts.append(f'<path d="M{x} {_TOP}V{bottom}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle" {_TEXT}>{x_label(tick)}</text>')
    names = dict.fromkeys(result.contestant for result in results)
    for number, name in enumerate(names):
        colour = _COLOURS.get(name, "#8250df")
        line = sorted((result for result in results if result.contestant == name), key=x_of)
        points = [(x_axis.px(x_of(result)), y_axis.px(result.median)) for result in line]
        for (x, y), result in zip(points, line, strict=True):
            low, high = (y_axis.px(pick(result.values("msg/s"))) for pick in (min, max))
            parts.append(f'<path d="M{x} {low}V{high}" stroke="{colour}" stroke-width="4" opacity="0.4"/>')
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        parts += (
            f'<path d="M{a} {b}L{c} {d}" stroke="{colour}" stroke-width="2"/>' for (a, b), (c, d) in pairwise(points)
        )
        legend = f'x="{left + 130 * number}" y="{_TOP - 14}"'
        parts.append(f"<text {legend} {_TEXT.replace('#24292f', colour)}>{escape(name)}</text>")
    return "\n".join(parts)


def _bytes(value: float) -> str:
    thousands = round(math.log10(value)) // 3
    return f"{value / 1000**thousands:g} {('B', 'kB', 'MB')[thousands]}"


def draw(results: list[Result], version: str, queue_type: str) -> str:
    """The SVG, with a panel for each of the two rows that there are results of.

    Raises ValueError when there are none of this version and queue type.
    """
    shown = [
        result
        for result in results
        if result.version == version and result.cell.queue_type == queue_type and result.cell.headers == 0
    ]
    where = f"RabbitMQ {version}, {queue_type} queues"
    panels = [
        ("throughput", lambda result: result.cell.size, f"msg/s by message size: {where}", _bytes),
        ("prefetch", lambda result: result.cell.prefetch, f"msg/s by prefetch, 256 B: {where}", "{:g}".format),
    ]
    drawn: list[str] = []
    for row, x_of, title, x_label in panels:
        if of_row := [result for result in shown if result.row == row]:
            left = _LEFT + len(drawn) * (_WIDTH + _GAP)
            drawn.append(_panel(of_row, x_of, title, x_label, left))
    if not drawn:
        raise ValueError(f"no throughput without headers was measured on {where}")
    width, height = _LEFT + len(drawn) * (_WIDTH + _GAP), _TOP + _HEIGHT + _BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *drawn, "</svg>\n"])


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plot", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--version", help="of RabbitMQ (default: the last one measured)")
    parser.add_argument("--queue-type", default="classic")
    arguments = parser.parse_args()
    results = load(arguments.results)
    version = arguments.version or results[-1].version
    arguments.output.write_text(draw(results, version, arguments.queue_type))


if __name__ == "__main__":
    main()
