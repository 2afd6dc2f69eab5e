"""A model of the source's broker whose queue is a stream: it keeps what it delivers, and is read from an offset on."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

from pamqp import decode

from bridge.relay.queue import QueueState
from tests.simulation.source import Source, SourceConnection
from tests.support import frames

if TYPE_CHECKING:
    from random import Random

    from tests.simulation.ledger import Ledger
    from tests.simulation.link import Frame
    from tests.simulation.messages import Message


FIRST_OFFSET = "first"
"""Who asks for a queue of this name is told the offset of the stream's first message, in place of a count."""


class Stream(Source):
    """The broker. A stored offset takes an offset of its own, as RabbitMQ's does."""

    def __init__(self, rng: Random, ledger: Ledger, *, tracked: bool) -> None:
        """`tracked`: bridges have their offset stored; otherwise each process reads from the first message on."""
        super().__init__(rng, ledger, "stream", 0)
        self.single_active = False
        self.tracked = tracked
        self.stored: int | None = None
        """The offset that is stored."""
        self._log: list[Message | None] = []
        """By offset; None for what is no message, and for what retention has deleted."""
        self._reads_at: dict[tuple[SourceConnection, bytes], int] = {}
        """By connection and consumer tag: the next offset."""
        self._deleted: dict[int, Message] = {}
        """By offset, what retention has deleted."""
        self._missed: set[int] = set()
        """Offsets of messages that consumers of the present bridge would have come to, had they not been deleted."""

    @property
    def waiting(self) -> int:
        """Messages that are neither forwarded nor deleted."""
        return len(self._unforwarded)

    @property
    def state(self) -> QueueState:
        """A stream says how much it keeps, and counts no consumers."""
        return QueueState(sum(message is not None for message in self._log), 0)

    @property
    def only_spoilt_left(self) -> bool:
        """Whether the quarantine refuses, too, whatever is not forwarded."""
        return all(message.key in self._spoiling for message in self._unforwarded)

    @property
    def _unforwarded(self) -> list[Message]:
        return self._not_there(len(self._log))

    def _not_there(self, until: int) -> list[Message]:
        """Return the messages below an offset of which the destination and the quarantine have no copy."""
        return [message for message in self._log[:until] if message and not self._ledger.stored[message.key]]

    def publish(self, message: Message) -> None:
        """Somebody publishes a message."""
        message.fields = message.fields | {"x-stream-offset": b"l" + pack(">q", len(self._log))}
        super().publish(message)
        self._log.append(self.ready.pop())

    # --- Offsets -----------------------------------------------------------------------------------------

    def store(self, offset: int) -> None:
        """A bridge has its offset stored: it says that all up to it were forwarded."""
        missing = [message.number for message in self._not_there(offset + 1)]
        assert not missing, f"stores offset {offset}, and {missing} are not forwarded"
        self.stored = offset
        self._log.append(None)

    def delete_oldest(self, number: int) -> bool:
        """Retention deletes so many messages, of which the last always stays; return whether there were any."""
        kept = [offset for offset, message in enumerate(self._log) if message][:-1]
        for offset in kept[:number]:
            message, self._log[offset] = self._log[offset], None
            assert message is not None
            self._ledger.gone[message.key] += 1
            self._deleted[offset] = message
        return bool(kept)

    @property
    def missed(self) -> int:
        """How many messages retention has deleted before the present bridge came to them."""
        return sum(not self._ledger.stored[self._deleted[offset].key] for offset in self._missed)

    def _next_for(self, connection: SourceConnection) -> tuple[Message, bytes] | None:
        consumer = connection.room()
        if consumer is None:
            return None
        at = self._reads_at[connection, consumer]
        goes_on = at > 0
        while at < len(self._log) and self._log[at] is None:
            if goes_on and at in self._deleted:
                self._missed.add(at)
            at += 1
        message = self._log[at] if at < len(self._log) else None
        self._reads_at[connection, consumer] = at + (message is not None)
        return None if message is None else (message, consumer)

    def _declare(self, frame: Frame) -> bytes:
        if frames.short(FIRST_OFFSET) not in frame.payload:
            return super()._declare(frame)
        first = next(offset for offset, message in enumerate(self._log) if message)
        return frames.method(frame.channel, 50, 11, b"\0" + pack(">II", first, 0))

    def _consume(self, connection: SourceConnection, arguments: bytes) -> None:
        super()._consume(connection, arguments)
        consumer_tag, rest = self._consumer_tag(arguments)
        (_, table) = decode.field_table(rest[1:])
        at = table.get("x-stream-offset", "first")
        offset = at if isinstance(at, int) else 0
        missing = [message.number for message in self._not_there(offset)]
        assert not missing, f"reads from offset {offset} on, and {missing} are not forwarded"
        self._reads_at[connection, consumer_tag] = offset

    # --- What is acked or not changes nothing ------------------------------------------------------------

    def _remove(self, messages: list[Message], connection: SourceConnection) -> None:
        held = {message.key for message, _ in connection.unsettled.values()}
        for message in messages:
            known = self._ledger.stored[message.key] or message.key in held
            assert known, f"invariant 1: {message.key} acked, and there is no confirmed copy"

    def _give_back(self, connection: SourceConnection, messages: list[Message], *, nacked: bool) -> None:
        text = (
            f"{len(messages)} of {len(connection.unsettled)} nacked: the broker of a stream closes the connection (540)"
        )
        assert not nacked, text

    def _take_back(self, connection: SourceConnection) -> None:
        connection.unsettled.clear()
        connection.consumers.clear()

    def crash(self) -> None:
        """Die and come back: all connections break."""
        for connection in list(self.connections):
            connection.link.cut(self._rng)
            connection.link.to_broker.end(0)
            self._drop(connection)

    def forget_bridge(self) -> None:
        """A bridge's process has ended: the next one reads on after the stored offset."""
        self._missed.clear()
        begin = self.stored + 1 if self.tracked and self.stored is not None else 0
        for message in self._log[begin:]:
            if message:
                self._ledger.excused[message.key] += 1
