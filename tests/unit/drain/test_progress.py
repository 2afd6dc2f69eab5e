"""What a drain shows while it runs."""

from __future__ import annotations

import io
from math import inf
from typing import TYPE_CHECKING

import pytest

from bridge.drain.progress import LINE_EVERY_S, Bar, Lines, Pace, Standing, line, remaining, shown

if TYPE_CHECKING:
    from bridge.drain.progress import Shown

STATE = Standing(moved=3200, most=12000, in_flight=500, ready=8300)


def test_a_line_says_how_far_it_is() -> None:
    assert line(STATE, 800.0) == "3,200 moved, 800/s, 8,800 to come, 500 in flight, about 11 s left"
    assert line(STATE, 0.0) == "3,200 moved, 0/s, 8,800 to come, 500 in flight"


def test_without_an_end_the_queue_says_what_is_to_come() -> None:
    endless = STATE._replace(most=inf)
    assert remaining(endless) == 8800
    assert remaining(endless._replace(ready=None)) is None
    assert line(endless._replace(ready=None), 10.0) == "3,200 moved, 10/s, 500 in flight"


def test_the_pace_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    assert pace.note(0, 0.0) == 0.0
    assert pace.note(100, 1.0) == 100.0
    for second in range(2, 40):
        per_s = pace.note(100, float(second))
    assert per_s == 0.0


def test_a_line_is_written_every_ten_seconds() -> None:
    written: list[str] = []
    lines = Lines(written.append)
    for tenth in range(int(LINE_EVERY_S * 10) * 2 + 2):
        lines.show(STATE, tenth / 10)
    lines.close()
    assert written == ["3,200 moved, 0/s, 8,800 to come, 500 in flight\n"] * 2


def test_a_bar_is_drawn_with_rich() -> None:
    terminal = io.StringIO()
    bar = shown(terminal.write, live=True, bar=lambda: Bar(terminal))
    bar.show(STATE, 0.0)
    bar.show(STATE._replace(most=inf, ready=None), 1.0)
    bar.close()
    assert "3,200 moved" in terminal.getvalue()


def missing(name: str) -> Shown:
    raise ModuleNotFoundError(name=name)


def test_without_rich_lines_are_written_and_it_is_said_what_to_install() -> None:
    written: list[str] = []
    assert isinstance(shown(written.append, live=True, bar=lambda: missing("rich")), Lines)
    assert "pip install 'amqp-bridge[terminal]'" in written[0]


def test_another_module_that_is_missing_is_a_mistake() -> None:
    with pytest.raises(ModuleNotFoundError):
        shown(print, live=True, bar=lambda: missing("another"))


def test_off_a_terminal_lines_are_written() -> None:
    assert isinstance(shown(lambda _: None, live=False), Lines)
