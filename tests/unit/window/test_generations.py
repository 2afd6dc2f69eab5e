"""What belongs to one generation of a side: delivery tags without a gap, and nothing of the generation before."""

from __future__ import annotations

from math import inf

import pytest

from bridge.errors import MalformedFrameError
from bridge.window.blame import Blame, SizeLimit
from bridge.window.books import Histogram
from bridge.window.generations import DestinationGeneration, SourceGeneration
from bridge.window.pace import Trouble
from bridge.window.parked import Parked
from tests.support.targets import QUEUE


def source() -> SourceGeneration:
    """A generation that has just begun."""
    return SourceGeneration(
        inf, Parked(Trouble(lambda: 1.0), QUEUE, most=250), Blame(SizeLimit(), QUEUE, quarantine=True)
    )


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
