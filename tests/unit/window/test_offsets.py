"""Offsets of a stream: where to read on, and what is known to have been forwarded, beside a naive model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.window.offsets import Offsets


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
    assert [offsets.received(offset) for offset in (1, 2, 3)] == [False, True, False]


def test_what_was_forwarded_out_of_turn_is_known_again_also_after_those_before_it_were_forwarded() -> None:
    offsets = Offsets()
    for offset in (1, 2):
        offsets.received(offset)
    offsets.forwarded(2)
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
    assert [offsets.received(offset) for offset in (0, 1, 50, 99)] == [False, True, True, True]


class StreamMachine(RuleBasedStateMachine):
    """A stream of which some offsets are left out, its reader, and a set of all that was forwarded."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = Offsets()
        self.stream: list[int] = []
        self.position = 0
        """Of the offset that is delivered next, in the stream."""
        self.in_flight: set[int] = set()
        self.received: set[int] = set()
        self.forwarded: set[int] = set()

    @initialize(first=st.integers(0, 5), steps=st.lists(st.integers(1, 3), max_size=40))
    def stream_is_there(self, first: int, steps: list[int]) -> None:
        """Offsets rise."""
        self.stream = [first + sum(steps[:number]) for number in range(len(steps))]

    @precondition(lambda self: self.position < len(self.stream))
    @rule(number=st.integers(1, 8))
    def messages_are_delivered(self, number: int) -> None:
        """In order, from where the generation has come to."""
        for offset in self.stream[self.position : self.position + number]:
            assert self.offsets.received(offset) == (offset in self.forwarded), "forwarded twice, or not at all"
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
        """Its orphans are resolved one way or the other, and another generation reads on."""
        for offset in sorted(self.in_flight):
            if data.draw(st.booleans()):
                self.offsets.forwarded(offset)
                self.forwarded.add(offset)
        self.in_flight.clear()
        resume_at = self.offsets.resume_at
        if resume_at is not None:
            self.position = sum(offset < resume_at for offset in self.stream)

    @invariant()
    def it_would_read_on_at_the_lowest_that_was_not_forwarded(self) -> None:
        """Or after the last that was received."""
        unforwarded = self.received - self.forwarded
        after_the_last = max(self.received) + 1 if self.received else None
        assert self.offsets.resume_at == min(unforwarded, default=after_the_last)


TestStream = StreamMachine.TestCase
TestStream.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
