"""What was sent, what arrived: numbered messages, published and counted by a client that is not aio-pika.

Bodies begin with the message's number, and so do the message ids end. The properties are encoded and decoded by pika.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pika

from tests.rig.raw import RawClient, RawClosedError, RawMessage
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NUMBER_DIGITS = 12
_MARK = "#" * NUMBER_DIGITS
"""Stands in the encoded properties where each message's number goes: pika takes 10 µs to encode them."""
_BATCH = 500
_OUTSTANDING = (
    5_000  # publishes not confirmed: enough to keep the broker busy, little enough for its confirms to be read
)


def encode_properties(properties: pika.BasicProperties) -> bytes:
    """The properties as they stand in a content header, from the flags on."""
    return b"".join(properties.encode())


def with_headers(properties: bytes, header_table: bytes) -> bytes:
    """Encoded properties with a header table; they have none yet, nor what comes before it (content type, encoding)."""
    if not header_table:
        return properties
    flags = int.from_bytes(properties[:2], "big") | 0x2000
    return flags.to_bytes(2, "big") + header_table + properties[2:]


def decode_properties(data: bytes) -> pika.BasicProperties:
    """The properties of a content header."""
    properties = pika.BasicProperties()
    properties.decode(data)
    return properties


def publish_numbered(  # noqa: PLR0913 - all but the first three by name
    url: str,
    queue: str | Callable[[int], str],
    count: int,
    *,
    first: int = 0,
    size: int = 256,
    message_ids: bool = True,
    properties: pika.BasicProperties | None = None,
    header_table: bytes = b"",
    exchange: str = "",
    filling: bytes = b".",
) -> None:
    """Publish ``count`` messages of ``size`` bytes, numbered from ``first``, and wait until all are confirmed.

    What follows the number in a body is ``filling``, again and again.
    ``queue`` is the routing key of all of them, or returns each number's own.
    ``properties`` are those of every message; they are persistent unless it says otherwise, and get a message id each
    unless ``message_ids`` is off. Raises RuntimeError when the broker refuses or returns any.
    """
    filling = (filling * size)[: max(0, size - NUMBER_DIGITS)]
    key_of = queue if callable(queue) else lambda _: queue
    properties = copy.copy(properties) if properties else pika.BasicProperties()
    properties.delivery_mode = properties.delivery_mode or 2
    if message_ids:
        properties.message_id = f"message-{_MARK}"
    template = with_headers(encode_properties(properties), header_table)
    messages = [
        (key_of(number), template.replace(_MARK.encode(), digits), digits + filling)
        for number in range(first, first + count)
        for digits in (b"%0*d" % (NUMBER_DIGITS, number),)
    ]
    with RawClient(url) as client:
        client.confirm_select()
        for start in range(0, count, _BATCH):
            client.publish_each(exchange, messages[start : start + _BATCH])
            client.wait_confirms(leave=_OUTSTANDING)
        client.wait_confirms()
        if client.nacked or client.returned:
            raise RuntimeError(f"{len(client.nacked)} of {count} nacked, {len(client.returned)} returned")


def number_of(message: RawMessage) -> int:
    """The number that a message's body begins with."""
    return int(message.body[:NUMBER_DIGITS])


def drain(url: str, queue: str) -> list[RawMessage]:
    """Take everything that is in the queue now, in order, and ack it."""
    received: list[RawMessage] = []

    def has_answered() -> bool:
        try:
            _drain_into(received, url, queue)
        except RawClosedError as error:
            if received or not str(error).startswith("541"):  # so says a quorum queue that is still electing its leader
                raise
            return False
        return True

    wait_until(has_answered, f"{queue} to give its messages")
    return received


def _drain_into(received: list[RawMessage], url: str, queue: str) -> None:
    with RawClient(url) as client:
        # The count alone will not do: a quorum queue that has just been restarted says 0 while it is not (3.10.8).
        while first := client.get(queue):
            received.append(first)
            client.ack(first.delivery_tag)
            wanted = client.ready(queue)
            if not wanted:
                continue
            client.consume(queue)
            for message in client.deliveries():
                received.append(message)
                wanted -= 1
                if wanted == 0:
                    client.cancel()
                if wanted <= 0 or wanted % 250 == 0:
                    client.ack(message.delivery_tag, multiple=True)


@dataclass(frozen=True)
class Audit:
    """What became of the messages numbered 0 to ``sent`` - 1."""

    sent: int
    arrived: int
    lost: list[int] = field(repr=False)
    duplicates: int
    out_of_order: int
    """First copies that came after the first copy of a higher number."""

    def __str__(self) -> str:
        """One line for a failing assertion."""
        lost = f"{len(self.lost)} lost" + (f" ({self.lost[:5]}…)" if self.lost else "")
        faults = f"{lost}, {self.duplicates} doubled, {self.out_of_order} misordered"
        return f"{self.sent} sent, {self.arrived} arrived, {faults}"

    @property
    def is_perfect(self) -> bool:
        """Nothing lost, nothing doubled, nothing out of order."""
        return not self.lost and not self.duplicates and not self.out_of_order


def audit(numbers: Iterable[int], sent: int) -> Audit:
    """Compare the numbers that arrived, in order of arrival, with 0 to ``sent`` - 1."""
    seen: set[int] = set()
    highest = -1
    duplicates = out_of_order = 0
    for number in numbers:
        if number in seen:
            duplicates += 1
            continue
        seen.add(number)
        if number < highest:
            out_of_order += 1
        highest = max(highest, number)
    lost = [number for number in range(sent) if number not in seen]
    return Audit(sent, len(seen), lost, duplicates, out_of_order)


def drain_and_audit(url: str, queue: str, sent: int) -> Audit:
    """Take everything from the queue and compare it with what was sent."""
    return audit(map(number_of, drain(url, queue)), sent)
