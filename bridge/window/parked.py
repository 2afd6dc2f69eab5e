"""Parked deliveries, sans-I/O: the destination alone refuses them, so that others pass.

Those that were *returned* have no route: each is tried again, with a backoff of its own. They take at most a quarter of
the window: beyond it, or after `unroutable_timeout`, the longest-waiting are *unroutable* and go to the quarantine, but
only those since whose first return another message was accepted: a lost binding must not empty a queue into the
quarantine. Those that carry a verdict wait for a quarantine that did not accept them; without one, for an operator.

When several different messages were returned in a row and none was accepted, it is the destination that has no
route. Then nothing may pass, for order's sake: only *probes* are published, until one of them is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from bridge.window.blame import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Close, Delivery
    from bridge.amqp.target import Target
    from bridge.window.pace import Trouble
    from bridge.words import RequeueReason

ASIDE_RETRY_MAX_S = 30.0
"""The longest backoff of a message that was returned."""
RETURNS_IN_A_ROW = 3
"""This many returned in a row and none accepted: it is the destination that has no route. Of an exchange, where that
may be a matter of the message's key or headers, it takes a whole window of different ones."""
FORBIDDEN_IN_A_ROW = 16
"""The same of keys that close the channel: each of them costs a generation."""
NO_ROUTE = 312
"""The reply code of a return (AMQP 0-9-1, 1.2)."""
RETRIES_AT_ONCE = 8
"""At most this many are tried again at a time: each of them makes the others' confirms dearer."""


@dataclass(slots=True)
class Waiting:
    """A delivery that the destination alone refuses, and its next try."""

    delivery: Delivery
    since_s: float
    retry_at_s: float
    attempts: int = 1
    verdict: Verdict | None = None
    """Set when it is the quarantine that it waits for."""
    refusal: Close | None = None
    """The close that its exchange or its routing key brings about; None where it was returned."""
    closed: bool = False
    """Whether it did close a channel: the broker says nothing of a routing key before."""


class Parked:
    """The deliveries of one source generation that are set aside, by delivery tag."""

    def __init__(self, trouble: Trouble, target: Target, prefetch: int) -> None:
        """`trouble` knows how long to wait; `prefetch` is as many as the window holds."""
        self._trouble = trouble
        self._most = max(1, prefetch // 4)
        self._routes_differ = target.routes_differ
        self._probes = RETRIES_AT_ONCE if target.routes_differ else 1
        self._in_a_row = max(RETURNS_IN_A_ROW, prefetch) if target.routes_differ else RETURNS_IN_A_ROW
        self.waiting: dict[int, Waiting] = {}
        self.retried: dict[int, Waiting] = {}
        """Those that were aside and are being tried again, until they are settled."""
        self.returns_in_a_row = 0
        self._routeless = False
        """So many were returned in a row that it is the destination that has no route, until it accepts one."""

    @property
    def deliveries(self) -> list[Delivery]:
        """Those that wait."""
        return [waiting.delivery for waiting in self.waiting.values()]

    @property
    def overfull(self) -> bool:
        """Whether there are so many more than may wait that it is worth looking through them all."""
        return len(self.waiting) > self._most + self._most // 8

    @property
    def everything_returned(self) -> bool:
        """Whether the destination has no route, and a returned message waits that can tell when it has one again."""
        return self.returns_in_a_row >= self._in_a_row and any(w.verdict is None for w in self.waiting.values())

    @property
    def rejected(self) -> str:
        """Reason for holding those that wait for a quarantine, for an operator; empty when there are none."""
        verdicts = [w.verdict for w in (*self.waiting.values(), *self.retried.values()) if w.verdict is not None]
        if not verdicts:
            return ""
        why = verdicts[0].held_text or verdicts[0].reply_text or verdicts[0].reason
        return f"rejects {_messages(len(verdicts))} ({why}); holding them, no quarantine accepts them"

    @property
    def unrouted(self) -> str:
        """Reason for holding those that were returned, for an operator; empty when there are none."""
        # Also those that are being tried again: the reason does not come and go with each try.
        unrouted = [w for w in (*self.waiting.values(), *self.retried.values()) if w.verdict is None]
        refused = [w for w in unrouted if w.refusal is not None]
        if refused and refused[0].refusal is not None:
            what, text = "keys" if refused[0].closed else "exchanges", refused[0].refusal.reply_text
            return f"refuses the {what} of {_messages(len(refused))} ({text}); trying again"
        return f"has no route for {_messages(len(unrouted))}; trying again" if unrouted else ""

    # --- In ----------------------------------------------------------------------------------------------

    def returned(self, delivery: Delivery, now_s: float, refusal: Close | None = None, *, closed: bool = True) -> bool:
        """Set it aside, since it has no route; return whether none has, by now.

        `refusal` is the close that its exchange or routing key brings about, where it was not returned; `closed` says
        that it did close the channel.
        """
        closed = closed and refusal is not None
        before = self.retried.pop(delivery.delivery_tag, None)
        attempts = before.attempts + 1 if before else 1
        since_s = before.since_s if before else now_s
        retry_at_s = now_s + self._trouble.delay_s(attempts, ASIDE_RETRY_MAX_S)
        self.waiting[delivery.delivery_tag] = Waiting(delivery, since_s, retry_at_s, attempts, None, refusal, closed)
        if before is None or self._routeless or not self._routes_differ:
            # Otherwise it says the same again about this message's route, and nothing about the destination.
            self.returns_in_a_row += -(-self._in_a_row // FORBIDDEN_IN_A_ROW) if closed else 1
        self._routeless |= self.returns_in_a_row >= self._in_a_row
        return self.returns_in_a_row >= self._in_a_row

    def park(self, delivery: Delivery, verdict: Verdict, now_s: float, retry_in_s: float) -> bool:
        """Set it aside, to be offered to the quarantine again; return whether it is there for the first time."""
        before = self.retried.pop(delivery.delivery_tag, None)
        since_s = before.since_s if before else now_s
        self.waiting[delivery.delivery_tag] = Waiting(delivery, since_s, now_s + retry_in_s, 1, verdict)
        return before is None

    # --- Out ---------------------------------------------------------------------------------------------

    def accepted(self) -> list[Delivery]:
        """The destination accepted a message: hand over those that may have a route again, since others have."""
        again = self._retry([t for t, w in self.waiting.items() if w.verdict is None]) if self._routeless else []
        self._routeless = False
        self.returns_in_a_row = 0
        return again

    def take_probes(self, *, alone: bool) -> list[Delivery]:
        """Hand over the oldest of the returned, for order's sake; and others when they are `alone`, with none held.

        A single message may be unroutable for ever.
        """
        # The oldest and another: when both are returned the count is at its limit again, and nothing else passes; when
        # one is accepted, `accepted` sets it to 0.
        self.returns_in_a_row = self._in_a_row - 2
        returned = [w for w in self.waiting.values() if w.verdict is None]
        again = {min(w.delivery.delivery_tag for w in returned)}
        if alone:
            soonest = sorted(returned, key=lambda w: w.retry_at_s)
            again.update(w.delivery.delivery_tag for w in soonest[: self._probes])
        return self._retry(again)

    def take_due(self, now_s: float) -> list[Delivery]:
        """Hand over the returned that are to be published again."""
        due = (t for t, w in self.waiting.items() if w.verdict is None and now_s >= w.retry_at_s)
        return self._retry(list(islice(due, RETRIES_AT_ONCE)))

    def take_unroutable(
        self, now_s: float, timeout_s: float, accepted_s: float | None
    ) -> list[tuple[Delivery, Verdict]]:
        """Hand over the returned that are too many or have waited for `timeout_s` (0: for ever), the oldest first.

        `accepted_s` is when the destination last accepted a message.
        """
        if accepted_s is None or self.everything_returned or not self.waiting:
            return []
        returned = sorted((w.since_s, t) for t, w in self.waiting.items() if w.verdict is None)
        surplus = len(returned) - self._most
        gone = [
            self.waiting.pop(tag)
            for number, (since_s, tag) in enumerate(returned)
            if since_s <= accepted_s and (number < surplus or 0 < timeout_s <= now_s - since_s)
        ]
        return [(w.delivery, _unroutable(w.refusal)) for w in gone]

    def take_given_up(
        self, now_s: float, hold_timeout_s: float, *, returned: bool
    ) -> list[tuple[Delivery, RequeueReason]]:
        """Hand over those refused for `hold_timeout_s`, each with the reason; the `returned`, too, or not."""
        late = [
            t
            for t, w in self.waiting.items()
            if now_s - w.since_s >= hold_timeout_s and (returned or w.verdict is not None)
        ]
        gone = [self.waiting.pop(tag) for tag in late]
        if self._routes_differ and not self._routeless:
            # Requeued, they come again with other delivery tags, and would be taken for different messages.
            self.returns_in_a_row = max(0, self.returns_in_a_row - sum(w.verdict is None for w in gone))
        return [(w.delivery, "unroutable" if w.verdict is None else w.verdict.reason) for w in gone]

    def take_offered(self, now_s: float) -> list[tuple[Delivery, Verdict]]:
        """Hand over the parked that are to be offered to the quarantine again."""
        offered = [
            (w.delivery, w.verdict) for w in self.waiting.values() if w.verdict is not None and now_s >= w.retry_at_s
        ]
        self._retry([delivery.delivery_tag for delivery, _ in offered])
        return offered

    def release(self) -> list[Delivery]:
        """Hand over all that wait: they are requeued."""
        released, self.waiting = self.deliveries, {}
        return released

    def settled(self, delivery_tag: int) -> None:
        """A delivery has been acked or requeued."""
        self.retried.pop(delivery_tag, None)

    def _retry(self, delivery_tags: Iterable[int]) -> list[Delivery]:
        again = {tag: self.waiting.pop(tag) for tag in delivery_tags}
        self.retried |= again
        return [waiting.delivery for waiting in again.values()]


def _unroutable(refusal: Close | None) -> Verdict:
    code, text = (NO_ROUTE, "NO_ROUTE") if refusal is None else (refusal.reply_code, refusal.reply_text)
    return Verdict("unroutable", code, text)


def _messages(number: int) -> str:
    return f"{number} message{'s' * (number != 1)}"
