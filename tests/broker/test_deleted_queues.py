"""Source queues that are deleted: by our absence, when their last consumer goes, or by somebody else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, in_flight, refused
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

COUNT = 2000
HOLD_TIMEOUT_S = 1.0
HOLD = {"BRIDGE_HOLD_TIMEOUT": f"{HOLD_TIMEOUT_S:g}s"}
EXPIRES_S = 1.0


def wait_held_for(this: Scene, seconds: float) -> None:
    """Wait until the bridge has held its oldest message for so long, or has lost the queue over it."""
    wait_until(
        lambda: (
            this.metrics().total("bridge_oldest_in_flight_seconds") > seconds
            or not this.source.has_queue(this.queue_in)
        ),
        f"a message to be held for {seconds} s",
    )


def test_past_the_hold_timeout_an_auto_delete_queue_is_still_consumed(
    source: Node, destination: Node, queue_name: str
) -> None:
    """To cancel would delete it: the bridge holds, and says at the start that such a source is not safe."""
    this = refused(source, destination, name=queue_name, auto_delete=True, extra=HOLD)
    this.publish(COUNT)
    with this.bridge:
        wait_held_for(this, 2.5 * HOLD_TIMEOUT_S)
        destination.accept_all(this.queue_out)
        outcome = this.outcome(10)
        metrics = this.metrics()
    assert outcome.is_faultless, outcome
    assert metrics.total("bridge_messages_received_total") == COUNT
    assert metrics.total("bridge_messages_requeued_total") == 0
    assert "auto-delete" in this.bridge.logs


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_past_the_hold_timeout_a_queue_that_expires_is_still_consumed(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Without a consumer it expires; while the destination is blocked, nobody would consume again."""
    arguments = {"x-expires": int(EXPIRES_S * 1000)}
    this = refused(source, destination, name=queue_name, arguments=arguments, extra=HOLD)
    destination.accept_all(this.queue_out)
    with this.bridge:
        with RawClient(source.url) as other:
            other.consume(this.queue_in)  # or it expires before the bridge has started
            this.bridge.wait_ready()
        this.publish(1)
        this.wait_forwarded(1)
        destination.alarm(on=True)
        this.publish(COUNT - 1)
        wait_held_for(this, HOLD_TIMEOUT_S + EXPIRES_S + 1)
        destination.alarm(on=False)
        outcome = this.outcome(10)
        metrics = this.metrics()
    assert outcome.is_faultless, outcome
    assert metrics.total("bridge_messages_requeued_total") == 0


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_bridge_that_stops_empties_an_auto_delete_queue(source: Node, destination: Node, queue_name: str) -> None:
    """SIGTERM under load: our exit deletes the queue, so all of it is forwarded within the shutdown timeout."""
    extra = {"BRIDGE_SOURCE_PREFETCH": 10, "BRIDGE_SHUTDOWN_TIMEOUT": "2m"}  # slow, so that much is left
    this = refused(source, destination, name=queue_name, auto_delete=True, extra=extra)
    destination.accept_all(this.queue_out)
    this.publish(10 * COUNT)
    with this.bridge:
        this.wait_forwarded(1)
        assert this.bridge.terminate() == 0, this.bridge.logs
    audit = this.audit()
    assert audit.is_perfect, audit


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_bridge_that_must_leave_an_auto_delete_queue_logs_what_it_still_had(
    source: Node, destination: Node, queue_name: str
) -> None:
    """The destination accepts only one of them, and time is up."""
    extra = {"BRIDGE_SHUTDOWN_TIMEOUT": "1s", "BRIDGE_SOURCE_PREFETCH": 100}
    this = refused(source, destination, name=queue_name, auto_delete=True, extra=extra)
    this.publish(1234)
    with this.bridge:
        # And one more, where the consumer that was replaced was sent another.
        this.bridge.wait_for(lambda m: in_flight(m) >= 100, "a whole prefetch in flight")
        this.bridge.terminate()
    assert not source.has_queue(this.queue_in)
    assert re.search(r"\b1233\b", this.bridge.logs), this.bridge.logs


@pytest.mark.parametrize("again", (False, True), ids=("gone", "declared-again"))
@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_what_is_held_of_a_deleted_queue_is_forwarded(
    source: Node,
    destination: Node,
    queue_type: str,
    queue_name: str,
    again: bool,  # noqa: FBT001 - a parametrised condition
) -> None:
    """It may exist nowhere else any more, even where another queue has its name by now."""
    this = refused(source, destination, queue_type=queue_type, name=queue_name)
    this.publish(101)
    with this.bridge:
        this.bridge.wait_for(lambda m: in_flight(m) == 100, "everything to be held")
        with source.channel() as channel:
            channel.queue_delete(this.queue_in)
            if again:
                channel.queue_declare(this.queue_in, durable=True, arguments={"x-queue-type": queue_type})
        destination.accept_all(this.queue_out)
        outcome = this.outcome(15)
    assert outcome.is_faultless, outcome
