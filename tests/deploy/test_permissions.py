"""The broker definitions in `config/`: their users can do what the bridge needs, and nothing can be left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pika
import pytest

from tests.deploy.tools import ROOT
from tests.rig.bridge_process import BridgeProcess
from tests.rig.node import Node
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.broker

EX_UNAVAILABLE = 69
LARGEST_BYTES = 1000
PATIENCE_S = 120
"""For a machine that does many other things."""
ADMIN = {
    "vhosts": [{"name": "/"}],
    "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
    "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
}
SIDES = ("source", "destination")
BINDINGS = json.loads((ROOT / "config" / "rabbitmq-source-bindings.json").read_text())
DEFINITIONS = {side: json.loads((ROOT / "config" / f"rabbitmq-{side}.json").read_text()) for side in SIDES}

Nodes = dict[str, Node]


@pytest.fixture(scope="module")
def nodes(broker_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two brokers started with the definitions, beside an administrator for the test."""
    found = {}
    for side in SIDES:
        folder = tmp_path_factory.mktemp("definitions")
        (folder / "admin.json").write_text(json.dumps(ADMIN))
        (folder / "bridge.json").write_text(json.dumps(DEFINITIONS[side]))
        node = Node(broker_version, config={"max_message_size": LARGEST_BYTES if side == "destination" else 1_000_000})
        definitions = node.folder / "definitions.d"
        folder.rename(definitions)
        with (node.folder / "rabbitmq.conf").open("a") as config:
            config.write(f"load_definitions = {definitions}\n")
        found[side] = node
    try:
        for node in found.values():
            node.start()
        for node in found.values():
            node.wait_ready()
        yield found
    finally:
        for node in found.values():
            node.kill()


def allow(node: Node, side: str, **changes: str) -> None:
    """Set the permissions of a side's user to those of the definitions, with changes."""
    (given,) = DEFINITIONS[side]["permissions"]
    patterns = ", ".join(f"<<{json.dumps({**given, **changes}[what])}>>" for what in ("configure", "write", "read"))
    user = f'<<"{given["user"]}">>'
    node.eval(f'rabbit_auth_backend_internal:set_permissions({user}, <<"/">>, {patterns}, <<"test">>)')


@pytest.fixture(autouse=True)
def _restored(nodes: Nodes) -> Iterator[None]:
    """The permissions of the definitions, and empty queues, after each test."""
    yield
    for side, node in nodes.items():
        allow(node, side)
        with node.channel() as channel:
            channel.queue_delete("orders.quarantine")
            channel.queue_purge("orders")


def settings(nodes: Nodes) -> dict[str, str]:
    """A bridge that logs in as the users of the definitions."""
    found = {}
    for side, node in nodes.items():
        (user,) = DEFINITIONS[side]["users"]
        found[f"BRIDGE_{side.upper()}_URL"] = f"amqp://{user['name']}:{user['password']}@127.0.0.1:{node.amqp_port}/"
        found[f"BRIDGE_{side.upper()}_QUEUE"] = "orders"
    return found


def bound(nodes: Nodes) -> dict[str, str]:
    """The same from a queue of its own, which is bound to an exchange, as another user."""
    (user,) = BINDINGS["users"]
    url = f"amqp://{user['name']}:{user['password']}@127.0.0.1:{nodes['source'].amqp_port}/"
    more = {"BRIDGE_SOURCE_URL": url, "BRIDGE_SOURCE_QUEUE": "orders.copy", "BRIDGE_SOURCE_DECLARE": "true"}
    more["BRIDGE_SOURCE_BINDINGS"] = json.dumps([{"exchange": "orders", "routing_key": "order.#"}])
    return settings(nodes) | more


def test_a_queue_that_is_bound_to_an_exchange_keeps_what_comes_while_the_bridge_is_away(nodes: Nodes) -> None:
    source, destination = nodes["source"], nodes["destination"]
    file = source.folder / "bindings.json"
    file.write_text(json.dumps(BINDINGS))
    source.ctl("import_definitions", str(file))

    def publish_to_exchange(count: int) -> None:
        with source.channel() as channel:
            channel.confirm_delivery()
            for number in range(count):
                channel.basic_publish("orders", f"order.{number}", b"x")
                channel.basic_publish("orders", "invoice.1", b"not bound")

    with BridgeProcess(bound(nodes)) as bridge:
        bridge.wait_ready()
        publish_to_exchange(3)
        wait_until(lambda: destination.queue_depth("orders") == 3, "what is bound to arrive", PATIENCE_S)
        assert bridge.terminate() == 0
    publish_to_exchange(5)
    with BridgeProcess(bound(nodes)) as bridge:
        wait_until(lambda: destination.queue_depth("orders") == 8, "what came meanwhile to arrive")
        assert bridge.terminate() == 0
    (given,) = BINDINGS["permissions"]
    for left_out in ("configure", "write", "read"):
        rights = {name: given[name] for name in ("configure", "write", "read")} | {left_out: "^$"}
        source.ctl("set_permissions", given["user"], *rights.values())
        with BridgeProcess(bound(nodes)) as bridge:
            wait_until(
                lambda: "ACCESS_REFUSED" in bridge.get("/readyz")[1],
                f"the right to {left_out} to be missed",
                PATIENCE_S,
            )
    with source.channel() as channel:
        channel.queue_delete("orders.copy")


def publish(nodes: Nodes, *sizes: int) -> None:
    """Put messages of these sizes into the source queue."""
    with nodes["source"].channel() as channel:
        for size in sizes:
            channel.basic_publish("", "orders", b"x" * size)


def test_the_users_forward_and_quarantine(nodes: Nodes) -> None:
    with BridgeProcess(settings(nodes)) as bridge:
        bridge.wait_ready()
        publish(nodes, LARGEST_BYTES + 1)
        bridge.wait_for(
            lambda now: now.total("bridge_messages_quarantined_total") == 1, "what does not fit to be put away"
        )
        publish(nodes, 10, 20)
        wait_until(lambda: nodes["destination"].queue_depth("orders") == 2, "what fits to arrive")
        assert nodes["source"].queue_depth("orders.quarantine") == 1
        assert bridge.terminate() == 0
    assert nodes["source"].queue_depth("orders") == 0


@pytest.mark.parametrize(("side", "what"), (("source", "read"), ("destination", "write")))
def test_nothing_passes_without(nodes: Nodes, side: str, what: str) -> None:
    allow(nodes[side], side, **{what: "^$"})
    publish(nodes, 10)
    with BridgeProcess(settings(nodes)) as bridge:
        wait_until(lambda: "ACCESS_REFUSED" in bridge.get("/readyz")[1], "readiness to name the refusal")
        assert bridge.get("/readyz")[0] == 503
    assert nodes["destination"].queue_depth("orders") == 0


@pytest.mark.parametrize("what", ("configure", "write"))
def test_nothing_is_quarantined_without(nodes: Nodes, what: str) -> None:
    """The message that does not fit is held, the others pass."""
    allow(nodes["source"], "source", **{what: "^$"})
    with BridgeProcess(settings(nodes)) as bridge:
        bridge.wait_ready()
        publish(nodes, LARGEST_BYTES + 1)
        wait_until(lambda: "no quarantine accepts" in bridge.get("/readyz")[1], "a message to be held")
        bridge.wait_ready()  # it hinders no other message; it has closed the channel, which is opened again
        publish(nodes, 20)
        wait_until(lambda: nodes["destination"].queue_depth("orders") == 1, "what fits to arrive")
        assert bridge.metrics().total("bridge_messages_quarantined_total") == 0


def test_a_drain_needs_to_read_its_queue_and_to_write_to_the_default_exchange(nodes: Nodes) -> None:
    """No right to configure: it declares nothing."""
    source = nodes["source"]
    death = {"queue": "orders.back", "reason": "rejected", "count": 1, "exchange": "", "routing-keys": ["orders.back"]}
    with source.channel() as channel:
        channel.queue_declare("orders.back", durable=True)
        for _ in range(3):
            channel.basic_publish("", "orders", b"x", pika.BasicProperties(headers={"x-death": [death]}))

    def drain() -> tuple[int, str]:
        with BridgeProcess(settings(nodes), "drain", "--to-original", "--yes") as drained:
            return drained.wait(), drained.logs

    least = {"configure": "^$", "write": "^amq\\.default$", "read": "^orders$"}
    for left_out in ("read", "write"):
        allow(source, "source", **{**least, left_out: "^$"})
        status, said = drain()
        assert status == EX_UNAVAILABLE
        assert "ACCESS_REFUSED" in said
        assert source.queue_depth("orders") == 3
    allow(source, "source", **least)
    assert drain()[0] == 0
    assert (source.queue_depth("orders"), source.queue_depth("orders.back")) == (0, 3)
    with source.channel() as channel:
        channel.queue_delete("orders.back")


def test_a_stream_without_a_quarantine_needs_to_be_read(nodes: Nodes) -> None:
    """It is declared by somebody else, and the source's user may not so much as ask for its type."""
    source, destination = nodes["source"], nodes["destination"]
    before = destination.queue_depth("orders")
    with source.channel() as channel:
        channel.queue_declare("orders.log", durable=True, arguments={"x-queue-type": "stream"})
        for _ in range(3):
            channel.basic_publish("", "orders.log", b"x")
    wanted = settings(nodes) | {"BRIDGE_SOURCE_QUEUE": "orders.log", "BRIDGE_QUARANTINE_QUEUE": ""}
    wanted["BRIDGE_SOURCE_CONSUMER_ARGUMENTS"] = json.dumps({"x-stream-offset": "first"})
    allow(source, "source", configure="^$", write="^$", read="^$")
    with BridgeProcess(wanted) as bridge:
        wait_until(lambda: "ACCESS_REFUSED" in bridge.get("/readyz")[1], "the right to read to be missed", PATIENCE_S)
        allow(source, "source", configure="^$", write="^$", read="^orders\\.log$")
        wait_until(lambda: destination.queue_depth("orders") == before + 3, "the stream to be read", PATIENCE_S)
    with source.channel() as channel:
        channel.queue_delete("orders.log")
