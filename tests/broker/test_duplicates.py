"""The source's broker is killed under full load, again and again: nothing lost, nothing twice that has an id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pika

from tests.broker.scene import Scene, scene
from tests.rig.client import publish_numbered

if TYPE_CHECKING:
    from tests.rig.bridge_process import Metrics
    from tests.rig.node import Node

KILLS = 3
BETWEEN = 10_000
"""Messages forwarded between two kills: more than a window, or there would be nothing to forget."""


def killed_again_and_again(this: Scene, *, message_ids: bool) -> Metrics:
    """Forward everything, the source SIGKILLed on the way; return the last scrape."""
    count = (KILLS + 1) * BETWEEN * 3 // 2
    # 4.3 sorts headers, and queues add their own to a redelivery: the message is the same.
    properties = pika.BasicProperties(headers={"x-second": 2, "x-first": ["a", {"b": True}]})
    publish_numbered(this.source.url, this.queue_in, count, message_ids=message_ids, properties=properties)
    this.sent = count
    with this.bridge:
        for n in range(KILLS):
            this.wait_forwarded((n + 1) * BETWEEN)
            this.source.kill()
            this.source.start().wait_ready()
        done = this.wait_done(120)
    assert done.total("bridge_generation", side="source") > KILLS
    assert done.total("bridge_generation", side="destination") == 1
    return done


def test_message_ids_leave_no_duplicate(source: Node, destination: Node, queue_type: str, queue_name: str) -> None:
    """Redeliveries of what was forwarded are acked and not published again."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    done = killed_again_and_again(this, message_ids=True)
    audit = this.audit()
    assert (audit.lost, audit.duplicates) == ([], 0), (audit, done)
    assert done.total("bridge_messages_suppressed_total") > 0, "or nothing was tested"


def test_every_duplicate_was_counted_as_possible(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """Switched off, or without ids to know messages by: nothing lost, and the books never say too little."""
    message_ids = queue_type == "classic"  # one way for each, since a kill takes seconds
    extra = {"BRIDGE_DEDUPLICATION": "off"} if message_ids else {}
    this = scene(source, destination, queue_type=queue_type, name=queue_name, extra=extra)
    done = killed_again_and_again(this, message_ids=message_ids)
    audit = this.audit()
    assert audit.lost == [], audit
    assert 0 < audit.duplicates <= done.total("bridge_duplicates_possible_total"), (audit, done)
