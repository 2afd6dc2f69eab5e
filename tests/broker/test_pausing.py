"""A pause under load: nothing is lost, doubled or requeued, and another bridge goes on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.broker.scene import both, running, scene
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.broker.scene import Scene
    from tests.rig.node import Node

PAUSES = 100
MESSAGES = 100
"""Published before each pause."""


def resume(this: Scene) -> None:
    this.bridge.resume()
    wait_until(lambda: not this.bridge.status()["consumer"]["paused"], "the bridge to be resumed", interval_s=0.01)


def test_many_pauses_under_load_lose_double_and_requeue_nothing(
    source: Node, destination: Node, queue_name: str
) -> None:
    """So no delivery limit is used up, where RabbitMQ counts what is requeued (3.10) and where not.

    What a quorum queue has sent to a channel that has just cancelled its consumer the channel sends back itself, marked
    as redelivered (rabbit_fifo_client, `handle_delivery`): no client sees it come the first time.
    """
    scenes = both(source, destination, queue_name)
    with running(scenes):
        for this in scenes:
            this.see_one_through()
        for _ in range(PAUSES):
            for this in scenes:
                this.publish(MESSAGES)
                this.bridge.pause()
            for this in scenes:
                this.wait_paused()
                assert this.metrics().total("bridge_messages_in_flight") == 0
                resume(this)
        for this in scenes:
            done = this.wait_done()
            assert done.total("bridge_messages_requeued_total") == 0
            assert done.total("bridge_messages_received_total") == this.sent
            classic = this.queue_in.endswith("classic.in")
            assert not classic or done.total("bridge_messages_received_total", redelivered="true") == 0
            assert done.total("bridge_duplicates_possible_total") == 0
            assert done.total("bridge_generations_ended_total") == 0
            outcome = this.outcome()
            assert outcome.is_faultless
            assert outcome.doubled == 0


def test_a_paused_bridge_leaves_what_is_published_and_the_command_counts_the_consumers(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = scene(source, destination, name=queue_name)
    with this.bridge:
        this.see_one_through()
        url = f"http://127.0.0.1:{this.bridge.http_port}"
        paused = subprocess.run(
            (sys.executable, "-m", "bridge", "pause", "--url", url),
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert f"queue {this.queue_in} has 0 consumers left" in paused.stdout
        this.publish(100)
        assert this.metrics().total("bridge_messages_received_total") == 1
        assert this.bridge.is_ready()
        resume(this)
        this.wait_done()
        assert this.outcome().is_faultless
