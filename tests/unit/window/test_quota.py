"""The quota: what may be published before the destination's queue is counted again."""

from __future__ import annotations

from math import inf

from bridge.window.quota import Quota


def test_nothing_may_be_published_before_the_queue_has_been_counted() -> None:
    quota = Quota(10)
    assert quota.left == 0
    quota.asked(0)
    assert quota.left == 0
    quota.answered(4)
    assert quota.left == 6
    quota.forget()
    assert quota.left == 0


def test_what_is_published_counts_from_the_question_on_with_what_was_unconfirmed_then() -> None:
    quota = Quota(10)
    quota.answered(0)
    quota.took(3)
    assert quota.left == 7
    quota.asked(2)
    quota.took(1)
    quota.answered(1)
    assert quota.left == 10 - (1 + 2 + 1)
    quota.asked(0)
    quota.answered(4)
    assert quota.left == 6


def test_a_queue_that_holds_more_than_it_may_leaves_nothing() -> None:
    quota = Quota(10)
    quota.answered(11)
    assert quota.left == 0


def test_without_a_limit_it_is_enough_that_the_queue_was_counted() -> None:
    quota = Quota()
    assert quota.left == 0
    quota.answered(1_000_000)
    assert quota.left == inf


def test_a_lifted_quota_lets_everything_through_and_counts_on() -> None:
    quota = Quota(10)
    quota.answered(8)
    quota.lift(on=True)
    assert quota.left == inf
    quota.took(1)
    quota.lift(on=False)
    assert quota.left == 1
