"""The pace: how the publish window grows and falls, and how long a refusal rests."""

from __future__ import annotations

import pytest

from bridge.window.pace import FIRST_PUBLISH_WINDOW, RETRY_MAX_S, PublishWindow, Trouble


def opened(*, careful: bool = False) -> PublishWindow:
    """The window of a destination that has just been opened."""
    made = PublishWindow(50)
    made.opened(careful=careful)
    return made


def test_the_publish_window_doubles_with_each_round_up_to_its_most() -> None:
    it = opened()
    assert it.size == FIRST_PUBLISH_WINDOW
    it.confirmed(2, 17)
    assert it.size == 2 * FIRST_PUBLISH_WINDOW
    it.confirmed(17, 20)
    assert it.size == 2 * FIRST_PUBLISH_WINDOW, "the round is not over"
    it.confirmed(18, 20)
    assert it.size == 50


def test_trouble_narrows_to_one_until_what_was_published_is_confirmed() -> None:
    it = opened()
    it.narrow(17)
    assert it.size == 1
    it.confirmed(17, 17)
    assert it.size == 1
    it.confirmed(18, 18)
    assert it.size == 2


def test_a_destination_that_is_not_open_publishes_nothing_and_a_careful_one_begins_with_one() -> None:
    it = PublishWindow(50)
    it.narrow(100)
    assert it.size == 0
    assert opened(careful=True).size == 1


@pytest.mark.parametrize(("chance", "share"), ((0.0, 0.5), (1.0, 1.0)))
def test_refusals_rest_ever_longer_with_jitter_until_a_message_is_taken(chance: float, share: float) -> None:
    it = Trouble(lambda: chance)
    now_s = 0.0
    for wait_s in (0.2, 0.4, 0.8, 1.6, 3.2, RETRY_MAX_S, RETRY_MAX_S):
        it.refused("why", now_s)
        it.refused("why", now_s)  # of the same refusal: no more rest
        assert it.resting(now_s + wait_s * share - 0.01)
        now_s += wait_s * share + 0.01
        assert not it.resting(now_s)
    assert it.refusals
    it.over()
    assert not it.refusals
    it.refused("why", now_s)
    assert not it.resting(now_s + 0.2)


def test_trouble_counts_from_its_beginning_and_again_from_when_what_was_held_is_given_back() -> None:
    it = Trouble(lambda: 1.0)
    assert (it.seconds(100.0), it.lasts) == (0.0, False)
    it.began(100.0)
    it.refused("why", 110.0)
    assert (it.seconds(115.0), it.lasts) == (15.0, True)
    assert it.text == "why"
    it.given_back(120.0)
    assert it.seconds(121.0) == 1.0
    it.over()
    assert (it.seconds(130.0), it.text, it.lasts) == (0.0, "", False)
