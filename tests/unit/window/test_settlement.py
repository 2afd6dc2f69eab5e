"""Settling at the source: an ack covers several only when nothing below them is left."""

from __future__ import annotations

from bridge.window.settlement import Settlement
from tests.support.frames import delivery


def acked(settlement: Settlement, *delivery_tags: int) -> list[tuple[int, bool]]:
    """What is written for deliveries that are acked together."""
    settlement.acks.clear()
    settlement.ack_rising([delivery(tag) for tag in delivery_tags])
    return settlement.acks


def test_the_lowest_without_a_gap_are_acked_at_once() -> None:
    settlement = Settlement()
    assert acked(settlement, 1, 2, 3) == [(3, True)]
    assert acked(settlement, 4) == [(4, True)]


def test_above_one_that_is_not_settled_each_is_acked_alone() -> None:
    assert acked(Settlement(), 2, 3) == [(2, False), (3, False)]


def test_across_a_gap_each_is_acked_alone() -> None:
    assert acked(Settlement(), 1, 3) == [(1, False), (3, False)]


def test_what_was_settled_ahead_leaves_no_gap() -> None:
    settlement = Settlement()
    settlement.ack(2)
    settlement.requeue(4)
    assert settlement.acks == [(2, False)]
    assert settlement.requeues == [4]
    assert acked(settlement, 1) == [(1, True)]
    assert acked(settlement, 3) == [(3, True)]
    assert acked(settlement, 5, 6) == [(6, True)]


def test_settled_one_by_one_in_order_leaves_no_gap_either() -> None:
    settlement = Settlement()
    settlement.requeue(1)
    settlement.ack(2)
    assert acked(settlement, 3, 4) == [(4, True)]


def test_what_is_settled_is_handed_over_once() -> None:
    settlement = Settlement()
    settlement.ack(1)
    settlement.requeue(2)
    assert settlement.take_acks() == [(1, False)]
    assert settlement.take_requeues() == [2]
    assert (settlement.take_acks(), settlement.take_requeues()) == ([], [])


def test_one_that_lasts_costs_no_memory_for_those_that_pass_it() -> None:
    settlement = Settlement()
    for tag in range(2, 10_000):
        settlement.ack(tag)
    assert settlement._gaps == {1}
    settlement.acks.clear()
    assert acked(settlement, 1) == [(1, True)]
    assert acked(settlement, 10_000) == [(10_000, True)]


def test_a_gap_that_is_closed_at_once_is_none_any_more() -> None:
    settlement = Settlement()
    settlement.requeue(4)
    assert acked(settlement, 1, 2, 3) == [(3, True)]
    assert acked(settlement, 5) == [(5, True)]


def test_a_gap_closes_when_its_delivery_is_requeued() -> None:
    settlement = Settlement()
    settlement.ack(2)
    settlement.requeue(1)
    assert acked(settlement, 3, 4) == [(4, True)]
