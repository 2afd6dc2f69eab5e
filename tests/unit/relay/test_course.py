"""The course: what may be asked of a bridge in each of its states, and when it would consume."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest

from bridge.relay.consumer import Consumer
from bridge.relay.state import State
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import close, confirm, deliver, returned
from tests.support.relay_scene import CLASSIC, QUORUM, STREAM, UNKNOWN, Bridge, M, counted

if TYPE_CHECKING:
    from bridge.relay.course import Course

SMALL = WindowLimits(prefetch=2, max_in_flight_bytes=100)


def asked(course: Course) -> dict[str, object]:
    """All that may be asked and is true, or a text."""
    names = ("stopping", "pausing", "rests", "braked", "paused_by_operator", "abandoned", "shedding", "stream")
    return {name: getattr(course, name) for name in names if getattr(course, name)}


def test_a_bridge_that_runs_is_none_of_these() -> None:
    bridge = Bridge()
    steering = bridge.steering
    assert asked(steering) == {}
    assert (steering.told_state, steering.hindrance) == ("running", "")
    assert (steering.prefetch, steering.cancelling) == (1000, False)
    assert steering.expects_deliveries
    assert not steering.paused
    assert not steering.withholds
    assert not steering.source_drained
    before = steering.received
    bridge.source(deliver(1, M))
    assert steering.received != before


def test_a_paused_bridge_is_told_from_one_that_is_braked() -> None:
    bridge = Bridge(consuming=False)
    bridge.pause()
    bridge.wait(0.0)
    assert asked(bridge.steering) == {"pausing": True, "rests": True, "paused_by_operator": True}
    assert bridge.steering.told_state == "paused"
    bridge = Bridge(WindowLimits(destination_counted=True, destination_max_ready=1), consuming=False)
    bridge.count(1)
    assert asked(bridge.steering) == {"pausing": True, "rests": True, "braked": True}
    assert bridge.steering.told_state == "braked"
    assert bridge.wanted_prefetch == 0


def test_a_pause_lingers_where_its_cancel_is_harmless() -> None:
    for facts, withholds in ((QUORUM, True), (UNKNOWN, False)):
        bridge = Bridge(facts=facts)
        bridge.source(deliver(1, M))
        bridge.pause()
        assert bridge.steering.withholds is withholds


def test_a_shutdown_lingers_while_the_destination_is_healthy_or_owes_an_answer() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.stop()
    assert asked(bridge.steering) == {"stopping": True}
    assert bridge.steering.withholds
    bridge.relay.destination.lost(bridge.now_s)
    assert not bridge.steering.withholds
    bridge.time_is_up()
    assert asked(bridge.steering) == {"stopping": True, "abandoned": True}


def test_a_bridge_that_is_being_widened_withholds_its_acks() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.state() is State.WIDENING
    assert bridge.steering.withholds
    assert bridge.wanted_prefetch == 1000
    bridge.start("ct-2")
    assert bridge.wanted_prefetch == 0
    assert bridge.steering.withholds


def test_memory_that_is_full_pauses_reading() -> None:
    bridge = Bridge(SMALL)
    bridge.source(deliver(1, frames.content(b"x" * 200)))
    assert bridge.steering.paused
    assert not bridge.steering.expects_deliveries
    bridge.wait(0.1)
    bridge.wait(10.0)
    assert asked(bridge.steering) == {"shedding": True}
    assert not bridge.steering.paused


@pytest.mark.parametrize(("facts", "stops"), ((QUORUM, True), (CLASSIC, False)))
def test_a_head_that_cannot_be_read_is_named_and_on_a_queue_with_a_limit_spared(facts: object, stops: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    bridge = Bridge(facts=facts, consuming=False)  # type: ignore[arg-type]  # queue facts
    for number in range(20):
        if bridge.wanted_prefetch == 0:
            break
        bridge.consume(f"ct-{number}", ready=1)
        bridge.lose_source(541, "INTERNAL_ERROR")
        bridge.wait(400.0)
    told = bridge.steering.hindrance
    assert "it cannot read the message" in told
    assert told.endswith("before its delivery limit") is stops
    assert (bridge.wanted_prefetch == 0) is stops


def test_a_stream_that_stops_is_drained_when_nothing_is_published() -> None:
    bridge = Bridge(facts=STREAM)
    bridge.source(deliver(1, M))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.stop()
    bridge.wait(0.0)
    bridge.source(frames.CANCEL_OK)
    assert asked(bridge.steering) == {"stopping": True, "stream": True}
    assert bridge.steering.source_drained


def test_while_it_requeues_it_does_not_consume_and_what_is_released_is_requeued() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.wait(301.0)
    assert bridge.state() is State.REQUEUEING
    bridge.open_destination()
    assert bridge.wanted_prefetch == 0
    bridge.source(frames.CANCEL_OK)
    assert bridge.state() is State.PROBING
    assert bridge.books.requeued == {"hold-timeout": 1}
    assert bridge.steering.consumer is Consumer.OFF


def test_behind_what_is_parked_one_more_is_looked_at() -> None:
    """All that a probe may hold waits for a route, which says nothing of the next message."""
    bridge = Bridge(probing=True)
    assert bridge.wanted_prefetch == 0
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(returned(M, routing_key="dq"), confirm(1))
    assert bridge.window.parked == 1
    assert bridge.wanted_prefetch == 1


def test_what_has_come_back_often_is_looked_at_one_by_one() -> None:
    bridge = Bridge(probing=True)
    bridge.source(deliver(1, counted(5), redelivered=1))
    bridge.lose_source()
    bridge.wait(400.0)
    assert bridge.wanted_prefetch == 1


def test_a_bridge_without_a_source_wants_nothing() -> None:
    bridge = Bridge(consuming=False)
    bridge.relay.source.lost(bridge.now_s)
    assert bridge.wanted_prefetch == 0
    assert bridge.steering.quiet_until_s == inf
    bridge.open_source()
    assert bridge.wanted_prefetch > 0
    bridge.source(close(1, 320, "x"))
