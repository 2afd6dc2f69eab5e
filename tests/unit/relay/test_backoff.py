"""The backoff: in proportion to the outage, within bounds, and all of it by chance."""

from __future__ import annotations

import pytest

from bridge.relay.backoff import SHARE, Backoff

MIN_S, MAX_S = 0.2, 30.0


def always_longest() -> float:
    return 1.0


def test_the_first_delay_is_within_the_least() -> None:
    assert Backoff(MIN_S, MAX_S, always_longest).begin_delay_s(1000.0) == MIN_S


@pytest.mark.parametrize("age_s", (0.5, 8.0, 80.0, 1e6))
def test_the_longest_delay_is_a_share_of_the_troubles_age_within_bounds(age_s: float) -> None:
    backoff = Backoff(MIN_S, MAX_S, always_longest)
    backoff.begin_delay_s(1000.0)
    assert backoff.begin_delay_s(1000.0 + age_s) == pytest.approx(min(MAX_S, max(MIN_S, age_s * SHARE)))


@pytest.mark.parametrize("chance", (0.0, 0.25, 0.999))
def test_jitter_is_full(chance: float) -> None:
    """Many bridges that lost one broker must not come back at one time."""
    backoff = Backoff(MIN_S, MAX_S, lambda: chance)
    backoff.begin_delay_s(0.0)
    assert backoff.begin_delay_s(160.0) == 10.0 * chance


def test_tries_grow_rarer_exponentially() -> None:
    """Each longest delay is no shorter than the one before, and four minutes take a few score tries, not 1,200."""
    backoff, now_s, tries = Backoff(MIN_S, MAX_S, always_longest), 0.0, 0
    before_s = 0.0
    while now_s < 240.0:
        delay_s = backoff.begin_delay_s(now_s)
        assert delay_s >= before_s
        before_s = delay_s
        now_s += delay_s
        tries += 1
    assert before_s > MIN_S
    assert tries < 100


def test_after_a_reset_trouble_is_new() -> None:
    backoff = Backoff(MIN_S, MAX_S, always_longest)
    backoff.begin_delay_s(0.0)
    assert backoff.begin_delay_s(160.0) == 10.0
    backoff.reset()
    assert backoff.begin_delay_s(170.0) == MIN_S


def test_a_least_above_the_most_is_the_most() -> None:
    assert Backoff(5.0, 1.0, always_longest).begin_delay_s(0.0) == 1.0
