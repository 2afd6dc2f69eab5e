"""Which deliveries a drain moves, and what it says of the others."""

from __future__ import annotations

from bridge.amqp.origin import MARK, Origins
from bridge.drain.filter import Filter
from bridge.drain.selection import (
    BEYOND,
    FORBIDDEN,
    NAMELESS,
    RETURNED,
    UNDATED,
    UNMATCHED,
    Moved,
)
from tests.support.frames import PERSISTENT, delivery, table, text
from tests.unit.amqp.test_origin import dead, died

BACK = Origins.back("queue", "dead", "mine")


def test_without_conditions_everything_is_moved() -> None:
    moved = Moved(Filter())
    assert moved.admits(delivery(1))
    assert not moved.kept


def test_what_does_not_match_is_kept_and_counted() -> None:
    moved = Moved(Filter(keys=("key",), before_unix_s=1.0))
    assert not moved.admits(delivery(1, routing_key="other"))
    assert not moved.admits(delivery(2))
    assert moved.kept == {UNMATCHED: 1, UNDATED: 1}


def test_beyond_the_limit_it_is_kept_whatever_was_moved_before() -> None:
    moved = Moved(Filter(keys=("key",)), most=3)
    moved.consuming(2)
    assert moved.admits(delivery(1))
    assert not moved.admits(delivery(2))
    assert not moved.admits(delivery(3, routing_key="other"))
    assert moved.kept == {BEYOND: 1, UNMATCHED: 1}
    moved.began()
    assert not moved.kept, "it comes again"


def test_what_names_no_origin_is_kept() -> None:
    moved = Moved(Filter(), BACK)
    assert not moved.admits(delivery(1))
    assert not moved.admits(delivery(2, b"m", PERSISTENT | {"headers": b"\0\0\0\2ab"}))
    assert moved.admits(delivery(3, b"m", dead(died("work"))))
    assert moved.kept == {NAMELESS: 2}
    assert moved.nowhere_to_go


def test_what_does_not_match_needs_no_origin() -> None:
    moved = Moved(Filter(keys=("other",)), BACK)
    assert not moved.admits(delivery(1))
    assert moved.kept == {UNMATCHED: 1}
    assert not moved.nowhere_to_go


def test_targets_are_bounded_by_patterns() -> None:
    moved = Moved(Filter(), BACK, ("work-*", "other"))
    assert moved.admits(delivery(1, b"m", dead(died("work-1"))))
    assert moved.admits(delivery(2, b"m", dead(died("other"))))
    assert not moved.admits(delivery(3, b"m", dead(died("amq.secret"))))
    assert moved.kept == {FORBIDDEN: 1}


def test_exchanges_are_bounded_by_the_same_patterns() -> None:
    moved = Moved(Filter(), Origins.back("exchange", "dead", "mine"), ("shop",))
    assert moved.admits(delivery(1, b"m", dead(died("work", "shop", "key"))))
    assert not moved.admits(delivery(2, b"m", dead(died("shop", "other", "key"))))
    assert moved.kept == {FORBIDDEN: 1}


def test_a_message_with_the_drains_own_mark_has_come_back() -> None:
    moved = Moved(Filter(), BACK)
    assert not moved.admits(delivery(1, b"m", dead(died("work"), **{MARK: text("mine")})))
    assert moved.admits(delivery(2, b"m", dead(died("work"), **{MARK: text("another's")})))
    assert (moved.came_back, moved.kept) == (1, {RETURNED: 1})


def test_headers_are_not_needed_where_all_have_one_target() -> None:
    assert Moved(Filter()).admits(delivery(1, b"m", PERSISTENT | {"headers": table({})}))
