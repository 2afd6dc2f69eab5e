"""A user who may open hardly any channels: what the bridge can do without is asked once, and said once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import in_flight, scene

if TYPE_CHECKING:
    from tests.rig.node import Node

USER = "few-channels"
POLL_S = 0.2


def limited(node: Node, most: int) -> str:
    """Make a user who may open so many channels; return the URL to log in by."""
    node.ctl("add_user", USER, USER)
    node.ctl("set_permissions", USER, ".*", ".*", ".*")
    node.ctl("set_user_limits", USER, f'{{"max-channels": {most}}}')
    return node.url.replace("guest:guest", f"{USER}:{USER}")


@pytest.mark.parametrize("most", (1, 2))
def test_with_hardly_any_channels_everything_is_forwarded_and_no_generation_ends(
    source: Node, destination: Node, queue_name: str, most: int
) -> None:
    this = scene(source, destination, name=queue_name, extra={"BRIDGE_QUEUE_POLL": f"{POLL_S}s"})
    try:
        this.bridge.settings["BRIDGE_SOURCE_URL"] = limited(source, most)
        this.bridge.settings["BRIDGE_DESTINATION_URL"] = limited(destination, most)
        with this.bridge:
            this.see_one_through()
            before = this.metrics()
            asked = "bridge_generations_ended_total"
            for _ in range(10):
                this.publish(10)
                this.wait_done()
            after = this.metrics()
            assert after.total(asked) == before.total(asked)
            assert in_flight(after) == 0
            said = this.bridge.logs.count("(max-channels); it goes on")
            assert said == 2 if most == 1 else said <= 2, "once for each side at the most"
    finally:
        for node in (source, destination):
            node.ctl("delete_user", USER)
