"""A destination that is stopped in order: what it says of what it has not confirmed, and what the bridge makes of it.

It says nothing, and so that is published again. RabbitMQ ends the channels first, then writes `connection.close` (320)
and drops the socket: whatever it had accepted and not confirmed it keeps, and no confirm of it ever comes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import scene
from tests.rig.raw import RawClient, RawClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.node import Node

PERSISTENT = b"\x10\x00\x02"
BATCH = 500
MESSAGES = 20_000
PREFETCH = 200


@pytest.fixture
def stopped_in_order(destination: Node) -> Iterator[RawClient]:
    """A client with confirms on, and publishes under way when the node is stopped in order."""
    destination.declare("kept", "quorum")
    client = RawClient(destination.url)
    client.confirm_select()
    client.publish_many("", "kept", [(PERSISTENT, b"m")] * BATCH)
    destination.stop()
    yield client
    client.abandon()


def test_fact_nothing_follows_the_close_of_a_broker_that_stops(destination: Node, stopped_in_order: RawClient) -> None:
    """Confirms that were sent come before it: to read on, or to wait with closing, would bring no other."""
    with pytest.raises(RawClosedError, match=r"^320 "):
        stopped_in_order.wait_confirms(leave=-1)
    with pytest.raises((RawClosedError, ConnectionResetError)) as end:
        stopped_in_order.wait_confirms(leave=-1)
    assert "320" not in str(end.value), "the stream has ended"
    destination.start().wait_ready()
    assert destination.queue_depth("kept") <= BATCH


def test_a_restart_in_order_doubles_what_was_unconfirmed_at_the_most(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """So the prefetch bounds it, and every one is counted."""
    this = scene(
        source, destination, queue_type=queue_type, name=queue_name, extra={"BRIDGE_SOURCE_PREFETCH": PREFETCH}
    )
    this.publish(MESSAGES)
    with this.bridge:
        this.wait_forwarded(MESSAGES // 10)
        with suppress(TimeoutError):  # the bridge may be done before
            destination.restart()
        done = this.wait_done()
        assert this.bridge.terminate() == 0
    counted = done.total("bridge_duplicates_possible_total")
    audit = this.audit()
    print(f"{audit}; {counted:.0f} were unconfirmed")
    assert not audit.lost, audit
    assert not audit.out_of_order, audit
    assert audit.duplicates <= counted <= PREFETCH
