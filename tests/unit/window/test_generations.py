"""What belongs to one generation of a side: delivery tags without a gap, and nothing of the generation before."""

from __future__ import annotations

from math import inf

import pytest

from bridge.errors import MalformedFrameError
from bridge.window.blame import Blame, SizeLimit, Verdict
from bridge.window.books import Histogram
from bridge.window.generations import DestinationGeneration, SourceGeneration
from bridge.window.pace import Trouble
from bridge.window.parked import Parked
from tests.support.frames import delivery
from tests.support.targets import QUEUE


def source() -> SourceGeneration:
    """A generation that has just begun."""
    return SourceGeneration(inf, Parked(Trouble(lambda: 1.0), QUEUE, 1000), Blame(SizeLimit(), QUEUE, quarantine=True))


def test_delivery_tags_follow_one_upon_the_other_from_1_on() -> None:
    generation = source()
    generation.expect(1, 3)
    generation.expect(4, 1)
    generation.expect(5, 100)
    generation.expect(105, 1)


@pytest.mark.parametrize("first_tag", (2, 0))
def test_a_generation_that_does_not_begin_with_delivery_1_is_malformed(first_tag: int) -> None:
    with pytest.raises(MalformedFrameError, match=f"delivery {first_tag} where delivery 1 was to come"):
        source().expect(first_tag, 1)


@pytest.mark.parametrize("next_tag", (5, 3, 1))
def test_a_gap_or_a_step_back_is_malformed(next_tag: int) -> None:
    """What a broker sent was lost on the way, and would stay unacknowledged for ever."""
    generation = source()
    generation.expect(1, 3)
    with pytest.raises(MalformedFrameError, match=f"delivery {next_tag} where delivery 4 was to come"):
        generation.expect(next_tag, 1)


def test_a_source_generation_begins_with_nothing() -> None:
    generation = source()
    assert not generation.held
    assert not generation.condemned
    assert (generation.quarantining, generation.releasing) == ({}, None)


def test_a_destination_generation_is_closed_until_its_channel_is_open() -> None:
    generation = DestinationGeneration(10, Histogram(), QUEUE)
    assert (generation.open, generation.blocked, generation.frame_max) == (False, False, inf)
    assert generation.publish_window.size == 0
    assert not generation.publishes


# --- Held, condemned, on their way ----------------------------------------------------------------------------

POISON = Verdict("poison", 406, "no")


def test_what_is_held_is_handed_over_in_order_as_far_as_there_is_room() -> None:
    generation = source()
    generation.hold([delivery(1), delivery(2), delivery(4)])
    generation.hold_again([delivery(3)])
    generation.hold_again([])
    generation.hold_again([delivery(6), delivery(5)])
    size = len(delivery(1).content)
    assert generation.take(2, 1 << 20) == ([delivery(1), delivery(2)], 2 * size)
    assert generation.take(9, 1) == ([delivery(3)], size)
    assert [d.delivery_tag for d in generation.take(9, 1 << 20)[0]] == [4, 5, 6]
    assert generation.take(9, 1 << 20) == ([], 0)


def test_release_hands_over_all_but_what_is_on_its_way_to_the_quarantine() -> None:
    generation = source()
    generation.condemn((delivery(1), POISON), (delivery(4), POISON))
    assert generation.send() == (delivery(1), POISON)
    generation.hold([delivery(3)])
    generation.parked.park(delivery(2), POISON, 0.0, 1.0)
    assert generation.release("shutdown") == [delivery(2), delivery(3), delivery(4)]
    assert (generation.releasing, len(generation.held), len(generation.condemned)) == ("shutdown", 0, 0)
    assert generation.bound == [(delivery(1), POISON)]
    generation.released()
    assert generation.releasing is None


def test_unpublished_is_all_that_is_held_parked_or_bound_for_the_quarantine() -> None:
    generation = source()
    generation.condemn((delivery(1), POISON), (delivery(2), POISON))
    generation.send()
    generation.parked.park(delivery(3), POISON, 0.0, 1.0)
    generation.hold([delivery(4)])
    assert sorted(each.delivery_tag for each in generation.unpublished) == [1, 2, 3, 4]


def test_what_the_quarantine_did_not_answer_is_condemned_again_in_its_order() -> None:
    generation = source()
    generation.condemn(*((delivery(tag), POISON) for tag in (1, 2, 3)))
    generation.send()
    generation.send()
    assert generation.answered(1) == (delivery(1), POISON)
    assert generation.answered(1) is None
    assert generation.interrupted() == 1
    assert [d.delivery_tag for d, _ in generation.bound] == [2, 3]
    assert [d.delivery_tag for d, _ in generation.take_condemned()] == [2, 3]
    assert not generation.condemned


def test_a_destination_generation_opens_blocks_and_forgets() -> None:
    generation = DestinationGeneration(10, Histogram(), QUEUE)
    generation.opened(4096, careful=True)
    assert (generation.open, generation.frame_max, generation.publish_window.size) == (True, 4096, 1)
    generation.publishes.publish([delivery(1)], 0.0, source())
    generation.block(1.0)
    assert generation.blocked
    generation.unblock(2.0)
    assert not generation.blocked
    generation.forget_publishes()
    assert not generation.publishes
    generation.opened(0, careful=False)
    assert generation.frame_max == inf


def test_what_is_withheld_is_handed_over_once() -> None:
    generation = source()
    generation.withhold(3)
    generation.withhold(5)
    assert generation.take_withheld() == [3, 5]
    assert generation.take_withheld() == []


def test_acks_are_metered_from_the_next_delivery_on() -> None:
    generation = source()
    generation.expect(1, 2)
    generation.meter(0)
    generation.settlement.ack(2)
    generation.settlement.ack(3)
    assert generation.settlement.take_acks() == [(2, False)]
    assert not generation.surplus
    generation.note_surplus()
    assert generation.surplus
