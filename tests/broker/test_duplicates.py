"""The source's broker is killed under full load, again and again: nothing lost, nothing twice that has an id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pika

from tests.broker.scene import Scene, running, scene
from tests.broker.test_flapping import wait_open
from tests.rig.client import publish_numbered

if TYPE_CHECKING:
    from tests.rig.node import Node

KILLS = 2
BETWEEN = 2000
"""Messages forwarded between two kills: more than a window, or there would be nothing to forget."""
MESSAGES = 20_000
"""A bridge that is some times as fast as another still has messages left when the other has forwarded as many."""


def load(this: Scene, *, message_ids: bool) -> None:
    """Publish what is to be forwarded."""
    # 4.3 sorts headers, and queues add their own to a redelivery: the message is the same.
    properties = pika.BasicProperties(headers={"x-second": 2, "x-first": ["a", {"b": True}]})
    publish_numbered(this.source.url, this.queue_in, MESSAGES, message_ids=message_ids, properties=properties)
    this.sent = MESSAGES


def test_a_source_that_is_killed_doubles_nothing_that_has_an_id_and_the_rest_is_counted(
    source: Node, destination: Node
) -> None:
    """Side by side, since a kill takes seconds: two bridges that know messages by their ids, two that cannot.

    Redeliveries of what was forwarded are acked and not published again. Switched off, or without ids: nothing is
    lost, and the books never say too little.
    """
    known = [scene(source, destination, queue_type=kind, name=f"known-{kind}") for kind in ("classic", "quorum")]
    off = scene(source, destination, name="off", extra={"BRIDGE_DEDUPLICATION": "off"})
    anonymous = scene(source, destination, queue_type="quorum", name="anonymous")
    scenes = [*known, off, anonymous]
    with running(scenes):
        for this in scenes:
            this.bridge.pause()
        for this in scenes:
            this.wait_paused()
            load(this, message_ids=this is not anonymous)
        for this in scenes:
            this.bridge.resume()
        for n in range(1, KILLS + 1):
            for this in scenes:
                wait_open(this, n)  # one that was quick before the last kill need not be back yet
                this.wait_forwarded(n * BETWEEN)
            source.kill()
            source.start().wait_ready()
        for this in scenes:
            wait_open(this, KILLS + 1)
        ends = [this.wait_done(120) for this in scenes]
    for this, done in zip(scenes, ends, strict=True):
        assert done.total("bridge_generation", side="destination") == 1
        audit = this.audit()
        assert audit.lost == [], (this.queue_in, audit, done)
        if this in known:
            assert audit.duplicates == 0, (this.queue_in, audit, done)
            assert done.total("bridge_messages_suppressed_total") > 0, "or nothing was tested"
        else:
            assert 0 < audit.duplicates <= done.total("bridge_duplicates_possible_total"), (this.queue_in, audit, done)
