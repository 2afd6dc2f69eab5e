"""The destination goes away, freezes or blocks in the middle of everything: the bridge holds, the source is spared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, in_flight, scene
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.node import Node

MESSAGES = 40_000


def restart(this: Scene) -> None:
    """Stop in good order, and start."""
    this.destination.restart()


def sigkill(this: Scene) -> None:
    """Kill, and start."""
    this.destination.kill()
    this.destination.start().wait_ready()


def freeze(this: Scene) -> None:
    """Answer nothing until the bridge has given the connection up for want of heartbeats."""
    this.destination.freeze()
    this.bridge.wait_for(
        lambda m: m.total("bridge_generations_ended_total", side="destination", reason="heartbeat") == 1, "no heartbeat"
    )
    this.destination.thaw()


def memory_alarm(this: Scene) -> None:
    """Read from no publisher until the bridge holds all that it may."""
    this.destination.alarm(on=True)
    this.bridge.wait_for(
        lambda m: m.total("bridge_connection_blocked", side="destination") == 1 and in_flight(m) == 1000, "blocked"
    )
    this.destination.alarm(on=False)


@pytest.mark.parametrize("fault", (restart, sigkill, freeze, memory_alarm))
def test_an_outage_is_held_through(
    source: Node, destination: Node, queue_type: str, queue_name: str, fault: Callable[[Scene], None]
) -> None:
    """Nothing lost, first copies in order, the source's generation the first one, nothing requeued."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    this.bridge.settings["BRIDGE_DESTINATION_URL"] += "?heartbeat=2"
    this.publish(MESSAGES)
    with this.bridge:
        this.wait_forwarded(MESSAGES // 10)
        fault(this)
        done = this.wait_done()
    assert done.total("bridge_generation", side="source") == 1
    assert done.total("bridge_messages_received_total") == MESSAGES
    assert done.total("bridge_messages_requeued_total") == 0
    assert done.total("bridge_generation", side="destination") == (1 if fault is memory_alarm else 2)
    audit = this.audit()
    assert (audit.lost, audit.out_of_order) == ([], 0), audit
    assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), audit


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
    queue_type: str,
    queue_name: str,
    blocked: bool,  # noqa: FBT001 - a parametrised condition
) -> None:
    """By nack, on the same source generation; and when the destination is back all of it is forwarded."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name, extra={"BRIDGE_HOLD_TIMEOUT": "3s"})
    this.publish(5000)
    with this.bridge:
        this.wait_done()
        if blocked:
            this.block()
        else:
            destination.stop()
        this.publish(5000)
        requeued(this, blocked)
        if blocked:
            destination.alarm(on=False)
        else:
            destination.start().wait_ready()
        done = this.wait_done()
    assert done.total("bridge_generation", side="source") == 1
    audit = this.audit()
    assert audit.lost == []
    assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), audit
    if (queue_type, source.version) != ("quorum", "3.10"):  # which puts what is requeued behind all others
        assert audit.out_of_order == 0, audit
