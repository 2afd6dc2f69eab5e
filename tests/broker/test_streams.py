"""A stream as the source: nothing is ever requeued to it, and each consumer begins where it is told to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker.scene import Scene, in_flight, refused
from tests.rig.client import drain, number_of, publish_numbered
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.rig.node import Node

COUNT = 2000
PREFETCH = 200
RETAINED = {"x-max-length-bytes": 20_000, "x-stream-max-segment-size-bytes": 5_000}
OFFSET_FIELD = b"\x0fx-stream-offset"


def stored_by(node: Node) -> dict[str, Any]:
    """The settings that have the broker keep the offset."""
    return {"BRIDGE_SOURCE_OFFSET_NAME": "b", "BRIDGE_SOURCE_STREAM_URL": node.stream_url}


def stream(
    source: Node,
    destination: Node,
    name: str,
    offset: str,
    *,
    arguments: Mapping[str, object] | None = None,
    **more: object,
) -> Scene:
    """A bridge from a stream to a queue that is full until ``accept_all``."""
    extra = {
        "BRIDGE_SOURCE_CONSUMER_ARGUMENTS": json.dumps({"x-stream-offset": offset}),
        "BRIDGE_SOURCE_PREFETCH": PREFETCH,
        **more,
    }
    return refused(source, destination, queue_type="stream", name=name, arguments=arguments, extra=extra)


def wait_arrived(this: Scene, count: int) -> None:
    """Wait until so many messages are at the destination."""
    wait_until(lambda: this.destination.queue_depth(this.queue_out) >= count, f"{count} messages to arrive")


@pytest.mark.parametrize("offset", ("first", "next"))
def test_a_hold_timeout_costs_no_message_of_a_stream(
    source: Node, destination: Node, queue_name: str, offset: str
) -> None:
    """What was held is dropped, which is no requeue, and read again from the lowest offset that was not forwarded."""
    kept = stored_by(source) if offset == "first" else {}
    this = stream(source, destination, queue_name, offset, BRIDGE_HOLD_TIMEOUT="1s", **kept)
    destination.accept_all(this.queue_out)
    with this.bridge:
        this.bridge.wait_ready()
        this.publish(COUNT)
        this.wait_forwarded(COUNT)
        destination.accept_only(this.queue_out, COUNT)
        this.publish(COUNT)
        this.bridge.wait_for(
            lambda m: m.total("bridge_messages_stale_discarded_total") + m.total("bridge_messages_requeued_total") > 0,
            "the hold timeout",
        )
        destination.accept_all(this.queue_out)
        outcome = this.outcome(10)
        metrics = this.metrics()
    assert outcome.is_faultless, outcome
    assert outcome.doubled == 0, outcome
    assert metrics.total("bridge_messages_requeued_total") == 0


def test_a_stream_is_resumed_where_forwarding_ended(source: Node, destination: Node, queue_name: str) -> None:
    """A connection that ends under load costs what was on its way at the most; at the end of the stream, nothing."""
    this = stream(source, destination, queue_name, "first")
    destination.accept_all(this.queue_out)
    this.publish(10 * COUNT)
    with this.bridge:
        for count in (COUNT, 10 * COUNT):
            # What was published for a generation that has ended arrives, and does not come again.
            wait_arrived(this, count)
            assert source.close_connections() >= 1
        this.bridge.wait_for(lambda m: m.total("bridge_generation", side="source") >= 3, "the third generation")
        this.publish(COUNT)
        outcome = this.outcome()
    assert outcome.is_faultless, outcome
    assert outcome.doubled <= PREFETCH, outcome


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_bytes_in_a_body_make_no_stream(source: Node, destination: Node, queue_name: str) -> None:
    """A message that merely holds the name of the header: past the hold timeout its queue has it back."""
    this = refused(source, destination, name=queue_name, extra={"BRIDGE_HOLD_TIMEOUT": "1s"})
    publish_numbered(source.url, this.queue_in, COUNT, filling=OFFSET_FIELD)
    this.sent = COUNT
    with this.bridge:
        this.bridge.wait_for(lambda m: m.total("bridge_messages_requeued_total") > 0 and in_flight(m) <= 1, "requeued")
        destination.accept_all(this.queue_out)
        outcome = this.outcome(10)
        metrics = this.metrics()
    assert outcome.is_faultless, outcome
    assert outcome.doubled == 0, outcome
    assert metrics.total("bridge_messages_stale_discarded_total") == 0


@pytest.mark.parametrize("kept", (False, True), ids=("", "kept"))
def test_what_retention_deletes_ahead_of_a_connected_consumer_is_counted(
    source: Node, destination: Node, queue_name: str, *, kept: bool
) -> None:
    """The consumer goes on behind it, in the same generation; no offset that comes tells that something was there."""
    own: dict[str, Any] = (
        {"BRIDGE_SOURCE_OFFSET_NAME": "b", "BRIDGE_SOURCE_STREAM_URL": source.stream_url} if kept else {}
    )
    this = stream(source, destination, queue_name, "first", arguments=RETAINED, BRIDGE_SOURCE_PREFETCH=20, **own)
    with this.bridge:
        this.publish(10)
        this.bridge.wait_for(lambda m: in_flight(m) == 9, "the first to be refused")

        def passed() -> bool:
            this.publish(20, size=500)
            return this.sent - source.queue_depth(this.queue_in) > 300

        wait_until(passed, "retention to pass the consumer", interval_s=0.1)
        destination.accept_all(this.queue_out)
        arrived: set[int] = set()

        def lost() -> int:
            arrived.update(map(number_of, drain(destination.url, this.queue_out)))
            return this.sent - len(arrived)

        wait_until(lambda: lost() >= 0 and this.sent - 1 in arrived, "the last to arrive")
        metrics = this.bridge.wait_for(
            lambda m: m.total("bridge_source_offsets_missed_total") >= lost(), "what is lost to be counted"
        )
        assert lost() > 200
        # RabbitMQ has begun each file of the stream with something of its own: here after every 17 messages or so.
        assert metrics.total("bridge_source_offsets_missed_total") <= 1.2 * lost()
        assert metrics.total("bridge_generation", side="source") == 1
        assert sum("were deleted" in event["event"] for event in this.bridge.events) >= 1
        assert this.bridge.terminate() == 0
