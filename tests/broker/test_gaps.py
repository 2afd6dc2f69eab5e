"""Deliveries that never arrive: the numbers of those that do have no gaps, so the bridge notices and asks for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import scene
from tests.rig.proxy import Proxy
from tests.rig.sieve import DELIVER
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

COUNT = 500


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_gap_in_the_delivery_tags_ends_the_generation_at_once(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """What came after the gap is not published: the source sends all of it again, in order."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    with Proxy(source.amqp_port, by_frame=True) as proxy:
        this.bridge.settings["BRIDGE_SOURCE_URL"] = proxy.url
        this.publish(COUNT)
        with this.bridge:
            this.wait_done()
            proxy.swallow(DELIVER)
            this.publish(COUNT)
            wait_until(lambda: proxy.swallowed == COUNT, "the deliveries to be lost")
            proxy.swallow()
            this.publish(COUNT)
            # The watchdog looks after 15 seconds, and would find an empty queue.
            this.bridge.wait_for(lambda m: m.total("bridge_generation", side="source") == 2, "the gap to be seen", 5)
            done = this.wait_done()
    assert source.queue_depth(this.queue_in) == 0, "nothing is left unacknowledged"
    assert done.total("bridge_generations_ended_total", side="source") == 1
    assert done.total("bridge_messages_quarantined_total") == 0
    audit = this.audit()
    assert audit.is_perfect, audit
