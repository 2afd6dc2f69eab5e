"""What the source queue is: what follows from what was said of it, and from what was not."""

from __future__ import annotations

import pytest

from bridge.relay.queue import QueueFacts, QueueType


@pytest.mark.parametrize(
    ("auto_delete", "expires", "deletes_itself"),
    ((True, False, True), (False, True, True), (True, None, True), (False, False, False), (None, None, False)),
)
def test_a_queue_deletes_itself_only_where_somebody_said_so(
    auto_delete: bool | None,  # noqa: FBT001 - a parameter of the test
    expires: bool | None,  # noqa: FBT001 - a parameter of the test
    *,
    deletes_itself: bool,
) -> None:
    assert QueueFacts("classic", auto_delete, expires).deletes_itself is deletes_itself


@pytest.mark.parametrize(
    ("queue_type", "deleted"), (("classic", True), (None, True), ("quorum", False), ("stream", False))
)
def test_a_queue_may_be_deleted_by_a_cancel_unless_somebody_has_said_otherwise(
    queue_type: QueueType | None, *, deleted: bool
) -> None:
    """Quorum queues and streams cannot be auto-delete."""
    assert QueueFacts(queue_type).deleted_by_cancel is deleted


def test_where_a_cancel_deletes_the_queue_no_consumer_is_cancelled_before_its_successor_is_started() -> None:
    assert QueueFacts("classic", auto_delete=False, single_active=True).replaced_by_cancel_first
    assert QueueFacts("classic", auto_delete=False, expires=True, single_active=True).replaced_by_cancel_first
    assert not QueueFacts("classic", auto_delete=True, single_active=True).replaced_by_cancel_first
    assert not QueueFacts("classic", auto_delete=False, single_active=False).replaced_by_cancel_first
    assert not QueueFacts("quorum", auto_delete=False, single_active=True).replaced_by_cancel_first
    assert QueueFacts("stream").replaced_by_cancel_first, "a cancel deletes none; two consumers deliver the same"


@pytest.mark.parametrize("queue_type", ("classic", "quorum", "stream", None))
def test_where_the_broker_said_what_the_queue_is_its_word_counts(queue_type: QueueType | None) -> None:
    assert not QueueFacts(queue_type, auto_delete=False, expires=False).deleted_by_cancel
    assert QueueFacts(queue_type, auto_delete=True, expires=False).deleted_by_cancel
    assert QueueFacts(queue_type, auto_delete=False, expires=True).deleted_by_cancel


def test_of_a_queue_that_nobody_knows_requeues_are_taken_to_count() -> None:
    assert QueueFacts().requeues_counted


@pytest.mark.parametrize(
    ("queue_type", "requeues_counted", "counts"),
    (
        *(("classic", True, "none"), ("stream", False, "none"), ("quorum", True, "any"), ("quorum", False, "acquired")),
        *((None, True, "any"), (None, False, "acquired")),
    ),
)
def test_which_delivery_counts_are_the_queues_own(
    queue_type: QueueType | None, counts: str, *, requeues_counted: bool
) -> None:
    assert QueueFacts(queue_type, requeues_counted=requeues_counted).counts == counts


@pytest.mark.parametrize(
    ("facts", "words"),
    (
        (QueueFacts("classic", auto_delete=True), "is auto-delete"),
        (QueueFacts("classic", auto_delete=False, expires=True), "has x-expires"),
        (QueueFacts(), "may be one that is deleted"),
        (QueueFacts("quorum"), ""),
    ),
)
def test_what_an_operator_should_know_of_a_queue(facts: QueueFacts, words: str) -> None:
    assert facts.advice.startswith(words)
    assert bool(facts.advice) is bool(words)


def test_a_queue_with_one_active_consumer_that_deletes_itself_keeps_its_consumer() -> None:
    assert QueueFacts("classic", auto_delete=False, single_active=True).replaceable
    assert not QueueFacts("classic", auto_delete=True, single_active=True).replaceable
