"""The destination accepts messages and confirms none for a while: few copies, and no doubt about what is wrong."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import scene
from tests.rig.client import audit, drain, number_of
from tests.rig.proxy import Proxy
from tests.rig.sieve import CONFIRM
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

pytestmark = pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
"""The proxy alone is at fault."""

COUNT = 100
CONFIRM_TIMEOUT_S = 1.0
OUTAGE_S = 12 * CONFIRM_TIMEOUT_S
"""As many timeouts as there are in a minute with five seconds each."""


def test_swallowed_confirms_cost_few_copies_and_readiness_says_so(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Each new connection publishes one message and waits longer for its confirm; a restart would help nobody."""
    extra = {"BRIDGE_CONFIRM_TIMEOUT": f"{CONFIRM_TIMEOUT_S}s"}
    this = scene(source, destination, name=queue_name, extra=extra)
    with Proxy(destination.amqp_port, by_frame=True) as proxy:
        this.bridge.settings["BRIDGE_DESTINATION_URL"] = proxy.url
        this.publish(COUNT)
        with this.bridge:
            this.wait_done()
            proxy.swallow(CONFIRM)
            until_s = time.monotonic() + OUTAGE_S
            this.publish(COUNT)
            this.bridge.wait_for(
                lambda m: m.total("bridge_generations_ended_total", side="destination", reason="confirm-timeout") == 1,
                "the first confirm to be missed",
                10 * CONFIRM_TIMEOUT_S,
            )
            ready: Counter[tuple[int, bool]] = Counter()
            healthy: Counter[int] = Counter()

            def is_over() -> bool:
                status, reasons = this.bridge.get("/readyz")
                ready[status, "confirm" in reasons] += 1
                healthy[this.bridge.get("/healthz")[0]] += 1
                return time.monotonic() > until_s

            wait_until(is_over, "the outage to have lasted", 2 * OUTAGE_S)
            arrived = [number_of(message) for message in drain(destination.url, this.queue_out)]
            proxy.swallow()
            proxy.cut()
            done = this.wait_done()
    ((number, copies),) = Counter(arrived).most_common(1)
    assert copies <= 3, f"{copies} copies of message {number}"
    assert set(ready) == {(503, True)}, f"not ready all the while, and why: {ready}"
    assert set(healthy) == {200}, f"nothing that a restart would mend: {healthy}"
    arrived += [number_of(message) for message in drain(destination.url, this.queue_out)]
    found = audit(arrived, this.sent)
    assert found.lost == [], found
    assert found.duplicates <= done.total("bridge_duplicates_possible_total"), found
    assert done.total("bridge_messages_received_total") == this.sent, "the source was left alone"
