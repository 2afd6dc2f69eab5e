"""A relay between two brokers that a test plays, frame by frame, and its quarantine."""

from __future__ import annotations

from struct import pack

from bridge.amqp.frames import route
from bridge.relay.plan import Plan
from bridge.relay.relay import Relay
from bridge.relay.steering import Consume, OpenQuarantine, Stop
from bridge.relay.watchdog import QueueState
from bridge.window.books import Books
from bridge.window.memory import Memory
from bridge.window.window import Window, WindowLimits
from tests.support.frames import PERSISTENT, content, deliver, method, short, table, text

EMPTY_QUEUE = QueueState(ready=0, consumers=0)


class Bridge:
    """A relay between two brokers that the test plays."""

    def __init__(
        self, limits: WindowLimits | None = None, *, own_keys: bool = False, frame_max: tuple[int, int] = (0, 0)
    ) -> None:
        self.now_s = 1000.0
        self.books = Books()
        limits = limits or WindowLimits(own_keys=own_keys)
        self.window = Window(limits, self.books, Memory(enabled=True), lambda: 0.5)
        plan = Plan(destination=route("", "dq"), own_keys=own_keys, quarantine_queue="sq.quarantine")
        self.relay = Relay(self.window, plan, lambda: 0.5)
        self.steering = self.relay.steering
        self.frame_max = frame_max
        self.open_source()
        self.open_destination()
        self.consume()

    def open_source(self) -> None:
        """A source generation begins."""
        self._source = self.relay.source_connecting()
        self.relay.source_opened(self.frame_max[0])

    def connect_destination(self) -> None:
        """A connection to the destination begins."""
        self._destination = self.relay.destination_connecting()

    def open_destination(self) -> None:
        """A destination generation begins, on a connection of its own."""
        self.connect_destination()
        self.relay.destination_opened(self.frame_max[1], self.now_s)

    def lose_destination(self) -> None:
        """The destination's generation ends, and another one begins."""
        self.relay.destination_lost(self.now_s)
        self.open_destination()

    def consume(self) -> None:
        """`basic.consume`, and its answer."""
        self.start()
        self.relay.started(EMPTY_QUEUE)

    def start(self) -> None:
        """`basic.consume`, not answered yet."""
        assert isinstance(self.relay.decide(self.now_s), Consume)
        self.steering.starting("ct", self.now_s)

    def open_quarantine(self) -> None:
        """The steering opens the quarantine, and that succeeds."""
        assert self.relay.decide(self.now_s) == OpenQuarantine()
        self.steering.quarantine_opened()

    def stop(self) -> None:
        """SIGTERM."""
        self.relay.stop(self.now_s)

    def time_is_up(self) -> None:
        """The shutdown timeout has passed."""
        self.now_s += 20.0
        assert self.relay.decide(self.now_s) == Stop()

    def source(self, *raw: bytes) -> None:
        """The source sends."""
        self.relay.source_events(self._source.feed(b"".join(raw), self.now_s), self.now_s)

    def destination(self, *raw: bytes) -> None:
        """The destination sends."""
        self.relay.destination_events(self._destination.feed(b"".join(raw), self.now_s), self.now_s)

    def to_source(self) -> bytes:
        """What has been written to the source since last asked."""
        return b"".join(self.relay.take_source_output())

    def to_destination(self) -> bytes:
        """What is published now."""
        return b"".join(self.relay.publishes(self.now_s))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_s += seconds
        self.relay.tick(self.now_s, 1_700_000_000.0)


def publish(to: str = "dq", exchange: str = "", channel: int = 1) -> bytes:
    return method(channel, 60, 40, b"\0\0" + short(exchange) + short(to) + b"\x01")


def ack(delivery_tag: int, *, multiple: bool) -> bytes:
    return method(1, 60, 80, pack(">QB", delivery_tag, multiple))


def requeue(delivery_tag: int, *, multiple: bool) -> bytes:
    return method(1, 60, 120, pack(">QB", delivery_tag, 2 | multiple))


CANCEL = method(1, 60, 30, short("ct") + b"\0")
M = content(b"m")

COUNTED = PERSISTENT | {"headers": table({"x-delivery-count": b"l" + pack(">q", 17), "k": b"V"})}


def reasons(reason: str = "delivery-limit", code: int = 0, why: str = "", key: str = "key") -> dict[str, bytes]:
    """Headers that the quarantine gets on top."""
    return {
        "x-bridge-reason": text(reason),
        "x-bridge-reply-code": b"I" + pack(">I", code),
        "x-bridge-reply-text": text(why),
        "x-bridge-exchange": text("ex"),
        "x-bridge-routing-key": text(key),
        "x-bridge-time": b"T" + pack(">Q", 1_700_000_000),
    }


def condemned(bridge: Bridge, *delivery_tags: int) -> bytes:
    """Deliveries that came back too often; what the quarantine gets for the first of them."""
    bridge.source(*(deliver(tag, content(b"m", COUNTED), redelivered=1) for tag in delivery_tags))
    message = content(b"m", PERSISTENT | {"headers": table({"k": b"V"} | reasons())}, channel=2)
    return publish("sq.quarantine", channel=2) + message


def quarantining(*delivery_tags: int) -> Bridge:
    """The first of some condemned deliveries has been published to the quarantine."""
    bridge = Bridge()
    expected = condemned(bridge, *delivery_tags)
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert bridge.to_source() == expected
    return bridge
