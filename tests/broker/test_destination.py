"""The destination goes away, freezes or blocks in the middle of everything: the bridge holds, the source is spared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, both, in_flight, load, running
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

MESSAGES = 10_000
"""For each outage: enough to be in the middle of it when it begins."""


def restart(destination: Node, _: list[Scene]) -> None:
    """Stop in good order, and start."""
    destination.restart()


def sigkill(destination: Node, _: list[Scene]) -> None:
    """Kill, and start."""
    destination.kill()
    destination.start().wait_ready()


def freeze(destination: Node, scenes: list[Scene]) -> None:
    """Answer nothing until the bridges have given the connection up for want of heartbeats."""
    destination.freeze()
    for this in scenes:
        this.bridge.wait_for(
            lambda m: m.total("bridge_generations_ended_total", side="destination", reason="heartbeat") == 1,
            "no heartbeat",
        )
    destination.thaw()


def memory_alarm(destination: Node, scenes: list[Scene]) -> None:
    """Read from no publisher until the bridges hold all that they may."""
    destination.alarm(on=True)
    for this in scenes:
        this.bridge.wait_for(
            lambda m: m.total("bridge_connection_blocked", side="destination") == 1 and in_flight(m) == 1000, "blocked"
        )
    destination.alarm(on=False)


def test_outages_are_held_through(source: Node, destination: Node, queue_name: str) -> None:
    """Nothing lost, first copies in order, the source's generation the first one, nothing requeued."""
    scenes = both(source, destination, queue_name)
    for this in scenes:
        this.bridge.settings["BRIDGE_DESTINATION_URL"] += "?heartbeat=2"
    with running(scenes):
        for generation, fault in enumerate((memory_alarm, restart, sigkill, freeze), 1):
            before = [this.sent for this in scenes]
            load(scenes, MESSAGES)
            for this, sent in zip(scenes, before, strict=True):
                this.wait_forwarded(sent + MESSAGES // 20)
            fault(destination, scenes)
            for this in scenes:
                done = this.wait_done()
                assert done.total("bridge_generation", side="source") == 1
                assert done.total("bridge_messages_received_total") == this.sent
                assert done.total("bridge_messages_requeued_total") == 0
                assert done.total("bridge_generation", side="destination") == generation, fault
        ends = [this.metrics() for this in scenes]
    for this, done in zip(scenes, ends, strict=True):
        audit = this.audit()
        assert (audit.lost, audit.out_of_order) == ([], 0), (this.queue_in, audit)
        assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), (this.queue_in, audit)


def requeued(this: Scene, blocked: bool) -> None:  # noqa: FBT001 - a parametrised condition
    """Wait until the bridge has given all back; what is written to a blocked broker stays published."""
    metrics = this.bridge.wait_for(
        lambda m: (
            m.total("bridge_messages_requeued_total", reason="hold-timeout") > 0
            and m.total("bridge_messages_in_flight", state="held") == 0
        ),
        "everything held to be requeued",
    )
    if not blocked:
        assert in_flight(metrics) == 0
    waiting = this.sent - metrics.total("bridge_messages_forwarded_total")
    wait_until(
        lambda: this.source.queue_ready(this.queue_in) == waiting - in_flight(this.metrics()), "the source to have all"
    )


@pytest.mark.parametrize("blocked", (True, False), ids=("blocked", "away"))
def test_past_the_hold_timeout_everything_is_requeued_and_consumed_again(
    source: Node,
    destination: Node,
    queue_name: str,
    blocked: bool,  # noqa: FBT001 - a parametrised condition
) -> None:
    """By nack, on the same source generation; and when the destination is back all of it is forwarded."""
    scenes = both(source, destination, queue_name, {"BRIDGE_HOLD_TIMEOUT": "3s"})
    with running(scenes):
        for this in scenes:
            this.see_one_through()
        if blocked:
            for this in scenes:
                this.block()
        else:
            destination.stop()
        for this in scenes:
            this.publish(3000)
        for this in scenes:
            requeued(this, blocked)
        if blocked:
            destination.alarm(on=False)
        else:
            destination.start().wait_ready()
        ends = [this.wait_done() for this in scenes]
    for this, done in zip(scenes, ends, strict=True):
        assert done.total("bridge_generation", side="source") == 1
        audit = this.audit()
        assert audit.lost == []
        assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), (this.queue_in, audit)
        # A quorum queue of 3.10 puts what is requeued behind all others.
        if source.version != "3.10" or this.queue_in.endswith("classic.in"):
            assert audit.out_of_order == 0, (this.queue_in, audit)
