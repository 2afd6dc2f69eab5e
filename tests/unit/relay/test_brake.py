"""The brake: when the destination's queue asks for a rest, when it is counted, and what nobody can say."""

from __future__ import annotations

from math import inf

import pytest

from bridge.relay.brake import Brake
from bridge.relay.queue import QueueState
from tests.support.window_scene import Scene

NOW_S = 1000.0


def brake(max_ready: int = 0, min_consumers: int = 0) -> Brake:
    """A brake beside a window whose destination is well."""
    scene = Scene(destination_counted=True, destination_max_ready=max_ready)
    return Brake(scene.window, max_ready, min_consumers)


def answer(braked: Brake, ready: int, consumers: int = 1) -> None:
    braked.asked(NOW_S)
    braked.answered(QueueState(ready, consumers))


def test_without_a_setting_nothing_is_asked_and_nothing_held() -> None:
    free = Brake(Scene().window)
    assert (free.rests, free.holds, free.question_due_s) == (False, False, inf)
    answer(free, 1_000_000, 0)
    free.uncounted("refused")
    assert (free.rests, free.holds) == (False, False)


def test_nothing_is_published_before_the_first_answer_and_that_is_asked_for_at_once() -> None:
    first = brake(max_ready=10)
    assert first.holds
    assert not first.rests
    assert first.question_due_s == -inf
    first.ask(NOW_S)
    assert first.question_due_s == inf, "one question at a time"
    first.asked(NOW_S)
    first.answered(QueueState(3, 0))
    assert not first.holds
    assert first.question_due_s == inf


def test_it_rests_at_the_limit_and_goes_on_at_half_of_it() -> None:
    full = brake(max_ready=10)
    rests = []
    for ready in (9, 10, 9, 6, 5, 9, 11):
        answer(full, ready)
        rests.append(full.rests)
    assert rests == [False, True, True, True, False, False, True]
    assert full.reason == "max-ready"
    assert "11 messages wait" in full.text
    assert full.text.endswith("goes on at 5")


def test_a_limit_of_one_goes_on_when_the_queue_is_empty() -> None:
    one = brake(max_ready=1)
    answer(one, 1)
    assert one.rests
    answer(one, 0)
    assert not one.rests


def test_it_rests_while_there_are_too_few_consumers() -> None:
    lonely = brake(min_consumers=2)
    rests = []
    for consumers in (2, 1, 0, 2, 3):
        answer(lonely, 1_000_000, consumers)
        rests.append(lonely.rests)
    assert rests == [False, True, True, False, False]
    answer(lonely, 0, 1)
    assert lonely.reason == "min-consumers"
    assert lonely.text == "its queue has 1 consumers (BRIDGE_DESTINATION_MIN_CONSUMERS is 2)"


def test_both_are_looked_at() -> None:
    both = brake(max_ready=10, min_consumers=1)
    reasons = []
    for ready, consumers in ((12, 0), (5, 0), (9, 1)):
        answer(both, ready, consumers)
        reasons.append(both.reason)
    assert reasons == ["max-ready", "min-consumers", None]


def test_what_was_published_since_the_question_may_use_up_the_quota_and_then_it_is_asked_ten_times_a_second() -> None:
    used = brake(max_ready=10)
    answer(used, 4)
    quota = used._window.quota
    assert quota is not None
    quota.took(6)
    assert used.holds
    assert used.question_due_s == NOW_S + 0.1
    answer(used, 9)
    assert not used.holds, "one more may be published"
    assert used.question_due_s == inf


def test_while_it_rests_the_queue_is_counted_once_a_second() -> None:
    full = brake(max_ready=10)
    answer(full, 10)
    assert full.question_due_s == NOW_S + 1.0


@pytest.mark.parametrize("why", ("", "ACCESS_REFUSED"))
def test_an_answer_that_is_not_believed_is_asked_for_again_and_none_at_all_is_a_trouble(why: str) -> None:
    doubted = brake(max_ready=10)
    answer(doubted, 4)
    doubted.asked(NOW_S)
    doubted.uncounted(why)
    assert doubted.holds
    assert doubted.rests is bool(why)
    assert doubted.question_due_s == NOW_S + (1.0 if why else 0.1)
    assert doubted.trouble == (f"its queue cannot be counted: {why}" if why else "")
    answer(doubted, 4)
    assert not doubted.rests
    assert not doubted.holds


def test_a_destination_that_is_away_is_a_trouble_of_its_own_and_nobody_is_asked() -> None:
    scene = Scene(destination_counted=True, destination_max_ready=10)
    away = Brake(scene.window, 10)
    answer(away, 4)
    scene.lose_destination()
    away.uncounted("not connected")
    assert away.holds
    assert not away.rests
    assert away.question_due_s == inf


def test_a_destination_that_breaks_while_its_queue_is_full_does_not_make_it_less_full() -> None:
    scene = Scene(destination_counted=True, destination_max_ready=10)
    full = Brake(scene.window, 10)
    answer(full, 10)
    scene.lose_destination()
    full.uncounted("not connected")
    assert full.rests
