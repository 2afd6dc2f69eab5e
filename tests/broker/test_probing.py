"""While the destination accepts nothing, one or two messages try it: the others are not fetched and requeued for it.

Where ``nack(requeue)`` counts towards a quorum queue's delivery limit (before 4.3, here on 3.10 with a limit), each
time that a healthy message is requeued brings it nearer to the quarantine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, in_flight, refused
from tests.broker.test_refusals import declare_exchange, to_exchange
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

pytestmark = pytest.mark.parametrize("broker_version", ("3.10",), indirect=True)

COUNT = 1000
LIMIT = 6
"""What has come back three times is quarantined: enough for a probe and the one time that all is requeued."""
STOPS = 6
AT_MOST = (STOPS - 1) // 2
"""The first stop may count for all; of the others two in a row count for the one message in hand."""
TRYING_S = 8.0
"""Eight hold timeouts, in which four whole prefetches could be fetched and requeued."""


def limited(source: Node, destination: Node, name: str) -> Scene:
    """A bridge from a quorum queue with a delivery limit to a full queue."""
    extra = {"BRIDGE_HOLD_TIMEOUT": "1s", "BRIDGE_DELIVERY_LIMIT": LIMIT}
    arguments = {"x-delivery-limit": LIMIT}
    return refused(source, destination, queue_type="quorum", name=name, arguments=arguments, extra=extra)


def test_few_messages_try_whether_there_is_a_route(source: Node, destination: Node, queue_name: str) -> None:
    """The route is lost, and that a message comes back is no answer that would end the probe.

    A second one is fetched beside the first, of which the key alone may have no route.
    """
    this = limited(source, destination, queue_name)
    destination.accept_all(this.queue_out)
    declare_exchange(destination, queue_name, (this.queue_out, "#"))
    to_exchange(this, queue_name)
    fetched: set[float] = set()
    with this.bridge:
        this.publish(1)
        this.wait_forwarded(1)
        with destination.channel() as channel:
            channel.queue_unbind(this.queue_out, queue_name, "#")
        this.publish(COUNT)
        this.bridge.wait_for(lambda m: m.total("bridge_messages_requeued_total") >= COUNT, "everything to be requeued")
        until_s = time.monotonic() + TRYING_S

        def time_is_up() -> bool:
            fetched.add(in_flight(this.metrics()))
            # That something does not happen can only be seen by letting time pass.
            return time.monotonic() > until_s

        wait_until(time_is_up, "time to pass", 2 * TRYING_S)
        declare_exchange(destination, queue_name, (this.queue_out, "#"))
        outcome = this.outcome()
    assert outcome.is_faultless, (outcome, fetched)
    assert outcome.doubled == 0, outcome
    assert fetched <= {0, 1, 2}


def test_stopping_again_and_again_quarantines_next_to_nothing(source: Node, destination: Node, queue_name: str) -> None:
    """SIGTERM while the destination is full: only what a bridge has in hand is requeued.

    The same message may be in hand each time, and go to the quarantine: nothing tells it from a guilty one.
    """
    this = limited(source, destination, queue_name)
    this.publish(COUNT)
    for _ in range(STOPS):
        with this.bridge:
            this.bridge.wait_for(lambda m: in_flight(m) > 0, "a delivery")
            assert this.bridge.terminate() == 0, this.bridge.logs
    destination.accept_all(this.queue_out)
    with this.bridge:
        outcome = this.outcome()
    assert (outcome.lost, outcome.left, outcome.doubled) == (0, 0, 0), outcome
    assert outcome.quarantined <= AT_MOST, outcome
