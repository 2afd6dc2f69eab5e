"""Whom to blame when the destination closes its channel, sans-I/O.

A close names no message. It is about any of those that were published, or about the destination itself. The reply
code decides whether it can be about a message at all. If so, all that were published are *suspects*: they are
published again one by one, until one of them closes the channel alone. Only a reply that names the size limit spares
the search; the limit is remembered, so that the next message above it is caught before it costs a channel.

What it does not do: publish one by one, and dispose of the guilty, which is `window`'s.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from bridge.words import QuarantineReason  # noqa: TC001 - a named tuple names its types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.amqp.events import Close, Delivery
    from bridge.amqp.target import Target

LIMIT_TTL_S = 600.0
"""How long a size limit that the destination has named is believed: an operator may have raised it since."""

_TOO_LARGE = re.compile(r"message size (\d+) .*larger than .*max size (\d+)")

POISON_AT_ONCE = frozenset({406, 501, 502, 503, 505, 540})
"""Replies that blame the message: one that closes the channel alone with these is poison."""
POISON_AFTER = {541: 3}
"""An internal error may be the broker's own: a message must cause it this many times in a row, alone."""
FORBIDDEN_KEY = "access to topic"
"""In a 403 that blames the message's routing key (topic permissions): it is set aside, others pass (3.10.8, 4.3.6)."""
DESTINATION_REPLIES = frozenset({403, 404, 405})
"""Replies that otherwise blame the destination: it does not exist, or the user may not publish to it."""


class Verdict(NamedTuple):
    """Reason for moving a message to the quarantine."""

    reason: QuarantineReason
    """For `/metrics` and the header `x-bridge-reason`."""
    reply_code: int = 0
    reply_text: str = ""
    held_text: str = ""
    """Reason why the quarantine does not accept it either; empty as long as there is none."""


class Ruling(NamedTuple):
    """What a close says of the messages that were published, and of the destination."""

    innocent: list[Delivery]
    """In their order."""
    guilty: Sequence[Delivery] = ()
    verdict: Verdict | None = None
    """On the guilty; None means that they are only to be set aside."""
    destination: bool = False
    """Whether it is the destination that refuses."""


class SizeLimit:
    """The largest message that the destination accepts, as far as it has said. Outlives all generations."""

    def __init__(self) -> None:
        self.size_bytes = inf
        self._until_s = 0.0

    def learn(self, size_bytes: int, now_s: float) -> None:
        """The destination named its limit."""
        self.size_bytes, self._until_s = size_bytes, now_s + LIMIT_TTL_S

    def expire(self, now_s: float) -> None:
        """Forget a limit that is too old."""
        if now_s >= self._until_s:
            self.size_bytes = inf

    def too_large(self, delivery: Delivery, now_s: float) -> Verdict | None:
        """Return the verdict on a message above the limit."""
        if delivery.body_size <= self.size_bytes or now_s >= self._until_s:
            return None
        text = f"message size {delivery.body_size} is larger than the destination's limit {self.size_bytes:.0f}"
        return Verdict("too-large", 406, text)


class Blame:
    """What the closes of the destination, or of the quarantine, say of the deliveries of one source generation."""

    def __init__(self, size_limit: SizeLimit, target: Target, *, quarantine: bool) -> None:
        """Messages went to the `target`. Without a quarantine no size limit is learned: its messages are held."""
        self._size_limit = size_limit
        self._target = target
        self._quarantine = quarantine
        self.suspects = 0
        """Publishes to go one by one, since one of them closed the channel or was returned."""
        self.strikes: dict[int, int] = {}
        """By delivery tag: how often it closed the channel alone without being convicted."""

    def convict(self, published: list[Delivery], close: Close, now_s: float) -> Ruling:
        """Find the message that the broker closed the channel for."""
        limit = _TOO_LARGE.search(close.reply_text)
        if limit is not None and self._quarantine:
            self._size_limit.learn(int(limit[2]), now_s)
            large = [d for d in published if d.body_size > int(limit[2])]
            if large:
                innocent = [d for d in published if d.body_size <= int(limit[2])]
                return Ruling(innocent, large, Verdict("too-large", close.reply_code, close.reply_text))
        code = close.reply_code
        aside = self._target.keeps_keys and FORBIDDEN_KEY in close.reply_text
        its_exchange = self._target.exchanges_differ and code in DESTINATION_REPLIES
        if not (aside or its_exchange or self.names_a_message(close)):
            return Ruling(published, destination=bool(published) and code in DESTINATION_REPLIES)
        if len(published) != 1:
            self.suspects = len(published)
            return Ruling(published)
        if aside:
            return Ruling([], published)
        (alone,) = published
        strikes = self.strikes.get(alone.delivery_tag, 0) + 1
        if strikes < POISON_AFTER.get(code, 1):
            self.strikes[alone.delivery_tag] = strikes
            self.suspects = 1
            return Ruling(published)
        self.judged(alone.delivery_tag)
        return Ruling([], published, Verdict("poison", code, close.reply_text))

    @staticmethod
    def names_a_message(close: Close) -> bool:
        """Whether the close is about one of the messages that were published, and not about where they went."""
        return close.reply_code in POISON_AT_ONCE or close.reply_code in POISON_AFTER

    def suspect(self, publishes: int) -> None:
        """The next so many publishes go one by one: which of them was returned is in doubt."""
        self.suspects = max(self.suspects, publishes)

    def judged(self, delivery_tag: int) -> None:
        """What there was to find out about this one is known: it was confirmed, nacked or convicted."""
        self.suspects = max(0, self.suspects - 1)
        self.strikes.pop(delivery_tag, None)
