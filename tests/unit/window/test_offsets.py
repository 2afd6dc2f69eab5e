"""Offsets of a stream: where to read on, and what is known to have been forwarded, beside a naive model."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.window.offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Callable


def test_nothing_was_received_so_the_settings_say_where_to_begin() -> None:
    offsets = Offsets()
    assert offsets.resume_at is None
    offsets.forwarded(7)
    assert offsets.resume_at is None, "an offset that was never received says nothing"


def test_it_reads_on_at_the_lowest_offset_that_was_not_forwarded() -> None:
    offsets = Offsets()
    assert [offsets.received(offset) for offset in (10, 11, 12)] == [False] * 3
    offsets.forwarded(11)
    assert offsets.resume_at == 10
    offsets.forwarded(10)
    assert offsets.resume_at == 12
    offsets.forwarded(12)
    assert offsets.resume_at == 13


def test_after_a_lost_generation_what_was_forwarded_out_of_turn_is_known_again() -> None:
    offsets = Offsets()
    for offset in (1, 2, 3):
        offsets.received(offset)
    offsets.forwarded(2)
    assert offsets.resume_at == 1
    offsets.lost()
    assert [offsets.received(offset) for offset in (1, 2, 3)] == [False, True, False]


def test_within_a_generation_what_comes_again_is_here_already() -> None:
    """The next consumer begins at the lowest that was not forwarded, which may be held."""
    offsets = Offsets()
    for offset in (1, 2, 3):
        offsets.received(offset)
    offsets.forwarded(2)
    offsets.begin()
    assert [offsets.received(offset) for offset in (1, 2, 3, 4)] == [True, True, True, False]


def test_what_was_forwarded_out_of_turn_is_known_again_also_after_those_before_it_were_forwarded() -> None:
    offsets = Offsets()
    for offset in (1, 2):
        offsets.received(offset)
    offsets.forwarded(2)
    offsets.lost()
    assert not offsets.received(1), "another generation reads on there"
    offsets.forwarded(1)
    assert offsets.received(2)


def test_offsets_may_have_gaps() -> None:
    """A filter leaves messages out."""
    offsets = Offsets()
    for offset in (5, 90):
        offsets.received(offset)
    offsets.forwarded(5)
    assert offsets.resume_at == 90
    offsets.forwarded(90)
    assert offsets.resume_at == 91


def test_an_offset_that_the_filter_left_out_before_may_come_now() -> None:
    offsets = Offsets()
    for offset in (5, 9):
        offsets.received(offset)
    offsets.lost()
    assert [offsets.received(offset) for offset in (5, 7, 9)] == [False, False, False]
    offsets.forwarded(5)
    assert offsets.resume_at == 7


def test_what_does_not_come_again_is_forgotten() -> None:
    offsets = Offsets()
    for offset in range(1000):
        offsets.received(offset)
    for offset in range(999, -1, -1):
        offsets.forwarded(offset)
    assert not offsets._ahead
    assert not offsets._unforwarded


def test_millions_that_pass_one_that_waits_take_no_memory() -> None:
    """It may wait for days, for a quarantine that does not accept it."""
    offsets = Offsets()
    for offset in range(100):
        offsets.received(offset)
    for offset in (*range(1, 100, 3), *range(2, 100, 3), *range(3, 100, 3)):
        offsets.forwarded(offset)
    assert offsets._ahead == [(1, 100)]
    assert offsets.resume_at == 0
    offsets.lost()
    assert [offsets.received(offset) for offset in (0, 1, 50, 99)] == [False, True, True, True]


def reading(*offsets: int) -> Offsets:
    """Of a stream of which these were received and forwarded."""
    found = Offsets()
    for offset in offsets:
        found.received(offset)
    for offset in offsets:
        found.forwarded(offset)
    return found


def test_settled_is_the_last_that_was_forwarded_with_all_before_it() -> None:
    offsets = Offsets()
    assert offsets.settled is None
    for offset in (10, 12, 14, 15, 17):
        offsets.received(offset)
    for offset, settled in ((12, None), (10, 12), (15, 12), (14, 15), (17, 17)):
        offsets.forwarded(offset)
        assert offsets.settled == settled, "a message's, not one less than the next message's"


def test_what_an_earlier_process_stored_is_the_landmark_that_this_one_begins_at() -> None:
    offsets = Offsets(41)
    assert (offsets.settled, offsets.resume_at, offsets.read_at) == (41, 42, 41)
    offsets.begin()
    assert offsets.awaited == 41
    assert [offsets.received(offset) for offset in (41, 44)] == [True, False], "the broker wrote 42 and 43"
    assert offsets.awaited is None
    assert offsets.missed == 0
    assert offsets.resume_at == 44


def test_a_landmark_that_does_not_come_shows_how_many_offsets_are_missing() -> None:
    offsets = Offsets(41)
    offsets.begin()
    assert not offsets.received(50)
    assert offsets.missed == 8
    assert (offsets.settled, offsets.resume_at) == (41, 50)
    offsets.forwarded(50)
    assert offsets.settled == 50


def test_the_first_consumer_of_a_process_that_knows_nothing_misses_nothing() -> None:
    offsets = Offsets()
    offsets.begin()
    assert offsets.read_at is None
    assert not offsets.received(500)
    assert offsets.missed == 0


def test_within_a_process_what_waited_and_was_deleted_is_counted_and_no_longer_waited_for() -> None:
    offsets = Offsets()
    for offset in (1, 2, 3, 4, 9):
        offsets.received(offset)
    for offset in (2, 3):
        offsets.forwarded(offset)
    assert offsets.read_at == 1
    offsets.lost()
    offsets.begin()
    assert not offsets.received(7)
    assert offsets.missed == 4, "1, 4, 5 and 6; 2 and 3 were forwarded"
    assert offsets.resume_at == 7
    offsets.forwarded(1)
    assert offsets.resume_at == 7, "an orphan's confirm comes late"


def test_what_was_deleted_while_it_was_held_is_not_missing() -> None:
    offsets = Offsets()
    for offset in (1, 2, 3):
        offsets.received(offset)
    offsets.forwarded(2)
    offsets.begin()
    assert not offsets.received(7)
    assert offsets.missed == 3, "4, 5 and 6"
    assert offsets.resume_at == 1
    for offset in (1, 3, 7):
        offsets.forwarded(offset)
    assert (offsets.settled, offsets._here) == (7, set())


def test_within_a_process_a_landmark_that_waits_comes_as_it_did_before() -> None:
    offsets = reading(1, 2)
    offsets.received(3)
    offsets.lost()
    offsets.begin()
    assert not offsets.received(3)
    assert offsets.missed == 0


def test_a_bridge_that_is_up_to_date_begins_at_the_last_message_it_has_forwarded() -> None:
    offsets = reading(1, 2)
    assert (offsets.resume_at, offsets.read_at) == (3, 2)
    offsets.begin()
    assert [offsets.received(offset) for offset in (2, 3)] == [True, False]


def test_with_a_filter_there_is_no_landmark_and_nothing_is_counted() -> None:
    offsets = Offsets(41, filtered=True)
    assert (offsets.read_at, offsets.settled) == (42, 41)
    offsets.begin()
    assert offsets.awaited is None
    assert not offsets.received(50)
    assert offsets.missed == 0


def test_what_comes_from_before_the_landmark_is_another_streams() -> None:
    offsets = Offsets(41)
    offsets.begin()
    assert not offsets.received(7)
    assert offsets.settled is None, "nothing is to be stored beyond it"
    assert offsets.resume_at == 7


def test_another_stream_is_read_from_its_first_message_on() -> None:
    offsets = Offsets(41)
    offsets.received(43)
    offsets.begin()
    offsets.restart()
    assert (offsets.resume_at, offsets.read_at, offsets.settled, offsets.awaited) == (0, 0, None, None)
    offsets.forwarded(43)
    assert not offsets.received(0)
    offsets.forwarded(0)
    assert offsets.settled == 0


def test_a_message_whose_offset_is_lost_is_read_again() -> None:
    offsets = reading(1, 2)
    offsets.unknown()
    offsets.unknown()
    assert not offsets.received(5)
    offsets.forwarded(5)
    assert (offsets.settled, offsets.resume_at) == (2, 3)


def test_what_a_consumer_leaves_out_was_lost_where_the_stream_begins_behind_it() -> None:
    offsets = reading(1, 2)
    assert offsets.gaps.question_due_s == inf
    assert not offsets.received(8)
    assert not offsets.received(10)
    assert offsets.missed == 0, "the broker may have written all of it"
    offsets.gaps.ask(0.0)
    offsets.begins_at(5)
    assert offsets.missed == 5, "3 to 7; 8 is still there, and so was what came behind it"
    assert (offsets.settled, offsets.resume_at) == (2, 8)


def test_what_had_been_delivered_before_and_is_left_out_was_deleted() -> None:
    """No question is needed: it was a message. It is no longer waited for, or nothing could be stored any more."""
    offsets = Offsets()
    for offset in (1, 2, 3, 4, 5, 9):
        offsets.received(offset)
    offsets.forwarded(3)
    offsets.lost()
    offsets.begin()
    assert not offsets.received(1)
    assert not offsets.received(12)
    assert offsets.missed == 4, "2, 4, 5 and 9"
    offsets.gaps.ask(0.0)
    offsets.begins_at(12)
    assert offsets.missed == 9, "10 and 11; and 6 to 8, since nobody had asked in time"
    for offset in (1, 12):
        offsets.forwarded(offset)
    assert offsets.settled == 12


def test_what_is_held_while_it_is_left_out_is_not_missing() -> None:
    offsets = Offsets()
    for offset in (1, 2, 3):
        offsets.received(offset)
    offsets.begin()
    assert [offsets.received(offset) for offset in (1, 5)] == [True, False]
    assert offsets.missed == 0
    for offset in (1, 2, 3):
        offsets.forwarded(offset)
    assert offsets.settled == 3


def test_with_a_filter_a_consumer_leaves_out_what_it_likes() -> None:
    offsets = Offsets(filtered=True)
    for offset in (1, 2, 50):
        offsets.received(offset)
    assert offsets.gaps.question_due_s == inf


def test_a_new_consumer_has_left_nothing_out() -> None:
    offsets = Offsets()
    offsets.received(5)
    offsets.unknown()
    assert not offsets.received(7)
    assert offsets.gaps.question_due_s == inf, "what lies before it may be the one whose offset is lost"
    offsets.restart()
    offsets.received(50)
    assert offsets.gaps.question_due_s == inf


def test_a_question_that_ends_with_its_generation_is_asked_again() -> None:
    offsets = reading(1, 2)
    offsets.received(8)
    offsets.gaps.ask(0.0)
    offsets.lost()
    assert offsets.gaps.question_due_s < inf


class StreamMachine(RuleBasedStateMachine):
    """A stream of which some offsets are left out, its reader, and a set of all that was forwarded."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = self.new()
        self.stream: list[int] = []
        self.position = 0
        """Of the offset that is delivered next, in the stream."""
        self.in_flight: set[int] = set()
        self.received: set[int] = set()
        self.forwarded: set[int] = set()

    new: Callable[..., Offsets] = Offsets

    @initialize(first=st.integers(0, 5), steps=st.lists(st.integers(1, 3), max_size=40))
    def stream_is_there(self, first: int, steps: list[int]) -> None:
        """Offsets rise."""
        self.stream = [first + sum(steps[:number]) for number in range(len(steps))]

    @precondition(lambda self: self.position < len(self.stream))
    @rule(number=st.integers(1, 8))
    def messages_are_delivered(self, number: int) -> None:
        """In order, from where the generation has come to."""
        for offset in self.stream[self.position : self.position + number]:
            known = offset in self.forwarded or offset in self.in_flight
            assert self.offsets.received(offset) == known, "forwarded twice, or not at all"
            self.received.add(offset)
            if offset not in self.forwarded:
                self.in_flight.add(offset)
            self.position += 1

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def messages_are_forwarded(self, data: st.DataObject) -> None:
        """In any order."""
        for offset in data.draw(st.lists(st.sampled_from(sorted(self.in_flight)), unique=True)):
            self.offsets.forwarded(offset)
            self.in_flight.remove(offset)
            self.forwarded.add(offset)

    @rule(data=st.data())
    def generation_is_lost(self, data: st.DataObject) -> None:
        """Its orphans are resolved one way or the other, before or after another generation begins to read on."""
        self.offsets.lost()
        late = data.draw(st.booleans())
        if late:
            self._read(self.offsets.read_at)
        for offset in sorted(self.in_flight):
            if data.draw(st.booleans()):
                self.offsets.forwarded(offset)
                self.forwarded.add(offset)
        self.in_flight.clear()
        if not late:
            self._read(self.offsets.read_at)

    @rule()
    def consumer_is_followed_by_another(self) -> None:
        """Within the generation: what is in flight stays so."""
        self._read(self.offsets.read_at)

    def _read(self, read_at: int | None) -> None:
        self.offsets.begin()
        if read_at is not None:
            self.position = sum(offset < read_at for offset in self.stream)

    @rule()
    def process_is_killed(self) -> None:
        """The next one knows what was stored; without that it begins at the first."""
        settled = self.offsets.settled
        self.offsets = self.new(settled)
        self.in_flight.clear()
        self.received = {offset for offset in self.stream if settled is not None and offset <= settled}
        assert self.received <= self.forwarded, "lost"
        self.forwarded &= self.received
        self.position = 0
        self._read(self.offsets.read_at)

    @invariant()
    def it_would_read_on_at_the_lowest_that_was_not_forwarded(self) -> None:
        """Or after the last that was received."""
        unforwarded = self.received - self.forwarded
        after_the_last = max(self.received) + 1 if self.received else None
        assert self.offsets.resume_at == min(unforwarded, default=after_the_last)

    @invariant()
    def what_would_be_stored_is_the_last_message_before_that(self) -> None:
        """And nothing is missing, as nothing was deleted."""
        lowest = min(self.received - self.forwarded, default=None)
        settled = [offset for offset in self.forwarded if lowest is None or offset < lowest]
        assert self.offsets.settled == max(settled, default=None)
        assert self.offsets.missed == 0


class Hasty(Offsets):
    """Would store the highest that was forwarded, whatever waits below it."""

    highest = -1

    def forwarded(self, offset: int) -> None:
        """Note the highest."""
        self.highest = max(self.highest, offset)
        super().forwarded(offset)

    @property
    def settled(self) -> int | None:
        """Wrong where one below it waits."""
        return self.highest if self.highest >= 0 else super().settled


class HastyMachine(StreamMachine):
    """Stores too much."""

    new = Hasty


def test_a_bridge_that_stores_the_highest_that_was_forwarded_is_seen_to_lose_messages() -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            HastyMachine, settings=settings(max_examples=500, database=None, phases=(Phase.generate,))
        )


TestStream = StreamMachine.TestCase
TestStream.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
