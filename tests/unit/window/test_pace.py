"""The pace: how the publish window grows and falls, and how long a refusal rests."""

from __future__ import annotations

import pytest

from bridge.window.pace import FIRST_PUBLISH_WINDOW, RETRY_MAX_S, Pace


def pace(chance: float = 1.0, most: int = 50) -> Pace:
    """A destination that has just been opened."""
    made = Pace(most, lambda: chance)
    made.opened(careful=False)
    return made


def test_the_publish_window_doubles_with_each_round_up_to_its_most() -> None:
    it = pace()
    assert it.publish_window == FIRST_PUBLISH_WINDOW
    it.confirmed(2, 17)
    assert it.publish_window == 2 * FIRST_PUBLISH_WINDOW
    it.confirmed(17, 20)
    assert it.publish_window == 2 * FIRST_PUBLISH_WINDOW, "the round is not over"
    it.confirmed(18, 20)
    assert it.publish_window == 50


def test_trouble_narrows_to_one_until_what_was_published_is_confirmed() -> None:
    it = pace()
    it.narrow(17)
    assert it.publish_window == 1
    it.confirmed(17, 17)
    assert it.publish_window == 1
    it.confirmed(18, 18)
    assert it.publish_window == 2


def test_an_ended_generation_publishes_nothing_and_the_next_begins_small() -> None:
    it = pace()
    it.confirmed(100, 100)
    it.lost(0.0)
    it.narrow(100)
    assert it.publish_window == 0
    it.opened(careful=False)
    assert it.publish_window == FIRST_PUBLISH_WINDOW
    it.confirmed(2, 3)
    assert it.publish_window == 2 * FIRST_PUBLISH_WINDOW, "a round of the new generation"
    it.opened(careful=True)
    assert it.publish_window == 1


@pytest.mark.parametrize(("chance", "share"), ((0.0, 0.5), (1.0, 1.0)))
def test_refusals_rest_ever_longer_with_jitter_until_a_message_is_taken(chance: float, share: float) -> None:
    it = pace(chance)
    now_s = 0.0
    for wait_s in (0.2, 0.4, 0.8, 1.6, 3.2, RETRY_MAX_S, RETRY_MAX_S):
        it.refused("why", now_s, 1)
        it.refused("why", now_s, 1)  # of the same refusal: no more rest
        assert it.resting(now_s + wait_s * share - 0.01)
        now_s += wait_s * share + 0.01
        assert not it.resting(now_s)
    it.opened(careful=False)
    assert it.publish_window == 1, "it may refuse still"
    it.taken()
    it.refused("why", now_s, 1)
    assert not it.resting(now_s + 0.2)


def test_trouble_counts_from_its_beginning() -> None:
    it = pace()
    assert it.refuses_since(100.0) == 0.0
    it.lost(100.0)
    it.refused("why", 110.0, 1)
    assert it.refuses_since(115.0) == 15.0
    assert it.trouble == "why"
    it.well()
    assert (it.refuses_since(120.0), it.trouble) == (0.0, "")
