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
    assert settlement.take_requeues() == [4]
    assert acked(settlement, 1) == [(1, True)]
    assert acked(settlement, 3) == [(3, True)]
    assert acked(settlement, 5, 6) == [(6, True)]


def test_settled_one_by_one_in_order_leaves_no_gap_either() -> None:
    settlement = Settlement()
    settlement.requeue(1)
    settlement.take_requeues()
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
    settlement.take_requeues()
    assert acked(settlement, 5) == [(5, True)]


def test_a_gap_closes_when_its_delivery_is_requeued() -> None:
    settlement = Settlement()
    settlement.ack(2)
    settlement.requeue(1)
    settlement.take_requeues()
    assert acked(settlement, 3, 4) == [(4, True)]


def test_an_ack_covers_nothing_of_which_the_requeue_is_to_be_written() -> None:
    """Acks are written before requeues: the message would be lost, and its requeue close the channel."""
    settlement = Settlement()
    settlement.requeue(1)
    assert acked(settlement, 2, 3) == [(2, False), (3, False)]
    settlement.take_requeues()
    assert acked(settlement, 4, 5) == [(5, True)]


# --- Metered -------------------------------------------------------------------------------------------------


def test_no_more_is_acked_than_is_allowed_until_the_consumer_is_gone() -> None:
    settlement = Settlement()
    settlement.meter(3, after_tag=0)
    assert acked(settlement, 1, 2) == [(2, True)]
    assert acked(settlement, 3, 4) == [(3, False)]
    assert acked(settlement, 5) == []
    assert settlement.keeps == 2
    settlement.consumer_gone()
    assert settlement.take_acks() == [(5, True)]
    assert settlement.keeps == 0
    assert acked(settlement, 6, 7) == [(7, True)], "nothing is counted any more"


def test_an_ack_that_covers_several_never_covers_one_that_is_kept() -> None:
    settlement = Settlement()
    settlement.meter(0, after_tag=0)
    settlement.ack(1)
    settlement.meter(10, after_tag=0)
    assert acked(settlement, 2, 3) == [(2, False), (3, False)]


def test_deliveries_of_a_consumer_that_is_gone_are_acked_freely() -> None:
    settlement = Settlement()
    settlement.meter(1, after_tag=2)
    assert acked(settlement, 1, 2) == [(1, False), (2, False)]
    assert acked(settlement, 3) == [(3, True)]
    assert acked(settlement, 4) == []


def test_what_was_counted_before_is_acked_freely() -> None:
    settlement = Settlement()
    settlement.meter(0, after_tag=0)
    settlement.ack(1, again=True)
    assert settlement.acks == [(1, False)]


def test_what_the_broker_has_not_been_told_is_counted() -> None:
    settlement = Settlement()
    settlement.meter(3, after_tag=0)
    settlement.ack_rising([delivery(1), delivery(2)])
    settlement.ack(3)
    settlement.ack(4)
    assert settlement.unacked == 4
    settlement.take_acks()
    assert settlement.unacked == 1
    settlement.consumer_gone()
    assert settlement.unacked == 1


def test_what_was_kept_is_acked_alone_above_what_is_not_settled_and_beside_what_is_requeued() -> None:
    settlement = Settlement()
    settlement.meter(0, after_tag=0)
    for tag in (1, 2, 4, 5):
        settlement.ack(tag)
    settlement.consumer_gone()
    assert settlement.take_acks() == [(2, True), (4, False), (5, False)], "3 is not settled"
    settlement.meter(0, after_tag=0)
    settlement.ack(7)
    settlement.requeue(3)
    settlement.requeue(6)
    settlement.consumer_gone()
    assert settlement.take_acks() == [(7, False)], "an ack for all below would take what is requeued"
