"""What the broker tests have in common: two nodes, a queue on each, a bridge between them, and the audit."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.rig.bridge_process import BridgeProcess, Metrics
from tests.rig.client import Audit, audit, drain, number_of, publish_numbered
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.rig.node import Node

FAST = {"BRIDGE_RECONNECT_MIN": "0.05"}


def in_flight(metrics: Metrics) -> float:
    """Deliveries that the bridge has and has not settled."""
    return metrics.total("bridge_messages_in_flight")


def imbalance(metrics: Metrics) -> float:
    """What the books do not account for (invariant 3)."""
    names = ("forwarded", "suppressed", "quarantined", "requeued", "stale_discarded")
    done = sum(metrics.total(f"bridge_messages_{name}_total") for name in names)
    return metrics.total("bridge_messages_received_total") - done - in_flight(metrics)


@dataclass(frozen=True)
class Outcome:
    """What became of the messages that were sent, as the independent client counts it."""

    lost: int
    """Nowhere to be found."""
    left: int
    """Still in the source queue, or with the bridge; a stream's are taken for lost."""
    quarantined: int
    doubled: int
    doubled_at_most: float
    """Copies too many, as far as the bridge knows: ``bridge_duplicates_possible_total``."""

    @property
    def is_faultless(self) -> bool:
        """All at the destination, and every duplicate counted."""
        missing = self.lost or self.left or self.quarantined
        return not missing and self.doubled <= self.doubled_at_most


@dataclass
class Scene:
    """A bridge from ``in`` on one node to ``out`` on another, and how many messages have been sent."""

    source: Node
    destination: Node
    bridge: BridgeProcess
    queue_in: str
    queue_out: str
    sent: int = 0
    scrapes: int = field(default=0)
    ended_before: int = 0
    """How many an earlier process of the bridge had done with: the counters are each process's own."""
    source_keeps: bool = False
    """The source is a stream: what was consumed stays in it."""

    def publish(self, count: int, size: int = 256, *, message_ids: bool = True) -> None:
        """Publish the next numbered messages to the source, confirmed."""
        publish_numbered(self.source.url, self.queue_in, count, first=self.sent, size=size, message_ids=message_ids)
        self.sent += count

    def metrics(self) -> Metrics:
        """Scrape; the books must balance every time."""
        metrics = self.bridge.metrics()
        self.scrapes += 1
        assert imbalance(metrics) == 0, metrics
        return metrics

    def wait_forwarded(self, count: int, timeout_s: float = 60) -> Metrics:
        """Wait until so many messages have been forwarded or suppressed."""

        def enough(metrics: Metrics) -> bool:
            assert imbalance(metrics) == 0, metrics
            return metrics.total("bridge_messages_forwarded_total") >= count

        return self.bridge.wait_for(enough, f"{count} messages forwarded", timeout_s)

    def wait_done(self, timeout_s: float = 90) -> Metrics:
        """Wait until the source queue is empty, unacked messages included, and the bridge holds nothing."""

        def done() -> bool:
            metrics = self.metrics()
            ends = ("forwarded", "suppressed", "quarantined")
            ended = sum(metrics.total(f"bridge_messages_{name}_total") for name in ends)
            ended += self.ended_before
            return ended >= self.sent and in_flight(metrics) == 0 and self.source.queue_depth(self.queue_in) == 0

        try:
            wait_until(done, "everything to be forwarded", timeout_s, interval_s=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.bridge.get('/readyz')}\n{self.bridge.logs[-3000:]}") from None
        return self.metrics()

    def block(self) -> None:
        """Set off an alarm at the destination and publish a message, so that the bridge knows of it.

        An alarm is told to a connection when it next publishes, and on a quick machine a whole prefetch is written by
        then.
        """
        self.destination.alarm(on=True)
        self.publish(1)
        self.bridge.wait_for(lambda m: m.total("bridge_connection_blocked", side="destination") == 1, "blocked")

    def wait_paused(self) -> None:
        """Wait until the bridge, which has been told to pause, is paused."""
        wait_until(
            lambda: self.bridge.status()["consumer"]["state"] == "paused", "the bridge to be paused", interval_s=0.01
        )

    def see_one_through(self) -> None:
        """Publish one message and wait until it is acked: by then the bridge consumes with its whole prefetch.

        It acks nothing while it goes over from the prefetch of 1 that a process begins with.
        """
        self.publish(1)
        self.wait_done()

    def outcome(self, timeout_s: float = 30) -> Outcome:
        """Wait until every message has come to its end, ``timeout_s`` at most, and tell which end.

        It does not raise when that takes longer: how many are missing says more than that a test ran out of time.
        """
        quarantine = f"{self.queue_in}.quarantine"
        arrived: list[int] = []
        quarantined: list[int] = []

        def ended() -> bool:
            metrics = self.metrics()
            arrived.extend(map(number_of, drain(self.destination.url, self.queue_out)))
            if self.source.has_queue(quarantine):
                quarantined.extend(map(number_of, drain(self.source.url, quarantine)))
            return len({*arrived, *quarantined}) >= self.sent and in_flight(metrics) == 0 and self._left() == 0

        with suppress(TimeoutError):
            wait_until(ended, "every message to come to its end", timeout_s, interval_s=0.1)
        missing = self.sent - len({*arrived, *quarantined})
        left = min(missing, self._left())
        return Outcome(
            lost=missing - left,
            left=left,
            quarantined=len({*quarantined}),
            doubled=len(arrived) - len({*arrived}),
            doubled_at_most=self.metrics().total("bridge_duplicates_possible_total"),
        )

    def _left(self) -> int:
        """How many messages the source queue holds; 0 where it is gone, or a stream, which always holds all."""
        if self.source_keeps or not self.source.has_queue(self.queue_in):
            return 0
        return self.source.queue_depth(self.queue_in)

    def audit(self) -> Audit:
        """Take everything from the destination and compare it with what was sent."""
        return audit(map(number_of, drain(self.destination.url, self.queue_out)), self.sent)


@contextmanager
def running(scenes: Sequence[Scene]) -> Iterator[None]:
    """The bridges run side by side, for what takes its time: a broker's restart, or a timeout."""
    with ExitStack() as stack:
        for this in scenes:
            stack.enter_context(this.bridge)
        for this in scenes:
            this.bridge.wait_ready()
        yield


def load(scenes: Sequence[Scene], count: int) -> None:
    """Publish so many messages to each, and have all bridges, which run, begin with them at the same time."""
    for this in scenes:
        this.bridge.pause()
    for this in scenes:
        this.wait_paused()
        this.publish(count)
    for this in scenes:
        this.bridge.resume()


def alice(node: Node) -> str:
    """Return the URL of a user that only this node knows."""
    node.eval("""
        catch rabbit_auth_backend_internal:add_user(<<"alice">>, <<"secret">>, <<"rig">>),
        rabbit_auth_backend_internal:set_permissions(
            <<"alice">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"rig">>)""")
    return node.url.replace("guest:guest", "alice:secret")


def settings(source: Node, destination: Node, queue_in: str, queue_out: str) -> dict[str, object]:
    """The plain configuration from one queue to another."""
    return {
        "BRIDGE_SOURCE_URL": source.url,
        "BRIDGE_SOURCE_QUEUE": queue_in,
        "BRIDGE_DESTINATION_URL": destination.url,
        "BRIDGE_DESTINATION_QUEUE": queue_out,
        **FAST,
    }


def refused(  # noqa: PLR0913 - all but the nodes by name
    source: Node,
    destination: Node,
    *,
    queue_type: str = "classic",
    name: str,
    arguments: Mapping[str, object] | None = None,
    auto_delete: bool = False,
    accepts: int = 1,
    extra: Mapping[str, object] | None = None,
) -> Scene:
    """As ``scene``, but the destination is a full queue until ``accept_all``; ``arguments`` are the source's.

    The one message that it ``accepts`` first is for a bridge that will not fetch many before it has forwarded any.
    """
    source.declare(f"{name}.in", queue_type, arguments, auto_delete=auto_delete)
    destination.declare(f"{name}.out")
    destination.accept_only(f"{name}.out", accepts)
    this = scene(source, destination, name=name, declare=False, extra=extra)
    this.source_keeps = queue_type == "stream"
    return this


def scene(  # noqa: PLR0913 - all but the nodes by name
    source: Node,
    destination: Node,
    *,
    queue_type: str = "classic",
    name: str = "scene",
    declare: bool = True,
    arguments: Mapping[str, object] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Scene:
    """Declare the two queues and make the bridge, not yet started."""
    queue_in, queue_out = f"{name}.in", f"{name}.out"
    if declare:
        source.declare(queue_in, queue_type)
        destination.declare(queue_out, queue_type, arguments)
    bridge = BridgeProcess({**settings(source, destination, queue_in, queue_out), **(extra or {})})
    return Scene(source, destination, bridge, queue_in, queue_out)


def both(source: Node, destination: Node, name: str, extra: Mapping[str, object] | None = None) -> list[Scene]:
    """A bridge between classic queues and one between quorum queues: what happens to a broker happens to both."""
    kinds = ("classic", "quorum")
    return [scene(source, destination, queue_type=kind, name=f"{name}-{kind}", extra=extra) for kind in kinds]
