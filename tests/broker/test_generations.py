"""The story that the bridge was started for: what was prefetched before the source was lost is never published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, in_flight, scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.node import Node

PREFETCH = 10


def restart(node: Node) -> None:
    """Stop in good order, and start."""
    node.stop()
    node.start().wait_ready()


def sigkill(node: Node) -> None:
    """Kill, and start."""
    node.kill()
    node.start().wait_ready()


def close_connections(node: Node) -> None:
    """As the management API does."""
    assert node.close_connections() >= 1


FAULTS = [restart, sigkill, close_connections]


def held_by_a_blocked_destination(this: Scene) -> None:
    """Have the bridge hold a whole prefetch that it cannot publish."""
    this.see_one_through()
    this.block()
    this.publish(50)
    this.bridge.wait_for(lambda m: in_flight(m) == PREFETCH, "a whole prefetch in flight")


@pytest.mark.parametrize("fault", FAULTS)
def test_no_stale_delivery_is_published(
    source: Node, destination: Node, queue_type: str, queue_name: str, fault: Callable[[Node], None]
) -> None:
    """Exactly the held are counted stale, none of them is published, and afterwards all has arrived once."""
    this = scene(
        source,
        destination,
        queue_type=queue_type,
        name=queue_name,
        extra={"BRIDGE_SOURCE_PREFETCH": PREFETCH, "BRIDGE_DEDUPLICATION": "off"},
    )
    with this.bridge:
        held_by_a_blocked_destination(this)
        before = this.metrics()
        held = before.total("bridge_messages_in_flight", state="held")
        published = before.total("bridge_messages_in_flight", state="published")
        assert held >= PREFETCH - 1, "the window holds what it could not publish"
        fault(source)
        after = this.bridge.wait_for(
            lambda m: m.total("bridge_messages_stale_discarded_total") == PREFETCH, "the window to be stale"
        )
        assert after.total("bridge_messages_stale_discarded_total", stage="held") == held
        assert after.total("bridge_messages_stale_discarded_total", stage="published") == published
        assert after.total("bridge_messages_in_flight") == 0
        forwarded = after.total("bridge_messages_forwarded_total")
        destination.alarm(on=False)
        done = this.wait_done()
        assert done.total("bridge_messages_forwarded_total") - forwarded == this.sent - forwarded
        possible = done.total("bridge_duplicates_possible_total")
        assert this.bridge.terminate() == 0
    audit = this.audit()
    assert audit.lost == []
    # Without deduplication the one orphan may be there twice; a stale message that was only held never is.
    assert audit.duplicates <= published
    assert audit.duplicates <= possible


@pytest.mark.parametrize("fault", FAULTS)
def test_under_full_load_nothing_is_lost_or_doubled(
    source: Node, destination: Node, queue_type: str, queue_name: str, fault: Callable[[Node], None]
) -> None:
    """The source goes away twice in the middle of everything."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    this.publish(30_000)
    with this.bridge:
        for n in (1, 2):
            this.wait_forwarded(n * 8_000)
            fault(source)
        done = this.wait_done()
        assert done.total("bridge_generation", side="destination") == 1
        assert done.total("bridge_generation", side="source") >= 3
    audit = this.audit()
    assert (audit.lost, audit.duplicates) == ([], 0), (audit, done)
