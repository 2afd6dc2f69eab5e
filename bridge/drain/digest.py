"""A digest of messages whose order does not matter, sans-I/O: what one hop moved can be held against the next.

It is the sum, modulo 2 to the 128th, of a 128-bit BLAKE2b of each message: of the length of its `message_id` in one
byte, the id, and the body. A sum, and not an exclusive or, so that twins count. Headers and route are not in it: they
change from hop to hop.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING

from bridge.amqp.content import MESSAGE_ID, body_payloads, header_frame, split_properties
from bridge.errors import MalformedFrameError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery
    from bridge.amqp.origin import Origins

DIGEST_BYTES = 16
_MODULUS = 1 << 128
MOST_TARGETS = 1000
"""Of more targets than these the numbers are not kept: a publisher may forge any number of them."""


def message_digest(message_id: bytes, payloads: Iterable[bytes | memoryview]) -> int:
    """Return the digest of one message; `message_id` is its short string, the length first."""
    digest = blake2b(message_id, digest_size=DIGEST_BYTES)
    for payload in payloads:
        digest.update(payload)
    return int.from_bytes(digest.digest(), "big")


class Tally:
    """What the destination has confirmed: how many copies, how large their bodies are, and their digest."""

    def __init__(self, origins: Origins | None = None) -> None:
        """`origins` is where each goes back to, None where all have one target."""
        self._origins = origins
        self.targets: Counter[str] = Counter()
        """By the queue or the exchange that they went back to."""
        self.messages = 0
        self.size_bytes = 0
        """Of the bodies."""
        self._sum = 0

    @property
    def digest(self) -> str:
        """The digest, as 32 hexadecimal digits."""
        return f"{self._sum:032x}"

    def confirmed(self, deliveries: Iterable[Delivery]) -> None:
        """The destination has confirmed a copy of each."""
        for delivery in deliveries:
            self.messages += 1
            self.size_bytes += delivery.body_size
            self._sum = (self._sum + message_digest(_id(delivery.content), body_payloads(delivery.content))) % _MODULUS
            if self._origins is not None and (origin := self._origins.origin(delivery.content)) is not None:
                target = self._origins.named(origin)
                if target in self.targets or len(self.targets) < MOST_TARGETS:
                    self.targets[target] += 1


def _id(content: bytes) -> bytes:
    """Return the message id as it stands on the wire; of properties that cannot be read, as of none."""
    try:
        return split_properties(header_frame(content)).get(MESSAGE_ID, b"\0")
    except MalformedFrameError:
        return b"\0"
