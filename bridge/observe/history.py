"""The last 15 minutes: what the books said every few seconds, in a ring of fixed size.

A sample is a handful of numbers that are counted anyway, so that the data plane does not know of it. Rates and
percentiles are differences of two samples; they say over how many seconds they were measured.
"""

from __future__ import annotations

from collections import deque
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.observe.backlog import Backlog
    from bridge.window.books import Books

EVERY_S = 5.0
"""How often a sample is taken."""
KEPT_S = 900.0
DRAIN_S = 120.0
"""Seconds over which a backlog is followed to say when it will be empty."""
LEAST_SPAN_S = 1.0
"""A rate over less is noise."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Sample(NamedTuple):
    """What the books and the source queue said at one time."""

    now_s: float
    """Monotonic time."""
    unix_s: float
    received: int
    forwarded: int
    forwarded_bytes: int
    waiting: int | None
    """Messages ready in the source queue; None where that is not known, or is a stream's."""
    asked_s: float | None
    """Unix time of that figure."""
    confirm: tuple[int, ...]
    residence: tuple[int, ...]
    """Counts of the histograms, by bound."""


def sample(books: Books, source: Backlog, now_s: float, unix_s: float) -> Sample:
    """Return a sample of now."""
    return Sample(
        now_s,
        unix_s,
        books.received,
        books.forwarded,
        books.forwarded_bytes,
        None if source.stream else source.messages,
        source.asked_s,
        tuple(books.confirm_seconds.counts),
        tuple(books.residence_seconds.counts),
    )


class History:
    """Samples of the last `KEPT_S`, the oldest first."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(KEPT_S / EVERY_S) + 1)

    def add(self, taken: Sample) -> None:
        """Keep one more."""
        self._samples.append(taken)

    def until(self, now: Sample) -> list[Sample]:
        """Return the samples that are not too old, and `now` as the last."""
        return [*(taken for taken in self._samples if now.now_s - KEPT_S - EVERY_S <= taken.now_s < now.now_s), now]


def since(samples: Sequence[Sample], seconds: float) -> Sample:
    """Return the latest sample that is at least so old; the oldest where all are younger."""
    now_s = samples[-1].now_s
    return next((taken for taken in reversed(samples) if now_s - taken.now_s >= seconds), samples[0])


class Rates(NamedTuple):
    """Per second, over so many seconds; None before there is anything to compare."""

    over_s: float
    received: float | None
    forwarded: float | None
    forwarded_bytes: float | None


def rates(samples: Sequence[Sample], seconds: float) -> Rates:
    """Return the rates over the last so many seconds, or as long as there are samples."""
    before, now = since(samples, seconds), samples[-1]
    over_s = now.now_s - before.now_s
    if over_s <= 0:
        return Rates(0.0, None, None, None)
    return Rates(
        over_s,
        (now.received - before.received) / over_s,
        (now.forwarded - before.forwarded) / over_s,
        (now.forwarded_bytes - before.forwarded_bytes) / over_s,
    )


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """Return the quantile of a histogram, straight between its bounds as Prometheus has it; None without a count."""
    total = sum(counts)
    if not total:
        return None
    rank, below, lower = share * total, 0, 0.0
    for bound, reached in zip(bounds, accumulate(counts), strict=False):
        if reached >= rank > below:
            return lower + (bound - lower) * (rank - below) / (reached - below)
        below, lower = reached, bound
    return bounds[-1]  # it is above every bound


def latencies(before: tuple[int, ...], now: tuple[int, ...], bounds: Sequence[float]) -> dict[str, float | None]:
    """Return the quantiles of what a histogram has counted between two samples."""
    counts = [after - earlier for earlier, after in zip(before, now, strict=True)]
    return {name: quantile(counts, bounds, share) for name, share in QUANTILES.items()}


def trend(samples: Sequence[Sample]) -> float | None:
    """Return by how many messages a second the source queue grows; negative: it becomes emptier. None for not known."""
    asked = [(taken.asked_s, taken.waiting) for taken in samples if taken.waiting is not None and taken.asked_s]
    if samples[-1].waiting is None or not asked:
        return None
    last_s, last = asked[-1]
    first_s, first = next(found for found in asked if last_s - found[0] <= DRAIN_S)
    return (last - first) / (last_s - first_s) if last_s > first_s else None


def drain_s(samples: Sequence[Sample]) -> float | None:
    """Return in how many seconds the source queue will be empty at the present pace.

    None where that is not known, or it does not become emptier: what is published meanwhile counts.
    """
    now = samples[-1]
    if not now.waiting:
        return None if now.waiting is None else 0.0
    grows = trend(samples)
    if grows is None or grows >= 0 or now.asked_s is None:
        return None
    return max(0.0, now.waiting / -grows - (now.unix_s - now.asked_s))


class Point(NamedTuple):
    """What the plots show of the time between two samples."""

    unix_s: float
    received: float
    forwarded: float
    """Per second."""
    waiting: int | None
    confirm_p99_s: float | None


def points(samples: Sequence[Sample], bounds: Sequence[float]) -> list[Point]:
    """Return a point for each sample but the first, and but for a last one that is too young to show a rate."""
    found = []
    for before, now in pairwise(samples):
        span_s = now.now_s - before.now_s
        if span_s < LEAST_SPAN_S:
            continue
        confirmed = latencies(before.confirm, now.confirm, bounds)
        found.append(
            Point(
                now.unix_s,
                (now.received - before.received) / span_s,
                (now.forwarded - before.forwarded) / span_s,
                now.waiting,
                confirmed["p99"],
            )
        )
    return found
