"""Plots of the page as SVG: lines of the last 15 minutes, and the books as two bars of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.observe.markup import Markup, element, join
from bridge.observe.sentence import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT, TOP = 300, 72, 4
BAR_WIDTH, BAR_HEIGHT, BAR_GAP = 600, 22, 6
LEAST_SPAN_S, MOST_SPAN_S = 60.0, 900.0
"""How much time a plot shows: as much as there is, within these."""


class Line(NamedTuple):
    """One line of a plot."""

    name: str
    points: Sequence[tuple[float, float | None]]
    """Seconds before now, and the value; None where it is not known."""
    kind: str
    """How it is drawn: a class of the style sheet."""


def plot(title: str, lines: Sequence[Line], shown: Callable[[float], str]) -> Markup:
    """Return a figure; `shown` writes a value. What is not known is a gap, never a zero."""
    known = [value for line in lines for _, value in line.points if value is not None]
    top = max(known, default=0.0)
    said = "; ".join(f"{line.name} {_latest(line, shown)}" for line in lines)
    oldest_s = max((ago_s for line in lines for ago_s, _ in line.points), default=0.0)
    span_s = min(MOST_SPAN_S, max(LEAST_SPAN_S, oldest_s))
    drawn = [path for line in lines for path in _paths(line, top or 1.0, span_s)]
    axis = element("line", class_="axis", x1=0, x2=WIDTH, y1=HEIGHT, y2=HEIGHT)
    svg = element(
        "svg",
        axis,
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT + 1}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}, the last {duration(span_s)}: {said}; at most {shown(top)}",
    )
    keys = [
        element("span", element("span", class_=f"key {line.kind}"), f"{line.name} {_latest(line, shown)}")
        for line in lines
    ]
    most = element("span", f"{duration(span_s)}, at most {shown(top)}" if known else "nothing known yet", class_="most")
    return element("figure", element("figcaption", element("b", title), most), svg, element("p", *keys, class_="keys"))


def _latest(line: Line, shown: Callable[[float], str]) -> str:
    value = line.points[-1][1] if line.points else None
    return "unknown" if value is None else shown(value)


def _paths(line: Line, top: float, span_s: float) -> list[Markup]:
    """Return one path for each stretch without a gap."""
    stretches: list[list[str]] = [[]]
    for ago_s, value in line.points:
        if value is None:
            stretches.append([])
            continue
        x = WIDTH * (1 - min(ago_s, span_s) / span_s)
        y = HEIGHT - (HEIGHT - TOP) * value / top
        stretches[-1].append(f"{x:.1f},{y:.1f}")
    return [
        element("path", class_=f"line {line.kind}", d=f"M{' L'.join(s if len(s) > 1 else s * 2)}")
        for s in stretches
        if s
    ]


class Part(NamedTuple):
    """One part of a bar."""

    name: str
    messages: int
    kind: str


def bars(received: int, parts: Sequence[Part]) -> Markup:
    """Return two bars on one scale: what was received, and below it where all of it is. They end together, or not."""
    accounted = sum(part.messages for part in parts)
    scale = BAR_WIDTH / max(received, accounted, 1)
    rects = [_rect("received", 0.0, received * scale, 0, f"received {received:,}")]
    x = 0.0
    for part in parts:
        if part.messages:
            rects.append(
                _rect(part.kind, x, part.messages * scale, BAR_HEIGHT + BAR_GAP, f"{part.name} {part.messages:,}")
            )
        x += part.messages * scale
    said = ", ".join(f"{part.name} {part.messages:,}" for part in parts if part.messages)
    return element(
        "svg",
        join(rects),
        viewBox=f"0 0 {BAR_WIDTH} {2 * BAR_HEIGHT + BAR_GAP}",
        preserveAspectRatio="none",
        class_="bars",
        role="img",
        aria_label=f"received {received:,}; accounted for {accounted:,}: {said or 'nothing'}",
    )


def _rect(kind: str, x: float, width: float, y: float, title: str) -> Markup:
    return element(
        "rect",
        element("title", title),
        class_=f"part {kind}",
        x=f"{x:.2f}",
        y=y,
        width=f"{width:.2f}",
        height=BAR_HEIGHT,
    )
