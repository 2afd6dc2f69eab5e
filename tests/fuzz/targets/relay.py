"""The relay with its window: what two brokers send, each by whole frames or by any bytes, and time.

Input: an octet of options, then steps of one octet and an argument (see `STEPS`). Beside the bridge a ledger is kept
that shares nothing with it: of each message, known by its body, whether it was delivered on this generation, and
whether the destination or the quarantine has confirmed it. Acked is only what was delivered and confirmed; published is
only what was delivered; the books balance after each step.
"""

from __future__ import annotations

from struct import pack, unpack_from
from typing import TYPE_CHECKING

from bridge.errors import MalformedFrameError
from bridge.relay.action import AskDestination, AskExchange, AskQueue, Consume, EndGeneration, OpenQuarantine, Stop
from bridge.relay.plan import Plan
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.relay import Relay
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import Memory
from bridge.window.window import Window
from tests.support import frames
from tests.support.targets import OWN_KEYS, QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.amqp.events import Close
    from bridge.relay.port import Port

MAX_BYTES = 100
"""Of an input: some 40 steps."""
PREFETCH = 8
MOST_STEPS = 200
MOST_DECISIONS = 50
UNIX_S = 1_700_000_000.0
EMPTY = QueueState(ready=0, consumers=0)
KINDS = (
    QueueFacts("quorum", auto_delete=False, expires=False, requeues_counted=False),
    QueueFacts("quorum", auto_delete=False, expires=False, requeues_counted=True),
    QueueFacts("classic", auto_delete=False, expires=False, requeues_counted=False),
    QueueFacts(),
)
NO_QUARANTINE, TO_EXCHANGE, SMALL_FRAMES = 4, 8, 16
"""Options, beside the kind of the source's queue."""
SETTLEMENT = {80: True, 120: False}


class Ledger:
    """What has truly happened, as the wire shows it."""

    def __init__(self) -> None:
        self.delivered: dict[int, bytes] = {}
        """Of this source generation, by delivery tag, what is not settled: bodies."""
        self.last = 0
        """The latest delivery tag."""
        self.published: dict[int, tuple[bytes, ...]] = {}
        """By number, on each destination or quarantine channel: what awaits its confirm."""
        self.quarantining: dict[int, bytes] = {}
        self.seqno = self.quarantine_seqno = 0
        self.returned: set[int] = set()
        self.confirmed: set[bytes] = set()
        self.bodies: set[bytes] = set()
        """Of all that was ever delivered."""
        self.garbled = False
        """Whether a side has sent bytes whose meaning is not followed here: what is confirmed by then is unknown."""

    def source_begins(self) -> None:
        """A source generation begins; what the quarantine has not confirmed it never will."""
        self.delivered, self.last = {}, 0
        self.quarantining, self.quarantine_seqno = {}, 0

    def destination_begins(self) -> None:
        """A destination generation begins."""
        self.published, self.seqno, self.returned = {}, 0, set()

    def settled(self, delivery_tag: int, *, multiple: bool, acked: bool) -> None:
        """The bridge has settled deliveries."""
        tags = [tag for tag in self.delivered if tag <= delivery_tag] if multiple else [delivery_tag]
        for tag in tags:
            assert tag in self.delivered, f"delivery {tag} is settled, which is not there"
            body = self.delivered.pop(tag)
            assert not acked or body in self.confirmed or self.garbled, f"{body!r} is acked and was never confirmed"

    def publishes(self, body: bytes, *, quarantine: bool) -> None:
        """The bridge has published a message."""
        assert body in self.bodies or self.garbled, f"{body!r} is published and was never delivered"
        if quarantine:
            self.quarantine_seqno += 1
            self.quarantining[self.quarantine_seqno] = body
        else:
            self.seqno += 1
            self.published[self.seqno] = (body,)

    def confirms(self, seqno: int, *, multiple: bool, accepted: bool, quarantine: bool) -> None:
        """A broker confirms or rejects publishes."""
        if quarantine:
            pending = self.quarantining
            for number in [each for each in pending if each == seqno or (multiple and each < seqno)]:
                body = pending.pop(number)
                if accepted:
                    self.confirmed.add(body)
            return
        for number in [each for each in self.published if each == seqno or (multiple and each < seqno)]:
            (body,) = self.published.pop(number)
            if accepted and number not in self.returned:
                self.confirmed.add(body)


class Scene:
    """A bridge, and what its brokers do."""

    def __init__(self, options: int) -> None:
        self.now_s = 1000.0
        self.books = Books()
        limits = WindowLimits(prefetch=PREFETCH, max_in_flight_bytes=4096, quarantine=not options & NO_QUARANTINE)
        target = OWN_KEYS if options & TO_EXCHANGE else QUEUE
        self.window = Window(limits, target, self.books, Memory(enabled=True), lambda: 0.5)
        plan = Plan(quarantine_queue="" if options & NO_QUARANTINE else "sq.quarantine", source_queue="sq")
        self.relay = Relay(self.window, plan, lambda: 0.5)
        self.facts = KINDS[options & 3]
        self.frame_max = 4096 if options & SMALL_FRAMES else 131_072
        self.ledger = Ledger()
        self.consumers = self.messages = 0
        self.stopped = self.refuses = False
        """Whether the bridge has ended; whether the quarantine cannot be opened."""
        self.source_bytes = 0
        self.open_source()
        self.open_destination()
        self.pump()

    # --- Generations -------------------------------------------------------------------------------------

    def open_source(self) -> None:
        """A source generation begins."""
        self.relay.connect_source(self.closed)
        self.relay.source.opened(131_072, self.facts)
        self.ledger.source_begins()

    def open_destination(self) -> None:
        """A destination generation begins."""
        self.relay.connect_destination(self.closed)
        self.relay.destination.opened(self.frame_max)
        self.ledger.destination_begins()

    def closed(self, _: Close, __: float) -> None:
        """A broker has closed: `receives` looks for it."""

    def lose_source(self) -> None:
        """The source's generation ends, and another begins."""
        self.relay.source.lost(self.now_s)
        assert not self.relay.source.data_to_send(), "a word to a generation that has ended"
        self.open_source()

    def lose_destination(self) -> None:
        """As `lose_source`."""
        self.relay.destination.lost(self.now_s)
        self.open_destination()

    def receives(self, port: Port, data: bytes, lose: Callable[[], None]) -> None:
        """A side sends."""
        try:
            port.receive(data, self.now_s)
        except MalformedFrameError:
            lose()
        else:
            port.take_control()
            if port.close is not None:
                lose()

    def source(self, data: bytes) -> None:
        """The source sends."""
        self.source_bytes += len(data)
        self.receives(self.relay.source, data, self.lose_source)

    def destination(self, data: bytes) -> None:
        """The destination sends."""
        self.receives(self.relay.destination, data, self.lose_destination)

    # --- Steps -------------------------------------------------------------------------------------------

    def deliver(self, argument: int) -> None:
        """The source delivers the next message, or one that it should not."""
        ledger = self.ledger
        again = argument & 1 and ledger.bodies
        body = max(ledger.bodies) if again else b"%06d" % self.messages
        if not again:
            self.messages += 1
            body += b"." * (argument & 0xE0) * (argument & 2)
        properties = dict(frames.PERSISTENT) if argument & 4 else {"delivery_mode": b"\1", "user_id": b"alice"}
        if argument & 8:
            properties["message_id"] = body[:6]
        if argument & 16:
            count = b"l" + pack(">q", argument & 31)
            properties["headers"] = frames.table({"x-acquired-count": count, "x-delivery-count": count})
        ahead = 2 if argument >= 254 else 1
        consumes = self.relay.steering.expects_deliveries
        ledger.last += 1
        ledger.bodies.add(body)
        ledger.delivered[ledger.last] = body
        if ahead > 1 or not consumes:
            ledger.garbled = True  # what the bridge makes of a delivery that it did not ask for is its own affair
        data = frames.deliver(
            ledger.last - 1 + ahead, frames.content(body, properties, step=40), redelivered=argument & 1
        )
        self.source(data)

    def confirm(self, argument: int) -> None:
        """The destination confirms, rejects, or says something about a number that was never published."""
        seqno = (argument & 15) + 1 if argument & 128 else max(1, self.ledger.seqno - (argument & 15))
        multiple, accepted = bool(argument & 16), not argument & 32
        self.ledger.confirms(seqno, multiple=multiple, accepted=accepted, quarantine=False)
        self.destination(frames.confirm(seqno, multiple=multiple, accepted=accepted))

    def confirm_quarantine(self, argument: int) -> None:
        """The source confirms or rejects what went to the quarantine."""
        seqno = max(1, self.ledger.quarantine_seqno - (argument & 15))
        multiple, accepted = bool(argument & 16), not argument & 32
        self.ledger.confirms(seqno, multiple=multiple, accepted=accepted, quarantine=True)
        self.source(frames.confirm(seqno, multiple=multiple, accepted=accepted, channel=2))

    def return_(self, argument: int) -> None:
        """The destination returns a message: one that is pending, or one of its own making."""
        pending = sorted(self.ledger.published)
        body = b"never" if argument & 64 or not pending else self.ledger.published[pending[argument % len(pending)]][0]
        if pending and not argument & 64:
            self.ledger.returned.add(pending[argument % len(pending)])
        self.ledger.garbled = True  # which one of several it was may stay open: more count as returned then
        self.destination(frames.returned(frames.content(body)))

    def news(self, argument: int) -> None:
        """A side closes, cancels, blocks."""
        to_source: tuple[bytes, ...] = (
            frames.CANCEL,
            frames.method(1, 60, 31, frames.short(f"ct-{self.consumers}")),
            frames.close(1, 406, "PRECONDITION_FAILED - unknown delivery tag 1"),
            frames.close(2, 404, "NOT_FOUND - no queue"),
            frames.close(0, 320, "CONNECTION_FORCED"),
            frames.method(1, 60, 31, frames.short(f"ct-{max(1, self.consumers - 1)}")),
        )
        to_destination = (
            frames.BLOCKED,
            frames.UNBLOCKED,
            frames.close(1, 404, "NOT_FOUND - no exchange"),
            frames.close(1, 406, "PRECONDITION_FAILED - message size 9 is larger than configured max size 8"),
            frames.close(0, 541, "INTERNAL_ERROR"),
        )
        if argument & 128:
            self.destination(to_destination[argument % len(to_destination)])
        else:
            self.source(to_source[argument % len(to_source)])

    def wait(self, argument: int) -> None:
        """Time passes, up to an hour and a half."""
        self.now_s += (argument & 63) ** 2 * (0.01 if argument & 64 else 1.4)
        self.relay.tick(self.now_s, UNIX_S)

    def lose(self, argument: int) -> None:
        """A connection is lost, or an operator has a word."""
        match argument & 7:
            case 0 | 1:
                self.lose_source()
            case 2 | 3:
                self.lose_destination()
            case 4:
                self.relay.pause(self.now_s)
            case 5:
                self.relay.resume()
            case 6:
                self.relay.stop(self.now_s)
            case _:
                self.refuses = not self.refuses

    # --- What the bridge does ----------------------------------------------------------------------------

    def pump(self) -> None:
        """Write what there is, and do what is to be done, until there is nothing more."""
        for _ in range(MOST_DECISIONS):
            self.write()
            if self.stopped or (action := self.relay.decide(self.now_s)) is None:
                return
            self.do(action)
        raise AssertionError("it wants something without end")

    def do(self, action: object) -> None:
        """Carry out an action; the brokers answer at once."""
        steering = self.relay.steering
        match action:
            case Consume():
                self.consumers += 1
                if steering.starting(f"ct-{self.consumers}", self.now_s):
                    self.relay.started(EMPTY, self.now_s)
                else:
                    steering.not_started()
            case OpenQuarantine() if self.refuses:
                steering.quarantine_unavailable(self.now_s)
            case OpenQuarantine():
                self.ledger.quarantining, self.ledger.quarantine_seqno = {}, 0
                steering.quarantine_opened()
            case AskQueue():
                steering.queue_answered(EMPTY, self.now_s)
            case AskExchange():
                self.window.exchanges.answered(None, self.now_s)
            case AskDestination():
                steering.brake.answered(EMPTY)
            case EndGeneration(side):
                self.lose_source() if side == "source" else self.lose_destination()
            case Stop():
                self.write()
                self.stopped = True

    def write(self) -> None:
        """Read what the bridge writes to either side."""
        while to_destination := b"".join(self.relay.destination.data_to_send(self.now_s)):
            self.published(to_destination)
        if to_source := b"".join(self.relay.source.data_to_send()):
            self.published(to_source)

    def published(self, data: bytes) -> None:
        """Note each settlement and each publish in it."""
        body, left, quarantine = b"", -1, False
        for frame in frames.split(data):
            kind, channel = frame[0], frame[2]
            if kind == 1:
                assert left <= 0, "a method in the middle of a message"
                class_id, method = unpack_from(">HH", frame, 7)
                if class_id == 60 and method in SETTLEMENT:
                    tag, bits = unpack_from(">QB", frame, 11)
                    self.ledger.settled(tag, multiple=bool(bits & 1), acked=SETTLEMENT[method])
                quarantine = channel == 2
                left = -1
                continue
            if kind == 2:
                body, left = b"", unpack_from(">Q", frame, 11)[0]
            else:
                body += frame[7:-1]
                left -= len(frame) - 8
            assert left >= 0, "a body that is longer than its header says"
            if left == 0:
                self.ledger.publishes(body, quarantine=quarantine)
        assert left <= 0, "a message without its end"


STEPS: tuple[Callable[[Scene, int], None], ...] = (
    *(Scene.deliver, Scene.deliver, Scene.deliver, Scene.confirm, Scene.confirm, Scene.confirm_quarantine),
    *(Scene.return_, Scene.news, Scene.wait, Scene.wait, Scene.lose),
)
"""By number; the next two are any bytes, from the source and from the destination, their length first."""
SOURCE_BYTES, DESTINATION_BYTES = len(STEPS), len(STEPS) + 1


def run(data: bytes) -> None:
    """Play the steps."""
    if not data:
        return
    scene, position = Scene(data[0]), 1
    for _ in range(MOST_STEPS):
        if position + 1 >= len(data) or scene.stopped:
            break
        step, argument = data[position] % (len(STEPS) + 2), data[position + 1]
        position += 2
        if step < len(STEPS):
            STEPS[step](scene, argument)
        else:
            raw = data[position : position + argument]
            position += argument
            scene.ledger.garbled = True
            (scene.source if step == SOURCE_BYTES else scene.destination)(raw)
        if not scene.stopped:
            scene.pump()
        check(scene)
    scene.relay.source.lost(scene.now_s)
    books = scene.books
    assert (books.held, books.published, books.bytes_in_flight) == (0, 0, 0), f"it keeps what is stale: {books}"


def check(scene: Scene) -> None:
    """Complain of books that do not balance, and of more in memory than has come."""
    books = scene.books
    assert books.imbalance == 0, f"out of balance by {books.imbalance}: {books}"
    assert books.bytes_in_flight <= 3 * scene.source_bytes + 4096, "more than has come"
    assert scene.window.in_flight >= 0
