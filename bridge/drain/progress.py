"""What a drain shows while it runs: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

from math import inf
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from bridge.observe.sentence import duration, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress, TaskID

LINE_EVERY_S = 10.0
RATE_OVER_S = 10.0
"""The rate that is shown is that of the last so many seconds."""


class Standing(NamedTuple):
    """How far a drain is."""

    moved: int
    most: float
    """How many are to be moved; inf where there is no end."""
    in_flight: int
    ready: int | None
    """In the source queue, as far as it answered."""


class Shown(Protocol):
    """Shows how far a drain is."""

    def show(self, state: Standing, now_s: float) -> None:
        """Show it."""

    def close(self) -> None:
        """The drain is over."""


class Pace:
    """How fast messages are moved, over the last seconds."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def note(self, moved: int, now_s: float) -> float:
        """Note how many have been moved; return messages per second."""
        self._points.append((now_s, moved))
        while len(self._points) > 2 and now_s - self._points[1][0] >= RATE_OVER_S:  # noqa: PLR2004 - the ends
            self._points.pop(0)
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def remaining(state: Standing) -> float | None:
    """Return how many messages are to come; None where that is not known."""
    if state.most < inf:
        return max(0.0, state.most - state.moved)
    return None if state.ready is None else state.ready + state.in_flight


def line(state: Standing, per_s: float) -> str:
    """Return how far it is, as a line."""
    left = remaining(state)
    parts = [f"{number(state.moved)} moved", f"{number(per_s)}/s"]
    if left is not None:
        parts.append(f"{number(left)} to come")
    parts.append(f"{number(state.in_flight)} in flight")
    if left and per_s:
        parts.append(f"about {duration(left / per_s)} left")
    return ", ".join(parts)


class Lines:
    """A line every ten seconds."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._pace = Pace()
        self._next_s: float | None = None

    def show(self, state: Standing, now_s: float) -> None:
        """Write a line, if it is time."""
        per_s = self._pace.note(state.moved, now_s)
        if self._next_s is None:
            self._next_s = now_s + LINE_EVERY_S
        elif now_s >= self._next_s:
            self._next_s += LINE_EVERY_S
            self._write(f"{line(state, per_s)}\n")

    def close(self) -> None:
        """Nothing is left to be shown."""


class Bar:
    """A bar of rich's, redrawn in place."""

    def __init__(self, terminal: IO[str] | None = None) -> None:
        """Draw on standard error, or elsewhere. Raises `ModuleNotFoundError` without rich."""
        from rich.console import Console  # noqa: PLC0415 - an extra of the package
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        self._pace = Pace()
        self._bar: Progress = Progress(
            BarColumn(bar_width=30),
            TextColumn("{task.description}", markup=False),
            console=Console(file=terminal, stderr=terminal is None),
            auto_refresh=False,
        )
        self._task: TaskID = self._bar.add_task("starting", total=None)
        self._bar.start()

    def show(self, state: Standing, now_s: float) -> None:
        """Draw it again."""
        left = remaining(state)
        total = None if left is None else state.moved + left
        text = line(state, self._pace.note(state.moved, now_s))
        self._bar.update(self._task, completed=state.moved, total=total, description=text)
        self._bar.refresh()

    def close(self) -> None:
        """Leave it as it is."""
        self._bar.stop()


def shown(write: Callable[[str], object], *, live: bool, bar: Callable[[], Shown] = Bar) -> Shown:
    """Return what shows the progress: a `bar` where it is `live` and there is rich, otherwise lines."""
    if not live:
        return Lines(write)
    try:
        return bar()
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        write("amqp-bridge: a progress bar needs rich (pip install 'amqp-bridge[terminal]'); plain lines:\n")
        return Lines(write)
