"""Gaps in a stream: which of them were lost, by what the broker says of the stream's beginning."""

from __future__ import annotations

from math import inf

from bridge.window.gaps import ASK_AGAIN_S, MOST_OPEN, Gaps


def test_what_lies_behind_a_message_that_is_gone_was_lost() -> None:
    gaps = Gaps()
    assert gaps.question_due_s == inf
    gaps.add(9, 5)
    gaps.add(20, 3)
    gaps.add(30, 1)
    assert gaps.question_due_s == -inf
    gaps.ask(100.0)
    assert gaps.question_due_s == inf, "one question at a time"
    assert gaps.answered(21) == 8
    assert gaps.question_due_s == inf, "the third was written by the broker: the message before it is still there"


def test_one_that_came_after_the_question_waits_for_the_next() -> None:
    gaps = Gaps()
    gaps.add(9, 5)
    gaps.ask(100.0)
    gaps.add(20, 3)
    assert gaps.answered(50) == 5
    assert gaps.question_due_s == 100.0 + ASK_AGAIN_S
    gaps.ask(120.0)
    assert gaps.answered(50) == 3


def test_without_an_answer_they_are_asked_about_again() -> None:
    gaps = Gaps()
    gaps.add(9, 5)
    gaps.ask(100.0)
    gaps.unanswered()
    assert gaps.question_due_s == 100.0 + ASK_AGAIN_S
    gaps.ask(120.0)
    assert gaps.answered(10) == 5


def test_of_very_many_the_newest_are_taken_for_one() -> None:
    gaps = Gaps()
    gaps.add(0, 1)
    gaps.ask(0.0)
    for number in range(1, MOST_OPEN + 11):
        gaps.add(10 * number, 1)
    gaps.unanswered()
    gaps.ask(20.0)
    assert gaps.answered(10 * MOST_OPEN) == MOST_OPEN, "all but the last, and the last is still there"
    for number in range(1, MOST_OPEN + 11):
        gaps.add(10 * number, 1)
    gaps.ask(40.0)
    assert gaps.answered(10 * MOST_OPEN + 1) == MOST_OPEN + 10, "rather too many than too few"
