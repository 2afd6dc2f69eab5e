"""Headers on request, on real brokers: what arrives, what cannot be forged, and a ring of bridges that ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pika

from tests.broker.scene import in_flight, scene, settings
from tests.rig.bridge_process import BridgeProcess
from tests.rig.client import decode_properties, drain, number_of, publish_numbered
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

COUNT = 100
MAX_HOPS = 4


def test_a_ring_of_bridges_ends_and_nobody_forges_a_header(source: Node, destination: Node, queue_name: str) -> None:
    """There, back, there, back, and then to the quarantine of the queue that it began in."""
    added = {"site": "bérlin", "shard": -7, "live": True, "none": None}
    extra = {
        "BRIDGE_ADD_HEADERS": json.dumps(added),
        "BRIDGE_PROVENANCE": "true",
        "BRIDGE_MAX_HOPS": MAX_HOPS,
    }
    there = scene(source, destination, name=queue_name, queue_type="quorum", extra=extra)
    back = BridgeProcess({**settings(destination, source, there.queue_out, there.queue_in), **extra})
    forged = pika.BasicProperties(headers={"site": "elsewhere", "x-bridge-source": "nowhere", "own": "kept"})
    publish_numbered(source.url, there.queue_in, COUNT, properties=forged)
    there.sent = COUNT
    quarantine = f"{there.queue_in}.quarantine"
    with there.bridge, back:

        def ended() -> bool:
            return source.has_queue(quarantine) and source.queue_ready(quarantine) == COUNT

        wait_until(ended, "every message to be in the quarantine", 60, interval_s=0.1)
        wait_until(lambda: in_flight(there.metrics()) == 0, "the bridge to have acked them", 30)
        assert there.metrics().total("bridge_messages_quarantined_total", reason="max-hops") == COUNT
    found = drain(source.url, quarantine)
    assert sorted(map(number_of, found)) == [*range(COUNT)]
    for message in found:
        headers = decode_properties(message.properties).headers or {}
        ours = {name: value for name, value in headers.items() if name in {*added, "own", "x-bridge-hops"}}
        assert ours == {**added, "own": "kept", "x-bridge-hops": MAX_HOPS + 1}
        assert headers["x-bridge-reason"] == "max-hops"
        assert headers["x-bridge-source"] == f"{without_login(source.url)} {there.queue_in}"


def without_login(url: str) -> str:
    """The URL without its login."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
