"""The steering: with how many a bridge consumes before it has seen a message through, and how it widens then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.relay.action import Consume, EndGeneration, OpenQuarantine
from bridge.relay.consumer import Consumer
from bridge.relay.course import UNREADABLE, UNREADABLE_AFTER
from bridge.relay.plan import UNUSED_PAUSE_S
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.state import State
from bridge.relay.steering import RETURNED_OFTEN
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import PERSISTENT, close, confirm, content, deliver, returned
from tests.support.relay_scene import (
    AUTO_DELETE,
    CANCEL,
    CLASSIC,
    EMPTY_QUEUE,
    QUORUM,
    QUORUM_3,
    STREAM,
    Bridge,
    M,
    ack,
    cancel_ok,
    condemned,
    counted,
    publish,
)
from tests.support.targets import OWN_KEYS

NOT_EMPTY = QueueState(ready=5, consumers=0)


def accept_probe(bridge: Bridge, delivery_tag: int = 1, message: bytes = M, *, redelivered: int = 0) -> None:
    """The one message that is consumed comes, and the destination accepts it."""
    bridge.source(deliver(delivery_tag, message, redelivered=redelivered))
    bridge.to_destination()
    bridge.destination(confirm(delivery_tag))


# --- Probing and widening ------------------------------------------------------------------------------------


def test_a_new_process_consumes_a_single_message() -> None:
    """A crash counts for all that the broker had set out, read or not: with one it falls on the guilty alone."""
    bridge = Bridge(consuming=False, probing=True)
    assert bridge.state() is State.PROBING
    assert bridge.consume() == 1


def test_when_a_message_was_accepted_a_second_consumer_with_the_whole_prefetch_replaces_the_first() -> None:
    bridge = Bridge(probing=True)
    accept_probe(bridge)
    assert bridge.state() is State.WIDENING
    assert bridge.to_source() == b"", "an ack would bring the first consumer another message"
    assert bridge.relay.decide(bridge.now_s) == Consume(1000)
    assert bridge.steering.starting("ct-2", bridge.now_s)
    assert bridge.to_source() == b"", "the queue never is without a consumer"
    bridge.relay.started(NOT_EMPTY, bridge.now_s)
    assert bridge.to_source() == CANCEL
    assert bridge.steering.withholds
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.RUNNING
    assert bridge.to_source() == ack(1, multiple=True)
    assert bridge.wanted_prefetch == 0, "once a generation"


def test_where_a_cancel_wakes_no_standby_the_first_consumer_is_cancelled_before_the_second_is_started() -> None:
    """A classic queue of 3.10.8 with a single active consumer: to be consumed from wakes it."""
    bridge = Bridge(probing=True, facts=replace(CLASSIC, single_active=True))
    accept_probe(bridge)
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.to_source() == CANCEL + ack(1, multiple=True)
    bridge.source(frames.CANCEL_OK)
    assert bridge.consume("ct-2") == 1000
    assert bridge.state() is State.RUNNING
    assert bridge.to_source() == b""


def test_where_no_consumer_can_be_replaced_it_consumes_with_the_whole_prefetch_at_once() -> None:
    """An auto-delete queue has no delivery limit; with a single active consumer neither way of replacing it is safe."""
    bridge = Bridge(probing=True, consuming=False, facts=replace(AUTO_DELETE, single_active=True))
    assert bridge.consume() == 1000
    accept_probe(bridge)
    assert bridge.state() is State.RUNNING
    assert bridge.wanted_prefetch == 0


def test_acks_wait_for_the_old_consumers_cancel_ok_also_while_the_new_one_delivers() -> None:
    bridge = Bridge(probing=True)
    accept_probe(bridge)
    bridge.consume("ct-2")
    bridge.source(*(deliver(tag, M, consumer_tag="ct-2") for tag in (2, 3)))
    assert bridge.to_destination() == publish() + M + publish() + M
    bridge.destination(confirm(3, multiple=True))
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == ack(1, multiple=True) + ack(3, multiple=True)


def test_a_message_that_the_destination_has_not_accepted_yet_widens_nothing() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    assert bridge.state() is State.PROBING
    assert bridge.wanted_prefetch == 0


def test_a_message_that_is_accepted_before_the_start_of_its_consumer_is_known_counts() -> None:
    bridge = Bridge(consuming=False, probing=True)
    bridge.start()
    accept_probe(bridge)
    bridge.relay.started(NOT_EMPTY, bridge.now_s)
    assert bridge.steering.state is State.WIDENING


def test_a_prefetch_of_one_needs_no_second_consumer() -> None:
    bridge = Bridge(WindowLimits(prefetch=1), probing=True)
    accept_probe(bridge)
    assert bridge.state() is State.RUNNING
    assert bridge.to_source() == ack(1, multiple=True)
    assert bridge.wanted_prefetch == 0


def test_a_stream_is_consumed_with_the_whole_prefetch_from_the_start() -> None:
    """It counts no deliveries."""
    bridge = Bridge(probing=True, facts=STREAM)
    bridge.lose_source()
    assert bridge.consume() == 1000
    accept_probe(bridge)
    assert bridge.state() is State.RUNNING
    assert bridge.to_source() == ack(1, multiple=True)


@pytest.mark.parametrize("delivery_count", (RETURNED_OFTEN, RETURNED_OFTEN + 5))
def test_while_messages_come_that_have_returned_often_it_stays_with_one(delivery_count: int) -> None:
    """The broker's count is the memory across restarts: one of these may be what ends processes or generations."""
    bridge = Bridge(probing=True)
    for tag in (1, 2):
        accept_probe(bridge, tag, counted(delivery_count), redelivered=1)
        assert bridge.state() is State.PROBING
        assert bridge.to_source() == ack(tag, multiple=True)
        assert bridge.wanted_prefetch == 0
    accept_probe(bridge, 3, counted(RETURNED_OFTEN - 1), redelivered=1)
    assert bridge.state() is State.WIDENING


def test_an_orphan_of_the_last_generation_that_is_accepted_widens_nothing() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.lose_source()
    bridge.destination(confirm(1))
    assert bridge.state() is State.PROBING
    assert bridge.consume() == 1


def test_a_redelivery_that_is_suppressed_widens_nothing_but_the_next_one_may() -> None:
    message = content(b"m", PERSISTENT | {"message_id": b"m-1"})
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, message))
    bridge.to_destination()
    bridge.lose_source()
    bridge.destination(confirm(1))
    bridge.consume()
    bridge.source(deliver(1, message, redelivered=1))
    assert bridge.to_source() == ack(1, multiple=False)
    assert bridge.state() is State.PROBING
    bridge.source(deliver(2, M))
    bridge.to_destination()
    bridge.destination(confirm(2))
    assert bridge.state() is State.WIDENING


def test_a_probe_that_is_accepted_after_the_consumer_was_lost_widens_nothing() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.source(frames.CANCEL)
    bridge.destination(confirm(1))
    assert bridge.state() is State.PROBING
    assert bridge.to_source() == ack(1, multiple=True)


def test_a_destination_that_goes_away_while_it_widens_keeps_no_acks_waiting() -> None:
    """They would wait for as long as it is away: until the consumer timeout, or to be doubled by a lost connection."""
    bridge = Bridge(probing=True)
    accept_probe(bridge)
    bridge.relay.destination.lost(bridge.now_s)
    bridge.wait(0.05)
    assert bridge.wanted_prefetch == 0
    assert bridge.to_source() == ack(1, multiple=True)
    bridge.source(deliver(2, M))
    bridge.open_destination()
    assert bridge.to_destination() == publish() + M
    assert bridge.consume("ct-2") == 1000
    bridge.destination(confirm(1))
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == ack(2, multiple=True)
    assert bridge.state() is State.RUNNING


def test_a_broker_that_never_answers_the_old_consumers_cancel_ends_the_source() -> None:
    """Until it does, nothing is acked; and a queue that is empty is no reason to end it."""
    bridge = Bridge(probing=True)
    accept_probe(bridge)
    bridge.consume("ct-2")
    for _ in range(29):
        assert not isinstance(bridge.relay.decide(bridge.now_s), EndGeneration)
        bridge.wait(1.0)
        bridge.steering.queue_answered(EMPTY_QUEUE, bridge.now_s)
    bridge.wait(1.0)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason) == ("source", "cancel-timeout")


def test_requeueing_while_it_widens_cancels_both_consumers() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0), probing=True)
    accept_probe(bridge)
    bridge.consume("ct-2")
    bridge.source(deliver(2, M, consumer_tag="ct-2"))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    assert bridge.to_source() == CANCEL + frames.method(1, 60, 30, frames.short("ct-2") + b"\0") + ack(1, multiple=True)
    bridge.source(frames.CANCEL_OK)
    assert bridge.to_source() == b""
    bridge.source(cancel_ok("ct-2"))
    assert bridge.books.requeued == {"hold-timeout": 1}
    assert bridge.state() is State.PROBING


# --- After a generation that has ended -----------------------------------------------------------------------


def test_after_a_generation_in_which_a_message_was_acked_it_consumes_with_the_whole_prefetch() -> None:
    bridge = Bridge(probing=True)
    accept_probe(bridge)
    bridge.widen()
    bridge.lose_source()
    assert bridge.state() is State.RUNNING
    assert bridge.consume() == 1000


@pytest.mark.parametrize(("delivery_count", "prefetch"), ((RETURNED_OFTEN - 1, 1000), (RETURNED_OFTEN, 1)))
def test_after_a_generation_with_messages_that_had_returned_often_it_consumes_a_single_one(
    delivery_count: int, prefetch: int
) -> None:
    """Where every connection is lost soon, a message acked in each of them saves the others nothing."""
    bridge = Bridge()
    bridge.source(deliver(1, counted(delivery_count), redelivered=1))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.lose_source()
    assert bridge.consume() == prefetch


@pytest.mark.parametrize("facts", (QUORUM, CLASSIC, QUORUM_3, AUTO_DELETE))
def test_after_a_generation_that_ended_without_an_ack_it_consumes_a_single_message(facts: QueueFacts) -> None:
    bridge = Bridge(facts=facts)
    bridge.source(*(deliver(tag, M) for tag in range(1, 10)))
    bridge.lose_source()
    assert bridge.state() is State.PROBING
    assert bridge.consume() == 1


def test_after_the_second_generation_in_a_row_without_an_ack_it_pauses_ever_longer() -> None:
    bridge = Bridge(probing=True)
    pauses: list[float] = []
    for _ in range(14):
        bridge.lose_source()
        began_s = bridge.now_s
        while not bridge.wanted_prefetch:
            bridge.wait(UNUSED_PAUSE_S)
        pauses.append(bridge.now_s - began_s)
        bridge.consume(ready=5)
    assert pauses == [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300], "the hold timeout is the longest"
    accept_probe(bridge)
    for _ in range(2):
        bridge.lose_source()
        assert bridge.consume(ready=5), "a message was acked"


def test_generations_in_which_the_queue_was_empty_are_followed_by_no_pause() -> None:
    bridge = Bridge(probing=True)
    for _ in range(5):
        bridge.lose_source()
        assert bridge.consume(ready=0) == 1


def test_generations_that_never_came_to_consume_are_followed_by_no_pause() -> None:
    bridge = Bridge(probing=True)
    for _ in range(5):
        bridge.lose_source()
    assert bridge.consume(ready=5) == 1


# --- A head of the queue that is set aside -------------------------------------------------------------------


def test_behind_a_message_that_is_parked_another_one_is_consumed_until_one_is_seen_through() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(returned(M, routing_key="dq"), confirm(1))
    assert bridge.consume("ct-2") == 1
    assert bridge.to_source() == CANCEL
    assert bridge.wanted_prefetch == 0, "one is being replaced"
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.expects_deliveries
    assert bridge.state() is State.PROBING
    bridge.source(deliver(2, M, consumer_tag="ct-2"))
    assert bridge.to_destination() == publish() + M
    assert bridge.wanted_prefetch == 0, "it is under way"
    bridge.destination(confirm(2))
    assert bridge.state() is State.WIDENING
    assert bridge.consume("ct-3") == 1000
    bridge.source(cancel_ok("ct-2"))
    assert bridge.state() is State.RUNNING


def test_a_message_that_is_accepted_while_its_consumer_still_replaces_another_widens_once_that_is_gone() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(returned(M, routing_key="dq"), confirm(1))
    assert bridge.consume("ct-2") == 1
    bridge.source(deliver(2, M, consumer_tag="ct-2"))
    bridge.to_destination()
    bridge.destination(confirm(2))
    assert bridge.state() is State.PROBING
    bridge.source(cancel_ok("ct"))
    assert bridge.state() is State.WIDENING
    assert bridge.consume("ct-3") == 1000


SENT_AS = content(b"m", PERSISTENT | {"headers": frames.table({"k": b"V"})})
"""What becomes of `counted`."""


def park(bridge: Bridge, tags: range, consumer_tag: str, message: bytes | None = None) -> None:
    """These deliveries come, and the destination has no route for any of them."""
    contents = [message or content(b"%d" % tag, PERSISTENT) for tag in tags]
    bridge.source(
        *(deliver(tag, m, redelivered=1, consumer_tag=consumer_tag) for tag, m in zip(tags, contents, strict=True))
    )
    for tag, published in zip(tags, contents, strict=True):
        bridge.to_destination()
        bridge.destination(returned(SENT_AS if message else published), confirm(tag))


def test_behind_parked_messages_as_many_again_are_consumed_so_that_they_are_passed_soon() -> None:
    bridge = Bridge(WindowLimits(prefetch=100), target=OWN_KEYS, probing=True, consuming=False)
    found, tag = [], 1
    for number in range(8):
        found.append(bridge.consume(f"ct-{number}"))
        if number:
            bridge.source(cancel_ok(f"ct-{number - 1}"))
        park(bridge, range(tag, tag + found[-1]), f"ct-{number}")
        tag += found[-1]
    assert found == [1, 1, 2, 4, 8, 16, 32, 36]


def test_behind_parked_messages_that_have_returned_often_one_at_a_time_is_consumed() -> None:
    """One of them may be what ends generations or processes."""
    bridge = Bridge(target=OWN_KEYS, probing=True, consuming=False)
    for number in range(1, 5):
        assert bridge.consume(f"ct-{number}") == 1
        if number > 1:
            bridge.source(cancel_ok(f"ct-{number - 1}"))
        park(bridge, range(number, number + 1), f"ct-{number}", counted(RETURNED_OFTEN))


def test_acks_wait_from_the_moment_that_another_consumer_is_asked_for() -> None:
    """An ack would bring the present one more, beside what the other is sent (invariant 4)."""
    bridge = Bridge(probing=True)
    park(bridge, range(1, 2), "ct", M)
    assert not bridge.steering.withholds
    assert bridge.relay.decide(bridge.now_s) == Consume(1)
    assert bridge.steering.withholds
    bridge.steering.not_started()
    assert not bridge.steering.withholds


def test_a_probe_that_was_asked_for_before_another_was_accepted_is_not_started() -> None:
    """It would be taken for the consumer with the whole prefetch."""
    bridge = Bridge(probing=True)
    park(bridge, range(1, 2), "ct", M)
    assert bridge.relay.decide(bridge.now_s) == Consume(1)
    bridge.wait(1.0)
    bridge.to_destination()
    bridge.destination(confirm(2))
    assert bridge.state() is State.WIDENING
    assert not bridge.steering.starting("ct-2", bridge.now_s)
    bridge.steering.not_started()
    assert bridge.consume("ct-2") == 1000


def test_where_everything_is_returned_no_other_message_is_consumed() -> None:
    """It is the destination that has no route."""
    bridge = Bridge(probing=True)
    for number in (1, 2, 3):
        bridge.source(deliver(number, M, consumer_tag=f"ct-{number}"))
        assert bridge.to_destination() == publish() + M
        bridge.destination(returned(M, routing_key="dq"), confirm(number))
        if number < 3:
            assert bridge.consume(f"ct-{number + 1}") == number
            bridge.source(cancel_ok(f"ct-{number}" if number > 1 else "ct"))
    assert bridge.window.everything_returned
    assert bridge.wanted_prefetch == 0


def test_behind_parked_messages_no_more_are_consumed_than_the_whole_prefetch() -> None:
    """Invariant 4, where the destination closes its channel for each of them and nothing takes them."""
    bridge = Bridge(WindowLimits(prefetch=2, quarantine=False), probing=True)
    for number in (1, 2):
        bridge.source(deliver(number, M))
        assert bridge.to_destination() == publish() + M
        bridge.destination(close(1, 406, "PRECONDITION_FAILED"))
        bridge.lose_destination()
        if number < 2:
            assert bridge.consume("ct-2") == 1
            bridge.source(frames.CANCEL_OK)
    assert bridge.window.parked == 2
    assert bridge.wanted_prefetch == 0


def test_behind_a_message_that_waits_for_a_quarantine_that_is_left_alone_another_one_is_consumed() -> None:
    """Else nothing passes for as long, and then it begins again."""
    bridge = Bridge(probing=True)
    condemned(bridge, 1)
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert bridge.relay.decide(bridge.now_s) is None, "its answer is to come"
    bridge.wait(bridge.window.limits.confirm_timeout_s + 0.1)
    assert bridge.relay.decide(bridge.now_s) is not None
    bridge.lose_source()
    bridge.consume()
    condemned(bridge, 1)
    assert bridge.consume("ct-2") == 1
    bridge.source(frames.CANCEL_OK)
    bridge.source(deliver(2, M, consumer_tag="ct-2"))
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(1))
    assert bridge.state() is State.WIDENING
    assert bridge.consume("ct-3") == 1000
    bridge.now_s += 300.0
    assert bridge.relay.decide(bridge.now_s) == OpenQuarantine()


# --- A head of the queue that the broker cannot read ---------------------------------------------------------


def close_internally(bridge: Bridge, times: int) -> None:
    """The broker closes the channel with an internal error at the first message; time passes, and again."""
    for _ in range(times):
        bridge.lose_source(541, "INTERNAL_ERROR")
        bridge.wait(300.0)
        bridge.consume(ready=5)


def test_a_channel_that_is_closed_by_an_internal_error_again_and_again_means_that_the_head_is_unreadable() -> None:
    bridge = Bridge(probing=True, facts=CLASSIC)
    bridge.lose_source()
    bridge.consume(ready=5)
    close_internally(bridge, UNREADABLE_AFTER - 1)
    assert bridge.steering.hindrance == ""
    close_internally(bridge, 1)
    assert bridge.steering.hindrance == UNREADABLE
    close_internally(bridge, 30)
    assert bridge.steering.hindrance == UNREADABLE, "a classic queue has no delivery limit"
    bridge.source(deliver(1, M))
    bridge.lose_source(541, "INTERNAL_ERROR")
    assert bridge.steering.hindrance == "", "something was delivered"


def test_a_broker_that_fails_at_the_head_before_it_answers_the_consume_counts_too() -> None:
    bridge = Bridge(probing=True, consuming=False)
    for number in range(UNREADABLE_AFTER):
        assert bridge.steering.hindrance == ""
        bridge.now_s += 300.0
        assert bridge.relay.decide(bridge.now_s) == Consume(1)
        assert bridge.steering.starting(f"ct-{number}", bridge.now_s, 5)
        bridge.source(close(0, 541, "INTERNAL_ERROR"))
        bridge.lose_source()
    assert bridge.steering.hindrance == UNREADABLE


@pytest.mark.parametrize(("code", "ready"), ((320, 5), (541, 0)))
def test_another_close_or_one_of_an_empty_queue_says_nothing_of_its_head(code: int, ready: int) -> None:
    bridge = Bridge(probing=True)
    for _ in range(UNREADABLE_AFTER + 1):
        bridge.lose_source(code, "why")
        bridge.wait(300.0)
        bridge.consume(ready=ready)
    assert bridge.steering.hindrance == ""


@pytest.mark.parametrize("facts", (QUORUM, QUORUM_3, QueueFacts()))
def test_consuming_stops_before_an_unreadable_head_has_come_to_the_delivery_limit(facts: QueueFacts) -> None:
    bridge = Bridge(WindowLimits(delivery_limit=20), probing=True, facts=facts)
    bridge.lose_source()
    bridge.consume(ready=5)
    close_internally(bridge, 16)
    assert bridge.steering.hindrance == UNREADABLE
    bridge.lose_source(541, "INTERNAL_ERROR")
    bridge.wait(1000.0)
    assert bridge.wanted_prefetch == 0
    assert bridge.steering.hindrance == f"{UNREADABLE}; consuming has stopped before its delivery limit"


def test_a_lost_connection_does_not_make_it_consume_an_unreadable_head_again() -> None:
    """Each time counts: after some more the broker would drop the message."""
    bridge = Bridge(WindowLimits(delivery_limit=20), probing=True)
    bridge.lose_source()
    bridge.consume(ready=5)
    close_internally(bridge, 16)
    bridge.lose_source(541, "INTERNAL_ERROR")
    bridge.lose_source()
    bridge.wait(1000.0)
    assert bridge.wanted_prefetch == 0
    assert "consuming has stopped" in bridge.steering.hindrance


def test_a_head_that_somebody_removed_is_no_longer_unreadable() -> None:
    bridge = Bridge(probing=True)
    bridge.lose_source()
    bridge.consume(ready=5)
    close_internally(bridge, UNREADABLE_AFTER)
    bridge.lose_source()
    assert bridge.steering.hindrance == UNREADABLE
    bridge.wait(300.0)
    bridge.consume(ready=0)
    assert bridge.steering.hindrance == ""


def test_without_a_delivery_limit_an_unreadable_head_is_consumed_on_and_on() -> None:
    bridge = Bridge(WindowLimits(delivery_limit=0), probing=True)
    bridge.lose_source()
    bridge.consume(ready=5)
    close_internally(bridge, 40)
    assert bridge.steering.hindrance == UNREADABLE
    assert bridge.steering.consumer is Consumer.ON


def test_a_close_of_the_connection_by_an_internal_error_counts_as_well() -> None:
    bridge = Bridge(probing=True)
    for _ in range(UNREADABLE_AFTER + 1):
        bridge.source(close(0, 541, "INTERNAL_ERROR"))
        bridge.lose_source()
        bridge.wait(300.0)
        bridge.consume(ready=5)
    assert bridge.steering.hindrance == UNREADABLE


def test_under_a_rate_it_widens_to_what_the_rate_forwards_in_its_time() -> None:
    bridge = Bridge(WindowLimits(max_rate=5.0, paced_s=10.0), probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.consume("ct-2") == 50


def test_a_rate_of_a_single_message_widens_to_that_one() -> None:
    bridge = Bridge(WindowLimits(max_rate=0.1, paced_s=10.0), probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.state() is State.RUNNING
    assert bridge.relay.decide(bridge.now_s) is None
