"""A relay between two brokers that a test plays, frame by frame, and its quarantine."""

from __future__ import annotations

from dataclasses import replace
from struct import pack
from typing import TYPE_CHECKING

from bridge.amqp.preparer import HeaderPolicy
from bridge.relay.action import Consume, OpenQuarantine, Stop
from bridge.relay.plan import Plan
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.relay import Relay
from bridge.relay.state import State
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import Memory
from bridge.window.terms import UNLIMITED
from bridge.window.window import Window
from tests.support.frames import CANCEL_OK, PERSISTENT, close, content, deliver, method, short, table, text
from tests.support.targets import QUEUE

if TYPE_CHECKING:
    from bridge.amqp.events import Close
    from bridge.amqp.target import Target
    from bridge.window.terms import Terms

EMPTY_QUEUE = QueueState(ready=0, consumers=0)

QUORUM = QueueFacts("quorum", auto_delete=False, expires=False, requeues_counted=False)
"""A quorum queue of RabbitMQ 4.3."""
QUORUM_3 = QueueFacts("quorum", auto_delete=False, expires=False, requeues_counted=True)
"""A quorum queue of RabbitMQ 3.10, where `nack(requeue)` counts towards the delivery limit."""
CLASSIC = QueueFacts("classic", auto_delete=False, expires=False, requeues_counted=False)
AUTO_DELETE = QueueFacts("classic", auto_delete=True, expires=False, requeues_counted=False)
STREAM = QueueFacts("stream", auto_delete=False, expires=False)
UNKNOWN = QueueFacts()
"""What the bridge knows of a queue that it may not ask."""


def counted(delivery_count: int) -> bytes:
    """A message with its delivery count, as a quorum queue delivers it."""
    count = b"l" + pack(">q", delivery_count)
    fields = {"x-acquired-count": count, "x-delivery-count": count, "k": b"V"}
    return content(b"m", PERSISTENT | {"headers": table(fields)})


POLICY = HeaderPolicy()


class Bridge:
    """A relay between two brokers that the test plays."""

    def __init__(  # noqa: PLR0913 - what the tests vary
        self,
        limits: WindowLimits | None = None,
        *,
        target: Target = QUEUE,
        frame_max: tuple[int, int] = (0, 0),
        probing: bool = False,
        consuming: bool = True,
        facts: QueueFacts = QUORUM,
        policy: HeaderPolicy = POLICY,
        start_paused: bool = False,
        min_consumers: int = 0,
        terms: Terms = UNLIMITED,
        source_queue: str = "",
    ) -> None:
        self.now_s = 1000.0
        self.books = Books()
        self.window = Window(
            limits or WindowLimits(), target, self.books, Memory(enabled=True), lambda: 0.5, terms=terms
        )
        plan = Plan(quarantine_queue="sq.quarantine", policy=policy, start_paused=start_paused)
        plan = replace(plan, source_queue=source_queue)
        max_ready = self.window.limits.destination_max_ready
        plan = replace(plan, destination_max_ready=max_ready, destination_min_consumers=min_consumers)
        self.relay = Relay(self.window, plan, lambda: 0.5)
        self.steering = self.relay.steering
        # As after a message that was seen through; `probing` begins as a new process does.
        if not start_paused:
            self.steering.state = State.PROBING if probing else State.RUNNING
        self.facts = facts
        self.closes: list[Close] = []
        """What ended a generation by the broker's word."""
        self.frame_max = frame_max
        self.open_source()
        self.open_destination()
        if consuming:
            self.consume()
        self.wait(0.0)

    def open_source(self) -> None:
        """A source generation begins."""
        self.relay.connect_source(self._note_close)
        self.relay.source.opened(self.frame_max[0], self.facts)

    def connect_destination(self) -> None:
        """A connection to the destination begins."""
        self.relay.connect_destination(self._note_close)

    def open_destination(self) -> None:
        """A destination generation begins, on a connection of its own."""
        self.connect_destination()
        self.relay.destination.opened(self.frame_max[1])

    def _note_close(self, close: Close, now_s: float) -> None:
        assert now_s == self.now_s
        self.closes.append(close)

    def lose_destination(self) -> None:
        """The destination's generation ends, and another one begins."""
        self.relay.destination.lost(self.now_s)
        self.open_destination()

    def lose_source(self, code: int = 0, why: str = "") -> None:
        """The source's generation ends, with the broker's word or without, and another one begins."""
        if code:
            self.source(close(1, code, why))
        self.relay.source.lost(self.now_s)
        self.open_source()

    def consume(self, consumer_tag: str = "ct", *, ready: int = 0) -> int:
        """`basic.consume` from a queue with so many messages, and its answer; return the prefetch."""
        prefetch = self.start(consumer_tag)
        self.relay.started(QueueState(ready, 0), self.now_s)
        return prefetch

    def state(self) -> State:
        """Whether and how the bridge consumes; asked anew each time."""
        return self.steering.state

    @property
    def wanted_prefetch(self) -> int:
        """How many messages to consume with now; 0 for not to consume."""
        wanted = self.steering.wanted(self.now_s)
        return 0 if wanted is None else wanted.prefetch

    def start(self, consumer_tag: str = "ct") -> int:
        """`basic.consume`, not answered yet; return the prefetch."""
        action = self.relay.decide(self.now_s)
        assert isinstance(action, Consume)
        assert self.steering.starting(consumer_tag, self.now_s)
        return action.prefetch

    def widen(self) -> None:
        """Replace the consumer `ct` by `ct-2`, with the whole prefetch."""
        assert self.consume("ct-2") == self.window.limits.prefetch
        self.source(CANCEL_OK)

    def open_quarantine(self) -> None:
        """The steering opens the quarantine, and that succeeds."""
        assert self.relay.decide(self.now_s) == OpenQuarantine()
        self.steering.quarantine_opened()

    def stop(self) -> None:
        """SIGTERM."""
        self.relay.stop(self.now_s)

    def pause(self) -> None:
        """An operator pauses the bridge."""
        self.relay.pause(self.now_s)

    def resume(self) -> None:
        """An operator resumes it."""
        self.relay.resume()

    def count(self, ready: int, consumers: int = 0) -> None:
        """The destination's queue is counted, and the bridge looks at the answer."""
        self.steering.brake.asked(self.now_s)
        self.steering.brake.answered(QueueState(ready, consumers))
        self.wait(0.0)

    def time_is_up(self) -> None:
        """The shutdown timeout has passed."""
        self.now_s += 20.0
        assert self.relay.decide(self.now_s) == Stop()

    def source(self, *raw: bytes) -> None:
        """The source sends."""
        self.relay.source.receive(b"".join(raw), self.now_s)

    def destination(self, *raw: bytes) -> None:
        """The destination sends."""
        self.relay.destination.receive(b"".join(raw), self.now_s)

    def to_source(self) -> bytes:
        """What has been written to the source since last asked."""
        return b"".join(self.relay.source.data_to_send())

    def to_destination(self) -> bytes:
        """What is published now."""
        return b"".join(self.relay.destination.data_to_send(self.now_s))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds
        self.relay.tick(self.now_s, UNIX_S)


def publish(to: str = "dq", exchange: str = "", channel: int = 1) -> bytes:
    return method(channel, 60, 40, b"\0\0" + short(exchange) + short(to) + b"\x01")


def ack(delivery_tag: int, *, multiple: bool) -> bytes:
    return method(1, 60, 80, pack(">QB", delivery_tag, multiple))


def requeue(delivery_tag: int, *, multiple: bool) -> bytes:
    return method(1, 60, 120, pack(">QB", delivery_tag, 2 | multiple))


def cancel(consumer_tag: str) -> bytes:
    return method(1, 60, 30, short(consumer_tag) + b"\0")


def cancel_ok(consumer_tag: str) -> bytes:
    return method(1, 60, 31, short(consumer_tag))


CANCEL = cancel("ct")
M = content(b"m")


UNIX_S = 1_700_000_000.0


def reasons(
    reason: str = "delivery-limit", code: int = 0, why: str = "", key: str = "key", count: int = 17
) -> dict[str, bytes]:
    """Headers that the quarantine gets on top, from the most to the least useful."""
    return {
        "x-bridge-reason": text(reason),
        "x-bridge-routing-key": text(key),
        "x-bridge-exchange": text("ex"),
        "x-bridge-reply-code": b"I" + pack(">I", code),
        **({"x-bridge-delivery-count": b"l" + pack(">q", count)} if reason == "delivery-limit" else {}),
        "x-bridge-time": b"T" + pack(">Q", int(UNIX_S)),
        "x-bridge-reply-text": text(why),
    }


def condemned(bridge: Bridge, *delivery_tags: int) -> bytes:
    """Deliveries that came back too often; what the quarantine gets for each of them."""
    bridge.source(*(deliver(tag, counted(17), redelivered=1) for tag in delivery_tags))
    message = content(b"m", PERSISTENT | {"headers": table({"k": b"V"} | reasons())}, channel=2)
    return publish("sq.quarantine", channel=2) + message


def quarantining(*delivery_tags: int) -> Bridge:
    """Some condemned deliveries have been published to the quarantine."""
    bridge = Bridge()
    expected = condemned(bridge, *delivery_tags)
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert bridge.to_source() == expected * len(delivery_tags)
    return bridge
