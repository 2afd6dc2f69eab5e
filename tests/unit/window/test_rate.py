"""The rate: exact over any span but for one burst and one message, whatever the pace at which somebody looks."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from bridge.window.books import Books
from bridge.window.rate import BURST_S, LOOKED_AGAIN_S, Bucket, Rate
from tests.support.frames import delivery
from tests.support.window_scene import Scene

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


# --- In the window -------------------------------------------------------------------------------------------


def test_what_a_rate_lets_through_keeps_its_order_and_retries_count() -> None:
    scene = Scene(max_rate=10.0)
    scene.receive(1, 2, 3, 4)
    assert scene.take() == [1]
    assert scene.take() == []
    assert scene.window.throttled(scene.now_s)
    scene.lose_destination()
    scene.reopen_destination()
    assert scene.take() == [], "a retry takes from the bucket, too"
    scene.wait(0.11)
    assert scene.take() == [1]
    scene.wait(0.1)
    assert scene.take() == [2]
    assert scene.books.imbalance == 0


def test_a_rate_of_bytes_holds_back_what_follows_a_large_message() -> None:
    scene = Scene(max_bytes_per_s=1000.0)
    large = delivery(1, b"x" * 3000)
    scene.receive_each(large, delivery(2))
    assert scene.take() == [1]
    scene.wait(len(large.content) / 1000 - 0.11)
    assert scene.take() == []
    scene.wait(0.12)
    assert scene.take() == [2]


def test_the_prefetch_is_what_the_rate_forwards_in_its_time() -> None:
    assert Scene().window.prefetch == 1000
    assert not Scene().window.throttled(1000.0)
    assert Scene(max_rate=5.0, paced_s=10.0).window.prefetch == 50
    assert Scene(max_rate=20_000.0).window.prefetch == 1000
    assert Scene(max_rate=0.001).window.prefetch == 1
    by_bytes = Scene(max_bytes_per_s=1000.0, paced_s=10.0)
    assert by_bytes.window.prefetch == 1000, "no size is known yet"
    message = delivery(1, b"x" * 500)
    by_bytes.receive_each(message)
    assert by_bytes.take() == [1]
    assert by_bytes.window.prefetch == 10_000 // len(message.content)
