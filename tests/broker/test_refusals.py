"""The destination is there and refuses: as a whole, some messages, or one for ever. Nothing is lost, the rest flows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pika
import pytest

from tests.broker.scene import Scene, alice, imbalance, in_flight, scene
from tests.rig.client import decode_properties, drain, encode_properties, number_of, publish_numbered
from tests.rig.node import Node
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.raw import RawMessage

LIMIT = 20
INTERCEPTORS = ("set_header_timestamp", "set_header_routing_node")


def to_exchange(this: Scene, exchange: str) -> None:
    """Have the bridge publish to an exchange, each message with its own routing key."""
    del this.bridge.settings["BRIDGE_DESTINATION_QUEUE"]
    this.bridge.settings["BRIDGE_DESTINATION_EXCHANGE"] = exchange


def declare_exchange(node: Node, exchange: str, *bindings: tuple[str, str]) -> None:
    """Declare a topic exchange with bindings (queue, key)."""
    with node.channel() as channel:
        channel.exchange_declare(exchange, "topic", durable=True)
        for queue, key in bindings:
            channel.queue_bind(queue, exchange, key)


def wait_hindered(this: Scene, words: str, *, ready: bool = False) -> None:
    """Wait until ``/readyz`` says these words, of everything or (`ready`) of single messages."""

    def said() -> bool:
        status, body = this.bridge.get("/readyz")
        texts = json.loads(body)["degraded" if ready else "reasons"]
        return (status == 200) is ready and any(words in text for text in texts)

    wait_until(said, f"/readyz to say {words!r}")


def publish_poison(this: Scene) -> int:
    """Publish a message with the ``user_id`` of a user that only the source knows; return its number."""
    properties = pika.BasicProperties(user_id="alice")
    publish_numbered(alice(this.source), this.queue_in, 1, first=this.sent, properties=properties)
    this.sent += 1
    return this.sent - 1


def wait_generation(this: Scene, generation: int) -> None:
    """Wait until this generation of the destination is open."""
    this.bridge.wait_for(
        lambda m: (
            m.total("bridge_generation", side="destination") == generation
            and m.total("bridge_connection_up", side="destination") == 1
        ),
        f"generation {generation} of the destination",
    )


def quarantined(this: Scene) -> list[RawMessage]:
    """Take what is in the quarantine."""
    return drain(this.source.url, f"{this.queue_in}.quarantine")


def test_a_full_queue_costs_few_retries_and_heals(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """One publish window at most, then one message at a time; nothing is requeued to the source meanwhile."""
    prefetch, room = 50, 300
    this = scene(
        source,
        destination,
        queue_type=queue_type,
        name=queue_name,
        arguments={"x-max-length": room, "x-overflow": "reject-publish"},
        extra={"BRIDGE_SOURCE_PREFETCH": prefetch},
    )
    this.publish(2 * room)
    with this.bridge:
        this.bridge.wait_for(lambda m: m.total("bridge_publish_retries_total", reason="nack") > 0, "retries")
        wait_hindered(this, "refuses messages")
        refused = this.metrics()
        assert refused.total("bridge_publish_window") == 1
        assert refused.total("bridge_publish_retries_total") <= prefetch + 10
        arrived: list[RawMessage] = []

        def all_arrived() -> bool:
            arrived.extend(drain(destination.url, this.queue_out))
            return len(arrived) >= this.sent

        wait_until(all_arrived, "everything to arrive", 60)
        done = this.wait_done()
    numbers = [number_of(message) for message in arrived]
    if queue_type == "quorum":
        # Its limit is not exact: of one publish window it refuses some and takes later ones.
        numbers.sort()
    assert numbers == list(range(this.sent))
    assert done.total("bridge_messages_received_total") == this.sent, "nothing was delivered twice"
    assert done.total("bridge_generation", side="destination") == 1


def test_a_deleted_queue_is_waited_for(source: Node, destination: Node, queue_type: str, queue_name: str) -> None:
    """Deleted in the middle of everything: what was not forwarded by then arrives in order in the new one."""
    # A quorum queue of 3.10 that is deleted never confirms what it had been sent: the timeout finds that out.
    extra = {"BRIDGE_CONFIRM_TIMEOUT": "2s"}
    this = scene(source, destination, queue_type=queue_type, name=queue_name, extra=extra)
    this.publish(40_000)
    with this.bridge:
        this.wait_forwarded(4000)
        destination.delete(this.queue_out)
        wait_hindered(this, "no queue")
        gone = int(this.metrics().total("bridge_messages_forwarded_total"))
        assert gone < this.sent
        destination.declare(this.queue_out, queue_type)
        done = this.wait_done()
    arrived = [number_of(message) for message in drain(destination.url, this.queue_out)]
    # Confirms of the old queue may come after the first return: so much more was in it.
    assert gone <= arrived[0] <= gone + 1000, "a window"
    assert arrived == list(range(arrived[0], this.sent))
    assert done.total("bridge_messages_received_total") == this.sent, "nothing was delivered twice"
    assert done.total("bridge_messages_forwarded_total") == this.sent


def test_a_message_without_a_route_is_overtaken_until_it_has_one(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """With own keys a route is a matter of the message: the others pass."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    declare_exchange(source, queue_name, (this.queue_in, "#"))
    declare_exchange(destination, queue_name, (this.queue_out, "good"))
    to_exchange(this, queue_name)
    for first, count, key in ((0, 500, "good"), (500, 1, "bad"), (501, 500, "good")):
        publish_numbered(source.url, key, count, first=first, exchange=queue_name)
        this.sent += count
    with this.bridge:
        this.wait_forwarded(1000)
        wait_hindered(this, "no route for 1 message", ready=True)
        assert in_flight(this.metrics()) == 1
        declare_exchange(destination, queue_name, (this.queue_out, "bad"))
        this.wait_done()
    audit = this.audit()
    assert (audit.lost, audit.duplicates, audit.out_of_order) == ([], 0, 1), audit


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_return_that_an_interceptor_has_changed_costs_no_generation_and_no_copy(
    broker_version: str, source: Node, queue_name: str
) -> None:
    """The destination adds headers and a timestamp before it returns the one message without a route."""
    interceptors = {f"message_interceptors.incoming.{name}.overwrite": "true" for name in INTERCEPTORS}
    with Node(broker_version, config=interceptors) as destination:
        this = scene(source, destination, name=queue_name)
        declare_exchange(source, queue_name, (this.queue_in, "#"))
        declare_exchange(destination, queue_name, (this.queue_out, "good.#"))
        to_exchange(this, queue_name)
        for first in range(401):
            key = "bad" if first == 200 else f"good.{first}"
            publish_numbered(source.url, key, 1, first=first, exchange=queue_name)
        this.sent = 401
        with this.bridge:
            this.wait_forwarded(400)
            wait_until(lambda: in_flight(this.metrics()) == 1, "the others to be done")
            assert this.metrics().total("bridge_generation", side="destination") == 1
            assert this.metrics().total("bridge_duplicates_possible_total") == 0
            declare_exchange(destination, queue_name, (this.queue_out, "bad"))
            this.wait_done()
        audit = this.audit()
        assert (audit.lost, audit.duplicates) == ([], 0), audit


def test_a_missing_exchange_is_waited_for(source: Node, destination: Node, queue_name: str) -> None:
    """Missing in the beginning, and deleted later: not ready, and nothing is lost."""
    this = scene(source, destination, name=queue_name)
    to_exchange(this, queue_name)
    this.bridge.settings["BRIDGE_DESTINATION_ROUTING_KEY"] = "any"
    this.publish(1000)
    with this.bridge:
        wait_hindered(this, f"no exchange '{queue_name}'")
        declare_exchange(destination, queue_name, (this.queue_out, "#"))
        this.wait_done()
        with destination.channel() as channel:
            channel.exchange_delete(queue_name)
        this.publish(1000)
        wait_hindered(this, f"no exchange '{queue_name}'")
        declare_exchange(destination, queue_name, (this.queue_out, "#"))
        this.wait_done()
    audit = this.audit()
    assert audit.is_perfect, audit


def test_poison_goes_to_the_quarantine_and_the_rest_flows(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """The message that closes the channel alone is moved, with the reason in its headers."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name, extra={"BRIDGE_USER_ID": "keep"})
    this.publish(500)
    poison = publish_poison(this)
    this.publish(500)
    with this.bridge:
        done = this.wait_done()
    audit = this.audit()
    assert (audit.lost, audit.out_of_order) == ([poison], 0), audit
    assert audit.duplicates <= done.total("bridge_duplicates_possible_total")
    assert done.total("bridge_messages_quarantined_total", reason="poison") == 1
    assert done.total("bridge_messages_requeued_total") == 0
    assert done.total("bridge_generation", side="source") == 1
    (message,) = quarantined(this)
    assert number_of(message) == poison
    properties = decode_properties(message.properties)
    headers = properties.headers
    assert headers.pop("x-bridge-time").year > 2000
    assert "user_id" in headers.pop("x-bridge-reply-text")
    assert headers == {
        "x-bridge-reason": "poison",
        "x-bridge-reply-code": 406,
        "x-bridge-queue": this.queue_in,
        "x-bridge-exchange": "",
        "x-bridge-routing-key": this.queue_in,
        "x-bridge-user-id": "alice",
    }
    assert properties.message_id == f"message-{poison:012d}"


def test_poison_is_held_where_there_is_no_quarantine(source: Node, destination: Node, queue_name: str) -> None:
    """The others pass, readiness says so, and a shutdown gives it back."""
    extra = {"BRIDGE_USER_ID": "keep", "BRIDGE_QUARANTINE_QUEUE": ""}
    this = scene(source, destination, name=queue_name, extra=extra)
    this.publish(200)
    poison = publish_poison(this)
    this.publish(200)
    with this.bridge:
        this.wait_forwarded(400)
        wait_hindered(this, "no quarantine accepts", ready=True)
        assert in_flight(this.metrics()) == 1
        this.publish(100)
        this.wait_forwarded(500)
        assert this.bridge.terminate() == 0
    assert source.queue_ready(this.queue_in) == 1
    audit = this.audit()
    assert (audit.lost, audit.out_of_order) == ([poison], 0), audit


@pytest.mark.parametrize("broker_version", ("3.10",), indirect=True)
def test_a_message_too_large_for_a_newer_destination_is_quarantined(source: Node, queue_name: str) -> None:
    """3.10 lets 128 MiB in, 4.3 takes 16 MiB: the first one teaches the limit, the second does not cost a channel."""
    properties = encode_properties(pika.BasicProperties(delivery_mode=2, message_id="large"))
    with Node("4.3") as destination:
        this = scene(source, destination, name=queue_name)
        with this.bridge:
            for _ in range(2):
                this.publish(100)
                with RawClient(source.url) as client:
                    client.confirm_select()
                    client.publish("", this.queue_in, properties, b"%012d" % this.sent + bytes(20_000_000))
                    client.wait_confirms()
                this.sent += 1
            this.publish(100)
            done = this.wait_done()
        assert done.total("bridge_messages_quarantined_total", reason="too-large") == 2
        assert done.total("bridge_generation", side="destination") == 2
        audit = this.audit()
        assert (audit.lost, audit.out_of_order) == ([100, 201], 0), audit
    assert [len(message.body) for message in quarantined(this)] == [20_000_012] * 2


def test_a_delivery_near_the_limit_is_quarantined_before_the_broker_drops_it(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Seventeen consumers have died with it; three more returns and it would be gone."""
    this = scene(source, destination, name=queue_name, declare=False)
    source.declare(this.queue_in, "quorum", {"x-delivery-limit": LIMIT})
    destination.declare(this.queue_out)
    this.publish(1)

    def has_died_with_it() -> bool:
        with RawClient(source.url) as client:
            return client.get(this.queue_in) is not None

    for _ in range(LIMIT - 3):
        wait_until(has_died_with_it, "the message to be back")
    wait_until(lambda: source.queue_ready(this.queue_in) == 1, "the message to be back")
    this.publish(100)
    with this.bridge:
        done = this.wait_done()
    assert done.total("bridge_messages_quarantined_total", reason="delivery-limit") == 1
    assert this.audit().lost == [0]
    assert [number_of(message) for message in quarantined(this)] == [0]


def test_more_restarts_of_the_bridge_than_the_delivery_limit_lose_nothing(
    source: Node, destination: Node, queue_name: str
) -> None:
    """SIGTERM under load: what is requeued is requeued such that the broker drops none of it."""
    limit = 8
    this = scene(source, destination, name=queue_name, declare=False, extra={"BRIDGE_DELIVERY_LIMIT": limit})
    source.declare(this.queue_in, "quorum", {"x-delivery-limit": limit})
    destination.declare(this.queue_out, "quorum")
    this.publish(10_000)
    for _ in range(limit + 3):
        this.publish(4_000)  # a bridge may forward so many before it is first looked at, and there must be load
        this.bridge.start()
        this.bridge.wait_for(lambda m: m.total("bridge_messages_forwarded_total") > 0, "a message forwarded")
        assert this.bridge.terminate() == 0, this.bridge.logs[-3000:]
        assert imbalance_logged(this) == 0
    with this.bridge:
        wait_until(lambda: source.queue_depth(this.queue_in) == 0, "everything to be forwarded", 90, interval_s=0.1)
        assert imbalance(this.metrics()) == 0
        assert this.bridge.terminate() == 0
    audit = this.audit()
    assert (audit.lost, audit.duplicates) == ([], 0), audit


def imbalance_logged(this: Scene) -> int:
    """What the last log line's books do not account for, in a run without faults."""
    (stopped,) = [event for event in this.bridge.events if event.get("event") == "stopped"][-1:]
    return int(stopped["received"]) - int(stopped["forwarded"]) - int(stopped["requeued"]) - int(stopped["in_flight"])


def test_twice_as_many_lost_destinations_reach_no_delivery_limit(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Under load: the source hears nothing of them, so nothing is ever returned to it."""
    this = scene(source, destination, name=queue_name, declare=False)
    source.declare(this.queue_in, "quorum", {"x-delivery-limit": LIMIT})
    destination.declare(this.queue_out, "quorum")
    with this.bridge:
        for generation in range(1, 2 * LIMIT + 1):
            this.publish(100)
            wait_generation(this, generation)
            assert destination.close_connections() >= 1
        done = this.wait_done()
    assert done.total("bridge_messages_received_total") == this.sent
    assert done.total("bridge_generation", side="source") == 1
    audit = this.audit()
    assert audit.lost == []
    assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), audit
