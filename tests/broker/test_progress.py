"""Nothing is up and of no use for long; what is quiet for a reason is left alone, and costs next to nothing."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bridge.relay.watchdog import ASK_EVERY_S
from tests.broker.scene import Scene, running, scene
from tests.broker.test_refusals import publish_poison, quarantined
from tests.programs.idle import SETTLE_S, wake_ups
from tests.rig.client import number_of, publish_numbered
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.node import Node

COUNT = 1000
WAKE_UPS_PER_SECOND = 3
QUIET_S = 3 * ASK_EVERY_S + 2
"""By then the watchdog has looked three times, and has ended what it takes for stalled."""


def source_ended(this: Scene) -> dict[str, float]:
    """How the source's generations ended, by reason."""
    ended = "bridge_generations_ended_total"
    return {
        dict(labels)["reason"]: value
        for (name, labels), value in this.metrics().items()
        if name == ended and ("side", "source") in labels and value
    }


def standby(source: Node, destination: Node, queue_type: str, name: str) -> Scene:
    """A bridge beside a consumer that has all that it may have of a queue with a single active consumer."""
    source.declare(f"{name}.in", queue_type, {"x-single-active-consumer": True})
    destination.declare(f"{name}.out", queue_type)
    return scene(source, destination, name=name, declare=False)


def stream(source: Node, destination: Node, name: str) -> Scene:
    """A bridge at the end of a stream that is not empty."""
    source.declare(f"{name}.in", "stream")
    destination.declare(f"{name}.out")
    publish_numbered(source.url, f"{name}.in", COUNT)
    extra = {"BRIDGE_SOURCE_CONSUMER_ARGUMENTS": '{"x-stream-offset": "next"}'}
    return scene(source, destination, name=name, declare=False, extra=extra)


@contextmanager
def others_before(scenes: list[Scene]) -> Iterator[None]:
    """Consumers that take ten messages each, and ack none."""
    with ExitStack() as stack:
        for this in scenes:
            other = RawClient(this.source.url)
            stack.callback(other.abandon)
            other.consume(this.queue_in, prefetch=10)
        yield


def forget_consumer(this: Scene) -> None:
    """Have the queue forget the bridge, and keep what it is then sent."""
    this.publish(COUNT)
    this.wait_done()
    this.source.forget_consumers(this.queue_in)
    this.publish(COUNT)
    assert this.source.queue_ready(this.queue_in) == COUNT


def wait_begun_anew(vanished: list[Scene], quiet: list[Scene], asleep: Scene) -> None:
    """Wait until the watchdog has had time for all, and has ended each of the vanished, and none of the quiet.

    The one that is asleep is asked nothing meanwhile: its wake-ups are counted, from the time that it is settled.
    """
    began_s = time.monotonic()
    counted: list[tuple[float, int]] = []

    def begun_anew() -> bool:
        assert {this.bridge.get("/healthz")[0] for this in [*vanished, *quiet]} == {200}
        assert [source_ended(this) for this in quiet] == [{}] * len(quiet)
        ended = [source_ended(this) for this in vanished]
        now_s = time.monotonic()
        if now_s > began_s + SETTLE_S:
            counted.append((now_s, wake_ups(asleep.bridge.pid)))
        # That something does not happen can only be seen by letting time pass.
        return ended == [{"stalled": 1}] * len(vanished) and now_s > began_s + QUIET_S

    wait_until(begun_anew, "the vanished consumers to be begun anew", 6 * ASK_EVERY_S, interval_s=0.5)
    (first_s, first), (last_s, last) = counted[0], counted[-1]
    assert last_s - first_s > ASK_EVERY_S, "longer than anything that is due now and then"
    assert last - first <= WAKE_UPS_PER_SECOND * (last_s - first_s), counted


def test_a_vanished_consumer_is_reconnected_and_what_waits_is_left_alone(source: Node, destination: Node) -> None:
    """Side by side, since the watchdog takes its time: three that must be begun anew, five that must not.

    One of the three has had a message that merely holds the name of a stream's header, which makes no stream of it.
    Left alone are a standby beside a single active consumer that leaves a backlog, a consumer of lower priority, an
    empty queue, and a stream at its end, which says that it is not empty and counts no consumer. The one with the
    empty queue sleeps until something is due, over all its threads; after it a message is forwarded as ever.
    """
    vanished = [scene(source, destination, queue_type=kind, name=f"vanished-{kind}") for kind in ("classic", "quorum")]
    misleading = scene(source, destination, name="misleading")
    publish_numbered(source.url, misleading.queue_in, 1, filling=b"\x0fx-stream-offset")
    misleading.sent = 1
    vanished.append(misleading)
    standbys = [standby(source, destination, kind, f"standby-{kind}") for kind in ("classic", "quorum")]
    lower = scene(source, destination, name="lower", extra={"BRIDGE_SOURCE_CONSUMER_PRIORITY": -1})
    idle = scene(source, destination, name="idle")
    streaming = stream(source, destination, "stream")
    waiting = [*standbys, lower]
    quiet = [*waiting, streaming]
    for this in waiting:
        this.publish(10 if this is lower else 50)
    with others_before(waiting), running([*vanished, *quiet, idle]):
        idle.see_one_through()
        wait_until(lambda: source.queue_ready(streaming.queue_in) == COUNT, "the stream to say that it is not empty")
        assert [source.queue_ready(this.queue_in) for this in standbys] == [40, 40], "a backlog"
        for this in vanished:
            forget_consumer(this)
        wait_begun_anew(vanished, quiet, idle)
        for this in vanished:
            this.wait_done()
        publish_numbered(source.url, streaming.queue_in, COUNT)
        streaming.sent = COUNT
        streaming.wait_forwarded(COUNT)
        idle.see_one_through()
        assert [source_ended(this) for this in [*quiet, idle]] == [{}] * (len(quiet) + 1)
    for this in [*vanished, streaming, idle]:
        audit = this.audit()
        assert (audit.lost, audit.duplicates) == ([], 0), (this.queue_in, audit)


def test_a_quarantine_that_an_alarm_blocks_does_not_stop_the_rest(
    source: Node, destination: Node, queue_name: str
) -> None:
    """RabbitMQ no longer reads from a connection that has published into an alarm, its acks included.

    So that generation ends, and the next one leaves the quarantine alone for a while.
    """
    extra = {"BRIDGE_USER_ID": "keep", "BRIDGE_CONFIRM_TIMEOUT": "2s", "BRIDGE_SOURCE_PREFETCH": "100"}
    this = scene(source, destination, queue_type="quorum", name=queue_name, extra=extra)
    this.bridge.settings["BRIDGE_SOURCE_URL"] += "?heartbeat=2"  # so soon a broker sees that a connection is gone
    this.publish(50)
    poison = publish_poison(this)
    this.publish(COUNT)
    source.alarm(on=True)
    with this.bridge:
        this.bridge.wait_for(
            lambda m: m.total("bridge_generations_ended_total", side="source", reason="quarantine-timeout") == 1,
            "the blocked generation to end",
        )
        wait_until(lambda: source.queue_depth(this.queue_in) == 1, "all but the poison to be forwarded and acked", 60)
        assert source_ended(this) == {"quarantine-timeout": 1}
        assert this.bridge.get("/healthz")[0] == 200
        possible = this.metrics().total("bridge_duplicates_possible_total")  # of the channels that the poison closed
        source.alarm(on=False)
        assert this.bridge.terminate() == 0
    assert source.queue_depth(this.queue_in) == 1, "requeued"
    with this.bridge:  # a new process takes the quarantine for well
        this.bridge.wait_for(lambda m: m.total("bridge_messages_quarantined_total", reason="poison") == 1, "quarantine")
        wait_until(lambda: source.queue_depth(this.queue_in) == 0, "the source queue to be empty")
    audit = this.audit()
    assert audit.lost == [poison], audit
    assert audit.duplicates <= possible, audit
    assert poison in map(number_of, quarantined(this))
