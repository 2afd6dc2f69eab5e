"""Two messages that share an id and a body are two messages when their route or a header differs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pika

from tests.broker.scene import Scene, scene
from tests.broker.test_refusals import declare_exchange, to_exchange
from tests.rig.client import decode_properties, drain, number_of, publish_numbered
from tests.rig.proxy import Proxy
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.node import Node

COUNT = 50
RETRIED, OTHER_KEY, OTHER_EXCHANGE = (range(n * COUNT, (n + 1) * COUNT) for n in range(3))
"""What is published a second time, with another header, with another key or to another exchange."""
EVERY = range(3 * COUNT)


def publish(this: Scene, numbers: range, exchange: str = "first", key: str = "key", retry: int = 0) -> None:
    """Publish numbered messages whose ids and bodies are always the same, with what may tell them apart."""
    publish_numbered(
        this.source.url,
        key,
        len(numbers),
        first=numbers.start,
        exchange=f"{this.queue_in}.{exchange}",
        properties=pika.BasicProperties(headers={"x-first": "a", "x-retry": retry}),
    )
    this.sent += len(numbers)


def check_each_arrives_after(this: Scene, fault: Callable[[Proxy], None]) -> None:
    """Lose the source when it has sent, or is about to send, what shares its ids with what was forwarded and acked."""
    for exchange in ("first", "second"):
        declare_exchange(this.source, f"{this.queue_in}.{exchange}", (this.queue_in, "#"))
    declare_exchange(this.destination, this.queue_out, (this.queue_out, "#"))
    to_exchange(this, this.queue_out)
    with Proxy(this.source.amqp_port) as proxy:
        this.bridge.settings["BRIDGE_SOURCE_URL"] = proxy.url
        with this.bridge:
            publish(this, EVERY)
            this.wait_done()
            proxy.stall(proxy.downstream)
            publish(this, RETRIED, retry=1)
            publish(this, OTHER_KEY, key="another key")
            publish(this, OTHER_EXCHANGE, exchange="second")
            fault(proxy)
            proxy.resume()
            this.wait_done()
    expected = Counter((number, "key", 0) for number in (*EVERY, *OTHER_EXCHANGE))
    expected.update((number, "key", 1) for number in RETRIED)
    expected.update((number, "another key", 0) for number in OTHER_KEY)
    arrived: Counter[tuple[int, str, int]] = Counter()
    for message in drain(this.destination.url, this.queue_out):
        retry = decode_properties(message.properties).headers["x-retry"]
        arrived[number_of(message), message.routing_key, retry] += 1
    missing, surplus = expected - arrived, arrived - expected
    assert not missing, f"{missing.total()} of {this.sent} lost: {sorted(missing)[::COUNT]}"
    assert not surplus, f"{surplus.total()} of {this.sent} doubled: {sorted(surplus)[::COUNT]}"


def test_a_killed_classic_queue_flags_new_messages_and_each_arrives(
    source: Node, destination: Node, queue_name: str
) -> None:
    """It calls every message that was ready redelivered, also those that nobody has ever seen."""
    # Most of what is published last never leaves the queue before it is killed.
    this = scene(source, destination, name=queue_name, extra={"BRIDGE_SOURCE_PREFETCH": 10})

    def kill(proxy: Proxy) -> None:
        source.kill()
        proxy.cut()
        source.start().wait_ready()

    check_each_arrives_after(this, kill)


def test_what_was_on_its_way_when_the_connection_broke_arrives(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """The broker had sent it, so it is rightly called redelivered; the bridge has never seen it."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)

    def cut(proxy: Proxy) -> None:
        wait_until(lambda: source.queue_ready(this.queue_in) == 0, "everything to be on its way")
        proxy.cut()

    check_each_arrives_after(this, cut)
