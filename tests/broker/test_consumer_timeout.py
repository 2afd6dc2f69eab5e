"""RabbitMQ 4.3 cancels a quorum queue's consumer that has not acked for too long, and requeues what it had."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, refused
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

COUNT = 2000
PREFETCH = 1000
TIMEOUT_S = 3


def timing_out(source: Node, destination: Node, name: str, **more: object) -> Scene:
    """A bridge from a quorum queue with a consumer timeout to a full queue."""
    arguments = {"x-consumer-timeout": TIMEOUT_S * 1000, **more}
    extra = {"BRIDGE_SOURCE_PREFETCH": PREFETCH}
    return refused(source, destination, queue_type="quorum", name=name, arguments=arguments, extra=extra)


def wait_timed_out(this: Scene, *, message_ids: bool) -> None:
    """Wait until the source has requeued some of a whole prefetch: another consumer may have them again at once.

    Publishes one message more at each look. A timeout that is evaluated within its own millisecond sets no next timer
    (RabbitMQ 4.3, rabbit_fifo, maybe_add_consumer_timeout_effect): a queue without any command requeues nothing then.
    """

    def has_timed_out() -> bool:
        metrics = this.metrics()
        if metrics.total("bridge_messages_stale_discarded_total"):
            return metrics.total("bridge_messages_received_total") > PREFETCH
        this.publish(1, message_ids=message_ids)
        return False

    wait_until(has_timed_out, "some of a whole prefetch to be requeued", timeout_s=60, interval_s=0.5)


@pytest.mark.parametrize("blocked", (True, False), ids=("blocked", "refused"))
@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_what_a_consumer_timeout_requeued_is_not_forwarded_as_ours(
    source: Node,
    destination: Node,
    queue_name: str,
    blocked: bool,  # noqa: FBT001 - a parametrised condition
) -> None:
    """Side by side, since it takes its time: with a consumer among others, with the only one, and without message ids.

    The timeout need not requeue all (measured: what the broker set out some milliseconds later stays with the channel,
    often one message, which it sends when the one that was seen through has been acked).
    With message ids nothing arrives twice; without, what may have arrived twice is counted.
    """
    scenes = [timing_out(source, destination, f"{queue_name}-{kind}") for kind in ("ids", "anonymous")]
    scenes.append(timing_out(source, destination, f"{queue_name}-single", **{"x-single-active-consumer": True}))
    anonymous = scenes[1]
    with ExitStack() as stack:
        for this in scenes:
            stack.enter_context(this.bridge)
        for this in scenes:
            this.publish(1)
            this.wait_forwarded(1)
            if blocked:
                destination.accept_all(this.queue_out)
        destination.alarm(on=blocked)
        for this in scenes:
            this.publish(COUNT, message_ids=this is not anonymous)
        for this in scenes:
            wait_timed_out(this, message_ids=this is not anonymous)
        destination.alarm(on=False)
        if not blocked:
            for this in scenes:
                destination.accept_all(this.queue_out)
        outcomes = [this.outcome() for this in scenes]
        stale = [this.metrics().total("bridge_messages_stale_discarded_total") for this in scenes]
    assert all(outcome.is_faultless for outcome in outcomes), outcomes
    doubled = [outcome.doubled for this, outcome in zip(scenes, outcomes, strict=True) if this is not anonymous]
    assert doubled == [0, 0], outcomes
    assert min(stale) >= 0.9 * PREFETCH, stale
