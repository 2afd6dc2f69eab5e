"""What an idle bridge costs: it sleeps until something is due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.broker.scene import scene
from tests.programs.idle import SETTLE_S, cost

if TYPE_CHECKING:
    from tests.rig.node import Node

OBSERVED_S = 20.0
WAKE_UPS_PER_SECOND = 3


def test_an_idle_bridge_sleeps(source: Node, destination: Node, queue_name: str) -> None:
    """Counted over all threads; after it a message is forwarded as ever."""
    this = scene(source, destination, name=queue_name)
    with this.bridge:
        this.see_one_through()
        time.sleep(SETTLE_S)  # a young generation is looked at often
        found = cost(this.bridge, OBSERVED_S)
        assert found.wake_ups / found.seconds <= WAKE_UPS_PER_SECOND, found
        this.publish(1)
        this.wait_done()
        done = this.metrics()
    assert done.total("bridge_generation", side="source") == 1
