"""Lag on real brokers: both queues are counted, a question that fails leaves no figure, and messages have an age."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pika
import pytest

from tests.broker.scene import scene
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.scene import Scene
    from tests.rig.bridge_process import Metrics
    from tests.rig.node import Node

POLL = {"BRIDGE_QUEUE_POLL": "200ms"}
READY, CONSUMERS = "bridge_{}_messages_ready", "bridge_{}_consumers"


def figure(metrics: Metrics, name: str) -> float | None:
    """The value of a gauge; None where it is not there."""
    return metrics.get((name, frozenset()))


@contextmanager
def alarm(node: Node) -> Iterator[None]:
    """A memory alarm until the block ends."""
    node.alarm(on=True)
    try:
        yield
    finally:
        node.alarm(on=False)


def wait_figure(this: Scene, name: str, expected: float | None) -> None:
    this.bridge.wait_for(lambda now: figure(now, name) == expected, f"{name} to be {expected}", 30)


def test_both_queues_are_counted_while_messages_wait(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    this = scene(source, destination, queue_type=queue_type, name=queue_name, extra=POLL)
    with this.bridge:
        wait_figure(this, READY.format("source"), 0)
        wait_figure(this, CONSUMERS.format("source"), 1)
        wait_figure(this, READY.format("destination"), 0)
        wait_figure(this, CONSUMERS.format("destination"), 0)
        this.publish(500)
        this.wait_done()
        wait_figure(this, READY.format("destination"), 500)
        wait_figure(this, READY.format("source"), 0)


def test_what_waits_behind_a_blocked_destination_is_shown_and_its_own_figure_vanishes(
    source: Node, destination: Node, queue_name: str
) -> None:
    """The blocked broker answers nothing, not even a question: that ends no generation."""
    prefetch = 50
    this = scene(source, destination, name=queue_name, extra=POLL | {"BRIDGE_SOURCE_PREFETCH": prefetch})
    this.publish(10)
    with this.bridge:
        this.wait_done()
        wait_figure(this, READY.format("destination"), 10)
        with alarm(destination):
            this.publish(500)
            wait_figure(this, READY.format("source"), 500 - prefetch)
            wait_figure(this, READY.format("destination"), None)
            sentence = this.bridge.status()["sentence"]
            assert sentence.startswith("destination blocked since ")
            assert sentence.endswith(" UTC: low on memory")
        this.wait_done()
        wait_figure(this, READY.format("destination"), 510)
        done = this.metrics()
    assert done.total("bridge_generation", side="source") == 1
    assert done.total("bridge_generation", side="destination") == 1


def test_a_stream_shows_what_it_keeps(source: Node, destination: Node, queue_name: str) -> None:
    extra = POLL | {"BRIDGE_SOURCE_CONSUMER_ARGUMENTS": '{"x-stream-offset": "first"}'}
    this = scene(source, destination, name=queue_name, queue_type="stream", extra=extra)
    this.publish(300)
    with this.bridge:
        this.wait_forwarded(300)
        wait_figure(this, "bridge_source_messages_kept", 300)
        wait_figure(this, READY.format("source"), None)


@pytest.mark.parametrize(("sent_before_s", "reason"), ((100, None), (-100, "clock-ahead"), (None, "no-timestamp")))
def test_the_age_of_messages_is_that_of_their_timestamps(
    source: Node, destination: Node, queue_name: str, sent_before_s: int | None, reason: str | None
) -> None:
    this = scene(source, destination, name=queue_name, extra=POLL)
    stamp = None if sent_before_s is None else int(time.time()) - sent_before_s
    with source.channel() as channel:
        channel.basic_publish("", this.queue_in, b"x", pika.BasicProperties(delivery_mode=2, timestamp=stamp))
    with this.bridge:
        done = this.bridge.wait_for(lambda now: now.total("bridge_messages_forwarded_total") == 1, "it to arrive")
    if reason is None:
        assert done.total("bridge_message_age_seconds_count") == 1
        assert 99 < done.total("bridge_message_age_seconds_sum") < 200
    else:
        assert done.total("bridge_message_age_unknown_total", reason=reason) == 1
        assert done.total("bridge_message_age_seconds_count") == 0


def test_a_backlog_that_is_worked_off_says_when_it_will_be_empty(
    source: Node, destination: Node, queue_name: str
) -> None:
    """With a prefetch so small that the backlog lasts for several samples on the fastest machine."""
    this = scene(source, destination, name=queue_name, extra=POLL | {"BRIDGE_SOURCE_PREFETCH": 4})
    this.publish(100_000)
    with this.bridge:

        def told() -> bool:
            sentence = this.bridge.status()["sentence"]
            return sentence.startswith("forwarding ") and " waiting, empty in about " in sentence

        wait_until(told, "a time to drain", 60, interval_s=0.05)
