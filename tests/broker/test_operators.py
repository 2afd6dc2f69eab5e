"""What operators of a broker do to it while the bridge works: nothing is lost, and the bridge goes on by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import FAST, alice, scene
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

Fault = tuple[str, str]
"""Expressions for the broker: what is done, and how it is undone."""
FAULTS: dict[str, Fault] = {
    "maintenance": ("rabbit_maintenance:drain()", "rabbit_maintenance:revive()"),
    "application stopped": ("rabbit:stop()", "rabbit:start()"),
    "password changed": (
        """rabbit_auth_backend_internal:change_password(<<"alice">>, <<"other">>, <<"rig">>),
        rabbit_networking:close_all_connections("the rig")""",
        """rabbit_auth_backend_internal:change_password(<<"alice">>, <<"secret">>, <<"rig">>)""",
    ),
    "permissions withdrawn": (
        """rabbit_auth_backend_internal:clear_permissions(<<"alice">>, <<"/">>, <<"rig">>),
        rabbit_networking:close_all_connections("the rig")""",
        """rabbit_auth_backend_internal:set_permissions(
            <<"alice">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"rig">>)""",
    ),
    "user deleted": (
        """rabbit_auth_backend_internal:delete_user(<<"alice">>, <<"rig">>),
        rabbit_networking:close_all_connections("the rig")""",
        """rabbit_auth_backend_internal:add_user(<<"alice">>, <<"secret">>, <<"rig">>),
        rabbit_auth_backend_internal:set_permissions(
            <<"alice">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"rig">>)""",
    ),
    "no connection allowed": (
        """rabbit_auth_backend_internal:set_user_limits(<<"alice">>, <<"{\\"max-connections\\":0}">>, <<"rig">>),
        rabbit_networking:close_all_connections("the rig")""",
        """rabbit_auth_backend_internal:clear_user_limits(<<"alice">>, <<"max-connections">>, <<"rig">>)""",
    ),
}


ALARMS = 10


@pytest.mark.parametrize("side", ("source", "destination"))
@pytest.mark.parametrize("fault", FAULTS)
def test_the_bridge_outlives_what_operators_do(
    source: Node, destination: Node, queue_name: str, fault: str, side: str
) -> None:
    this = scene(source, destination, name=queue_name, extra=FAST)
    node = {"source": source, "destination": destination}[side]
    this.bridge.settings[f"BRIDGE_{side.upper()}_URL"] = alice(node)
    do, undo = FAULTS[fault]
    this.publish(5_000)
    with this.bridge:
        this.wait_forwarded(1)
        try:
            node.eval(do)
            wait_until(lambda: not this.bridge.is_ready(), "the bridge to say that it is not ready")
        finally:
            node.eval(undo)
        this.bridge.wait_ready(60)
        this.publish(1_000)
        outcome = this.outcome(60)
        assert this.bridge.terminate() == 0
    assert outcome.is_faultless, outcome


@pytest.mark.parametrize("successor", ("classic", "quorum", "stream"))
def test_a_source_queue_that_is_replaced_by_one_of_another_type_is_read_like_that_type(
    source: Node, destination: Node, queue_name: str, successor: str
) -> None:
    this = scene(source, destination, name=queue_name, extra=FAST)
    this.publish(500)
    with this.bridge:
        this.wait_done()
        source.delete(this.queue_in)
        source.declare(this.queue_in, successor)
        this.source_keeps = successor == "stream"
        this.bridge.wait_for(lambda m: m.total("bridge_generation", side="source") > 1, "another generation")
        this.bridge.wait_ready(60)
        this.publish(500)
        outcome = this.outcome(60)
        requeued = this.metrics().total("bridge_messages_requeued_total")
    assert outcome.is_faultless, outcome
    assert not requeued


@pytest.mark.parametrize("successor", ("classic", "quorum", "stream"))
def test_a_destination_queue_that_is_replaced_under_load_costs_only_what_it_held(
    source: Node, destination: Node, queue_name: str, successor: str
) -> None:
    """3.10 often confirms nothing any more when a queue is deleted under load, and says no word either."""
    timeout = {"BRIDGE_CONFIRM_TIMEOUT": "5s"}
    this = scene(source, destination, name=queue_name, extra=FAST | timeout)
    this.publish(60_000)
    with this.bridge:
        this.wait_forwarded(1)
        destination.delete(this.queue_out)
        wait_until(lambda: not this.bridge.is_ready(), "the missing queue to be noticed")
        before = this.metrics().total("bridge_messages_forwarded_total")
        destination.declare(this.queue_out, successor)
        done = this.wait_done()
    kept = done.total("bridge_messages_forwarded_total") - before
    wait_until(lambda: destination.queue_ready(this.queue_out) >= kept, "all the others to be in the new queue")
    assert done.total("bridge_messages_forwarded_total") == this.sent


def test_alarms_that_come_and_go_cost_nothing(source: Node, destination: Node, queue_name: str) -> None:
    this = scene(source, destination, name=queue_name, extra=FAST)
    with this.bridge:
        for _ in range(ALARMS):
            this.publish(500)
            for node in (destination, source):
                node.alarm(on=True)
                node.alarm(on=False)
        done = this.wait_done()
    assert done.total("bridge_generation", side="destination") == 1
    assert this.audit().is_perfect
