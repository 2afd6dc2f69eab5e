"""A model of the destination's broker: confirms, refusals, alarms, closes, and a memory of what arrived."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from struct import unpack_from
from typing import TYPE_CHECKING

from bridge.amqp.events import Close
from bridge.amqp.frames import split_route
from bridge.relay.queue import QueueState
from tests.simulation.link import Frame, FrameReader, Link
from tests.simulation.messages import kept
from tests.support import frames

if TYPE_CHECKING:
    from random import Random

    from tests.simulation.ledger import Ledger
    from tests.simulation.messages import Changes, Keeps, Message

QUEUE, EXCHANGE = "dq", "dx"
"""Where the bridge publishes to: the queue by the default exchange, or the exchange by each message's own key."""


@dataclass(slots=True)
class Publish:
    """A publish that is not confirmed."""

    message: Message
    stored: bool
    accepted: bool = True
    swallowed: bool = False
    """Its confirm never comes."""


@dataclass(slots=True, eq=False)
class DestinationConnection:
    """One connection of a bridge."""

    link: Link
    frame_max: int
    reader: FrameReader = field(default_factory=FrameReader)
    inbox: deque[Frame] = field(default_factory=deque)
    """Read from the socket, and not obeyed yet."""
    assembly: list[Frame] = field(default_factory=list)
    seqno: int = 0
    pending: dict[int, Publish] = field(default_factory=dict)
    open_exchanges: set[str] = field(default_factory=set)
    """Exchanges that the bridge has been told to accept messages, where messages name their own."""
    closed: bool = False
    told_blocked: bool = False


@dataclass(slots=True)
class Refusals:
    """What the destination does not take at present."""

    alarm: bool = False
    full: bool = False
    routeless: bool = False
    """No queue takes anything."""
    exchange_missing: bool = False
    """That which all messages go to, where they go to one."""
    missing_exchanges: set[str] = field(default_factory=set)
    forbidden_exchanges: set[str] = field(default_factory=set)
    """Of those that messages name themselves."""
    dead_keys: set[str] = field(default_factory=set)
    """Routing keys without a binding."""
    forbidden_keys: set[str] = field(default_factory=set)
    max_size: int = 0
    """Larger bodies close the channel; 0 for no limit."""
    poison: bool = False
    """Whether the messages that are poison close the channel."""
    nack: float = 0.0
    swallow: float = 0.0
    internal_error: float = 0.0
    """Chances of a publish."""


class Destination:
    """The broker."""

    def __init__(self, rng: Random, ledger: Ledger, changes: Changes, keeps: Keeps) -> None:
        self._rng = rng
        self._ledger = ledger
        self._changes = changes
        self.now_s = 0.0
        self._keeps = keeps
        self.refusals = Refusals()
        self.connections: list[DestinationConnection] = []
        self.ready = 0
        """Messages that wait in its queue."""
        self.most_ready = 0
        self.consumers = 0

    def connect(self, frame_max: int) -> Link:
        """A bridge connects."""
        connection = DestinationConnection(Link(), frame_max)
        self.connections.append(connection)
        return connection.link

    # --- What the bridge sends ---------------------------------------------------------------------------

    def receive(self, connection: DestinationConnection, size: int) -> None:
        """Read and obey the next bytes, but for an alarm that stops at the first publish."""
        pipe = connection.link.to_broker
        connection.inbox += connection.reader.feed(pipe.read(size))
        inbox = connection.inbox
        while inbox and not self._stops(connection, inbox[0]):
            self._obey(connection, inbox.popleft())
        if pipe.at_end:
            self._drop(connection)

    def _stops(self, connection: DestinationConnection, frame: Frame) -> bool:
        if not self.refusals.alarm or connection.closed or frame.payload[:4] != b"\0\x3c\0\x28" or frame.kind != 1:
            return False
        if not connection.told_blocked:
            connection.told_blocked = True
            connection.link.to_bridge.write(frames.BLOCKED)
        return True

    def alarm(self, *, on: bool) -> None:
        """Raise or clear a resource alarm."""
        self.refusals.alarm = on
        for connection in list(self.connections):
            if connection.told_blocked and not on:
                connection.told_blocked = False
                connection.link.to_bridge.write(frames.UNBLOCKED)
                self.receive(connection, 0)

    def _obey(self, connection: DestinationConnection, frame: Frame) -> None:
        if connection.closed:
            return
        if frame.kind == 1:
            called = unpack_from(">HH", frame.payload)
            if called == (20, 10):
                connection.link.to_bridge.write(frames.method(1, 20, 11, b"\0\0\0\0"))
                return
            assert called == (60, 40)
            assert frame.payload[-1] == 1, "mandatory is always set"
        assert len(frame.payload) + 8 <= (connection.frame_max or 1 << 30), "frame_max"
        connection.assembly.append(frame)
        if len(connection.assembly) == 1:
            assert frame.kind == 1
            return
        body = b"".join(f.payload for f in connection.assembly[2:])
        if len(body) == unpack_from(">Q", connection.assembly[1].payload, 4)[0]:
            method, header = connection.assembly[:2]
            connection.assembly = []
            connection.seqno += 1
            to = method.payload[6:-1]
            exchange, key = (part.decode() for part in split_route(to))
            if self._keeps != "exchange and key":
                assert exchange == EXCHANGE if self._keeps == "key" else (exchange, key) == ("", QUEUE)
            message = self._ledger.copied(header.payload, body, kept(self._keeps, exchange, key))
            left_out = message.narrow and header.payload != message.expected()
            self._publish(connection, message, to, left_out=left_out)

    def _publish(self, connection: DestinationConnection, message: Message, to: bytes, *, left_out: bool) -> None:
        refusals, rng = self.refusals, self._rng
        exchange, key = (part.decode() for part in split_route(to))
        asked = self._keeps != "exchange and key" or exchange in connection.open_exchanges
        assert asked, f"publishes to exchange '{exchange}' without having asked"
        if self._closes(connection, message, exchange, key):
            return
        publish = Publish(message, stored=False, swallowed=rng.random() < refusals.swallow)
        connection.pending[connection.seqno] = publish
        if refusals.routeless or key in refusals.dead_keys:
            connection.link.returned.append(connection.seqno)
            raw = message.returned(self._changes, self.now_s, left_out=left_out)
            step = connection.frame_max - 8 if connection.frame_max else 1 << 20
            pieces = [message.body[start : start + step] for start in range(0, len(message.body), step)]
            content = [frames.frame(2, 1, raw), *(frames.frame(3, 1, piece) for piece in pieces)]
            method = frames.method(1, 60, 50, b"\x01\x38" + frames.short("NO_ROUTE") + to)
            connection.link.to_bridge.write(b"".join((method, *content)))
            self._ledger.in_order = False
        elif refusals.full or rng.random() < refusals.nack:
            publish.accepted = False
            self._ledger.in_order = False
        else:
            publish.stored = True
            self._ledger.arrive(message)
            self.ready += 1
            self.most_ready = max(self.most_ready, self.ready)

    def _closes(self, connection: DestinationConnection, message: Message, exchange: str, key: str) -> bool:
        refusals = self.refusals
        size = len(message.body)
        if (refusal := self._refuses(exchange)) is not None:
            self.close(connection, 1, *refusal)
        elif refusals.max_size and size > refusals.max_size:
            text = f"PRECONDITION_FAILED - message size {size} is larger than configured max size {refusals.max_size}"
            self.close(connection, 1, 406, text)
        elif refusals.poison and message.poison:
            self.close(connection, 1, 406, "PRECONDITION_FAILED - poison")
        elif key in refusals.forbidden_keys:
            self.close(connection, 1, 403, "ACCESS_REFUSED - access to topic")
        elif self._rng.random() < refusals.internal_error:
            self.close(connection, 1, 541, "INTERNAL_ERROR")
        else:
            return False
        self._ledger.in_order = False
        return True

    # --- Its exchanges -----------------------------------------------------------------------------------

    def asked(self, link: Link, exchange: str) -> Close | None:
        """What a publish to this exchange would bring about, as a bridge is told that asks; None for nothing."""
        refusal = self._refuses(exchange)
        if refusal is None:
            for connection in self.connections:
                if connection.link is link:
                    connection.open_exchanges.add(exchange)
            return None
        self._ledger.in_order = False  # the messages for it are set aside
        return Close(4, *refusal)

    def _refuses(self, exchange: str) -> tuple[int, str] | None:
        refusals = self.refusals
        own = self._keeps == "exchange and key"
        if exchange in refusals.missing_exchanges if own else refusals.exchange_missing:
            return 404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"
        if exchange in refusals.forbidden_exchanges:
            return 403, f"ACCESS_REFUSED - write access to exchange '{exchange}' in vhost '/' refused"
        return None

    # --- Its queue ---------------------------------------------------------------------------------------

    def consume(self) -> bool:
        """Its consumers take some of what waits; whether they did."""
        taken = self._rng.randint(1, 8) if self.consumers else 0
        taken, self.ready = min(taken, self.ready), max(0, self.ready - taken)
        return taken > 0

    @property
    def counted(self) -> QueueState:
        """What its queue says of itself now."""
        return QueueState(self.ready, self.consumers)

    # --- What it answers ---------------------------------------------------------------------------------

    def confirm(self, connection: DestinationConnection) -> None:
        """Confirm or nack one publish, or several at once where they share their fate."""
        answers = [seqno for seqno, publish in connection.pending.items() if not publish.swallowed]
        if not answers:
            return
        seqno = self._rng.choice((answers[0], answers[-1], self._rng.choice(answers)))
        accepted = connection.pending[seqno].accepted
        covered = {n: p for n, p in connection.pending.items() if n <= seqno}
        multiple = not any(p.swallowed or p.accepted is not accepted for p in covered.values())
        if not multiple or self._rng.random() < 0.2:
            covered, multiple = {seqno: connection.pending[seqno]}, False
        for number, publish in covered.items():
            del connection.pending[number]
            self._ledger.stored[publish.message.key] += publish.stored
        connection.link.to_bridge.write(frames.confirm(seqno, multiple=multiple, accepted=accepted))

    # --- Ends --------------------------------------------------------------------------------------------

    def close(self, connection: DestinationConnection, channel: int, code: int, text: str) -> None:
        """Close a bridge's channel, or its connection (channel 0). What is stored stays."""
        connection.link.to_bridge.write(frames.close(channel, code, text))
        connection.closed = True
        self._keep(connection, len(connection.pending))

    def crash(self) -> None:
        """Die and come back: all connections break, and of what is not confirmed the last may be lost."""
        for connection in list(self.connections):
            connection.link.cut(self._rng)
            connection.link.to_broker.end(0)
            self._keep(connection, self._rng.randint(0, len(connection.pending)))
            self._drop(connection)

    def _keep(self, connection: DestinationConnection, number: int) -> None:
        for count, publish in enumerate(connection.pending.values()):
            if publish.stored and count < number:
                self._ledger.stored[publish.message.key] += 1
            elif publish.stored:
                self._ledger.arrived[publish.message.key] -= 1
                self.ready = max(0, self.ready - 1)
                self._ledger.in_order = False
        connection.pending.clear()

    def _drop(self, connection: DestinationConnection) -> None:
        self._keep(connection, len(connection.pending))
        connection.closed = True
        connection.link.to_bridge.end()
        self.connections.remove(connection)
