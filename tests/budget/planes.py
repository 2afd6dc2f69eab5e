"""The pure layers between two brokers: bytes in, bytes out. The one place in the budget that knows the relay's API.

It drives a relay as `connection.tap` does, without sockets and without what happens only now and then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.amqp.additions import Additions
from bridge.amqp.preparer import HeaderPolicy
from bridge.amqp.target import Target
from bridge.relay.action import Consume
from bridge.relay.plan import Plan
from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.relay import Relay
from bridge.relay.state import State
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import Memory
from bridge.window.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.amqp.additions import Scalar

FRAME_MAX_BYTES = 131_072
"""What RabbitMQ agrees on unless configured otherwise."""


UNIX_S = 1_800_000_000.0
"""What the wall clock is ahead of the monotonic one: with it the age of messages is sampled."""


class Written(NamedTuple):
    """What the relay has written in answer to a chunk."""

    to_source: list[bytes]
    to_destination: list[bytes | memoryview]


class Planes:
    """A relay in normal service: the destination is open, and `consume` begins a generation of the source."""

    def __init__(self, *, own_keys: bool, added: Mapping[str, Scalar] | None = None) -> None:
        """Connect the destination; `own_keys`: to an exchange, each message with its own routing key.

        `added` are headers that each message gets.
        """
        self._memory = Memory(enabled=True)
        target = Target("out") if own_keys else Target.queue("out")
        self.relay = Relay(
            Window(WindowLimits(), target, Books(), self._memory, lambda: 0.5),
            Plan(
                quarantine_queue="in.quarantine",
                policy=HeaderPolicy(destination_user=b"bridge", additions=Additions.of(added or {})),
            ),
            lambda: 0.5,
        )
        self.relay.steering.state = State.RUNNING  # a message has been seen through
        self.relay.connect_destination(_closed).opened(FRAME_MAX_BYTES)

    @property
    def remembered(self) -> int:
        """How many messages of earlier generations are known by their identity."""
        return len(self._memory)

    def consume(self, now_s: float) -> None:
        """Connect the source and consume: a source generation begins, its delivery tags at 1."""
        relay = self.relay
        relay.connect_source(_closed).opened(FRAME_MAX_BYTES, QueueFacts("quorum", auto_delete=False, expires=False))
        relay.tick(now_s, UNIX_S + now_s)
        assert isinstance(relay.decide(now_s), Consume)
        assert relay.steering.starting("consumer", now_s)
        relay.started(QueueState(ready=0, consumers=0), now_s)

    def lose_source(self, now_s: float) -> None:
        """The source generation ends without a goodbye."""
        self.relay.source.lost(now_s)

    def source_sends(self, data: bytes, now_s: float) -> Written:
        """Take a chunk from the source; return what follows from it."""
        self.relay.source.receive(data, now_s)
        return self._written(now_s)

    def destination_sends(self, data: bytes, now_s: float) -> Written:
        """Take a chunk from the destination; return what follows from it."""
        self.relay.destination.receive(data, now_s)
        return self._written(now_s)

    def _written(self, now_s: float) -> Written:
        relay = self.relay
        to_destination: list[bytes | memoryview] = []
        while frames := relay.destination.data_to_send(now_s):
            to_destination += frames
        return Written(relay.source.data_to_send(), to_destination)


def _closed(*_: object) -> None:
    """No broker closes anything here."""
    raise AssertionError
