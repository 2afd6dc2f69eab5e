"""A window with both sides open, driven by delivery tags."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.amqp.events import Close, Delivery, Return
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import Memory
from bridge.window.terms import UNLIMITED
from bridge.window.window import Window
from tests.support.frames import PERSISTENT, Properties, content, delivery, table, text
from tests.support.targets import QUEUE

if TYPE_CHECKING:
    from bridge.amqp.target import Target
    from bridge.window.terms import Terms

TOO_LARGE = "PRECONDITION_FAILED - message size 4 is larger than configured max size 3"
STAMPED = {"timestamp_in_ms": b"l" + bytes(8), "x-routed-by": text("node")}
"""What an interceptor of the destination adds before it returns a message."""


class Scene:
    """A window with both sides open, and shorthands by delivery tag."""

    def __init__(self, chance: float = 1.0, target: Target = QUEUE, terms: Terms = UNLIMITED, **limits: float) -> None:
        self.now_s = 1000.0
        self.books = Books()
        self.window = Window(
            replace(WindowLimits(), **limits),  # type: ignore[arg-type]  # numbers and booleans by name
            target,
            self.books,
            Memory(enabled=True),
            lambda: chance,
            terms=terms,
        )
        self.window.source_opened()
        self.window.destination_opened()

    @property
    def resume_at(self) -> int | None:
        """Where a stream would be read on; None for where the settings say."""
        return None if self.window.offsets is None else self.window.offsets.resume_at

    def receive(self, *delivery_tags: int) -> None:
        """Plain deliveries."""
        self.receive_each(*(delivery(tag, received_s=self.now_s) for tag in delivery_tags))

    def receive_each(self, *deliveries: Delivery) -> None:
        """Deliveries of one chunk."""
        notable = any(d.redelivered or d.delivery_count for d in deliveries)
        self.window.receive(list(deliveries), self.now_s, notable=notable)

    def take(self) -> list[int]:
        """Delivery tags of what is published now."""
        return [d.delivery_tag for d in self.window.take(1 << 20, self.now_s)]

    def confirm(self, publish_seqno: int, *, multiple: bool = False, accepted: bool = True) -> None:
        """`basic.ack` or `basic.nack`."""
        self.window.confirm(publish_seqno, self.now_s, multiple=multiple, accepted=accepted)

    def returned(self, body: bytes, key: str = "key", properties: Properties = PERSISTENT) -> None:
        """`basic.return`."""
        route = b"\x02ex" + bytes([len(key)]) + key.encode()
        self.window.returned(Return(1, 312, "NO_ROUTE", route, content(body, properties), len(body)))

    def refuse_route(self, delivery_tag: int, publish_seqno: int) -> None:
        """Returned and then confirmed, as the protocol has it."""
        self.returned(b"%d" % delivery_tag)
        self.confirm(publish_seqno)

    def refuse_quarantine(self) -> None:
        """The first that is bound for the quarantine is not accepted there."""
        delivery, _ = self.window.quarantine_asked()
        self.window.quarantine_refused(delivery.delivery_tag, self.now_s)

    def lose_destination(self, code: int = 0, why: str = "") -> None:
        """Its generation ends, with the broker's word or without."""
        self.window.destination_lost(Close(1, code, why) if code else None, self.now_s)

    def reopen_destination(self) -> None:
        """Its next generation begins."""
        self.window.destination_opened()

    def wait(self, seconds: float) -> None:
        """Time passes, and is told."""
        self.now_s += seconds
        self.window.tick(self.now_s)

    def acks(self) -> list[tuple[int, bool]]:
        """What is acked since last asked: delivery tags, and whether with all below."""
        found = list(self.window.settlement.acks)
        self.window.settlement.acks.clear()
        return found

    def verdicts(self) -> list[tuple[int, str, int]]:
        """What is bound for the quarantine: delivery tag, reason and reply code."""
        return [(d.delivery_tag, v.reason, v.reply_code) for d, v in self.window.condemned]


def identified(delivery_tag: int, name: str, redelivered: int = 0) -> Delivery:
    return delivery(delivery_tag, b"body", PERSISTENT | {"message_id": name.encode()}, redelivered=redelivered)


def headers(**fields: str) -> Properties:
    return PERSISTENT | {"headers": table({name: text(value) for name, value in fields.items()})}
