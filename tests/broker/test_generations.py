"""The story that the bridge was started for: what was prefetched before the source was lost is never published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, both, in_flight, load, running
from tests.broker.test_flapping import wait_open

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.bridge_process import Metrics
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


def held_by_a_blocked_destination(this: Scene) -> None:
    """Have the bridge hold a whole prefetch that it cannot publish."""
    this.block()
    this.publish(50)
    this.bridge.wait_for(lambda m: in_flight(m) == PREFETCH, "a whole prefetch in flight")


def by_stage(metrics: Metrics, name: str, label: str) -> dict[str, float]:
    """A metric's values for what was held and what was published."""
    return {stage: metrics.total(name, **{label: stage}) for stage in ("held", "published")}


@pytest.mark.parametrize("fault", (restart, sigkill, close_connections))
def test_no_stale_delivery_is_published(
    source: Node, destination: Node, queue_name: str, fault: Callable[[Node], None]
) -> None:
    """Exactly the held are counted stale, none of them is published, and afterwards all has arrived once."""
    scenes = both(source, destination, queue_name, {"BRIDGE_SOURCE_PREFETCH": PREFETCH, "BRIDGE_DEDUPLICATION": "off"})
    with running(scenes):
        for this in scenes:
            this.see_one_through()
        for this in scenes:
            held_by_a_blocked_destination(this)
        before = [by_stage(this.metrics(), "bridge_messages_in_flight", "state") for this in scenes]
        assert min(window["held"] for window in before) >= PREFETCH - 1, "the window holds what it could not publish"
        fault(source)
        for this, window in zip(scenes, before, strict=True):
            after = this.bridge.wait_for(
                lambda m: m.total("bridge_messages_stale_discarded_total") == PREFETCH, "the window to be stale"
            )
            assert by_stage(after, "bridge_messages_stale_discarded_total", "stage") == window
            assert after.total("bridge_messages_in_flight") == 0
        destination.alarm(on=False)
        for this, window in zip(scenes, before, strict=True):
            done = this.wait_done()
            assert done.total("bridge_messages_forwarded_total") == this.sent
            possible = done.total("bridge_duplicates_possible_total")
            assert this.bridge.terminate() == 0
            audit = this.audit()
            assert audit.lost == []
            # Without deduplication the one orphan may be there twice; a stale message that was only held never is.
            assert audit.duplicates <= window["published"]
            assert audit.duplicates <= possible


def test_under_full_load_nothing_is_lost_or_doubled(source: Node, destination: Node, queue_name: str) -> None:
    """The source goes away twice in the middle of everything; that it is SIGKILLed is tested with the duplicates."""
    scenes = both(source, destination, queue_name)
    with running(scenes):
        load(scenes, 20_000)
        for n, fault in enumerate((restart, close_connections), 1):
            for this in scenes:
                wait_open(this, n)  # one that was quick before the last fault need not be back yet
                this.wait_forwarded(n * 2000)
            fault(source)
        for this in scenes:
            wait_open(this, 3)
        ends = [this.wait_done() for this in scenes]
    for this, done in zip(scenes, ends, strict=True):
        assert done.total("bridge_generation", side="destination") == 1
        audit = this.audit()
        assert (audit.lost, audit.duplicates) == ([], 0), (this.queue_in, audit, done)
