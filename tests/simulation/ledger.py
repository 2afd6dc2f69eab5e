"""Where every message truly is, counted by its key; what may never be is checked when it is counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation.link import FrameReader

if TYPE_CHECKING:
    from pamqp.common import FieldTable

    from tests.simulation.messages import Key, Message


class Ledger:
    """The truth that the bridge's books are held against."""

    def __init__(self) -> None:
        self.sent: Counter[Key] = Counter()
        self.acked: Counter[Key] = Counter()
        """Removed from the source by a bridge's ack, and not come back."""
        self.stored: Counter[Key] = Counter()
        """Copies that the destination or the quarantine has confirmed."""
        self.arrived: Counter[Key] = Counter()
        """Copies at the destination, confirmed or not."""
        self.gone: Counter[Key] = Counter()
        """Taken from the source by others, by age or by its delivery limit."""
        self.excused: Counter[Key] = Counter()
        """Copies that no bridge could know of: the one that made them has ended."""
        self.contents: dict[tuple[bytes, bytes, str], Message] = {}
        """By header payload, body and route as the destination must see them."""
        self._alike: dict[tuple[bytes, bytes], list[Message]] = {}
        """By message id and body."""
        self.stream = False
        """Whether the source is a stream: what comes again is not marked as redelivered."""
        self.in_order = True
        """Whether first copies must arrive by number."""
        self._last_number = 0

    def send(self, message: Message) -> None:
        """A message is published at the source."""
        self.sent[message.key] += 1
        self._alike.setdefault(message.key[:2], []).append(message)
        if self.contents.setdefault((message.expected(), message.body, message.route), message) is not message:
            self.in_order = False  # twins cannot be told apart
        if message.narrow:
            self.contents.setdefault((message.expected(left_out=True), message.body, message.route), message)

    def message(self, content: bytes, route: str) -> Message:
        """Return the message of which this is a copy (invariant 7): its header frame and its body frames.

        `route` is what of the copy's route is its own.
        """
        header, *body = FrameReader().feed(content)
        return self.copied(header.payload, b"".join(frame.payload for frame in body), route)

    def copied(self, header: bytes, body: bytes, route: str) -> Message:
        """Return the message of which this is a copy (invariant 7): the header frame's payload and the body."""
        message = self.contents.get((header, body, route))
        assert message is not None, "invariant 7: this is no message of the source"
        return message

    def quarantined(self, message_id: str, body: bytes, headers: FieldTable) -> Message:
        """Return the message that this is in the quarantine, where headers are added: its own are all there."""
        candidates = self._alike.get((message_id.encode(), body), [])
        return max(
            (m for m in candidates if m.stands_in(headers)),
            key=lambda m: (
                headers.get("x-bridge-exchange") == m.exchange,
                headers.get("x-bridge-routing-key") == m.routing_key,
                len(m.fields),
            ),
        )

    def ack(self, message: Message) -> None:
        """The source drops a message because a bridge acked it (invariant 1)."""
        key = message.key
        self.acked[key] += 1
        assert self.acked[key] <= self.stored[key], f"invariant 1: {key} acked, and there is no confirmed copy"

    def arrive(self, message: Message) -> None:
        """A copy is put into the destination's queue."""
        self.arrived[message.key] += 1
        if self.in_order and self.arrived[message.key] == 1:
            assert message.number > self._last_number, (
                f"invariant 5: {message.number} arrives after {self._last_number}"
            )
            self._last_number = message.number

    def lost(self) -> list[Key]:
        """Messages, by key, of which there are fewer left than were sent; the source is empty."""
        return [k for k, sent in self.sent.items() if self.stored[k] + self.gone[k] < sent]

    def duplicates(self) -> int:
        """Copies at the destination that need not have been, those not counted that nobody could know of."""
        surplus = {k: n - self.sent[k] - self.excused[k] for k, n in self.arrived.items()}
        return sum(n for n in surplus.values() if n > 0)
