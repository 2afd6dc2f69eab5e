"""Messages without a route take a part of the window and no more; an exchange without any route empties no queue."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pika
import pytest

from tests.broker.scene import Scene, in_flight, scene
from tests.broker.test_refusals import declare_exchange, quarantined, to_exchange
from tests.rig.client import decode_properties, drain, encode_properties, number_of, publish_numbered
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.bridge_process import Metrics
    from tests.rig.node import Node

pytestmark = pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
"""A return says the same in every version, but for how 4.3 encodes it."""

COUNT = 4000
PREFETCH = 200
"""A tenth of the messages that have no route: whatever is kept of them would fill the window ten times."""
UNROUTABLE_TIMEOUT_S = 1.0


def key_of(number: int) -> str:
    """A key of each message's own; every second has no route."""
    return f"{'bad' if number % 2 else 'good'}.{number}"


def by_key(this: Scene) -> Callable[[range], None]:
    """A topic exchange that knows every second key; return what publishes these numbers."""
    declare_exchange(this.destination, this.queue_out, (this.queue_out, "good.#"))

    def publish(numbers: range) -> None:
        publish_numbered(this.source.url, key_of, len(numbers), first=numbers.start, exchange=this.queue_in)

    return publish


def by_header(this: Scene) -> Callable[[range], None]:
    """A headers exchange, one key for all, that knows every second message's header; return what publishes."""
    with this.destination.channel() as channel:
        channel.exchange_declare(this.queue_out, "headers", durable=True)
        channel.queue_bind(this.queue_out, this.queue_out, "", {"x-match": "all", "way": "good"})
    this.bridge.settings["BRIDGE_DESTINATION_ROUTING_KEY"] = "one for all"
    ways = [encode_properties(pika.BasicProperties(delivery_mode=2, headers={"way": way})) for way in ("good", "bad")]

    def publish(numbers: range) -> None:
        with RawClient(this.source.url) as client:
            client.confirm_select()
            client.publish_many(this.queue_in, "any", [(ways[number % 2], b"%012d" % number) for number in numbers])
            client.wait_confirms()

    return publish


def routed(this: Scene) -> Scene:
    """Have the source queue bound to an exchange, and the bridge publish to one with a small window."""
    declare_exchange(this.source, this.queue_in, (this.queue_in, "#"))
    to_exchange(this, this.queue_out)
    this.bridge.settings["BRIDGE_SOURCE_PREFETCH"] = str(PREFETCH)
    return this


def arrived(this: Scene) -> list[int]:
    """The numbers that have arrived."""
    return [number_of(message) for message in drain(this.destination.url, this.queue_out)]


@pytest.mark.parametrize("distinguished", (by_key, by_header))
def test_more_unroutable_messages_than_the_window_holds_starve_nobody(
    source: Node, destination: Node, queue_name: str, distinguished: Callable[[Scene], Callable[[range], None]]
) -> None:
    """All others arrive; of those without a route a quarter of the window waits, and the rest is in the quarantine."""
    this = routed(scene(source, destination, name=queue_name))
    publish = distinguished(this)
    publish(range(COUNT))
    routable = list(range(0, COUNT, 2))
    with this.bridge:
        this.wait_forwarded(len(routable), 30)

        def settled() -> bool:
            # The quarantine takes them only while others are accepted, or an exchange would empty the queue into it.
            routable.append(routable[-1] + 2)
            publish(range(routable[-1], routable[-1] + 1))
            metrics = this.wait_forwarded(len(routable), 10)
            assert metrics.total("bridge_messages_requeued_total") == 0
            ended = metrics.total("bridge_messages_quarantined_total", reason="unroutable")
            return ended + in_flight(metrics) == COUNT // 2 and in_flight(metrics) <= PREFETCH // 4

        wait_until(settled, "the unroutable to be set aside or in the quarantine", 20)
        assert this.bridge.terminate() == 0
    assert arrived(this) == routable, "all that have a route, in order and once"
    away = quarantined(this)
    kept = [number_of(message) for message in drain(source.url, this.queue_in)]
    assert sorted([*map(number_of, away), *kept]) == list(range(1, COUNT, 2)), "none of the others is lost or doubled"
    assert {decode_properties(message.properties).headers["x-bridge-reason"] for message in away} == {"unroutable"}


def test_one_unroutable_message_is_quarantined_in_time(source: Node, destination: Node, queue_name: str) -> None:
    """When it has waited for so long, and others are accepted."""
    this = routed(scene(source, destination, name=queue_name))
    this.bridge.settings["BRIDGE_UNROUTABLE_TIMEOUT"] = f"{UNROUTABLE_TIMEOUT_S}s"
    declare_exchange(destination, this.queue_out, (this.queue_out, "good.#"))
    publish_numbered(source.url, "bad", 1, exchange=this.queue_in)
    this.sent = 1
    with this.bridge:

        def publish_until_quarantined() -> bool:
            publish_numbered(source.url, "good.any", 1, first=this.sent, exchange=this.queue_in)
            this.sent += 1
            return this.metrics().total("bridge_messages_quarantined_total", reason="unroutable") == 1

        wait_until(publish_until_quarantined, "it to be quarantined", 10 * UNROUTABLE_TIMEOUT_S, interval_s=0.1)
        this.wait_done()
        this.bridge.wait_ready()
    assert arrived(this) == list(range(1, this.sent))
    (message,) = quarantined(this)
    assert number_of(message) == 0
    headers = decode_properties(message.properties).headers
    assert (headers["x-bridge-reason"], headers["x-bridge-routing-key"]) == ("unroutable", "bad")


def test_an_exchange_that_lost_its_binding_empties_no_queue(source: Node, destination: Node, queue_name: str) -> None:
    """Nothing at all has a route, so it is the exchange: all is held, long past the timeout, and arrives in the end."""
    this = routed(scene(source, destination, name=queue_name))
    this.bridge.settings["BRIDGE_UNROUTABLE_TIMEOUT"] = f"{UNROUTABLE_TIMEOUT_S}s"
    declare_exchange(destination, this.queue_out, (this.queue_out, "#"))

    def publish(count: int) -> None:
        publish_numbered(source.url, key_of, count, first=this.sent, exchange=this.queue_in)
        this.sent += count

    publish(PREFETCH)
    with this.bridge:
        this.wait_done()
        with destination.channel() as channel:
            channel.queue_unbind(this.queue_out, this.queue_out, "#")
        publish(5 * PREFETCH)
        this.bridge.wait_for(lambda m: m.total("bridge_publish_retries_total", reason="returned") > 0, "returns")
        until_s = time.monotonic() + 3 * UNROUTABLE_TIMEOUT_S

        def held(metrics: Metrics) -> bool:
            assert metrics.total("bridge_messages_quarantined_total") == 0
            # That something does not happen can only be seen by letting time pass.
            return time.monotonic() > until_s and in_flight(metrics) == PREFETCH

        this.bridge.wait_for(held, "the whole window to be held", 30)
        status, reasons = this.bridge.get("/readyz")
        assert status == 503, reasons
        declare_exchange(destination, this.queue_out, (this.queue_out, "#"))
        done = this.wait_done()
    assert done.total("bridge_messages_quarantined_total") == 0
    assert done.total("bridge_messages_requeued_total") == 0
    assert done.total("bridge_generation", side="destination") == 1
    audit = this.audit()
    assert audit.is_perfect, audit
