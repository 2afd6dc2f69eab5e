"""What is believed of a queue's answers: nothing that is not known is shown."""

from __future__ import annotations

from bridge.observe.backlog import NOT_ASKED, Backlog
from bridge.relay.queue import QueueState

SLOW_LEADER = QueueState(0, 0)
AT_S = 1000.0


def figures(backlog: Backlog) -> tuple[int | None, int | None]:
    return backlog.messages, backlog.consumers


def test_before_the_first_answer_nothing_is_known() -> None:
    backlog = Backlog()
    assert figures(backlog) == (None, None)
    assert (backlog.unknown, backlog.asked_s) == (NOT_ASKED, None)


def test_an_answer_is_shown_with_its_time() -> None:
    backlog = Backlog()
    assert backlog.answered(QueueState(7, 2), AT_S)
    assert figures(backlog) == (7, 2)
    assert (backlog.unknown, backlog.asked_s) == ("", AT_S)


def test_a_failed_question_leaves_no_figure_behind() -> None:
    backlog = Backlog()
    backlog.answered(QueueState(7, 2), AT_S)
    backlog.failed("it did not answer")
    assert figures(backlog) == (None, None)
    assert backlog.unknown == "it did not answer"


def test_a_single_answer_of_nothing_and_nobody_is_not_believed() -> None:
    backlog = Backlog()
    backlog.answered(QueueState(7, 2), AT_S)
    assert not backlog.answered(SLOW_LEADER, AT_S + 15)
    assert figures(backlog) == (None, None)
    assert "whose leader is slow" in backlog.unknown
    assert backlog.answered(QueueState(9, 2), AT_S + 30)
    assert not backlog.answered(SLOW_LEADER, AT_S + 45), "they must follow each other"


def test_two_such_answers_are_believed_and_so_are_those_that_follow() -> None:
    backlog = Backlog()
    assert not backlog.answered(SLOW_LEADER, AT_S)
    for later_s in (15, 30):
        assert backlog.answered(SLOW_LEADER, AT_S + later_s)
        assert figures(backlog) == (0, 0)
        assert backlog.asked_s == AT_S + later_s


def test_a_failed_question_between_two_such_answers_starts_the_doubt_again() -> None:
    backlog = Backlog()
    backlog.answered(SLOW_LEADER, AT_S)
    backlog.failed("it did not answer")
    assert not backlog.answered(SLOW_LEADER, AT_S + 30)


def test_nobody_is_never_believed_while_a_consumer_of_ours_is_there() -> None:
    backlog = Backlog()
    for later_s in (0, 15, 30):
        assert not backlog.answered(SLOW_LEADER, AT_S + later_s, consumed=True)
        assert figures(backlog) == (None, None)
    assert backlog.answered(QueueState(0, 1), AT_S + 45, consumed=True)


def test_an_empty_stream_is_believed_at_once_since_it_counts_no_consumers() -> None:
    backlog = Backlog()
    assert backlog.answered(SLOW_LEADER, AT_S, stream=True, consumed=True)
    assert (figures(backlog), backlog.stream) == ((0, 0), True)
