"""Brakes against real brokers: what arrives is bounded, nothing is held or requeued, and all arrives in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import scene
from tests.rig.client import drain, number_of
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.broker.scene import Scene
    from tests.rig.node import Node

PREFETCH = 50
MAX_READY = 300
MESSAGES = 2000


def is_braked(this: Scene, reason: str) -> bool:
    return this.metrics().total("bridge_braked", reason=reason) == 1 and state(this) == "braked"


def is_full(this: Scene) -> bool:
    return this.destination.queue_ready(this.queue_out) >= MAX_READY


def state(this: Scene) -> str:
    return str(this.bridge.status()["consumer"]["state"])


@pytest.mark.parametrize("queue_type", ("classic", "quorum"))
def test_a_queue_that_nobody_consumes_gets_its_limit_and_one_window_at_most(
    source: Node, destination: Node, queue_name: str, queue_type: str
) -> None:
    extra = {"BRIDGE_DESTINATION_MAX_READY": MAX_READY, "BRIDGE_SOURCE_PREFETCH": PREFETCH}
    this = scene(source, destination, name=queue_name, queue_type=queue_type, extra=extra)
    this.publish(MESSAGES)
    arrived: list[int] = []
    with this.bridge:
        while len(arrived) + MAX_READY < MESSAGES:
            wait_until(lambda: is_full(this) and is_braked(this, "max-ready"), "the bridge to rest", interval_s=0.05)
            metrics = this.metrics()
            assert metrics.total("bridge_messages_in_flight") == 0, "nothing is held"
            assert this.bridge.is_ready()
            taken = [number_of(message) for message in drain(destination.url, this.queue_out)]
            assert MAX_READY <= len(taken) <= MAX_READY + PREFETCH
            arrived += taken
        wait_until(lambda: source.queue_depth(this.queue_in) == 0, "the source to be empty", interval_s=0.05)
        this.bridge.wait_for(lambda metrics: metrics.total("bridge_messages_in_flight") == 0)
        arrived += [number_of(message) for message in drain(destination.url, this.queue_out)]
        done = this.metrics()
    assert arrived == list(range(MESSAGES)), "all, once and in order"
    assert done.total("bridge_messages_requeued_total") == 0
    assert done.total("bridge_generations_ended_total") == 0
    assert done.total("bridge_duplicates_possible_total") == 0


def test_nothing_is_moved_before_somebody_consumes(source: Node, destination: Node, queue_name: str) -> None:
    extra = {"BRIDGE_DESTINATION_MIN_CONSUMERS": 1, "BRIDGE_QUEUE_POLL": "1s"}
    this = scene(source, destination, name=queue_name, extra=extra)
    this.publish(100)
    with this.bridge:
        wait_until(lambda: is_braked(this, "min-consumers"), "the bridge to rest", interval_s=0.05)
        assert this.bridge.is_ready()
        assert this.metrics().total("bridge_messages_received_total") == 0
        with destination.channel() as channel:
            channel.basic_consume(this.queue_out, lambda *_: None, auto_ack=True)
            this.bridge.wait_for(lambda metrics: metrics.total("bridge_messages_forwarded_total") == 100)
        this.publish(1)
        wait_until(lambda: is_braked(this, "min-consumers"), "the bridge to rest again", interval_s=0.05)
        assert this.metrics().total("bridge_messages_requeued_total") == 0
