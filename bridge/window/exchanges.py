"""The exchanges of one destination generation, sans-I/O: which of them accept messages, as far as the broker has said.

Where each message names its own exchange, one that is missing or forbidden must cost the messages for it and no others.
But a publish to it closes the channel (404, 403), and every other message with it. So the broker is asked on a channel
beside, before the first publish to each exchange, and again every so often: an exchange may be deleted or created, and
a permission may be withdrawn or granted.

What it does not do: ask, which is the caller's (see `relay/action`), and dispose of messages, which is `window`'s.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

from bridge.amqp.events import Close

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery

OPEN_AGAIN_S = 600.0
"""How long an exchange is believed to accept messages before it is asked for again; publishing goes on meanwhile."""
REFUSED_AGAIN_S = 10.0
"""How long a refusal is believed, when another message is for the exchange."""
UNANSWERED_AGAIN_S = 1.0
"""Pause after a question without an answer."""
MOST_KNOWN = 1000
"""Of so many exchanges the answers are kept: their names may come out of messages' headers."""

Answer = Literal["open", "unknown"] | Close
"""What is known of an exchange; the close that a publish to it would bring about where it refuses."""


class Known(NamedTuple):
    """What the broker has said of an exchange."""

    answer: Literal["open"] | Close
    ask_again_s: float


class Exchanges:
    """What is known of each exchange, by name as it stands in a publish; one is asked for at a time."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}
        self._wanted: dict[bytes, None] = {}
        """Those that are to be asked for, in their order."""
        self._asking: bytes | None = None
        self._ask_at_s = -inf
        self._all_open_until_s = -inf
        """Until then the last set of exchanges that were all open need not be looked at again."""
        self._all_open: frozenset[bytes] = frozenset()

    def accept_all(self, names: Iterable[bytes], now_s: float) -> bool:
        """Whether all of these are known to accept messages, with nothing to be asked."""
        return now_s < self._all_open_until_s and self._all_open.issuperset(names)

    def consult(self, name: bytes, now_s: float) -> Answer:
        """Have the broker asked about an exchange of which nothing is known, or what is old; return what is known."""
        known = self._known.get(name)
        if (known is None or now_s >= known.ask_again_s) and name != self._asking:
            self._wanted[name] = None
        return "unknown" if known is None else known.answer

    def part(
        self, names: list[bytes], batch: list[Delivery], now_s: float
    ) -> tuple[list[Delivery], list[tuple[Delivery, Close]], list[Delivery]]:
        """Divide a batch into what is accepted, what is refused and by which close, and what waits for an answer.

        `names` are the exchanges of the batch. The first whose exchange is not known makes all after it wait.
        """
        accepted: list[Delivery] = []
        refused: list[tuple[Delivery, Close]] = []
        for number, (name, delivery) in enumerate(zip(names, batch, strict=True)):
            answer = self.consult(name, now_s)
            if answer == "unknown":
                return accepted, refused, batch[number:]
            if isinstance(answer, Close):
                refused.append((delivery, answer))
            else:
                accepted.append(delivery)
        return accepted, refused, []

    @property
    def question_due_s(self) -> float:
        """When the next is to be asked for; -inf for now, inf for never."""
        return self._ask_at_s if self._wanted and self._asking is None else inf

    def take_question(self, now_s: float) -> bytes | None:
        """Hand over the exchange to be asked for now; then call `answered` or `unanswered`. None for none."""
        if self._asking is not None or not self._wanted or now_s < self._ask_at_s:
            return None
        self._asking = next(iter(self._wanted))
        del self._wanted[self._asking]
        return self._asking

    def answered(self, refusal: Close | None, now_s: float) -> None:
        """The broker has answered: it refuses messages for the exchange, or (None) accepts them."""
        assert self._asking is not None  # noqa: S101 - one answer to each question
        self._known.pop(self._asking, None)
        known = Known("open", now_s + OPEN_AGAIN_S) if refusal is None else Known(refusal, now_s + REFUSED_AGAIN_S)
        self._known[self._asking] = known
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._asking = None
        accepting = {name: each.ask_again_s for name, each in self._known.items() if each.answer == "open"}
        self._all_open = frozenset(accepting)
        self._all_open_until_s = min(accepting.values(), default=-inf)

    def unanswered(self, now_s: float) -> None:
        """The broker has not answered; it is asked again when a message is for the exchange."""
        self._asking = None
        self._ask_at_s = now_s + UNANSWERED_AGAIN_S
