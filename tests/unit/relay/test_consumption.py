"""How one source generation consumes: its consumers, their cancels, and what they have shown."""

from __future__ import annotations

import pytest

from bridge.errors import MalformedFrameError
from bridge.relay.consumer import Consumer
from bridge.relay.consumption import LANDMARK_WITHIN_S, MEMORY_FULL_S, Consumption
from bridge.relay.watchdog import Ending
from tests.support.frames import delivery
from tests.support.window_scene import Scene

LARGE = 1000
"""Bytes in flight at which memory is full here."""


class Source(Scene):
    """A window and the consumption of its source generation."""

    def __init__(self) -> None:
        super().__init__(prefetch=10, max_in_flight_bytes=LARGE)
        self.consumption = Consumption(self.window, opened=True)

    def consume(self, consumer_tag: str = "ct-1", prefetch: int = 10) -> Consumption:
        """Ask for a consumer, and get it."""
        self.consumption.ask(prefetch)
        self.consumption.start(consumer_tag)
        self.consumption.started()
        return self.consumption

    def fill_memory(self) -> None:
        """A large message comes."""
        self.receive_each(delivery(1, b"x" * LARGE))


def state(consumption: Consumption) -> Consumer:
    """Whether the source delivers; asked anew each time."""
    return consumption.consumer


def test_a_stream_is_to_deliver_what_it_has_had_within_a_minute() -> None:
    source = Source()
    source.window.read_stream(41)
    consumption = source.consumption
    assert consumption.watch_landmark((0,), 0.0) is None, "nothing is consumed"
    source.consume()
    assert consumption.watch_landmark((0,), 0.0) is None
    assert consumption.watch_landmark((0,), LANDMARK_WITHIN_S - 1.0) is None
    assert consumption.watch_landmark((1,), LANDMARK_WITHIN_S) is None, "it is on its way"
    assert consumption.watch_landmark((1,), 2 * LANDMARK_WITHIN_S) == 41
    source.fill_memory()
    assert consumption.watch_landmark((1,), 9 * LANDMARK_WITHIN_S) is None, "nothing is read"


def test_what_is_no_stream_has_nothing_to_deliver_again() -> None:
    consumption = Source().consume()
    assert consumption.watch_landmark((0,), 0.0) is None
    assert consumption.watch_landmark((0,), 9 * LANDMARK_WITHIN_S) is None


def test_a_generation_begins_without_a_consumer() -> None:
    consumption = Source().consumption
    assert (consumption.opened, consumption.consumer, consumption.asking) == (True, Consumer.OFF, False)
    assert (consumption.replaces, consumption.in_use, consumption.received, consumption.refused) == (False,) * 4
    assert (consumption.offered, consumption.deleted, consumption.ending) == (False, False, None)
    assert consumption.fitting == 10
    assert consumption.take_cancels() == []


def test_a_consumer_that_was_asked_for_and_is_not_started_leaves_the_prefetch_as_it_is() -> None:
    """As where a pause comes in between: it is asked for again, and not taken for what is there."""
    consumption = Source().consume(prefetch=1)
    consumption.ask(10)
    assert (consumption.prefetch, consumption.asked_prefetch) == (1, 10)
    consumption.start("ct-2")
    assert consumption.prefetch == 10


def test_a_consumer_starts_and_is_cancelled() -> None:
    source = Source()
    consumption = source.consumption
    consumption.ask(10)
    consumption.start("ct-1")
    assert state(consumption) is Consumer.STARTING
    consumption.started()
    assert state(consumption) is Consumer.ON
    consumption.cancel()
    assert state(consumption) is Consumer.CANCELLING
    assert consumption.take_cancels() == ["ct-1"]
    assert consumption.take_cancels() == [], "written once"
    consumption.cancelled("ct-1")
    assert state(consumption) is Consumer.OFF


def test_a_consumer_is_replaced_by_starting_the_new_one_before_the_old_one_is_cancelled() -> None:
    """The queue never is without a consumer: that would delete an auto-delete queue."""
    consumption = Source().consume(prefetch=1)
    consumption.ask(10)
    consumption.start("ct-2")
    assert consumption.replaces
    assert consumption.take_cancels() == []
    assert not consumption.cancelling
    consumption.started()
    assert consumption.take_cancels() == ["ct-1"]
    assert consumption.cancelling
    assert consumption.replaces, "the old one may still deliver"
    assert consumption.prefetch == 10
    consumption.cancelled("ct-1")
    assert (consumption.replaces, consumption.cancelling, consumption.consumer) == (False, False, Consumer.ON)
    assert consumption.take_cancels() == []


def test_a_cancel_while_one_is_replaced_is_for_both_and_for_each_but_once() -> None:
    source = Source()
    consumption = source.consume()
    source.consume("ct-2")
    assert consumption.take_cancels() == ["ct-1"]
    consumption.cancel()
    assert consumption.take_cancels() == ["ct-2"]
    consumption.cancelled("ct-1")
    assert state(consumption) is Consumer.CANCELLING
    consumption.cancelled("ct-2")
    assert state(consumption) is Consumer.OFF


def test_a_consumer_is_cancelled_only_after_its_start_is_answered() -> None:
    """Its start waits in the library's queue: a cancel could overtake it, and it would deliver unnoticed."""
    consumption = Source().consume()
    consumption.ask(10)
    consumption.start("ct-2")
    consumption.cancel()
    assert consumption.take_cancels() == ["ct-1"]
    consumption.cancelled("ct-1")
    assert state(consumption) is Consumer.CANCELLING
    consumption.started()
    assert consumption.take_cancels() == ["ct-2"]
    consumption.cancelled("ct-2")
    assert state(consumption) is Consumer.OFF


def test_of_a_consumer_that_is_gone_nothing_is_kept() -> None:
    """A destination that refuses for weeks is probed by some hundred thousand consumers, one after the other."""
    source = Source()
    for _ in range(2):
        source.consume("ct-1").cancel()
        assert source.consumption.take_cancels() == ["ct-1"]
        source.consumption.cancelled("ct-1")
        assert source.consumption.consumer is Consumer.OFF


def test_a_cancel_ok_for_nothing_is_malformed() -> None:
    with pytest.raises(MalformedFrameError, match="cancel-ok cannot happen to a consumer that is off"):
        Source().consumption.cancelled("ct-1")


def test_a_cancel_ok_for_another_consumer_changes_nothing() -> None:
    consumption = Source().consume()
    consumption.cancelled("another")
    assert state(consumption) is Consumer.ON


def test_a_consumer_that_the_broker_cancels_is_lost_since_the_first_time() -> None:
    consumption = Source().consume()
    consumption.cancelled_by_broker(1000.0)
    consumption.cancelled_by_broker(1001.0)
    assert (state(consumption), consumption.lost_s) == (Consumer.LOST, 1000.0)


def test_a_consumer_that_was_lost_before_its_start_was_answered_stays_lost() -> None:
    consumption = Source().consumption
    consumption.start("ct-1")
    consumption.cancelled_by_broker(1000.0)
    consumption.started()
    assert state(consumption) is Consumer.LOST
    assert consumption.take_cancels() == []


def test_of_a_lost_consumer_no_answer_to_a_cancel_is_waited_for() -> None:
    consumption = Source().consume()
    consumption.cancel()
    assert consumption.cancelling
    consumption.cancelled_by_broker(1000.0)
    assert not consumption.cancelling


def test_it_asks_one_thing_at_a_time() -> None:
    consumption = Source().consumption
    consumption.wait()
    assert consumption.asking
    consumption.answered()
    assert not consumption.asking


def test_what_is_delivered_while_a_consumer_starts_says_that_its_answer_was_read() -> None:
    source = Source()
    consumption = source.consumption
    consumption.ask(10)
    consumption.wait()
    assert consumption.awaits_answer
    consumption.start("ct-1")
    assert consumption.awaits_answer
    source.receive(1)
    assert not consumption.awaits_answer
    consumption.answered()
    consumption.started()
    consumption.wait()
    assert consumption.awaits_answer, "to another question"


def test_it_keeps_why_its_generation_must_end_and_what_became_of_the_queue() -> None:
    consumption = Source().consumption
    consumption.end("stalled", "why")
    assert consumption.ending == Ending("stalled", "why")
    consumption.gone()
    assert consumption.deleted


def test_a_queue_has_offered_something_if_it_ever_had() -> None:
    consumption = Source().consumption
    consumption.found(0)
    assert not consumption.offered
    consumption.found(3)
    consumption.found(0)
    assert consumption.offered


def test_it_is_in_use_from_its_first_ack_on_and_has_received_since_it_was_asked_for() -> None:
    source = Source()
    consumption = source.consume()
    source.receive(1)
    assert (consumption.received, consumption.in_use) == (True, False)
    source.take()
    source.confirm(1)
    assert consumption.in_use
    consumption.ask(10)
    assert not consumption.received
    assert not Consumption(source.window, opened=True).in_use, "another generation"


def test_there_is_room_for_the_prefetch_beside_what_is_in_flight() -> None:
    source = Source()
    source.consume(prefetch=1)
    assert source.consumption.room_until == 1
    source.receive(1)
    source.consume("ct-2", prefetch=1)
    assert source.consumption.room_until == 2


def test_it_is_refused_when_the_destination_has_refused_since_the_newest_consumer_began() -> None:
    source = Source()
    source.window.trouble.refused("before", 0.0)
    consumption = source.consume()
    assert not consumption.refused
    source.window.trouble.refused("since", 100.0)
    assert consumption.refused
    source.consume("ct-2")
    assert not consumption.refused


def test_it_is_refused_also_when_what_was_refused_before_it_began_has_been_forgotten() -> None:
    source = Source()
    for now_s in (0.0, 100.0, 200.0):
        source.window.trouble.refused("before", now_s)
    consumption = source.consume()
    source.window.trouble.over()
    assert not consumption.refused
    source.window.trouble.refused("since", 300.0)
    assert consumption.refused


# --- Memory --------------------------------------------------------------------------------------------------


def test_memory_is_full_for_too_long_after_ten_seconds_in_which_it_never_was_otherwise() -> None:
    source = Source()
    consumption = source.consume()
    assert not consumption.watch_memory(1000.0)
    source.fill_memory()
    assert not consumption.watch_memory(1001.0)
    assert not consumption.watch_memory(1001.0 + MEMORY_FULL_S - 0.1)
    source.take()
    source.confirm(1)
    assert not consumption.watch_memory(1002.0 + MEMORY_FULL_S)
    source.receive_each(delivery(2, b"x" * LARGE))
    assert not consumption.watch_memory(1003.0 + MEMORY_FULL_S)
    assert consumption.watch_memory(1003.0 + 2 * MEMORY_FULL_S)


def test_memory_is_no_matter_while_no_consumer_delivers() -> None:
    source = Source()
    source.fill_memory()
    assert not source.consumption.watch_memory(1000.0)
    assert not source.consumption.watch_memory(1000.0 + MEMORY_FULL_S)


def test_after_shedding_no_more_fit_than_were_in_memory_then_and_at_least_one() -> None:
    source = Source()
    source.consume()
    source.receive(1, 2)
    source.receive_each(delivery(3, b"x" * LARGE))
    source.consumption.watch_memory(1000.0)
    source.consumption.shed()
    assert source.consumption.fitting == 3
    assert source.consumption.take_cancels() == ["ct-1"]
    assert not source.consumption.watch_memory(1000.0 + MEMORY_FULL_S), "it is being cancelled"
    empty = Source()
    empty.consume()
    empty.consumption.shed()
    assert empty.consumption.fitting == 1
