"""The brake, sans-I/O: whether the destination's queue is in a state in which the bridge is to rest.

It rests when so many messages wait there, until half of them do, or while it has too few consumers; and while nobody
can say. What may be published between two answers is the window's `quota`: when it is used up, nothing more is, until
the queue has been counted again.

What it does not do: count, which is `connection/counting`'s; nor cancel and drain, which is `steering`'s.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.relay.queue import QueueState
    from bridge.window.window import Window
    from bridge.words import BrakeReason

ASK_AGAIN_S = 0.1
"""From one question to the next, where messages wait for the answer: at most ten a second."""
RESTING_ASK_S = 1.0
"""From one question to the next, while the bridge rests."""


class Brake:
    """What is known of the destination's queue, and what follows."""

    def __init__(self, window: Window, max_ready: int = 0, min_consumers: int = 0) -> None:
        """0 for what is not looked at."""
        self._window = window
        self._max_ready, self._min_consumers = max_ready, min_consumers
        self.reason: BrakeReason | None = None
        """What the queue's state asks for a rest by."""
        self.text = ""
        """The same for an operator."""
        self.trouble = ""
        """Why nobody can say what the queue's state is; it rests for that, too."""
        self._awaits = False
        self._asked_s = -inf

    @property
    def rests(self) -> bool:
        """Whether the bridge is to rest."""
        return self.reason is not None or bool(self.trouble)

    @property
    def holds(self) -> bool:
        """Whether nothing may be published before the queue has been counted again."""
        quota = self._window.quota
        return quota is not None and not quota.left

    @property
    def question_due_s(self) -> float:
        """When the queue is to be counted, besides the regular times; `inf` for not at all."""
        if self._awaits or not self._window.destination_ready:
            return inf
        if self.rests:
            return self._asked_s + RESTING_ASK_S
        return self._asked_s + ASK_AGAIN_S if self.holds else inf

    def ask(self, now_s: float) -> None:
        """Somebody is asked to have the queue counted."""
        self._awaits, self._asked_s = True, now_s

    def asked(self, now_s: float) -> None:
        """The question goes out now."""
        self.ask(now_s)
        if self._window.quota is not None:
            self._window.quota.asked(self._window.unconfirmed)

    def answered(self, found: QueueState) -> None:
        """The queue has been counted."""
        self._awaits, self.trouble = False, ""
        if self._window.quota is not None:
            self._window.quota.answered(found.ready)
        self._judge(found)

    def uncounted(self, why: str = "") -> None:
        """The answer was not believed; or there is none, for the reason `why`.

        That is a trouble of its own only where the destination is well otherwise.
        """
        self._awaits = False
        if self._window.quota is not None:
            self._window.quota.forget()
            self.trouble = f"its queue cannot be counted: {why}" if why and self._window.destination_ready else ""

    def _judge(self, found: QueueState) -> None:
        """Rest when it is full until it is half so; rest while it has too few consumers."""
        most = self._max_ready // 2 if self.reason == "max-ready" else self._max_ready - 1
        if self._max_ready and found.ready > most:
            self.reason = "max-ready"
            self.text = (
                f"{found.ready} messages wait in its queue (BRIDGE_DESTINATION_MAX_READY is {self._max_ready}); "
                f"goes on at {self._max_ready // 2}"
            )
        elif found.consumers < self._min_consumers:
            self.reason = "min-consumers"
            self.text = (
                f"its queue has {found.consumers} consumers (BRIDGE_DESTINATION_MIN_CONSUMERS is {self._min_consumers})"
            )
        else:
            self.reason, self.text = None, ""
