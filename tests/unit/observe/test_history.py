"""Rates, percentiles and the time to drain, out of samples."""

from __future__ import annotations

import pytest

from bridge.observe.backlog import Backlog
from bridge.observe.history import (
    EVERY_S,
    KEPT_S,
    History,
    Sample,
    drain_s,
    latencies,
    points,
    quantile,
    rates,
    sample,
    trend,
)
from bridge.relay.queue import QueueState
from bridge.window.books import SECONDS_BOUNDS, Books
from tests.support.seen import NOON_S

BOUNDS = (1.0, 2.0, 4.0)


def taken(now_s: float, messages: int = 0, waiting: int | None = None, asked_s: float | None = None) -> Sample:
    """A sample in which so many messages have been received and forwarded, of 10 bytes each."""
    books = Books(received=messages, forwarded=messages, forwarded_bytes=10 * messages)
    backlog = Backlog()
    if waiting is not None:
        backlog.answered(QueueState(waiting, 1), NOON_S + (now_s if asked_s is None else asked_s))
    return sample(books, backlog, now_s, NOON_S + now_s)


def test_a_rate_is_over_the_time_between_two_samples() -> None:
    samples = [taken(second, 100 * second) for second in range(0, 121, 5)]
    found = rates(samples, 60.0)
    assert found == (60.0, 100.0, 100.0, 1000.0)


def test_a_young_process_has_rates_over_its_own_time() -> None:
    assert rates([taken(0.0), taken(4.0, 20)], 900.0) == (4.0, 5.0, 5.0, 50.0)


def test_of_a_single_sample_nothing_is_said() -> None:
    assert rates([taken(7.0, 20)], 60.0) == (0.0, None, None, None)
    assert points([taken(7.0)], BOUNDS) == []
    assert drain_s([taken(7.0, waiting=5)]) is None


def test_the_history_is_bounded_in_number_and_in_age() -> None:
    history = History()
    for number in range(1000):
        history.add(taken(number * EVERY_S))
    samples = history.until(taken(1000 * EVERY_S))
    assert len(samples) <= KEPT_S / EVERY_S + 2
    assert samples[-1].now_s - samples[0].now_s >= KEPT_S
    after_a_sleep = history.until(taken(1000 * EVERY_S + 10 * KEPT_S))
    assert len(after_a_sleep) == 1, "what is older than the plots is not shown"


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    (
        ((0, 0, 0, 0), 0.5, None),
        ((10, 0, 0, 0), 0.5, 0.5),
        ((0, 10, 0, 0), 0.5, 1.5),
        ((0, 0, 0, 10), 0.5, 4.0),
        ((5, 5, 0, 0), 0.5, 1.0),
        ((90, 0, 10, 0), 0.99, 3.8),
    ),
)
def test_a_quantile_lies_between_the_bounds(counts: tuple[int, ...], share: float, expected: float | None) -> None:
    assert quantile(counts, BOUNDS, share) == pytest.approx(expected)


def test_latencies_are_of_the_span_alone() -> None:
    assert latencies((10, 0, 0, 0), (10, 4, 0, 0), BOUNDS)["p50"] == 1.5


def test_the_time_to_drain_follows_the_queue_and_not_the_rate() -> None:
    """100 a second are forwarded, and half as many are published meanwhile."""
    samples = [taken(15.0 * n, 1500 * n, waiting=3000 - 750 * n) for n in range(3)]
    assert trend(samples) == -50.0
    assert drain_s(samples) == pytest.approx(1500 / 50)


def test_the_time_to_drain_goes_on_between_two_answers() -> None:
    samples = [taken(0.0, waiting=300), taken(15.0, waiting=150), taken(20.0, waiting=150, asked_s=15.0)]
    assert drain_s(samples) == pytest.approx(150 / 10 - 5)


@pytest.mark.parametrize("waiting", ((100, 100), (100, 200)))
def test_a_queue_that_does_not_become_emptier_has_no_time_to_drain(waiting: tuple[int, int]) -> None:
    samples = [taken(15.0 * n, waiting=number) for n, number in enumerate(waiting)]
    assert drain_s(samples) is None
    assert (trend(samples) or 0.0) >= 0.0


def test_an_empty_queue_is_drained() -> None:
    assert drain_s([taken(0.0, waiting=0)]) == 0.0


def test_without_a_figure_of_now_nothing_is_guessed() -> None:
    samples = [taken(0.0, waiting=300), taken(15.0, waiting=150), taken(30.0)]
    assert (drain_s(samples), trend(samples)) == (None, None)


def test_what_a_stream_keeps_does_not_wait() -> None:
    backlog = Backlog()
    backlog.answered(QueueState(500, 0), NOON_S, stream=True)
    assert sample(Books(), backlog, 0.0, NOON_S).waiting is None


def test_a_sample_of_just_now_is_too_young_for_a_point() -> None:
    assert len(points([taken(0.0), taken(5.0), taken(5.5)], SECONDS_BOUNDS)) == 1


def test_points_are_per_second_between_neighbours() -> None:
    before, now = taken(0.0, waiting=9), taken(5.0, 50, waiting=4)
    now = now._replace(confirm=(0, 50, *now.confirm[2:]))
    (point,) = points([before, now], SECONDS_BOUNDS)
    assert point[:4] == (NOON_S + 5.0, 10.0, 10.0, 4)
    assert point.confirm_p99_s == pytest.approx(0.002485)
