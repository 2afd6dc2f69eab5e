"""When a drain is over, and why."""

from __future__ import annotations

import pytest

from bridge.drain.finish import SETTLES_S, Conclusion, Finish, Look
from bridge.window.limits import HELD_MOST_S

PATIENCE_S = 300.0
BUSY = Look(
    now_s=0.0,
    room=10,
    looks_again=False,
    underway=3,
    parked=0,
    withheld=0,
    full=False,
    ready=10,
    answered_s=0.0,
    oldest_s=None,
    trouble_s=0.0,
    source_up=True,
    destination_up=True,
)
DONE = BUSY._replace(room=0, underway=0)
EMPTY = BUSY._replace(underway=0, ready=0)


def seen(*looks: Look) -> Conclusion | None:
    """What the last of these looks comes to; none before it ends anything."""
    course = Finish(PATIENCE_S)
    *before, last = looks
    assert {course.look(look) for look in before} <= {None}
    return course.look(last)


def test_it_goes_on_while_there_is_something_to_take_or_under_way() -> None:
    assert seen(BUSY) is None
    assert seen(BUSY._replace(room=0)) is None
    assert seen(BUSY._replace(underway=0)) is None


def test_it_is_complete_when_all_is_taken_and_settled() -> None:
    assert seen(DONE) is Conclusion.COMPLETE
    assert seen(DONE._replace(withheld=3)) is Conclusion.COMPLETE


def test_it_is_not_complete_while_something_may_come_again() -> None:
    assert seen(DONE._replace(looks_again=True)) is None


def test_where_a_consumer_may_be_sent_no_more_nothing_comes_again() -> None:
    full = DONE._replace(looks_again=True, full=True, withheld=3)
    assert seen(full, full._replace(now_s=SETTLES_S - 1)) is None
    assert seen(full, full._replace(now_s=SETTLES_S)) is Conclusion.COMPLETE


def test_it_ends_when_the_queue_answers_twice_that_it_is_empty() -> None:
    assert seen(EMPTY) is None
    assert seen(EMPTY, EMPTY._replace(now_s=5.0)) is None, "the same answer"
    assert seen(EMPTY, EMPTY._replace(answered_s=1.0)) is Conclusion.EMPTY


@pytest.mark.parametrize("between", ({"ready": 1}, {"underway": 1}, {"ready": None}, {"answered_s": None}))
def test_what_comes_between_two_answers_makes_the_first_void(between: dict[str, int | None]) -> None:
    assert seen(EMPTY, EMPTY._replace(**between), EMPTY._replace(answered_s=1.0)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("idle", (DONE, EMPTY))
def test_what_is_refused_is_tried_again_for_a_while(idle: Look) -> None:
    parked = idle._replace(parked=2, answered_s=-1.0)
    again = parked._replace(parked=1, underway=1, now_s=3.0)
    late = parked._replace(now_s=SETTLES_S, answered_s=1.0)
    later = late._replace(answered_s=2.0, now_s=2 * SETTLES_S)
    course = Finish(PATIENCE_S)
    assert [course.look(look) for look in (parked, again, late._replace(now_s=SETTLES_S - 0.1))] == [None] * 3
    assert {course.look(late), course.look(later)} - {None} == {Conclusion.REFUSED}


def test_a_consumer_that_may_be_sent_no_more_ends_it() -> None:
    full = BUSY._replace(underway=0, full=True)
    crowded, refused = full._replace(withheld=2000), full._replace(parked=100)
    for held, ending in ((crowded, Conclusion.CROWDED), (refused, Conclusion.REFUSED)):
        assert seen(held, held._replace(now_s=SETTLES_S - 1)) is None
        assert seen(held, held._replace(now_s=SETTLES_S)) is ending


def test_what_is_held_for_as_long_as_a_consumer_may_hold_it_ends_it() -> None:
    held = BUSY._replace(withheld=1, oldest_s=0.0)
    assert seen(held._replace(now_s=HELD_MOST_S - 1)) is None
    assert seen(held._replace(now_s=HELD_MOST_S)) is Conclusion.HELD


def test_a_destination_that_accepts_nothing_for_too_long_ends_it() -> None:
    assert seen(BUSY._replace(trouble_s=PATIENCE_S - 1)) is None
    assert seen(BUSY._replace(trouble_s=PATIENCE_S)) is Conclusion.REFUSING
    assert seen(BUSY._replace(trouble_s=PATIENCE_S, destination_up=False)) is Conclusion.UNREACHABLE


def test_a_source_that_is_away_for_too_long_ends_it() -> None:
    away = DONE._replace(source_up=False)
    assert seen(away) is None
    assert seen(away, BUSY._replace(now_s=1.0), away._replace(now_s=PATIENCE_S)) is None, "it was there in between"
    assert seen(away, away._replace(now_s=PATIENCE_S)) is Conclusion.UNREACHABLE
