"""Whom to blame for a close: the destination, nobody, or the message that closes the channel alone."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.events import Close
from bridge.window.blame import DESTINATION_REPLIES, LIMIT_TTL_S, POISON_AT_ONCE, Blame, Ruling, SizeLimit, Verdict
from tests.support.frames import delivery
from tests.support.targets import OWN_KEYS, QUEUE

if TYPE_CHECKING:
    from bridge.amqp.target import Target

ONE, TWO, THREE = (delivery(tag, b"x" * tag) for tag in (1, 2, 3))
TOO_LARGE = "PRECONDITION_FAILED - message size 3 is larger than configured max size 2"


def judge(target: Target = QUEUE, *, quarantine: bool = True) -> Blame:
    return Blame(SizeLimit(), target, quarantine=quarantine)


def test_a_close_by_force_blames_nobody() -> None:
    blame = judge()
    assert blame.convict([ONE], Close(0, 320, "CONNECTION_FORCED"), 0.0) == Ruling([ONE])
    assert blame.suspects == 0


@pytest.mark.parametrize("code", sorted(DESTINATION_REPLIES))
def test_a_destination_that_is_not_there_is_to_blame_when_something_was_published(code: int) -> None:
    blame = judge()
    assert blame.convict([ONE], Close(1, code, "no"), 0.0) == Ruling([ONE], destination=True)
    assert blame.convict([], Close(1, code, "no"), 0.0) == Ruling([])


@pytest.mark.parametrize("code", sorted(POISON_AT_ONCE))
def test_of_several_each_is_a_suspect_until_one_closes_the_channel_alone(code: int) -> None:
    blame = judge()
    close = Close(1, code, "why")
    assert blame.convict([ONE, TWO, THREE], close, 0.0) == Ruling([ONE, TWO, THREE])
    assert blame.suspects == 3
    blame.judged(1)
    assert blame.convict([TWO], close, 0.0) == Ruling([], [TWO], Verdict("poison", code, "why"))
    assert blame.suspects == 1
    blame.judged(3)
    blame.judged(4)
    assert blame.suspects == 0


def test_an_internal_error_convicts_at_the_third_time_in_a_row() -> None:
    blame = judge()
    close = Close(1, 541, "INTERNAL_ERROR")
    for _ in range(2):
        assert blame.convict([ONE], close, 0.0) == Ruling([ONE])
        assert blame.suspects == 1
    blame.judged(1)
    for _ in range(2):
        assert blame.convict([ONE], close, 0.0) == Ruling([ONE])
    assert blame.convict([ONE], close, 0.0).guilty == [ONE]
    assert not blame.strikes


def test_a_refused_permission_is_the_messages_only_with_keys_of_their_own() -> None:
    close = Close(1, 403, "ACCESS_REFUSED - access to topic")
    assert judge().convict([ONE], close, 0.0).destination
    blame = judge(OWN_KEYS)
    assert blame.convict([ONE, TWO], close, 0.0) == Ruling([ONE, TWO])
    assert blame.suspects == 2
    assert blame.convict([ONE], close, 0.0) == Ruling([], [ONE]), "set aside, not condemned"


def test_a_size_limit_convicts_all_above_it_at_once_and_is_believed_for_a_while() -> None:
    limit = SizeLimit()
    blame = Blame(limit, QUEUE, quarantine=True)
    verdict = Verdict("too-large", 406, TOO_LARGE)
    assert limit.too_large(THREE, 0.0) is None
    assert blame.convict([ONE, THREE, TWO], Close(1, 406, TOO_LARGE), 5.0) == Ruling([ONE, TWO], [THREE], verdict)
    assert (blame.suspects, limit.size_bytes) == (0, 2)
    text = "message size 3 is larger than the destination's limit 2"
    assert limit.too_large(THREE, 6.0) == Verdict("too-large", 406, text)
    assert limit.too_large(TWO, 6.0) is None
    limit.expire(LIMIT_TTL_S)
    assert limit.size_bytes == 2
    assert limit.too_large(THREE, 5.0 + LIMIT_TTL_S) is None
    limit.expire(5.0 + LIMIT_TTL_S)
    assert limit.size_bytes == inf


def test_a_size_limit_that_none_of_them_exceeds_means_a_search() -> None:
    assert judge().convict([TWO], Close(1, 406, TOO_LARGE), 0.0).verdict == Verdict("poison", 406, TOO_LARGE)


def test_without_a_quarantine_no_size_limit_is_learned() -> None:
    limit = SizeLimit()
    blame = Blame(limit, QUEUE, quarantine=False)
    assert blame.convict([ONE, THREE], Close(1, 406, TOO_LARGE), 0.0) == Ruling([ONE, THREE])
    assert limit.size_bytes == inf


def test_when_one_of_several_was_returned_all_are_suspects_until_they_are_judged() -> None:
    blame = judge()
    blame.suspect(3)
    blame.suspect(2)
    for left in (2, 1, 0, 0):
        blame.judged(1)
        assert blame.suspects == left
