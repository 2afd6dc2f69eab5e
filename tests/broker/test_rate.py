"""A rate against real brokers: order is kept, nothing is ended or lost for it, and what it held back is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.broker.scene import scene

if TYPE_CHECKING:
    from tests.rig.node import Node


def test_a_rate_of_messages_ends_no_generation_and_loses_nothing(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = scene(source, destination, name=queue_name, extra={"BRIDGE_MAX_RATE": "200"})
    with this.bridge:
        this.publish(1000)
        done = this.wait_done()
        assert done.total("bridge_throttled_seconds_total", reason="messages") > 0
        assert done.total("bridge_generations_ended_total") == 0
        assert done.total("bridge_publish_retries_total") == 0
        outcome = this.outcome()
    assert outcome.is_faultless
    assert outcome.doubled == 0


def test_a_shutdown_under_a_rate_has_the_time_to_forward_all_that_is_held(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = scene(source, destination, name=queue_name, extra={"BRIDGE_MAX_RATE": "20"})
    with this.bridge:
        this.publish(400)
        this.bridge.wait_for(lambda metrics: metrics.total("bridge_messages_in_flight", state="held") > 50)
        assert this.bridge.terminate() == 0
    assert "'requeued': 0" in str([event for event in this.bridge.events if event["event"] == "stopped"])
