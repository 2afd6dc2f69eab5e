"""A model of the source's broker: one queue, its consumers, and the quarantine beside it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Protocol

from pamqp.header import ContentHeader

from bridge.relay.queue import QueueState
from tests.simulation.link import Frame, FrameReader, Link
from tests.support import frames

if TYPE_CHECKING:
    from random import Random

    from tests.simulation.ledger import Ledger
    from tests.simulation.messages import Key, Message

SINGLE_ACTIVE = 0.3
FORGOTTEN_ACKS_S = 3.0
"""A broker that dies may forget acks of the last seconds (measured: see `bridge.window.memory`)."""
CONTROL_ANSWERS = {(20, 10): (11, b"\0\0\0\0"), (60, 10): (11, b"")}
"""By class and method of what the bridge asks: the answer's method and arguments."""


class Owner(Protocol):
    """The bridge at the other end of a connection."""

    gone: bool
    """Its process has ended, and its memory with it."""

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""


@dataclass(slots=True, eq=False)
class SourceConnection:
    """One connection of a bridge: a consumer on channel 1, and channel 2 publishing to the quarantine."""

    link: Link
    owner: Owner
    frame_max: int
    reader: FrameReader = field(default_factory=FrameReader)
    unsettled: dict[int, tuple[Message, bytes]] = field(default_factory=dict)
    """By delivery tag: the message, and the tag of the consumer that it was for."""
    next_tag: int = 1
    consumers: dict[bytes, int] = field(default_factory=dict)
    """By consumer tag: its prefetch."""
    prefetch: int = 0
    """Of consumers that begin from now on."""
    timed_out: set[int] = field(default_factory=set)
    """Delivery tags that were requeued by a consumer timeout: to settle them is of no effect."""
    closed: bool = False
    """The broker has closed the channel or the connection: nothing that comes counts."""
    quarantine_open: bool = False
    """Whether channel 2 is open: what is published to a closed one vanishes."""
    assembly: list[Frame] = field(default_factory=list)
    seqno: int = 0
    unanswered: dict[int, Key] = field(default_factory=dict)
    """What was published to the quarantine and is not answered, by publish_seqno."""

    def room(self) -> bytes | None:
        """Return a consumer that may be sent another message; None when there is none."""
        for tag, prefetch in self.consumers.items():
            if sum(consumer == tag for _, consumer in self.unsettled.values()) < prefetch:
                return tag
        return None


class Source:
    """The broker. `kind` is `classic`, `quorum-3.10` or `quorum-4.3`; a classic queue may be auto-delete."""

    def __init__(
        self, rng: Random, ledger: Ledger, kind: str, delivery_limit: int, *, auto_delete: bool = False
    ) -> None:
        self.auto_delete = auto_delete
        self.single_active = rng.random() < SINGLE_ACTIVE
        """Whether it says that it has a single active consumer, and the bridge is the only one."""
        self._rng = rng
        self._ledger = ledger
        self.kind = kind
        self.delivery_limit = delivery_limit
        self.now_s = 0.0
        self.connections: list[SourceConnection] = []
        self.returned: deque[Message] = deque()
        """What a quorum queue delivers first."""
        self.ready: list[Message] = []
        self._acked: deque[tuple[float, Message, SourceConnection]] = deque()
        self.quarantine_refuses = False
        """Whether its queue cannot be declared."""
        self.quarantine_spoils = False
        """Whether some messages close its channel."""
        self._spoiling: set[Key] = set()
        self.limit_drops = 0

    @property
    def waiting(self) -> int:
        """Messages ready to be delivered."""
        return len(self.returned) + len(self.ready)

    @property
    def state(self) -> QueueState:
        """What the queue says of itself now."""
        return QueueState(self.waiting, sum(len(c.consumers) for c in self.connections))

    @property
    def unsettled(self) -> int:
        """Messages delivered and not settled, as far as the broker knows."""
        return sum(len(c.unsettled) for c in self.connections)

    @property
    def only_spoilt_left(self) -> bool:
        """Whether the quarantine refuses, too, whatever is not settled."""
        unsettled = [message for c in self.connections for message, _ in c.unsettled.values()]
        return all(message.key in self._spoiling for message in (*self.returned, *self.ready, *unsettled))

    @property
    def spoilt(self) -> int:
        """How many messages there have been that the quarantine refuses, too."""
        return sum(self._ledger.sent[key] for key in self._spoiling)

    def connect(self, owner: Owner, frame_max: int) -> Link:
        """A bridge connects."""
        connection = SourceConnection(Link(), owner, frame_max)
        self.connections.append(connection)
        return connection.link

    def publish(self, message: Message) -> None:
        """Somebody publishes a message."""
        self._ledger.send(message)
        self.ready.append(message)
        if message.spoils:
            self._spoiling.add(message.key)

    # --- Deliveries --------------------------------------------------------------------------------------

    def deliver(self, connection: SourceConnection, at_most: int) -> int:
        """Send ready messages to the consumer, as many as its prefetch allows; return how many."""
        if connection.closed or connection.link.to_bridge.ended:
            return 0
        out: list[bytes] = []
        while len(out) < at_most and (found := self._next_for(connection)) is not None:
            message, consumer = found
            tag = connection.next_tag
            connection.next_tag += 1
            connection.unsettled[tag] = message, consumer
            out.append(
                frames.deliver(
                    tag,
                    message.delivered(self._counts(message), connection.frame_max),
                    redelivered=int(message.redelivered),
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    consumer_tag=consumer.decode(),
                )
            )
        connection.link.to_bridge.write(b"".join(out))
        return len(out)

    def _next_for(self, connection: SourceConnection) -> tuple[Message, bytes] | None:
        """Take what comes next for one of its consumers; return it and the consumer's tag."""
        consumer = connection.room()
        message = None if consumer is None else self._next()
        return None if message is None or consumer is None else (message, consumer)

    def _next(self) -> Message | None:
        while self.waiting:
            message = self.returned.popleft() if self.returned else self.ready.pop(0)
            if message.expires_s > self.now_s:
                return message
            self._ledger.gone[message.key] += 1
        return None

    def _counts(self, message: Message) -> dict[str, bytes]:
        """The fields that a quorum queue adds: of 3.10 always, of 4.3 to what has come back."""
        delivery_count = {"x-delivery-count": b"l" + pack(">q", message.delivery_count)}
        if self.kind == "quorum-3.10":
            return delivery_count
        if self.kind == "quorum-4.3" and message.acquired_count:
            return {"x-acquired-count": b"l" + pack(">q", message.acquired_count), **delivery_count}
        return {}

    def take_by_other(self, *, keep: bool) -> None:
        """Another consumer takes a message and acks it, or gives it back."""
        message = self._next()
        if message is None:
            return
        if keep:
            self._ledger.gone[message.key] += 1
        else:
            self._requeue([message], nacked=True)

    def purge(self) -> None:
        """Somebody purges the queue."""
        for message in (*self.returned, *self.ready):
            self._ledger.gone[message.key] += 1
        self.returned.clear()
        self.ready.clear()

    def _give_back(self, connection: SourceConnection, messages: list[Message], *, nacked: bool) -> None:
        """Put back what a connection had; that its bridge published it, nobody knows once the bridge has ended."""
        for message in messages:
            self._ledger.excused[message.key] += connection.owner.gone
        self._requeue(messages, nacked=nacked)

    def _requeue(self, messages: list[Message], *, nacked: bool) -> None:
        """Put messages back, in the order of their delivery."""
        counted = self.kind == "quorum-3.10" or (self.kind == "quorum-4.3" and not nacked)
        kept: list[Message] = []
        for message in messages:
            message.redelivered = True
            message.acquired_count += 1
            message.delivery_count += counted
            if self.delivery_limit and message.delivery_count > self.delivery_limit:
                self.limit_drops += 1
                self._ledger.gone[message.key] += 1
            else:
                kept.append(message)
        if self.kind == "classic":
            self.ready = sorted([*kept, *self.ready], key=lambda message: message.number)
        elif self.kind == "quorum-3.10" and nacked:
            self.ready += kept
            self._ledger.in_order = False
        else:
            self.returned += kept
            numbers = [message.number for message in self.returned]
            if numbers != sorted(numbers):
                self._ledger.in_order = False

    # --- What the bridge sends ---------------------------------------------------------------------------

    def receive(self, connection: SourceConnection, size: int) -> None:
        """Read and obey the next bytes; at their end, take back what is unsettled."""
        pipe = connection.link.to_broker
        for frame in connection.reader.feed(pipe.read(size)):
            assert len(frame.payload) + 8 <= (connection.frame_max or 1 << 30), "frame_max"
            if not connection.closed:
                self._obey(connection, frame)
        if pipe.at_end:
            self._drop(connection)

    def _obey(self, connection: SourceConnection, frame: Frame) -> None:
        if frame.kind != 1:
            self._quarantine(connection, frame)
            return
        called = unpack_from(">HH", frame.payload)
        arguments = frame.payload[4:]
        answer = connection.link.to_bridge
        if called == (60, 80):
            self._settle(connection, arguments, acked=True)
        elif called == (60, 120):
            assert arguments[8] & 2, "a nack without requeue loses the message"
            self._settle(connection, arguments, acked=False)
        elif called == (60, 40):
            connection.assembly = [frame] if connection.quarantine_open else []
        elif called == (60, 20):
            self._consume(connection, arguments)
        elif called == (60, 30):
            self._stop_consumer(connection, arguments)
            answer.write(frames.method(frame.channel, 60, 31, arguments[: 1 + arguments[0]]))
        elif called == (50, 10):
            answer.write(self._declare(frame))
        else:
            if called == (60, 10):
                (connection.prefetch,) = unpack_from(">H", arguments, 4)
            if called == (20, 10) and frame.channel == 2:
                self._shut_quarantine(connection)
                connection.quarantine_open, connection.seqno = True, 0
            method, values = CONTROL_ANSWERS[called]
            answer.write(frames.method(frame.channel, called[0], method, values))

    def _declare(self, frame: Frame) -> bytes:
        """The source queue is asked for its state, or the quarantine (declared without a name) is declared."""
        if frame.payload[4:]:
            return frames.method(frame.channel, 50, 11, b"\0" + pack(">II", *self.state[:2]))
        if self.quarantine_refuses:
            return frames.close(frame.channel, 403, "ACCESS_REFUSED")
        return frames.method(frame.channel, 50, 11, b"\0" + pack(">II", 0, 0))

    def _stop_consumer(self, connection: SourceConnection, arguments: bytes) -> None:
        # The broker may have cancelled it already.
        ended = connection.consumers.pop(arguments[1 : 1 + arguments[0]], None) is not None
        if ended and self.auto_delete and not any(c.consumers for c in self.connections):
            assert connection.owner.stopping, "a cancel deletes the queue"
            self.purge()

    def _consume(self, connection: SourceConnection, arguments: bytes) -> None:
        consumer_tag, _ = self._consumer_tag(arguments)
        connection.consumers[consumer_tag] = connection.prefetch
        connection.link.to_bridge.write(frames.method(1, 60, 21, frames.short(consumer_tag)))
        if any(c is not connection and c.unsettled for c in self.connections):
            self._ledger.in_order = False  # an older connection of the bridge is not yet known to be gone

    @staticmethod
    def _consumer_tag(arguments: bytes) -> tuple[bytes, bytes]:
        """The tag that `basic.consume` names, and what comes after it: its flags and its arguments."""
        start = 4 + arguments[2]
        end = start + arguments[start - 1]
        return arguments[start:end], arguments[end:]

    def _settle(self, connection: SourceConnection, arguments: bytes, *, acked: bool) -> None:
        tag, bits = unpack_from(">QB", arguments)
        tags = [t for t in connection.unsettled if t <= tag] if bits & 1 else [tag]
        if connection.timed_out:
            tags = [t for t in tags if t not in connection.timed_out]
        assert tag in connection.unsettled or tag in connection.timed_out, (
            f"delivery tag {tag} is unknown: the broker would close the channel (406)"
        )
        messages = [connection.unsettled.pop(t)[0] for t in tags]
        if not acked:
            self._give_back(connection, messages, nacked=True)
            return
        self._remove(messages, connection)

    def _remove(self, messages: list[Message], connection: SourceConnection) -> None:
        """They were acked."""
        for message in messages:
            self._ledger.ack(message)
            self._acked.append((self.now_s, message, connection))

    def _quarantine(self, connection: SourceConnection, frame: Frame) -> None:
        """A content frame of a publish to the quarantine; answered by `answer_quarantine` when it is complete."""
        if not connection.assembly:
            return  # its channel is closed
        connection.assembly.append(frame)
        _, header, *body_frames = connection.assembly
        body = b"".join(frame.payload for frame in body_frames)
        properties = ContentHeader()
        properties.unmarshal(header.payload)
        if len(body) == properties.body_size:
            connection.seqno += 1
            headers = properties.properties.headers or {}
            assert "x-bridge-reason" in headers
            assert "x-delivery-count" not in headers, "who moves it back would have it condemned again"
            key = self._ledger.quarantined(properties.properties.message_id or "", body, headers).key
            connection.assembly = []
            if self.quarantine_spoils and key in self._spoiling:
                self.close_quarantine(connection, 406, "PRECONDITION_FAILED - spoilt")
            else:
                connection.unanswered[connection.seqno] = key

    def answer_quarantine(self, connection: SourceConnection, answer: str) -> None:
        """Confirm (`ack`), `nack` or `return` some publish to the quarantine, alone or with all before it."""
        link = connection.link.to_bridge
        seqnos = [*connection.unanswered]
        seqno = self._rng.choice((seqnos[0], seqnos[-1], self._rng.choice(seqnos)))
        multiple = self._rng.random() < 0.5
        answered = [n for n in seqnos if n == seqno or (multiple and n < seqno)]
        keys = {n: connection.unanswered.pop(n) for n in answered}
        if answer == "return":
            # It alone has no route: those before it that the same confirm covers arrived.
            step = connection.frame_max - 8 if connection.frame_max else 1 << 20
            content = frames.content(keys.pop(seqno)[1], channel=2, step=step)
            link.write(frames.returned(content, routing_key="sq.quarantine", channel=2))
        if answer != "nack":
            self._ledger.stored.update(keys.values())
        link.write(frames.confirm(seqno, multiple=multiple, accepted=answer != "nack", channel=2))

    def close_quarantine(self, connection: SourceConnection, code: int, text: str) -> None:
        """Close the channel that publishes to the quarantine: what is not confirmed may have arrived or not."""
        self._shut_quarantine(connection)
        connection.link.to_bridge.write(frames.close(2, code, text))

    @staticmethod
    def _shut_quarantine(connection: SourceConnection) -> None:
        connection.quarantine_open = False
        connection.unanswered.clear()
        connection.assembly = []

    # --- Ends --------------------------------------------------------------------------------------------

    def close(self, connection: SourceConnection, channel: int, code: int, text: str) -> None:
        """Close a bridge's channel, or its connection (channel 0)."""
        connection.link.to_bridge.write(frames.close(channel, code, text))
        connection.closed, connection.link.drained = True, False
        self._take_back(connection)

    def cancel(self, connection: SourceConnection) -> None:
        """Cancel the consumer: its queue moves. Deliveries stay unsettled and their acks count."""
        for consumer_tag in connection.consumers:
            connection.link.to_bridge.write(frames.method(1, 60, 30, frames.short(consumer_tag) + b"\0"))
        connection.consumers.clear()

    def time_out(self, connection: SourceConnection) -> None:
        """Cancel the consumer, since a delivery was held for too long, and requeue all that it holds (4.3)."""
        messages = [message for message, _ in connection.unsettled.values()]
        connection.timed_out.update(connection.unsettled)
        connection.unsettled.clear()
        self._give_back(connection, messages, nacked=True)
        self.cancel(connection)

    def crash(self) -> None:
        """Die and come back: all connections break, and the last acks may be forgotten."""
        rng = self._rng
        recent = [entry for entry in self._acked if self.now_s - entry[0] <= FORGOTTEN_ACKS_S]
        forgotten = recent[rng.randint(0, len(recent)) :]
        self._acked.clear()
        for _, message, connection in forgotten:
            self._ledger.acked[message.key] -= 1
            self._ledger.excused[message.key] += connection.owner.gone
        self._requeue([message for _, message, _ in forgotten], nacked=False)
        for connection in list(self.connections):
            connection.link.cut(rng)
            connection.link.to_broker.end(0)
            self._drop(connection)
        if self.kind == "classic":
            for message in self.ready:
                message.redelivered = True  # so does a classic queue that was not shut down in order

    def _drop(self, connection: SourceConnection) -> None:
        self._take_back(connection)
        connection.closed = True
        connection.link.to_bridge.end()
        self.connections.remove(connection)

    def _take_back(self, connection: SourceConnection) -> None:
        assert not (connection.unsettled and connection.link.drained), "invariant 6: requeued by closing"
        messages = [message for message, _ in connection.unsettled.values()]
        connection.unsettled.clear()
        connection.consumers.clear()
        self._give_back(connection, messages, nacked=False)

    def forget_bridge(self) -> None:
        """A bridge's process has ended: what it knew of messages that came back, nobody knows now."""
        for message in (*self.returned, *self.ready):
            self._ledger.excused[message.key] += message.acquired_count > 0

    def heal(self) -> None:
        """Nothing expires any more, and the quarantine is there."""
        self.quarantine_refuses = False
        for message in (*self.returned, *self.ready):
            message.expires_s = inf
