"""Headers that a publisher copied, and that mean something only where a queue itself has set them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pika

from tests.broker.scene import Scene, scene
from tests.broker.test_refusals import quarantined
from tests.rig.client import decode_properties, number_of, publish_numbered
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

COUNT = 30
LIMIT = 20
"""The delivery limit for which the bridge quarantines what has come back 17 times."""


def publish_copied_count(this: Scene) -> None:
    """Publish messages with the delivery count of another queue, above the limit, as a shovel copies them."""
    properties = pika.BasicProperties(headers={"x-delivery-count": LIMIT + 5})
    publish_numbered(this.source.url, this.queue_in, COUNT, first=this.sent, properties=properties)
    this.sent += COUNT


def come_back(this: Scene) -> None:
    """Have all messages returned to the queue: the first half by ``nack(requeue)``, the others by a lost connection.

    A quorum queue of 4.3 counts the others alone, and writes its own delivery count into the headers of these.
    """
    with this.source.channel() as channel:
        tags = [method.delivery_tag for method, _, _ in (channel.basic_get(this.queue_in) for _ in range(this.sent))]
        channel.basic_nack(tags[len(tags) // 2 - 1], multiple=True, requeue=True)
    wait_until(lambda: this.source.queue_ready(this.queue_in) == this.sent, "all to be back")


def test_a_copied_delivery_count_is_no_delivery_count(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """New messages, and some that have come back once: all are forwarded."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    publish_copied_count(this)
    come_back(this)
    publish_copied_count(this)
    with this.bridge:
        done = this.wait_done()
        this.bridge.wait_ready()
    assert done.total("bridge_messages_quarantined_total") == 0
    audit = this.audit()
    assert (audit.lost, audit.duplicates) == ([], 0), audit


def test_what_was_quarantined_and_is_moved_back_is_forwarded(source: Node, destination: Node, queue_name: str) -> None:
    """An operator mended its consumer, and moved the message back: it begins again at no delivery."""
    this = scene(source, destination, name=queue_name, declare=False, extra={"BRIDGE_DELIVERY_COUNT": "keep"})
    source.declare(this.queue_in, "quorum", {"x-delivery-limit": LIMIT})
    destination.declare(this.queue_out)
    this.publish(1)

    def is_lost_with_its_consumer() -> bool:
        with RawClient(source.url) as client:
            return client.get(this.queue_in) is not None

    for _ in range(LIMIT - 3):
        wait_until(is_lost_with_its_consumer, "the message to be back")
    wait_until(lambda: source.queue_ready(this.queue_in) == 1, "the message to be back")
    with this.bridge:
        this.bridge.wait_for(
            lambda m: m.total("bridge_messages_quarantined_total", reason="delivery-limit") == 1, "quarantine"
        )
        (message,) = quarantined(this)
        headers = decode_properties(message.properties).headers
        with RawClient(source.url) as client:
            client.confirm_select()
            client.publish("", this.queue_in, message.properties, message.body)
            client.wait_confirms()
        this.sent += 1
        done = this.wait_done()
    assert done.total("bridge_messages_quarantined_total") == 1, "and not quarantined again"
    assert done.total("bridge_messages_forwarded_total") == 1
    assert not {"x-delivery-count", "x-acquired-count"} & headers.keys(), "it is kept under another name"
    assert this.audit().lost == [1], "nothing but the number that it did not take"
    assert number_of(message) == 0
