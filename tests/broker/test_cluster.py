"""Three nodes and quorum queues on both sides of the bridge: it goes on while one of them is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import FAST, Scene
from tests.rig.bridge_process import BridgeProcess
from tests.rig.cluster import Cluster
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.node import Node

pytestmark = pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
"""While a node is frozen, 3.10 neither consumes nor confirms for a minute, and that would be all that is tested."""

MESSAGES = 30_000
PREFETCH = 1000


@pytest.fixture(scope="module")
def cluster(broker_version: str) -> Iterator[Cluster]:
    """Three nodes, started once for all tests here.

    4.3 keeps what a dead node's consumers had for them, a minute by default, before others get it.
    """
    with Cluster(broker_version, config={"consumer_disconnected_timeout": 3000}) as cluster:
        yield cluster


@pytest.fixture
def this(cluster: Cluster, queue_name: str) -> Scene:
    """A bridge between two queues of the cluster that knows all three nodes, nothing sent yet."""
    for node in cluster.nodes:
        if not node.is_running:
            node.start()
    for node in cluster.nodes:
        node.wait_ready(120)
    first = cluster.nodes[0]
    first.delete_all_queues()
    queue_in, queue_out = (f"{queue_name}.{end}" for end in ("in", "out"))
    for queue in (queue_in, queue_out):
        first.declare(queue, "quorum", {"x-quorum-initial-group-size": 3})
    settings = {
        "BRIDGE_SOURCE_URL": ",".join(cluster.urls),
        "BRIDGE_SOURCE_QUEUE": queue_in,
        "BRIDGE_DESTINATION_QUEUE": queue_out,
        **FAST,
    }
    return Scene(first, first, BridgeProcess(settings), queue_in, queue_out)


def finish(this: Scene, cluster: Cluster) -> None:
    """Wait for the end and audit, by way of a node that runs."""
    this.source = this.destination = next(node for node in cluster.nodes if node.is_running)
    done = this.wait_done(120)
    audit = this.audit()
    assert audit.lost == [], audit
    assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), (audit, done)


def test_the_node_that_the_bridge_is_on_is_killed(this: Scene, cluster: Cluster) -> None:
    """Both sides go to the next URL."""
    this.publish(MESSAGES)
    with this.bridge:
        this.wait_forwarded(MESSAGES // 10)
        cluster.nodes[0].kill()
        finish(this, cluster)


def test_the_leader_is_killed(this: Scene, cluster: Cluster) -> None:
    """The bridge's connections stay where they are not on the leader; a new one is elected."""
    this.publish(MESSAGES)
    leader = cluster.leader(this.queue_in)
    with this.bridge:
        this.wait_forwarded(MESSAGES // 10)
        leader.kill()
        finish(this, cluster)


def test_the_leader_is_frozen(this: Scene, cluster: Cluster) -> None:
    """A minority that answers nothing is passed over, and may come back."""
    this.publish(MESSAGES)
    leader = cluster.leader(this.queue_in)
    if leader is cluster.nodes[0]:
        this.bridge.settings["BRIDGE_SOURCE_URL"] = ",".join(f"{url}?heartbeat=2" for url in cluster.urls)
    with this.bridge:
        this.wait_forwarded(MESSAGES // 10)
        leader.freeze()
        try:
            # The broker gives what the frozen node's consumer had to nobody else before it takes the node for down.
            this.wait_forwarded(MESSAGES - PREFETCH, 120)
        finally:
            leader.thaw()
        finish(this, cluster)


def test_all_nodes_are_restarted_one_after_the_other(this: Scene, cluster: Cluster) -> None:
    """As in an upgrade: each only when the one before is back."""
    this.publish(MESSAGES * 2)
    with this.bridge:
        for n, node in enumerate(cluster.nodes, 1):
            this.wait_forwarded(n * MESSAGES // 6)
            wait_until(lambda: all(map(_is_whole, cluster.nodes)), "the cluster to be whole", 60)
            node.restart()
        finish(this, cluster)


def _is_whole(node: Node) -> bool:
    """Whether the node would not take a quorum away by leaving."""
    return node.eval("rabbit_quorum_queue:list_with_minimum_quorum()") == "[]"
