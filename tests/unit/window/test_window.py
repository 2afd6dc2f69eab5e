"""The window: the way of a delivery, what the destination and the source do to it, and anything in any order."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from bridge.errors import MalformedFrameError
from bridge.window.pace import FIRST_PUBLISH_WINDOW
from tests.support.frames import delivery, stream_delivery, with_offset
from tests.support.targets import OWN_KEYS
from tests.support.window_model import LIMITS, WindowMachine
from tests.support.window_scene import Scene, identified

FORBIDDEN = "ACCESS_REFUSED - access to topic 'red' in exchange 'ex'"


class NoQuarantine(WindowMachine):
    """What the destination refuses is held."""

    limits = replace(LIMITS, quarantine=False)


class OwnKeys(WindowMachine):
    """A route is a matter of the message."""

    limits = replace(LIMITS, prefetch=7)
    target = OWN_KEYS


@pytest.mark.parametrize(
    ("machine", "examples"),
    ((WindowMachine, 200), (NoQuarantine, 60), (OwnKeys, 60)),
    ids=("quarantine", "no quarantine", "own keys"),
)
def test_in_any_order_of_events_the_invariants_hold_and_in_the_end_all_is_settled(
    machine: type[WindowMachine], examples: int
) -> None:
    limits = settings(max_examples=examples, stateful_step_count=60, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


# --- received → held → published → confirmed → acked -----------------------------------------------------------


def test_a_batch_is_bounded_in_bytes() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    size = len(delivery(1).content)
    assert len(scene.window.take(size + 1, scene.now_s)) == 2
    assert len(scene.window.take(size, scene.now_s)) == 1


# --- The destination ends, blocks, nacks ------------------------------------------------------------------------


def test_destination_generation_ends_and_the_published_are_held_in_order_and_published_again() -> None:
    scene = Scene()
    scene.receive(*range(1, 6))
    scene.take()
    scene.confirm(2)
    scene.receive(6)
    scene.lose_destination()
    assert scene.take() == []
    scene.reopen_destination()
    assert scene.take() == [1, 3, 4, 5, 6], "invariant 5"
    assert scene.books.duplicates_possible == 4
    assert scene.books.publish_retries == {"destination-lost": 4}
    scene.confirm(5, multiple=True)
    assert (scene.acks()[-1], scene.window.in_flight) == ((6, False), 0)


def test_a_loss_with_nothing_published_makes_no_duplicates() -> None:
    scene = Scene()
    scene.receive(1)
    scene.lose_destination(320)
    assert scene.books.duplicates_possible == 0
    assert scene.books.publish_retries == {}


def test_blocked_writes_nothing_and_confirm_timeouts_stand_still() -> None:
    scene = Scene(confirm_timeout_s=30.0)
    scene.receive(1)
    scene.take()
    scene.window.destination_blocked(scene.now_s)
    scene.receive(2)
    scene.wait(1000.0)
    assert scene.window.blocked
    assert not scene.window.destination_ready
    assert not scene.window.publishable
    assert scene.take() == []
    assert scene.window.trouble.seconds(scene.now_s) == 1000.0
    assert not scene.window.confirm_overdue(scene.now_s)
    scene.window.destination_unblocked(scene.now_s)
    assert not scene.window.confirm_overdue(scene.now_s)
    assert scene.take() == [2]
    scene.wait(29.9)
    assert not scene.window.confirm_overdue(scene.now_s)
    scene.wait(0.1)
    assert scene.window.confirm_overdue(scene.now_s)


def test_trouble_without_a_message_in_flight_is_over_when_the_destination_is_back() -> None:
    scene = Scene()
    scene.lose_destination()
    scene.wait(10.0)
    assert scene.window.trouble.seconds(scene.now_s) == 10.0
    scene.reopen_destination()
    scene.wait(0.1)
    assert scene.window.trouble.seconds(scene.now_s) == 0.0


def test_a_destination_that_is_given_up_has_the_whole_time_again() -> None:
    scene = Scene()
    scene.receive(1)
    scene.lose_destination()
    scene.wait(300.0)
    scene.window.give_up(scene.now_s)
    scene.wait(10.0)
    assert scene.window.trouble.seconds(scene.now_s) == 10.0


# --- The source -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delivery_count", "limit", "caught"), ((17, 20, True), (16, 20, False), (99, 0, False)))
def test_a_delivery_near_the_limit_goes_to_the_quarantine(delivery_count: int, limit: int, *, caught: bool) -> None:
    scene = Scene(delivery_limit=limit)
    scene.receive_each(delivery(1, redelivered=1, delivery_count=delivery_count))
    assert bool(scene.verdicts()) == caught
    assert scene.take() == ([] if caught else [1])


def test_near_the_limit_and_refused_by_the_quarantine_its_best_chance_is_to_be_forwarded() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, redelivered=1, delivery_count=17))
    scene.refuse_quarantine()
    assert scene.take() == [1]


def test_source_generation_ends_and_all_of_the_window_is_stale() -> None:
    scene = Scene()
    scene.receive(*range(1, FIRST_PUBLISH_WINDOW + 4))
    scene.take()
    scene.confirm(1)
    scene.window.source_lost()
    assert scene.acks() == [], "invariant 2: an ack that was not written is not written any more"
    assert scene.take() == []
    assert (scene.books.stale_held, scene.books.stale_published) == (3, FIRST_PUBLISH_WINDOW - 1)
    assert scene.window.orphans == FIRST_PUBLISH_WINDOW - 1
    assert scene.window.oldest_received_s is None
    assert scene.books.bytes_in_flight == 0


def test_a_suppressed_redelivery_is_known_again_when_its_ack_was_lost_too() -> None:
    scene = Scene()
    scene.receive_each(identified(1, "a"))
    scene.take()
    scene.confirm(1)
    for _ in range(3):
        scene.window.source_lost()
        scene.window.source_opened()
        scene.receive_each(identified(1, "a", redelivered=1))
        assert scene.acks() == [(1, False)]
    assert (scene.books.forwarded, scene.books.suppressed) == (1, 3)


def test_what_was_acked_is_known_again_on_the_same_channel_once_the_broker_has_cancelled_the_consumer() -> None:
    """A consumer timeout of 4.3 ignores the acks on the way; a consumer that was just starting gets all again."""
    scene = Scene()
    scene.receive_each(identified(1, "a"))
    scene.take()
    scene.confirm(1)
    assert scene.acks() == [(1, True)]
    scene.window.consumer_lost()
    scene.receive_each(identified(2, "a", redelivered=1), identified(3, "b", redelivered=1))
    assert scene.acks() == [(2, False)]
    assert (scene.books.suppressed, scene.books.held) == (1, 1)
    assert scene.books.duplicates_possible == 0


@pytest.mark.parametrize("fate", ("held", "published"))
def test_what_came_round_again_before_the_broker_cancelled_the_consumer_is_not_taken_for_its_first_copy(
    fate: str,
) -> None:
    scene = Scene()
    scene.receive_each(identified(1, "a"))
    scene.take()
    scene.confirm(1)
    scene.receive_each(identified(2, "a"))
    if fate == "published":
        scene.take()
    scene.window.consumer_lost()
    scene.receive_each(identified(3, "a", redelivered=1))
    assert scene.books.suppressed == 0
    assert scene.books.duplicates_possible == 1


@pytest.mark.parametrize("fate", ("held", "requeued", "orphan nacked", "orphan's destination lost"))
def test_a_message_that_came_round_again_is_not_suppressed_in_the_place_of_its_first_copy(fate: str) -> None:
    """Somebody sent it back to the source with its id, to be tried again: that was not forwarded, and must be."""
    scene = Scene()
    scene.receive_each(identified(1, "a"))
    scene.take()
    scene.confirm(1)
    scene.receive_each(identified(2, "a"))
    if fate.startswith("orphan"):
        scene.take()
    if fate == "requeued":
        scene.window.release("hold-timeout")
    scene.window.source_lost()
    if fate == "orphan nacked":
        scene.confirm(2, accepted=False)
    elif fate == "orphan's destination lost":
        scene.lose_destination()
        scene.reopen_destination()
    scene.window.source_opened()
    scene.receive_each(identified(1, "a", redelivered=1))
    scene.wait(10.0)
    assert scene.take() == [1]
    assert scene.books.duplicates_possible > 0, "it may be the first copy, whose ack was forgotten"


def test_nothing_is_published_while_orphans_wait() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.window.source_lost()
    scene.window.source_opened()
    scene.receive(1)
    assert scene.take() == []
    assert scene.window.publishing
    scene.confirm(1)
    assert scene.take() == [1]


# --- Requeueing ------------------------------------------------------------------------------------------------


def test_release_requeues_all_that_is_not_published_in_order_and_what_still_comes() -> None:
    scene = Scene()
    scene.receive_each(delivery(1), delivery(2, redelivered=1, delivery_count=19), delivery(3), delivery(4))
    assert scene.take() == [1, 3, 4]
    scene.refuse_route(3, 2)
    scene.receive(5)
    scene.window.release("hold-timeout")
    assert scene.window.settlement.requeues == [2, 3, 5]
    scene.receive(6)
    assert scene.window.settlement.requeues == [2, 3, 5, 6]
    scene.window.released()
    scene.receive(7)
    assert scene.window.settlement.requeues == [2, 3, 5, 6]
    assert scene.books.requeued == {"hold-timeout": 4}
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (4, False)]


def test_release_leaves_what_is_on_its_way_to_the_quarantine() -> None:
    scene = Scene()
    scene.receive_each(*(delivery(tag, redelivered=1, delivery_count=19) for tag in (1, 2)))
    scene.window.quarantine_asked()
    scene.window.release("shutdown")
    assert scene.window.settlement.requeues == [2]
    scene.window.quarantined(1)
    assert scene.acks() == [(1, False)]


def test_release_published_requeues_the_rest_but_never_orphans() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.confirm(2)
    scene.window.release_published("shutdown")
    assert scene.window.settlement.requeues == [1, 3]
    assert scene.books.duplicates_possible == 2
    other = Scene()
    other.receive(1)
    other.take()
    other.window.source_lost()
    other.window.release_published("shutdown")
    assert other.window.settlement.requeues == [], "invariant 2"


def test_a_delivery_whose_body_was_dropped_is_requeued_and_counted() -> None:
    scene = Scene()
    scene.receive(1)
    scene.window.drop(2, redelivered=1, reason="memory")
    scene.receive(3)
    assert scene.window.settlement.requeues == [2]
    assert scene.books.requeued == {"memory": 1}
    assert (scene.books.received, scene.books.received_redelivered, scene.books.imbalance) == (3, 1, 0)
    assert sum(scene.books.size_bits) == 3
    scene.take()
    scene.confirm(2, multiple=True)
    assert scene.acks() == [(1, False), (3, False)], "an ack of all below would ack what was requeued"


def test_a_gap_in_the_delivery_tags_is_malformed_and_nothing_of_it_is_taken_in() -> None:
    scene = Scene()
    scene.receive(1)
    with pytest.raises(MalformedFrameError, match="delivery 3 where delivery 2 was to come"):
        scene.receive(3)
    with pytest.raises(MalformedFrameError, match="delivery 3 where delivery 2 was to come"):
        scene.window.drop(3, redelivered=0, reason="memory")
    assert (scene.books.received, scene.window.in_flight, scene.books.imbalance) == (1, 1, 0)


def test_when_nobody_knows_what_became_of_the_queue_each_in_the_window_may_come_twice() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.confirm(1)
    scene.window.doubt()
    assert scene.books.duplicates_possible == 2


# --- A stream ---------------------------------------------------------------------------------------------------


def test_what_a_stream_delivers_again_although_it_was_forwarded_is_suppressed() -> None:
    scene = Scene()
    scene.window.read_stream()
    scene.receive_each(*(stream_delivery(tag, 100 + tag) for tag in (1, 2)))
    scene.take()
    scene.confirm(2)
    scene.acks()
    scene.window.source_lost()
    scene.lose_destination()
    scene.reopen_destination()
    scene.window.source_opened()
    scene.window.read_stream()
    scene.receive_each(*(stream_delivery(tag, 100 + tag) for tag in (1, 2)))
    assert scene.acks() == [(2, False)]
    assert scene.books.suppressed == 1
    assert scene.take() == [1]
    assert scene.books.imbalance == 0


def test_a_message_of_a_stream_that_memory_had_no_room_for_is_read_again() -> None:
    """Its offset is lost with it: what comes after it must not be stored as if it had been forwarded, too."""
    scene = Scene()
    scene.window.read_stream()
    scene.receive_each(stream_delivery(1, 101))
    scene.window.drop(2, redelivered=0, reason="memory")
    scene.receive_each(stream_delivery(3, 103))
    scene.take()
    scene.confirm(1)
    scene.confirm(2)
    assert scene.resume_at == 102
    assert scene.window.offsets is not None
    assert scene.window.offsets.settled == 101


def test_what_a_stream_has_left_out_is_missed_where_it_begins_behind_it() -> None:
    scene = Scene()
    scene.window.read_stream()
    scene.receive_each(stream_delivery(1, 101), stream_delivery(2, 105))
    assert scene.window.offsets is not None
    for first, missed in ((None, 0), (104, 3)):
        scene.window.offsets.gaps.ask(0.0)
        scene.window.stream_begins_at(first)
        assert scene.books.offsets_missed == missed


def test_what_an_earlier_process_stored_counts_only_for_the_first_consumer() -> None:
    scene = Scene()
    scene.window.read_stream(41)
    scene.window.read_stream(7)
    assert scene.resume_at == 42


def test_an_orphan_of_a_stream_that_was_confirmed_is_not_read_again() -> None:
    scene = Scene()
    scene.window.read_stream()
    scene.receive_each(stream_delivery(1, 101), stream_delivery(2, 102))
    scene.take()
    scene.window.source_lost()
    scene.confirm(1)
    assert scene.resume_at == 102


def test_what_of_a_stream_is_in_the_quarantine_is_not_read_again() -> None:
    scene = Scene()
    scene.window.read_stream()
    scene.receive_each(stream_delivery(1, 101))
    scene.take()
    scene.lose_destination(406, "poison")
    scene.window.quarantine_asked()
    scene.window.quarantined(1)
    assert scene.resume_at == 102


def test_a_delivery_of_a_stream_without_an_offset_is_forwarded_as_any_other() -> None:
    scene = Scene()
    scene.window.read_stream()
    scene.receive(1)
    assert scene.take() == [1]
    scene.confirm(1)
    assert scene.acks() == [(1, True)]
    assert scene.resume_at is None


def test_what_a_stream_delivered_and_the_destination_refuses_for_long_is_not_requeued() -> None:
    """Nothing can be requeued there: RabbitMQ 3.10 closes the connection, and 4.3 takes it for settled."""
    scene = Scene(hold_timeout_s=60.0)
    scene.window.read_stream()
    scene.receive_each(stream_delivery(1, 101))
    seqno = 0
    for _ in range(200):
        if scene.take():
            seqno += 1
            scene.returned(b"1", properties=with_offset(101))
            scene.confirm(seqno)
            scene.window._source.parked.returns_in_a_row = 0  # others were accepted meanwhile
        scene.wait(0.5)
    assert scene.window.settlement.requeues == []
    assert scene.books.requeued == {}


def test_without_a_quarantine_poison_of_a_stream_is_tried_again_as_it_cannot_be_requeued() -> None:
    scene = Scene(quarantine=False, hold_timeout_s=60.0)
    scene.window.read_stream()
    scene.receive_each(stream_delivery(1, 101))
    for _ in range(2):
        assert scene.take() == [1]
        scene.lose_destination(406, "poison")
        scene.reopen_destination()
        assert scene.take() == []
        scene.wait(60.0)
    assert scene.take() == [1]
    scene.confirm(1)
    assert (scene.acks(), scene.books.requeued) == ([(1, True)], {})


def test_without_a_quarantine_what_of_a_stream_has_come_round_too_often_stays_held() -> None:
    scene = Scene(quarantine=False, hold_timeout_s=60.0, max_hops=1)
    scene.window.read_stream()
    properties = with_offset(101, fields={"x-bridge-hops": b"l" + pack(">q", 2)})
    scene.receive_each(delivery(1, properties=properties))
    for _ in range(3):
        assert scene.take() == []
        scene.wait(60.0)
    assert scene.window.parked == 1


# --- Memory -----------------------------------------------------------------------------------------------------


# --- What is asked of it -------------------------------------------------------------------------------------


def test_the_largest_message_that_is_more_than_may_be_in_flight_is_told_once() -> None:
    scene = Scene(max_in_flight_bytes=100)
    scene.receive_each(*(delivery(tag, b"." * 60) for tag in (1, 2)))
    assert scene.window.take_oversized() == 0, "none of them is"
    scene.receive_each(delivery(3, b"." * 200), delivery(4, b"." * 150))
    assert scene.window.take_oversized() == 200
    assert scene.window.take_oversized() == 0


def test_where_all_that_is_held_is_too_large_for_the_destination_nothing_is_published() -> None:
    scene = Scene()
    scene.window.destination_opened(100)
    scene.receive_each(delivery(1, properties={"headers": b"\0\0\0\x80" + b"\x01aS\0\0\0\x79" + b"." * 121}))
    assert scene.take() == []
    assert [(tag, reason) for tag, reason, _ in scene.verdicts()] == [(1, "too-large")]
