"""The circuit breaker: a drain stops when what it moves comes straight back."""

from __future__ import annotations

from bridge.drain.breaker import Breaker


def begun(ready: int | None = 1000, before: int = 1000) -> Breaker:
    breaker = Breaker(ready)
    breaker.begins(before)
    return breaker


def looks(breaker: Breaker, *, back: float, seconds: int = 10, per_s: int = 50) -> bool:
    """Move so many a second, of which this share comes back after a second; whether it trips."""
    tripped = False
    for second in range(seconds):
        moved = second * per_s
        ready = 1000 - moved + int(back * max(0, moved - per_s))
        for tenth in range(10):
            tripped |= breaker.look(
                moved=moved + tenth, taken=moved + tenth, ready=ready, answered_s=float(second), came_back=0
            )
    return tripped


def test_a_queue_that_only_becomes_shorter_trips_nothing() -> None:
    assert not looks(begun(), back=0.0)


def test_a_queue_that_grows_by_what_is_moved_trips_it() -> None:
    assert looks(begun(), back=1.0)


def test_a_few_that_come_back_trip_nothing() -> None:
    assert not looks(begun(), back=0.5)
    assert not looks(begun(), back=1.0, seconds=2, per_s=5)


def test_beside_other_publishers_nothing_is_concluded() -> None:
    assert not looks(begun(1000, 1001), back=1.0)


def test_what_is_known_at_the_start_counts() -> None:
    breaker = begun(1000, 1001)
    breaker.begins(1000)
    assert not looks(breaker, back=1.0)


def test_without_lengths_nothing_is_concluded() -> None:
    assert not looks(begun(None), back=1.0)
    assert not looks(Breaker(1000), back=1.0)
    assert not begun().look(moved=100, taken=100, ready=None, answered_s=1.0, came_back=0)


def test_one_message_with_the_drains_own_mark_trips_it() -> None:
    assert begun(None).look(moved=1, taken=2, ready=None, answered_s=None, came_back=1)
