"""Two bridges on one queue: they share the work, or one stands by. One of them leaves, dies or freezes under load."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.broker.scene import Scene, imbalance, in_flight, scene
from tests.rig.bridge_process import BridgeProcess
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.client import Audit
    from tests.rig.node import Node

PREFETCH = 200
COUNT = 20_000


def competing(source: Node, destination: Node, queue_type: str, name: str) -> tuple[Scene, BridgeProcess]:
    """A scene, and another bridge with the same settings; neither is started."""
    this = scene(source, destination, queue_type=queue_type, name=name, extra={"BRIDGE_SOURCE_PREFETCH": PREFETCH})
    return this, BridgeProcess(this.bridge.settings)


def active_and_standby(
    source: Node, destination: Node, queue_type: str, name: str, url_query: str = ""
) -> tuple[Scene, BridgeProcess]:
    """The same with a single active consumer, which is the scene's bridge when that is started first."""
    source.declare(f"{name}.in", queue_type, {"x-single-active-consumer": True})
    destination.declare(f"{name}.out", queue_type)
    extra = {"BRIDGE_SOURCE_PREFETCH": PREFETCH, "BRIDGE_SOURCE_URL": source.url + url_query}
    this = scene(source, destination, name=name, declare=False, extra=extra)
    return this, BridgeProcess(this.bridge.settings)


def forwarded(bridge: BridgeProcess) -> float:
    """How many this process has forwarded."""
    return bridge.metrics().total("bridge_messages_forwarded_total")


@contextmanager
def under_load(this: Scene, other: BridgeProcess, *, standing_by: bool) -> Iterator[None]:
    """Have both at work, or the other one standing by, with most still to be forwarded."""
    with this.bridge:
        this.see_one_through()
        with other:
            other.wait_ready()
            at_work = [this.bridge] if standing_by else [this.bridge, other]
            wait_widened(this, at_work)
            this.destination.alarm(on=True)  # or much would be through before both have begun
            this.publish(COUNT)
            for bridge in at_work:
                bridge.wait_for(lambda m: in_flight(m) == PREFETCH, "a whole prefetch in flight")
            this.destination.alarm(on=False)
            this.wait_forwarded(COUNT // 10)
            yield


def wait_widened(this: Scene, bridges: list[BridgeProcess]) -> None:
    """Publish single messages until each of the bridges has forwarded one, and wait until all are acked."""

    def all_have_forwarded() -> bool:
        this.publish(1)
        return all(forwarded(bridge) for bridge in bridges)

    wait_until(all_have_forwarded, "each bridge to forward a message", interval_s=0.1)
    wait_until(lambda: this.source.queue_depth(this.queue_in) == 0, "all to be acked")


def wait_drained(this: Scene, *bridges: BridgeProcess) -> None:
    """Wait until the source queue is empty and the bridges hold nothing; their books balance."""

    def drained() -> bool:
        metrics = [bridge.metrics() for bridge in bridges]
        assert [imbalance(each) for each in metrics] == [0] * len(bridges)
        return not any(map(in_flight, metrics)) and this.source.queue_depth(this.queue_in) == 0

    wait_until(drained, "everything to be forwarded", 90, interval_s=0.1)


def is_ordered(audit: Audit, source: Node, queue_type: str) -> bool:
    """Whether first copies came in order; a quorum queue of 3.10 puts what comes back behind all others."""
    return audit.out_of_order == 0 or (source.version, queue_type) == ("3.10", "quorum")


def test_two_bridges_share_a_queue(source: Node, destination: Node, queue_type: str, queue_name: str) -> None:
    """Each forwards what it gets, and nothing is there twice."""
    this, other = competing(source, destination, queue_type, queue_name)
    with under_load(this, other, standing_by=False):
        wait_drained(this, this.bridge, other)
        shares = [forwarded(this.bridge), forwarded(other)]
        assert min(shares) > 0
        assert sum(shares) == this.sent
        assert [this.bridge.terminate(), other.terminate()] == [0, 0]
    audit = this.audit()
    assert (audit.lost, audit.duplicates) == ([], 0), audit


def test_what_a_killed_bridge_had_goes_to_the_other(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """It had published a window at most that it could not ack."""
    this, other = competing(source, destination, queue_type, queue_name)
    with under_load(this, other, standing_by=False):
        this.bridge.kill()
        wait_drained(this, other)
        assert other.metrics().total("bridge_generation", side="source") == 1
        assert 0 < forwarded(other) < this.sent
    audit = this.audit()
    assert audit.lost == [], audit
    assert audit.duplicates <= PREFETCH, audit


def test_a_standby_takes_over_from_one_that_shuts_down(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """A rolling update with a single active consumer: nothing twice, and in order."""
    this, standby = active_and_standby(source, destination, queue_type, queue_name)
    with under_load(this, standby, standing_by=True):
        assert forwarded(standby) == 0
        assert this.bridge.terminate() == 0
        wait_drained(this, standby)
        assert standby.metrics().total("bridge_generation", side="source") == 1
        assert 0 < forwarded(standby) < this.sent
    audit = this.audit()
    assert (audit.lost, audit.duplicates) == ([], 0), audit
    assert is_ordered(audit, source, queue_type), audit


def test_a_standby_takes_over_from_one_that_freezes(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """The broker drops the frozen one by its heartbeat; thawed, it publishes at most what it had, and stands by."""
    this, standby = active_and_standby(source, destination, queue_type, queue_name, "?heartbeat=2")
    with under_load(this, standby, standing_by=True):
        this.bridge.freeze()
        assert forwarded(standby) == 0
        wait_drained(this, standby)
        assert 0 < forwarded(standby) < this.sent
        this.bridge.thaw()
        this.bridge.wait_for(lambda m: m.total("bridge_generation", side="source") == 2, "the thawed to begin anew")
        this.bridge.wait_ready()
        before = forwarded(this.bridge)
        this.publish(COUNT // 10)
        wait_drained(this, this.bridge, standby)
        assert forwarded(this.bridge) == before, "it stands by"
    audit = this.audit()
    assert audit.lost == [], audit
    assert audit.duplicates <= PREFETCH, audit
    assert is_ordered(audit, source, queue_type), audit
