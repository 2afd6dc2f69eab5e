"""What is known of exchanges, and when the broker is asked."""

from __future__ import annotations

from math import inf

import pytest

from bridge.amqp.events import Close
from bridge.window.exchanges import MOST_KNOWN, OPEN_AGAIN_S, REFUSED_AGAIN_S, UNANSWERED_AGAIN_S, Exchanges
from tests.support.frames import delivery

A, B = b"\1a", b"\1b"
MISSING = Close(3, 404, "NOT_FOUND - no exchange 'a'")


def answered(*names: bytes, refusal: Close | None = None, now_s: float = 0.0) -> Exchanges:
    """Exchanges of which these have been asked for."""
    exchanges = Exchanges()
    for name in names:
        exchanges.consult(name, now_s)
        assert exchanges.take_question(now_s) == name
        exchanges.answered(refusal, now_s)
    return exchanges


def test_an_exchange_is_asked_for_once_before_the_first_message_goes_to_it() -> None:
    exchanges = Exchanges()
    assert exchanges.take_question(0.0) is None
    assert exchanges.consult(A, 0.0) == exchanges.consult(A, 0.0) == "unknown"
    assert exchanges.take_question(0.0) == A
    assert exchanges.consult(A, 0.0) == "unknown"
    assert exchanges.take_question(0.0) is None
    exchanges.answered(None, 0.0)
    assert exchanges.consult(A, 0.0) == "open"
    assert exchanges.take_question(0.0) is None


def test_one_is_asked_for_at_a_time_in_their_order() -> None:
    exchanges = Exchanges()
    exchanges.consult(B, 0.0)
    exchanges.consult(A, 0.0)
    assert exchanges.take_question(0.0) == B
    assert exchanges.take_question(0.0) is None
    exchanges.answered(MISSING, 0.0)
    assert exchanges.take_question(0.0) == A


@pytest.mark.parametrize(("refusal", "again_s"), ((None, OPEN_AGAIN_S), (MISSING, REFUSED_AGAIN_S)))
def test_an_answer_is_believed_for_a_while_and_still_while_it_is_asked_for_again(
    refusal: Close | None, again_s: float
) -> None:
    exchanges = answered(A, refusal=refusal)
    before = refusal or "open"
    assert exchanges.consult(A, again_s - 0.1) == before
    assert exchanges.take_question(again_s - 0.1) is None
    assert exchanges.consult(A, again_s) == before
    assert exchanges.take_question(again_s) == A
    assert exchanges.consult(A, again_s) == before
    other = MISSING if refusal is None else None
    exchanges.answered(other, again_s)
    assert exchanges.consult(A, again_s) == (other or "open")


def test_after_no_answer_it_is_asked_for_again_when_a_message_needs_it_and_not_at_once() -> None:
    exchanges = Exchanges()
    exchanges.consult(A, 0.0)
    exchanges.take_question(0.0)
    exchanges.unanswered(0.0)
    assert exchanges.take_question(UNANSWERED_AGAIN_S) is None
    assert exchanges.consult(A, 0.5) == "unknown"
    assert exchanges.take_question(0.5) is None
    assert exchanges.take_question(UNANSWERED_AGAIN_S) == A


def test_it_is_known_when_the_next_is_to_be_asked_for() -> None:
    """Also of an exchange whose message is gone by then: who rests until something is due must know."""
    exchanges = Exchanges()
    assert exchanges.question_due_s == inf
    exchanges.consult(A, 0.0)
    assert exchanges.question_due_s == -inf
    exchanges.take_question(0.0)
    assert exchanges.question_due_s == inf, "its answer is awaited"
    exchanges.unanswered(0.0)
    exchanges.consult(A, 0.0)
    assert exchanges.question_due_s == UNANSWERED_AGAIN_S


def test_exchanges_that_all_accept_are_not_looked_at_one_by_one() -> None:
    exchanges = Exchanges()
    assert not exchanges.accept_all([A], 0.0)
    exchanges = answered(A)
    assert exchanges.accept_all([A, A], OPEN_AGAIN_S - 0.1)
    assert not exchanges.accept_all([A, B], 0.0)
    assert not exchanges.accept_all([A], OPEN_AGAIN_S)
    assert not answered(A, refusal=MISSING).accept_all([A], 0.0)


def test_a_batch_is_divided_and_the_first_unknown_makes_all_after_it_wait() -> None:
    exchanges = answered(A, refusal=MISSING)
    exchanges.consult(B, 0.0)
    exchanges.take_question(0.0)
    exchanges.answered(None, 0.0)
    batch = [delivery(tag) for tag in (1, 2, 3, 4)]
    accepted, refused, waiting = exchanges.part([B, A, b"\1c", B], batch, 0.0)
    assert (accepted, refused, waiting) == ([batch[0]], [(batch[1], MISSING)], batch[2:])
    assert exchanges.part([B, A], batch[:2], 0.0) == ([batch[0]], [(batch[1], MISSING)], [])


def test_of_more_exchanges_than_are_kept_the_oldest_answer_is_forgotten() -> None:
    names = [b"%c%b" % (4, b"%04d" % number) for number in range(MOST_KNOWN + 1)]
    exchanges = answered(*names)
    assert exchanges.consult(names[1], 0.0) == "open"
    assert exchanges.consult(names[0], 0.0) == "unknown"
