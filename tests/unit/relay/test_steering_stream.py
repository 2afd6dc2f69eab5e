"""The steering: a stream keeps what it has delivered, so that it is read on and nothing of it is requeued."""

from __future__ import annotations

import pytest

from bridge.relay.action import AskFirstOffset, Consume, EndGeneration
from bridge.relay.consumption import LANDMARK_WITHIN_S
from bridge.relay.plan import Plan
from bridge.relay.queue import QueueFacts
from bridge.relay.relay import Relay
from bridge.relay.state import State
from bridge.window.gaps import ASK_AGAIN_S
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import confirm, content, deliver, with_offset
from tests.support.relay_scene import CANCEL, CLASSIC, EMPTY_QUEUE, STREAM, UNKNOWN, Bridge, M, ack, publish


def message(offset: int) -> bytes:
    return content(b"m", with_offset(offset))


def test_a_stream_is_read_from_where_the_settings_say_and_then_on_from_what_was_not_forwarded() -> None:
    bridge = Bridge(probing=True, consuming=False, facts=STREAM)
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, None)
    assert bridge.steering.starting("ct", bridge.now_s)
    bridge.source(*(deliver(tag, message(100 + tag)) for tag in (1, 2, 3)))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    bridge.relay.source.lost(bridge.now_s)
    bridge.destination(confirm(2))
    bridge.lose_destination()
    bridge.open_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 103)


def test_what_a_stream_delivers_again_and_was_forwarded_is_acked_and_not_published() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.source(deliver(1, message(7)), deliver(2, message(8)))
    bridge.to_destination()
    bridge.destination(confirm(2))
    bridge.to_source()
    bridge.relay.source.lost(bridge.now_s)
    bridge.lose_destination()
    bridge.open_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 7)
    assert bridge.steering.starting("ct", bridge.now_s)
    bridge.source(deliver(1, message(7)), deliver(2, message(8)))
    assert bridge.to_source() == ack(2, multiple=False)
    assert bridge.to_destination() == publish() + message(7)


@pytest.mark.parametrize("generations", (1, 2))
def test_a_queue_that_nobody_may_ask_is_known_as_a_stream_by_the_offset_of_a_delivery(generations: int) -> None:
    bridge = Bridge(facts=UNKNOWN)
    for _ in range(generations - 1):
        bridge.source(deliver(1, M), deliver(2, message(7)))
        assert not bridge.steering.stream, "the first delivery of a generation tells"
        bridge.lose_source()
        bridge.consume()
    bridge.source(deliver(1, message(7)))
    assert bridge.steering.stream
    assert bridge.window.offsets is not None
    assert bridge.window.offsets.resume_at == 7


def test_what_the_broker_says_of_a_queue_counts_more_than_what_its_messages_look_like() -> None:
    bridge = Bridge(facts=CLASSIC)
    bridge.source(deliver(1, message(7)))
    assert not bridge.steering.stream


def test_what_was_found_out_is_forgotten_when_the_broker_says_what_the_queue_is() -> None:
    bridge = Bridge(facts=UNKNOWN)
    bridge.source(deliver(1, message(7)))
    bridge.facts = CLASSIC
    bridge.lose_source()
    assert not bridge.steering.stream


def test_when_the_broker_says_nothing_of_the_queue_what_was_known_of_it_still_counts() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.relay.source.lost(bridge.now_s)
    bridge.relay.connect_source(lambda *_: None).opened(0)
    assert bridge.steering.stream


def test_at_the_start_the_settings_say_what_the_queue_is() -> None:
    window = Bridge().window
    plan = Plan(queue_type="stream")
    assert Relay(window, plan, lambda: 0.5).steering.stream


def forwarded_and_lost() -> Bridge:
    """One that has forwarded offset 7 of a stream, and lost the source's connection then."""
    bridge = Bridge(facts=STREAM)
    bridge.source(deliver(1, message(7)))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.to_source()
    bridge.lose_source()
    return bridge


def test_a_stream_that_does_not_deliver_what_it_has_had_is_another_one_and_read_from_its_first_message() -> None:
    bridge = forwarded_and_lost()
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 7), "the last message that was forwarded"
    assert bridge.steering.starting("ct", bridge.now_s)
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    bridge.wait(0.0)
    bridge.wait(LANDMARK_WITHIN_S - 1.0)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.wait(1.0)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert (ending.reason, ending.drop) == ("stalled", True)
    assert "nothing from offset 7 on" in ending.text
    bridge.lose_source()
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 0)


def test_a_stream_that_delivers_what_it_has_had_may_be_silent_after_that() -> None:
    bridge = forwarded_and_lost()
    bridge.consume()
    bridge.source(deliver(1, message(7)))
    assert bridge.books.suppressed == 1
    bridge.wait(10 * LANDMARK_WITHIN_S)
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.books.offsets_missed == 0


def test_what_retention_has_deleted_of_a_stream_is_counted() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.source(deliver(1, message(7)))
    bridge.lose_source()
    bridge.consume()
    bridge.source(deliver(1, message(10)))
    assert bridge.books.offsets_missed == 3


def test_a_stream_that_has_left_something_out_is_asked_where_it_begins() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.source(deliver(1, message(7)), deliver(2, message(10)))
    for _ in range(2):
        assert bridge.relay.decide(bridge.now_s) == AskFirstOffset()
        assert bridge.relay.decide(bridge.now_s) is None
        bridge.steering.first_offset_answered(None)
        assert bridge.relay.decide(bridge.now_s) is None, "without an answer it is asked again, after a pause"
        bridge.wait(ASK_AGAIN_S)
    assert bridge.relay.decide(bridge.now_s) == AskFirstOffset()
    bridge.steering.first_offset_answered(8)
    assert bridge.books.offsets_missed == 2
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_bridge_rests_no_longer_than_until_it_may_ask_where_its_stream_begins() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.source(deliver(1, message(7)), deliver(2, message(10)))
    bridge.to_destination()
    bridge.destination(confirm(2, multiple=True))
    bridge.to_source()
    assert bridge.relay.decide(bridge.now_s) == AskFirstOffset()
    bridge.steering.first_offset_answered(None)
    assert bridge.steering.quiet_until_s == bridge.now_s + ASK_AGAIN_S


def test_where_no_question_may_be_asked_it_stays_unknown_what_a_stream_has_left_out() -> None:
    bridge = Bridge(facts=QueueFacts("stream", answers=False))
    bridge.source(deliver(1, message(7)), deliver(2, message(10)))
    assert bridge.relay.decide(bridge.now_s) is None


def test_what_an_earlier_process_has_stored_is_where_the_first_consumer_begins() -> None:
    bridge = Bridge(consuming=False, facts=UNKNOWN)
    bridge.window.read_stream(41)
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 41)


def test_a_hold_timeout_ends_a_streams_generation_and_what_is_held_is_stale() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0), facts=STREAM)
    bridge.source(deliver(1, message(7)), deliver(2, message(8)))
    bridge.destination(frames.BLOCKED)
    bridge.wait(59.0)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.wait(1.0)
    text = "the destination accepted nothing for 60 s"
    assert bridge.relay.decide(bridge.now_s) == EndGeneration("source", "hold-timeout", text, drop=False)
    assert bridge.to_source() == b""
    bridge.lose_source()
    assert bridge.books.requeued == {}
    assert bridge.books.stale_held == 2
    assert bridge.wanted_prefetch == 0, "it is blocked"
    bridge.destination(frames.UNBLOCKED)
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 7)


def test_a_hold_timeout_of_a_stream_counts_also_where_its_requeues_would() -> None:
    bridge = Bridge(WindowLimits(hold_timeout_s=60.0), probing=True, facts=QueueFacts("stream", requeues_counted=True))
    bridge.source(deliver(1, message(7)))
    bridge.destination(frames.BLOCKED)
    bridge.wait(60.0)
    assert isinstance(bridge.relay.decide(bridge.now_s), EndGeneration)


def test_a_message_of_a_stream_that_is_refused_while_it_probes_is_held() -> None:
    bridge = Bridge(probing=True, facts=STREAM)
    bridge.source(deliver(1, message(7)))
    bridge.to_destination()
    bridge.destination(confirm(1, accepted=False))
    bridge.wait(0.05)
    assert bridge.to_source() == b""
    assert bridge.steering.state is State.PROBING


def test_a_queue_that_shows_itself_as_a_stream_while_it_probes_is_read_on_with_the_whole_prefetch() -> None:
    bridge = Bridge(probing=True, facts=UNKNOWN)
    bridge.source(deliver(1, message(7)))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.steering.state is State.WIDENING
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.to_source() == CANCEL + ack(1, multiple=True), "two consumers of a stream deliver the same"
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 7)
    assert bridge.steering.starting("ct-2", bridge.now_s)
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)


def test_a_pause_of_a_stream_ends_although_memory_is_too_full_to_hear_the_answer_to_its_cancel() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=1), facts=STREAM)
    bridge.destination(frames.BLOCKED)
    bridge.source(deliver(1, message(7)))
    bridge.pause()
    assert bridge.to_source() == CANCEL
    assert bridge.relay.paused, "what would answer it is not read"
    bridge.wait(30.0)
    text = "the bridge rests, and what it holds of a stream cannot be requeued"
    assert bridge.relay.decide(bridge.now_s) == EndGeneration("source", "paused", text, drop=False)


def test_what_a_stream_delivers_again_to_the_next_consumer_of_a_generation_is_here_already() -> None:
    """A message without a route stays in the window, where its stream is known as one only by then."""
    bridge = Bridge(probing=True, facts=UNKNOWN)
    bridge.source(deliver(1, message(7)))
    bridge.to_destination()
    bridge.destination(frames.returned(message(7)), confirm(1))
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    assert bridge.relay.decide(bridge.now_s) == Consume(1000, 7)
    assert bridge.steering.starting("ct-2", bridge.now_s)
    bridge.relay.started(EMPTY_QUEUE, bridge.now_s)
    bridge.source(deliver(2, message(7), consumer_tag="ct-2"))
    assert bridge.to_source() == ack(2, multiple=False)
    assert (bridge.books.suppressed, bridge.window.in_flight) == (1, 1)
