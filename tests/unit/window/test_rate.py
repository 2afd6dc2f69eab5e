"""The rate: exact over any span but for one burst and one message, whatever the pace at which somebody looks."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from bridge.window.books import Books
from bridge.window.rate import BURST_S, LOOKED_AGAIN_S, Bucket, Rate

PLENTY = 1 << 40
TICK_S = 0.05


def published(rate: Rate, now_s: float, most: int = PLENTY, size_bytes: int = 1) -> int:
    """Publish as the window does, until no more may be: messages of one size; return how many."""
    total = 0
    while True:
        allowed, allowed_bytes = rate.allow(most, PLENTY, now_s)
        number = min(allowed, -(-allowed_bytes // size_bytes))
        if not number:
            return total
        rate.took(number, number * size_bytes, now_s)
        total += number


@pytest.mark.parametrize("per_second", (1, 3, 15, 99, 1000, 20_000))
def test_a_rate_of_messages_is_exact(per_second: int) -> None:
    rate, seconds = Rate(per_second, 0, Books()), 100
    total = sum(published(rate, 1000.0 + tick * TICK_S) for tick in range(int(seconds / TICK_S)))
    assert abs(total - per_second * seconds) <= max(1, 0.02 * per_second * seconds)


@pytest.mark.parametrize("per_second", (1000, 64_000, 5_000_000))
@pytest.mark.parametrize("size_bytes", (10, 700, 20_000))
def test_a_rate_of_bytes_is_exact_but_for_one_message(per_second: int, size_bytes: int) -> None:
    rate, seconds = Rate(0, per_second, Books()), 200
    total = sum(published(rate, 1000.0 + n * TICK_S, size_bytes=size_bytes) for n in range(int(seconds / TICK_S)))
    assert abs(total * size_bytes - per_second * seconds) <= max(size_bytes, 0.02 * per_second * seconds)


def test_a_rate_is_exact_however_irregularly_somebody_looks() -> None:
    chance = Random(7)
    rate, now_s, total = Rate(317, 0, Books()), 1000.0, 0
    while now_s < 1100.0:
        total += published(rate, now_s)
        now_s += chance.uniform(0.0, BURST_S * 0.99)
    assert abs(total - 31_700) <= 0.02 * 31_700


def test_no_more_than_a_burst_is_saved_up() -> None:
    rate = Rate(1000, 0, Books())
    assert published(rate, 1000.0) == 100
    assert published(rate, 1000.0) == 0
    assert published(rate, 2000.0) == 100


def test_a_message_larger_than_the_bucket_passes_and_is_paid_back() -> None:
    rate = Rate(0, 1000, Books())
    assert published(rate, 1000.0, size_bytes=5000) == 1
    assert rate.throttles(1004.8)
    assert published(rate, 1004.8, size_bytes=5000) == 0
    assert rate.due_s == pytest.approx(1004.91)
    assert published(rate, 1005.0, size_bytes=5000) == 1


def test_the_tighter_of_both_rates_counts_and_its_seconds_are_counted() -> None:
    books = Books()
    rate = Rate(10, 1000, books)
    for tick in range(201):
        published(rate, 1000.0 + tick * TICK_S, size_bytes=1000)
    assert books.throttled_seconds["bytes"] > books.throttled_seconds.get("messages", 0.0)
    assert sum(books.throttled_seconds.values()) == pytest.approx(10.0, abs=2 * TICK_S)


def test_of_a_long_time_without_a_look_a_second_is_counted() -> None:
    books = Books()
    rate = Rate(1, 0, books)
    published(rate, 1000.0)
    published(rate, 2000.0)
    assert books.throttled_seconds == {"messages": LOOKED_AGAIN_S}


def test_nothing_is_counted_as_long_as_nothing_is_held_back() -> None:
    books = Books()
    rate = Rate(1000, 0, books)
    assert rate.allow(5, PLENTY, 1000.0) == (5, PLENTY)
    assert books.throttled_seconds == {}
    assert not rate.throttles(1000.0)


def test_a_bucket_without_a_limit_is_never_empty() -> None:
    bucket = Bucket(inf)
    bucket.take(1e9, 1000.0)
    assert bucket.saved(1000.1) == inf
    assert not bucket.empty(1000.1)


def test_what_it_forwards_in_a_time_is_at_least_one_message_and_by_bytes_known_by_the_mean_size() -> None:
    assert Rate(5, 0, Books()).prefetch(10.0) == 50.0
    assert Rate(1, 0, Books()).prefetch(0.5) == 1.0
    rate = Rate(0, 1000, Books())
    assert rate.prefetch(10.0) == inf
    rate.took(4, 2000, 1000.0)
    assert rate.prefetch(10.0) == 20.0


def test_a_rate_can_be_changed() -> None:
    rate = Rate(10, 0, Books())
    rate.change(1000)
    assert sum(published(rate, second / 20) for second in range(21)) == pytest.approx(1000, rel=0.2)
