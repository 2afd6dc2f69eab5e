"""The window under a rate: what is let through, in which order, and how much may be consumed."""

from __future__ import annotations

from tests.support.frames import delivery
from tests.support.window_scene import Scene


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
