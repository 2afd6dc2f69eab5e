"""The steering: what is decided, asked and answered while a bridge runs."""

from __future__ import annotations

from math import inf

import pytest

from bridge.amqp.target import OriginalRoutes
from bridge.relay.action import AskExchange, AskQueue, Consume, EndGeneration, OpenQuarantine
from bridge.relay.consumer import Consumer
from bridge.relay.queue import QueueState
from bridge.relay.state import State
from bridge.relay.watchdog import ASK_EVERY_S
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import PERSISTENT, confirm, content, deliver
from tests.support.relay_scene import EMPTY_QUEUE, STREAM, Bridge, M, ack, cancel, condemned, publish

# --- Consuming -----------------------------------------------------------------------------------------------


def test_consuming_begins_only_with_a_source_and_a_destination_that_is_ready() -> None:
    bridge = Bridge()
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.wanted_prefetch == 0, "no source"
    bridge.open_source()
    assert bridge.wanted_prefetch == 1
    bridge.destination(frames.BLOCKED)
    assert bridge.wanted_prefetch == 0, "blocked"
    bridge.destination(frames.UNBLOCKED)
    bridge.relay.destination.lost(bridge.now_s)
    assert bridge.wanted_prefetch == 0, "no destination"
    bridge.open_destination()
    bridge.consume()
    assert bridge.wanted_prefetch == 0, "it consumes"


def test_consuming_waits_for_the_orphans_of_the_last_generation() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.lose_source()
    assert bridge.wanted_prefetch == 0
    bridge.destination(confirm(1))
    assert bridge.wanted_prefetch == 1
    assert bridge.to_source() == b"", "invariant 2"


def test_consuming_waits_until_memory_has_room() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=10))
    bridge.source(deliver(1, M))
    bridge.stop()
    bridge.lose_source()
    assert bridge.wanted_prefetch == 0


def test_consuming_is_wanted_once_until_it_is_answered_or_the_generation_ends() -> None:
    bridge = Bridge()
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.open_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1)
    assert bridge.relay.decide(bridge.now_s) is None, "it is being asked"
    bridge.lose_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1), "nobody answers for the generation that ended"


def test_a_consumer_that_is_no_longer_wanted_is_not_started() -> None:
    bridge = Bridge()
    bridge.lose_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1)
    bridge.destination(frames.BLOCKED)
    bridge.stop()
    assert not bridge.steering.starting("ct", bridge.now_s)
    bridge.steering.not_started()
    assert bridge.steering.consumer is Consumer.OFF


def test_a_consumer_that_the_broker_cancelled_meanwhile_is_not_replaced() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.relay.decide(bridge.now_s) == Consume(1000)
    bridge.source(frames.CANCEL)
    assert not bridge.steering.starting("ct-2", bridge.now_s)


def test_deliveries_are_expected_while_it_consumes_and_has_room() -> None:
    bridge = Bridge(WindowLimits(prefetch=2))
    bridge.source(deliver(1, M))
    assert bridge.steering.expects_deliveries
    bridge.source(deliver(2, M))
    assert not bridge.steering.expects_deliveries, "the prefetch is used up"
    bridge.relay.source.lost(bridge.now_s)
    assert not bridge.steering.expects_deliveries


def test_what_is_consumed_with_is_known_while_it_consumes() -> None:
    bridge = Bridge()
    assert bridge.steering.prefetch == WindowLimits().prefetch
    bridge.lose_source()
    assert bridge.steering.prefetch == 0


def test_while_it_probes_one_delivery_uses_the_prefetch_up() -> None:
    bridge = Bridge(probing=True)
    assert bridge.steering.expects_deliveries
    bridge.source(deliver(1, M))
    assert not bridge.steering.expects_deliveries


def test_what_the_queue_said_of_itself_last_is_kept() -> None:
    bridge = Bridge()
    assert bridge.steering.last_found == EMPTY_QUEUE
    bridge.wait(ASK_EVERY_S)
    bridge.wait(ASK_EVERY_S)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.steering.queue_answered(QueueState(ready=7, consumers=1), bridge.now_s)
    assert bridge.steering.last_found == QueueState(ready=7, consumers=1)
    bridge.steering.queue_answered(None, bridge.now_s)
    assert bridge.steering.last_found == QueueState(ready=7, consumers=1)


# --- The quarantine ------------------------------------------------------------------------------------------


def test_a_quarantine_that_cannot_be_opened_is_tried_again_later() -> None:
    bridge = Bridge()
    condemned(bridge, 1)
    assert bridge.relay.decide(bridge.now_s) == OpenQuarantine()
    bridge.steering.quarantine_unavailable(bridge.now_s)
    assert bridge.to_destination().startswith(publish()), "its best chance is to be forwarded"
    bridge.source(deliver(2, frames.content(b"m")))
    condemned(bridge, 3)
    assert bridge.relay.decide(bridge.now_s) is None, "it was not available just now"
    assert bridge.relay.decide(bridge.now_s + 1.0) == OpenQuarantine()


def test_a_quarantine_that_does_not_answer_ends_the_source_and_is_left_alone_for_a_while() -> None:
    bridge = Bridge()
    condemned(bridge, 1)
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.source(deliver(2, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.wait(bridge.window.limits.confirm_timeout_s + 0.1)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason) == ("source", "quarantine-timeout")
    bridge.lose_source()
    bridge.consume()
    condemned(bridge, 1)
    assert bridge.consume("ct-2") == 1, "beside what waits for the quarantine"
    assert bridge.relay.decide(bridge.now_s + 29.0) is None
    assert bridge.relay.decide(bridge.now_s + 30.0) == OpenQuarantine()


# --- Generations that must end -------------------------------------------------------------------------------


def test_a_queue_that_delivers_nothing_is_asked_and_ends_the_generation_when_it_is_not_empty() -> None:
    bridge = Bridge()
    found = QueueState(ready=7, consumers=1)
    assert bridge.relay.decide(bridge.now_s) is None
    for _ in range(2):
        bridge.wait(ASK_EVERY_S)
        assert bridge.relay.decide(bridge.now_s) == AskQueue()
        assert bridge.relay.decide(bridge.now_s) is None, "it is being asked"
        bridge.steering.queue_answered(found, bridge.now_s)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason, ending.drop) == ("source", "stalled", True)
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_destination_that_does_not_confirm_is_ended_also_while_the_source_is_away() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.relay.source.lost(bridge.now_s)
    bridge.wait(bridge.window.limits.confirm_timeout_s)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.side, ending.reason) == ("destination", "confirm-timeout")


# --- A consumer that the broker cancelled --------------------------------------------------------------------

CANCELLED = "the broker cancelled the consumer and requeued what it held (consumer timeout, or a move)"


def test_when_the_broker_cancels_the_consumer_nothing_is_published_until_the_queue_has_answered() -> None:
    """RabbitMQ 4.3 does it when a delivery was held for too long, and has requeued what we hold."""
    bridge = Bridge()
    bridge.source(deliver(1, M), frames.CANCEL)
    assert bridge.steering.consumer is Consumer.LOST
    assert bridge.to_destination() == b""
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    assert bridge.relay.decide(bridge.now_s) is None, "it is being asked"
    assert bridge.wanted_prefetch == 0, "no other consumer on this channel"


def test_a_queue_that_still_exists_ends_the_generation_and_what_is_held_is_stale() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M), deliver(2, M), frames.CANCEL)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(QueueState(ready=2, consumers=0), bridge.now_s)
    ending = EndGeneration("source", "consumer-cancelled", CANCELLED, drop=False)
    assert bridge.relay.decide(bridge.now_s) == ending
    assert bridge.to_destination() == b""
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.books.stale_held == 2


def test_a_publish_that_was_under_way_when_the_broker_cancelled_is_an_orphan() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.source(frames.CANCEL)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(QueueState(ready=1, consumers=0), bridge.now_s)
    bridge.lose_source()
    assert bridge.window.orphans == 1
    assert bridge.wanted_prefetch == 0, "until its redelivery can be known"


def test_a_source_that_ends_for_another_reason_leaves_the_quarantine_as_it_was() -> None:
    bridge = Bridge()
    bridge.stop()
    bridge.wait(0.05)
    bridge.wait(0.05)
    bridge.steering._stop_at_s += 100.0
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.wait(bridge.window.limits.confirm_timeout_s)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert ending.reason == "cancel-timeout"
    condemned(bridge, 1)
    assert bridge.relay.quarantine.wanted(bridge.now_s)


def test_what_was_acked_without_success_comes_again_before_the_queue_has_answered_and_is_not_published_twice() -> None:
    bridge = Bridge()
    message = content(b"m", PERSISTENT | {"message_id": b"m-1"})
    bridge.source(deliver(1, message))
    assert bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    bridge.source(frames.CANCEL, deliver(2, message, redelivered=1))
    assert bridge.books.suppressed == 1
    assert bridge.to_source() == ack(2, multiple=False)


@pytest.mark.parametrize("drained", (True, False))
def test_a_deleted_queue_ends_its_generation_when_what_is_held_is_forwarded_or_after_the_hold_timeout(
    *, drained: bool
) -> None:
    """It may exist nowhere else any more."""
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0))
    bridge.source(deliver(1, M), frames.CANCEL)
    bridge.source(frames.CANCEL)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(QueueState(0, 0, exists=False), bridge.now_s)
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.to_destination() == publish() + M
    assert not bridge.steering.source_drained
    if drained:
        bridge.destination(confirm(1))
        assert bridge.to_source() == ack(1, multiple=True)
        assert bridge.steering.source_drained
    else:
        bridge.destination(frames.BLOCKED)
        bridge.now_s += 60.0
    gone = EndGeneration("source", "consumer-cancelled", "the broker cancelled the consumer", drop=False)
    assert bridge.relay.decide(bridge.now_s) == gone
    assert bridge.books.duplicates_possible == 0


def test_a_queue_that_does_not_say_whether_it_exists_is_taken_for_deleted_and_the_doubt_is_counted() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M), frames.CANCEL)
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    bridge.steering.queue_answered(None, bridge.now_s)
    assert bridge.to_destination() == publish() + M
    assert bridge.books.duplicates_possible == 1


def test_memory_that_is_full_does_not_keep_the_queues_answer_from_being_read() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=10))
    bridge.source(deliver(1, M))
    assert bridge.relay.paused
    bridge.source(frames.CANCEL)
    assert not bridge.relay.paused


def test_a_consumer_that_is_lost_before_its_start_is_answered_stays_lost() -> None:
    bridge = Bridge(probing=True)
    bridge.lose_source()
    bridge.start()
    bridge.source(frames.CANCEL)
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    assert bridge.steering.consumer is Consumer.LOST
    assert bridge.to_source() == b""


# --- Being started while it is no longer wanted --------------------------------------------------------------


def test_a_consumer_that_is_lost_while_it_begins_needs_no_cancel() -> None:
    bridge = Bridge()
    bridge.relay.source.lost(bridge.now_s)
    bridge.open_source()
    bridge.start()
    bridge.source(frames.CANCEL)
    bridge.stop()
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    assert bridge.to_source() == b""


def test_requeueing_while_consuming_begins_cancels_when_it_has_begun() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0))
    bridge.lose_source()
    bridge.start()
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    assert bridge.to_source() == b""
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    assert bridge.to_source() == cancel("ct")
    bridge.source(frames.CANCEL_OK)
    assert bridge.steering.state is State.PROBING


# --- Rest ----------------------------------------------------------------------------------------------------


def quiet_s(bridge: Bridge) -> float:
    """For how long nothing is due."""
    assert bridge.relay.decide(bridge.now_s) is None
    return bridge.steering.quiet_until_s - bridge.now_s


def test_an_idle_bridge_rests_until_its_queue_is_to_be_asked() -> None:
    bridge = Bridge()
    assert quiet_s(bridge) == ASK_EVERY_S
    bridge.now_s += 10.0
    assert quiet_s(bridge) == ASK_EVERY_S - 10.0
    bridge.now_s += 5.0
    assert bridge.relay.decide(bridge.now_s) == AskQueue()
    assert bridge.steering.quiet_until_s == -inf, "an answer is awaited"
    bridge.steering.queue_answered(EMPTY_QUEUE, bridge.now_s)
    assert quiet_s(bridge) == ASK_EVERY_S


def test_a_stream_is_not_asked_so_that_nothing_is_due() -> None:
    assert quiet_s(Bridge(facts=STREAM)) == inf


def test_while_something_is_in_flight_there_is_no_rest() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    assert quiet_s(bridge) == -inf, "held"
    bridge.to_destination()
    assert quiet_s(bridge) == -inf, "published"
    bridge.destination(confirm(1))
    assert quiet_s(bridge) == ASK_EVERY_S


def test_orphans_leave_no_rest() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.relay.source.lost(bridge.now_s)
    assert quiet_s(bridge) == -inf
    bridge.destination(confirm(1))
    assert quiet_s(bridge) == inf, "until a source is there"


def test_what_the_destination_does_not_accept_leaves_no_rest() -> None:
    bridge = Bridge()
    bridge.destination(frames.BLOCKED)
    assert quiet_s(bridge) == -inf
    bridge.destination(frames.UNBLOCKED)
    bridge.wait(0.0)
    assert quiet_s(bridge) == ASK_EVERY_S
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1, accepted=False))
    assert quiet_s(bridge) == -inf


def test_a_bridge_that_stops_does_not_rest() -> None:
    bridge = Bridge()
    bridge.stop()
    assert bridge.steering.quiet_until_s == -inf


# --- Exchanges -----------------------------------------------------------------------------------------------


def test_an_exchange_is_asked_for_before_the_first_publish_to_it_and_not_while_the_destination_is_blocked() -> None:
    bridge = Bridge(target=OriginalRoutes())
    bridge.source(deliver(1, M, exchange="ex"))
    assert bridge.to_destination() == b""
    bridge.destination(frames.BLOCKED)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.destination(frames.UNBLOCKED)
    assert bridge.relay.decide(bridge.now_s) == AskExchange(b"\x02ex")
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.window.exchanges.answered(None, bridge.now_s)
    assert bridge.to_destination() == publish("key", "ex") + M
