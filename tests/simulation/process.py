"""One process of the bridge: the real relay and steering, driven as `tap`, `session` and `supervisor` drive them.

Nothing is decided here: what the steering wants done is asked of the model brokers, whose answers come when the
schedule lets them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from struct import pack, unpack_from
from typing import TYPE_CHECKING

from bridge.amqp.preparer import HeaderPolicy
from bridge.relay.action import (
    Action,
    AskDestination,
    AskExchange,
    AskFirstOffset,
    AskQueue,
    Consume,
    EndGeneration,
    OpenQuarantine,
    Stop,
)
from bridge.relay.consumer import Consumer
from bridge.relay.destination import Destination as DestinationPort
from bridge.relay.plan import Plan
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.relay import Relay
from bridge.relay.source import Source as SourcePort
from bridge.relay.state import State
from bridge.window.books import Books
from bridge.window.memory import Memory
from bridge.window.terms import UNLIMITED
from bridge.window.window import Window
from tests.simulation.asking import Asking
from tests.simulation.draining import Drainage
from tests.simulation.stream import FIRST_OFFSET, Stream
from tests.simulation.witness import Witness
from tests.support import frames

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from bridge.amqp.events import Close, Delivery, Event
    from bridge.amqp.target import Target
    from bridge.relay.port import Closed, Port
    from bridge.relay.queue import QueueType
    from bridge.window.limits import WindowLimits
    from tests.simulation.destination import Destination
    from tests.simulation.draining import Errand
    from tests.simulation.ledger import Ledger
    from tests.simulation.link import Link
    from tests.simulation.messages import Keeps
    from tests.simulation.source import Source

CONNECT_TIMEOUT_S = CONTROL_TIMEOUT_S = 10.0
DEAD_AFTER_S = 25.0
"""Of silence: two and a half heartbeats of ten seconds."""
MAY_NOT_ASK = 0.2
COUNTED_EVERY_S = 15.0
COUNT_FAILS = 0.1
ROOMY_BYTES = 64 << 20
"""With so much memory no prefetch is too large for it."""
UNIX_S = 1_700_000_000.0

QUEUE_OF_SOURCE = b"\0\0" + frames.short("sq") + b"\1\0\0\0\0"
FIRST_OF_SOURCE = b"\0\0" + frames.short(FIRST_OFFSET) + b"\1\0\0\0\0"
OPEN_OK, QOS_OK, CONSUME_OK, DECLARE_OK, CHANNEL_CLOSE = (20, 11), (60, 11), (60, 21), (50, 11), (20, 40)


class TracedWindow(Window):
    """A window that tells what it has given out."""

    taken: list[Delivery]

    def take(self, max_bytes: int, now_s: float) -> list[Delivery]:
        """As the window's."""
        self.taken = super().take(max_bytes, now_s)
        return self.taken


class TracedSource(SourcePort):
    """A port to the source whose witness hears what it hears."""

    witness: Witness

    def take(self, events: Iterable[Event], now_s: float) -> None:
        """As the port's."""
        self.witness.hears_source(events)
        super().take(events, now_s)


class TracedDestination(DestinationPort):
    """A port to the destination whose witness hears what it hears."""

    witness: Witness
    returned: deque[int]
    """What the returns are about that are on their way."""

    def take(self, events: Iterable[Event], now_s: float) -> None:
        """As the port's."""
        if not self._steering.abandoned:
            self.witness.hears_destination(events, self.returned)
        super().take(events, now_s)


class TracedRelay(Relay):
    """A relay whose ports have a witness."""

    def __init__(self, window: Window, plan: Plan, rng: Random, witness: Witness) -> None:
        self._witness = witness
        super().__init__(window, plan, rng.random)

    def _new_source(self, closed: Closed) -> SourcePort:
        port = TracedSource(self.window, self.steering, self.quarantine, self._policy, closed)
        port.witness = self._witness
        return port

    def _new_destination(self, closed: Closed) -> DestinationPort:
        port = TracedDestination(self.window, self.steering, self._present_source, closed)
        port.witness = self._witness
        return port


@dataclass(slots=True, eq=False)
class Session:
    """One generation of one side, from connecting to its end."""

    link: Link
    port: Port
    received_s: float
    step: str = "opening"
    """What the control plane waits for."""
    asked_s: float = 0.0
    """Since when."""
    opened: bool = False
    ended: bool = False
    prefetch: int = 0
    found: QueueState | None = None
    """What the queue said of itself before the consumer began."""
    answers: deque[tuple[int, tuple[int, int], bytes]] = field(default_factory=deque)
    """Channel, class and method, and arguments of what has come for the control plane."""

    def write_method(self, channel: int, called: tuple[int, int], arguments: bytes) -> None:
        """Ask the broker something."""
        self.link.to_broker.write(frames.method(channel, *called, arguments))

    def answered(self, called: tuple[int, int]) -> bytes | None:
        """The arguments of the answer that is waited for, if it has come; it is used up."""
        while self.answers:
            _, answer, arguments = self.answers.popleft()
            if answer == called:
                return arguments
        return None

    def refused(self, channel: int) -> bool:
        """Whether the channel that was asked on has been closed."""
        return any(answer[:2] == (channel, CHANNEL_CLOSE) for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Setup:
    """How a bridge is set up."""

    limits: WindowLimits
    target: Target
    keeps: Keeps
    """What messages keep of their own routes there."""
    deduplication: bool = True
    source_frame_max: int = 0
    destination_frame_max: int = 0
    socket_bytes: int = 1 << 20
    """What a socket's buffer takes before nothing more is published to it."""
    destination_min_consumers: int = 0
    """With `destination_max_ready` of the limits, what the brake looks at."""

    @property
    def braked(self) -> bool:
        """Whether the destination's queue is counted."""
        return self.limits.destination_counted


class Process:
    """A bridge, from its start to its end."""

    def __init__(  # noqa: PLR0913 - the world, and what a drain is asked for
        self,
        rng: Random,
        setup: Setup,
        source: Source,
        destination: Destination,
        ledger: Ledger,
        *,
        errand: Errand | None = None,
    ) -> None:
        """With an `errand` it is a drain, which ends by itself."""
        self.setup = setup
        self.drainage = Drainage(errand, source) if errand is not None else None
        self._rng = rng
        self._source_broker, self._destination_broker = source, destination
        self.books = Books()
        self.window = TracedWindow(
            setup.limits,
            setup.target,
            self.books,
            Memory(enabled=setup.deduplication),
            rng.random,
            terms=UNLIMITED if self.drainage is None else self.drainage.terms,
        )
        plan = Plan(
            quarantine_queue="sq.quarantine" if setup.limits.quarantine or errand is None else "",
            policy=HeaderPolicy(destination_user=b"bridge"),
            destination_max_ready=setup.limits.destination_max_ready,
            destination_min_consumers=setup.destination_min_consumers,
        )
        self.witness = Witness(self.window, ledger, setup.keeps, errand)
        self.relay = TracedRelay(self.window, plan, rng, self.witness)
        self.steering = self.relay.steering
        self._stream = source if isinstance(source, Stream) else None
        self._told_where_to_read = False
        queue_type: QueueType = "stream" if self._stream else "classic" if source.kind == "classic" else "quorum"
        self._facts = QueueFacts(
            queue_type,
            auto_delete=source.auto_delete,
            expires=False,
            single_active=source.single_active,
            requeues_counted=source.kind == "quorum-3.10",
        )
        """What the source's broker says of the queue; a bridge that may not ask is told nothing."""
        if rng.random() < MAY_NOT_ASK and not (self._stream and self._stream.tracked):
            self._facts = QueueFacts(requeues_counted=source.kind != "quorum-4.3")
        self.source: Session | None = None
        self.destination: Session | None = None
        self.source_generations = 0
        self.pressed = False
        """Whether memory was full while it consumed, so that it may consume with less than its prefetch."""
        self.connections_lost = 0
        """Ended without a goodbye of either side: also without a fault, where an answer took too long."""
        self.gone = False
        self._counting: Session | None = None
        """The destination's generation whose queue is being counted."""
        self._found: QueueState | None = None
        """What the queue has answered, and the bridge has not read."""
        self._count_wanted = False
        self._count_at_s = 0.0
        self._asking = Asking(destination)
        self._consumers = 0
        self._read_from: int | None = None
        """Of a stream: where the consumer that is asked for is to begin."""
        self._paused = False
        self._told_to_pause = False
        self._happened = self._happened_before = 0
        """How often something has happened that wakes the supervisor, by now and by the last tick."""
        self._quiet_until_s = 0.0

    # --- Connecting --------------------------------------------------------------------------------------

    def connect_source(self, now_s: float) -> None:
        """A connection to the source begins, but for a process that has just left."""
        self._happened += 1
        if self.gone:
            return
        link = self._source_broker.connect(self, self.setup.source_frame_max)
        self.source = Session(link, self.relay.connect_source(self._source_closed), now_s)
        self.source.write_method(1, (20, 10), b"\0")

    def connect_destination(self, now_s: float) -> None:
        """A connection to the destination begins, but for a process that has just left."""
        self._happened += 1
        if self.gone:
            return
        link = self._destination_broker.connect(self.setup.destination_frame_max)
        port = self.relay.connect_destination(self._destination_closed)
        assert isinstance(port, TracedDestination)
        port.returned = link.returned
        self.destination = Session(link, port, now_s)
        self.destination.write_method(1, (20, 10), b"\0")

    # --- Bytes -------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether the source is not read from."""
        return self._paused

    def read(self, session: Session, size: int, now_s: float) -> None:
        """A chunk has come, or the end."""
        self._happened += 1
        pipe = session.link.to_bridge
        data = pipe.read(size)
        if data:
            session.received_s = now_s
            acted = session.port.receive(data, now_s)
            for frame in frames.split(session.port.take_control()):
                if frame[0] == 1:
                    called = unpack_from(">HH", frame, 7)
                    session.answers.append((frame[2], (called[0], called[1]), frame[11:-1]))
            if acted and not session.ended:
                self.pump(now_s)
        if pipe.at_end:
            self.end(session, now_s, polite=False)

    def _source_closed(self, _: Close, now_s: float) -> None:
        assert self.source is not None
        self.end(self.source, now_s, polite=True)

    def _destination_closed(self, _: Close, now_s: float) -> None:
        assert self.destination is not None
        self.end(self.destination, now_s, polite=True)

    def pump(self, now_s: float) -> None:
        """Write what is to be written, as `tap.Pump` does."""
        source, destination = self.source, self.destination
        if source is not None and source.opened:
            output = b"".join(self.relay.source.data_to_send())
            self.witness.says_to_source(output)
            source.link.to_broker.write(output)
            if self._paused and not self.relay.paused:
                source.received_s = now_s
            self._paused = self.relay.paused
        if destination is not None and destination.opened:
            pipe = destination.link.to_broker
            while len(pipe.data) < self.setup.socket_bytes and (raw := self.relay.destination.data_to_send(now_s)):
                self.witness.says_to_destination(self.window.taken)
                pipe.write(b"".join(raw))

    def end(self, session: Session, now_s: float, *, polite: bool) -> None:
        """The session's generation ends; the other side's broker learns of it in its own time."""
        self._happened += 1
        if session.ended:
            return
        session.ended = True
        self.connections_lost += not polite
        if polite and not session.link.frozen and not session.link.to_broker.ended:
            session.link.drained = session is self.source and session.opened and self.steering.source_drained
            session.link.leave()
        else:
            session.link.cut(self._rng)
        if session is self.source:
            self.source, self._paused = None, False
            if session.opened:
                session.port.lost(now_s)
                self.witness.source_lost()
        else:
            self.destination = None
            if session.opened:
                session.port.lost(now_s)
                self.witness.destination_lost()
                self.pump(now_s)

    # --- The control plane -------------------------------------------------------------------------------

    def steer(self, session: Session, now_s: float) -> None:
        """Take the next step of the control plane, if its time has come."""
        self._happened += 1
        if session.ended:
            return
        if session.step == "opening" and session.answered(OPEN_OK) is not None:
            session.opened, session.step = True, "idle"
            if session is self.destination:
                self.relay.destination.opened(self.setup.destination_frame_max)
                self.pump(now_s)
            else:
                if self._stream is not None and self._stream.tracked and not self._told_where_to_read:
                    self.window.read_stream(self._stream.stored)
                    self._told_where_to_read = True
                self.relay.source.opened(self.setup.source_frame_max, self._facts)
                self.source_generations += 1
        elif session.step == "idle":
            self._decide(now_s)
        elif session.step not in {"opening", "idle"}:
            self._continue(session, now_s)

    @property
    def runs_narrow(self) -> bool:
        """Whether it consumes a single message although it has seen one through, and has room for more."""
        limits, session = self.setup.limits, self.source
        if self.steering.state is not State.RUNNING or self.steering.consumer is not Consumer.ON or session is None:
            return False
        (consumers,) = [c.consumers for c in self._source_broker.connections if c.link is session.link]
        return max(consumers.values()) == 1 < limits.prefetch and limits.max_in_flight_bytes >= ROOMY_BYTES

    def _decide(self, now_s: float) -> bool:
        """Do what the steering wants, until it wants nothing more; return whether it wanted something."""
        acted = False
        while True:
            action = self.relay.decide(now_s)
            if action == Stop():
                self.witness.give_up_published()
            self.pump(now_s)
            if action is None:
                return acted
            acted = True
            self._do(action, now_s)

    def _do(self, action: Action, now_s: float) -> None:
        match action:
            case Stop():
                self._leave(now_s)
            case EndGeneration(side, drop=drop):
                session = self.source if side == "source" else self.destination
                assert session is not None
                assert session.opened
                self.end(session, now_s, polite=not drop)
            case Consume(prefetch, offset):
                self._read_from = offset
                self._ask("qos", 1, (60, 10), b"\0\0\0\0" + prefetch.to_bytes(2, "big") + b"\0", now_s)
            case AskDestination():
                self._count_wanted = True
            case AskExchange(exchange):
                assert self.destination is not None
                self._asking.begin(self.destination, exchange, self.window.exchanges)
            case OpenQuarantine():
                self._ask("declaring", 3, (50, 10), b"", now_s)
            case AskQueue():
                self._ask("looking", 3, (50, 10), QUEUE_OF_SOURCE, now_s)
            case AskFirstOffset():
                self._ask("beginning", 3, (50, 10), FIRST_OF_SOURCE, now_s)

    def _ask(self, step: str, channel: int, called: tuple[int, int], arguments: bytes, now_s: float) -> None:
        session = self.source
        assert session is not None
        assert session.step == "idle", "one thing at a time is asked"
        session.answers.clear()
        session.step, session.asked_s = step, now_s
        session.write_method(channel, called, arguments)

    def _continue(self, session: Session, now_s: float) -> None:
        """Take what the source's broker answered."""
        step = session.step
        if step == "qos" and session.answered(QOS_OK) is not None:
            session.step = "counting"
            session.write_method(1, (50, 10), QUEUE_OF_SOURCE)
        elif step == "counting" and (arguments := session.answered(DECLARE_OK)) is not None:
            session.found = QueueState(*unpack_from(">II", arguments, 1 + arguments[0]))
            self._consumers += 1
            self.witness.left_over = self.window.in_flight
            consumer_tag = f"ct-{self._consumers}"
            if not self.steering.starting(consumer_tag, now_s, session.found.ready):
                self.steering.not_started()
                session.step = "idle"
                return
            begin = {} if self._read_from is None else {"x-stream-offset": b"l" + pack(">q", self._read_from)}
            session.write_method(1, (60, 20), b"\0\0\2sq" + frames.short(consumer_tag) + b"\0" + frames.table(begin))
            session.step = "consuming"
        elif step == "consuming" and session.answered(CONSUME_OK) is not None:
            session.step = "idle"
            assert session.found is not None
            self.relay.started(session.found, now_s)
        elif step == "looking" and (arguments := session.answered(DECLARE_OK)) is not None:
            session.step = "idle"
            self.steering.queue_answered(QueueState(*unpack_from(">II", arguments, 1 + arguments[0])), now_s)
        elif step == "beginning" and (arguments := session.answered(DECLARE_OK)) is not None:
            session.step = "idle"
            self.steering.first_offset_answered(unpack_from(">I", arguments, 1 + arguments[0])[0])
        elif step in {"declaring", "quarantine"}:
            self._open_quarantine(session, now_s)
        if session.step == "idle":
            self._decide(now_s)

    def _open_quarantine(self, session: Session, now_s: float) -> None:
        """First the queue, on a channel of its own, then the channel that publishes to it."""
        if session.refused(3 if session.step == "declaring" else 2):
            session.step = "idle"
            self.steering.quarantine_unavailable(now_s)
        elif session.step == "declaring" and session.answered(DECLARE_OK) is not None:
            session.step = "quarantine"
            self.witness.opens_quarantine()
            session.write_method(2, (20, 10), b"\0")
        elif session.step == "quarantine" and session.answered(OPEN_OK) is not None:
            session.step = "idle"
            self.steering.quarantine_opened()

    def tick(self, now_s: float) -> None:
        """Let time pass, as the supervisor does; which does not look where nothing is due unless something happens."""
        rests = self._happened == self._happened_before and now_s < self._quiet_until_s
        self.relay.tick(now_s, UNIX_S + now_s)
        self.pump(now_s)
        acted = self._decide(now_s)
        assert not (rests and acted), "something was due while the bridge would have rested"
        self._happened_before, self._quiet_until_s = self._happened, self.steering.quiet_until_s
        source = self.source
        waits = source is not None and source.opened and source.step != "idle"
        if source is not None and waits and now_s - source.asked_s > CONTROL_TIMEOUT_S:
            self._control_timeout(source, now_s)
        for session in (self.source, self.destination):
            if session is None or (session is self.source and self._paused):
                continue
            if not session.link.frozen and session.opened:
                session.received_s = now_s  # a heartbeat has come
            if now_s - session.received_s > (DEAD_AFTER_S if session.opened else CONNECT_TIMEOUT_S):
                self.end(session, now_s, polite=False)
        self.pump(now_s)
        self.relay.quarantine.take_confirmed()
        self.pressed |= self.window.full
        if self.drainage is not None and not self.stopping and self.drainage.look(self, now_s):
            self.stop(now_s)

    def _control_timeout(self, source: Session, now_s: float) -> None:
        """No answer has come: without a consumer the generation is of no use, without a quarantine it is."""
        step = source.step
        if step in {"declaring", "quarantine"}:
            source.step = "idle"
            self.steering.quarantine_unavailable(now_s)
        elif step == "looking":
            source.step = "idle"
            self.steering.queue_answered(None, now_s)
        elif step == "beginning":
            source.step = "idle"
            self.steering.first_offset_answered(None)
        else:
            self.end(source, now_s, polite=False)

    # --- The destination's queue -------------------------------------------------------------------------

    def count(self, now_s: float, fate: float) -> bool:
        """Take the next step of counting the destination's queue, as `counting` does; whether there was one.

        A question reaches the broker at some time, and its answer the bridge; `fate` may have it fail or be doubted.
        """
        brake, there = self.steering.brake, self.destination
        if not self.setup.braked or there is None or not there.opened or there.link.frozen:
            if self._counting is not None:
                self._counting = self._found = None
                brake.uncounted("not connected")
                self._happened += 1
            return False
        if self._counting is not there:
            if self._counting is not None:
                brake.uncounted("not connected")
            elif not self._count_wanted and now_s < self._count_at_s:
                return False
            self._counting, self._found, self._count_wanted = there, None, False
            self._count_at_s = now_s + COUNTED_EVERY_S
            brake.asked(now_s)
        elif self._found is None:
            self._found = self._destination_broker.counted
        else:
            self._counting, found, self._found = None, self._found, None
            if fate < COUNT_FAILS:
                brake.uncounted("refused" if fate < COUNT_FAILS / 2 else "")
            else:
                brake.answered(found)
        self._happened += 1
        return True

    def ask_exchange(self, now_s: float, fate: float) -> bool:
        """Take the next step of asking the destination for an exchange; whether there was one."""
        stepped = self._asking.step(now_s, fate)
        if stepped:
            self._happened += 1
            self.pump(now_s)
        return stepped

    # --- The end -----------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self.steering.stopping

    def stop(self, now_s: float) -> None:
        """SIGTERM."""
        self._happened += 1
        self.relay.stop(now_s)
        self.pump(now_s)

    def pause_or_resume(self, now_s: float) -> None:
        """SIGUSR1, or SIGUSR2 where the last one was that."""
        self._happened += 1
        self._told_to_pause = not self._told_to_pause
        if self._told_to_pause:
            self.relay.pause(now_s)
        else:
            self.relay.resume()
        self.pump(now_s)

    @property
    def told_to_pause(self) -> bool:
        """Whether an operator has paused it."""
        return self._told_to_pause

    def store_offset(self) -> None:
        """Have the broker keep how far a stream was forwarded, as `tracking` does."""
        offsets, there = self.window.offsets, self.source
        if self._stream is None or not self._stream.tracked or offsets is None or there is None or there.link.frozen:
            return
        if offsets.settled is not None and offsets.settled != self._stream.stored:
            self._stream.store(offsets.settled)

    def _leave(self, now_s: float) -> None:
        """All is settled or time is up: write the last words, say goodbye and be gone."""
        # What is left of a stream is read again, whether it was published or not.
        assert self._stream is not None or not self.window.in_flight, "invariant 6: requeued by closing"
        self.store_offset()
        for session in (self.source, self.destination):
            if session is not None:
                self.end(session, now_s, polite=True)
        self.gone = True

    def kill(self) -> None:
        """SIGKILL: what the kernel has not sent is lost."""
        for session in (self.source, self.destination):
            if session is not None:
                session.ended = True
                session.link.cut(self._rng)
        self.source = self.destination = None
        self.gone = True
