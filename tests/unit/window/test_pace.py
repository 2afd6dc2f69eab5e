"""The pace: how the publish window grows and falls, and how long a refusal rests."""

from __future__ import annotations

import pytest

from bridge.window.pace import FIRST_PUBLISH_WINDOW, REMEMBERED_S, RETRY_MAX_S, PublishWindow, Trouble


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


def test_trouble_counts_from_its_beginning_and_again_from_when_what_was_held_is_requeued() -> None:
    it = Trouble(lambda: 1.0)
    assert (it.seconds(100.0), it.lasts) == (0.0, False)
    it.began(100.0)
    it.refused("why", 110.0)
    assert (it.seconds(115.0), it.lasts) == (15.0, True)
    assert it.text == "why"
    it.requeued(120.0)
    assert it.seconds(121.0) == 1.0
    it.over()
    assert (it.seconds(130.0), it.text, it.lasts) == (0.0, "", False)


def test_a_destination_that_does_not_confirm_is_left_alone_for_longer_each_time_up_to_the_hold_timeout() -> None:
    it = Trouble(lambda: 0.0)
    now_s = 0.0
    for rest_s in (10.0, 20.0, 40.0, 60.0, 60.0):
        it.unconfirmed(now_s, 5.0, 60.0)
        assert it.resting(now_s + rest_s - 0.01)
        now_s += rest_s
        assert not it.resting(now_s)
    assert (it.lasts, it.text) == (True, "does not confirm what it is sent")
    it.over()
    it.unconfirmed(now_s, 5.0, 60.0)
    assert not it.resting(now_s + 10.0)


def test_a_destination_of_which_the_queue_was_gone_need_not_be_left_alone() -> None:
    it = Trouble(lambda: 0.0)
    it.unconfirmed(0.0, 5.0, 60.0)
    it.unconfirmed(10.0, 5.0, 60.0)
    it.explained()
    assert not it.resting(10.0)
    assert (it.lasts, it.refusals) == (True, 2), "it has accepted nothing yet"
    it.unconfirmed(20.0, 5.0, 60.0)
    assert not it.resting(30.0), "counted anew"


def test_a_refusal_is_remembered_for_a_while_when_nothing_is_in_flight() -> None:
    it = Trouble(lambda: 1.0)
    assert not it.remembers(0.0)
    it.refused("why", 0.0)
    assert it.remembers(0.2 + REMEMBERED_S - 0.01)
    assert not it.remembers(0.2 + REMEMBERED_S)
