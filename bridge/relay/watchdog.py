"""The watchdog, sans-I/O: which generation looks alive, makes no progress, and must be ended.

A connection that is up, with heartbeats, can still be of no use: an answer or a confirm never comes, or the
queue delivers nothing although it is not empty, since the broker lost the consumer (known of quorum queues
after a partition). `steering` asks it before every decision. Where a new generation has not helped several times
in a row, `stuck` says so, and readiness repeats it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bridge.words import EndReason  # noqa: TC001 - a named tuple names its types

if TYPE_CHECKING:
    from collections.abc import Hashable

    from bridge.relay.queue import QueueState
    from bridge.window.window import Window

ASK_EVERY_S = 15.0
"""How long a queue may deliver nothing, while there is room, before it is asked how many messages it has."""
PATIENCE_BESIDE_OTHERS_S = 600.0
"""How long a queue with other consumers may deliver nothing to this one, which may well be a standby."""
ENDED_WITHOUT_PROGRESS = 3
"""After this many generations in a row without progress, reconnecting does not help."""


class Ending(NamedTuple):
    """Reason to end a generation: a word for `/metrics`, a sentence for the log."""

    reason: EndReason
    text: str


class Lasting:
    """For how long something has been the same."""

    def __init__(self) -> None:
        self._what: Hashable = None
        self._since_s = 0.0

    def observe(self, what: Hashable, now_s: float) -> float:
        """Note what it is now; return for how many seconds it has been so. 0 for None, which is nothing to wait for."""
        if what != self._what:
            self._what, self._since_s = what, now_s
        return 0.0 if what is None else now_s - self._since_s

    @property
    def since_s(self) -> float | None:
        """Monotonic time from which it has been what it is; None for nothing to wait for."""
        return None if self._what is None else self._since_s


class Watched(Protocol):
    """What the watchdog looks at: the steering."""

    window: Window

    @property
    def cancelling(self) -> bool:
        """Whether a consumer is being cancelled: all, or the one that is replaced."""

    @property
    def stream(self) -> bool:
        """Whether the source is known to be a stream, which keeps what it has delivered."""

    @property
    def paused(self) -> bool:
        """Whether the source is not read from."""

    @property
    def publishes(self) -> bool:
        """Whether what is held is to be published."""

    @property
    def received(self) -> tuple[int, ...]:
        """How much has been received from the source, in numbers that change whenever more comes."""

    @property
    def expects_deliveries(self) -> bool:
        """Whether the source would deliver if it had something."""


class Watchdog:
    """Watches a bridge's two sides. A stream is not asked what it has."""

    def __init__(self, watched: Watched, ask_every_s: float = ASK_EVERY_S) -> None:
        self._watched = watched
        self._ask_every_s = ask_every_s
        self._answer = Lasting()
        self._silence = Lasting()
        self._stall = Lasting()
        self._unpublished = Lasting()
        self._unsent_bytes = 0
        self._moved_s = -inf
        """When bytes last moved through the destination's socket."""
        self._ask_at_s = 0.0
        self._others_consume = self._uncounted = False
        """Other consumers were there before this one; this one's generation was last ended since it was not counted."""
        self._received_before = 0
        """How many had been received when the consumer began."""
        self._source_endings: list[str] = []
        self._destination_endings: list[str] = []
        """Reasons for which generations were ended since there was progress on that side."""
        self._received = self._forwarded = 0

    @property
    def stuck(self) -> str:
        """What reconnecting did not mend; empty while there is progress, or hope."""
        for texts in (self._source_endings, self._destination_endings):
            if len(texts) >= ENDED_WITHOUT_PROGRESS:
                return f"{texts[-1]}; reconnected {len(texts)} times without success"
        return ""

    # --- The destination ---------------------------------------------------------------------------------

    def watch_destination(self, now_s: float, unsent_bytes: int = 0) -> Ending | None:
        """Look at the destination's progress; return the reason to end its generation now, None for no reason.

        `unsent_bytes` are in the socket's buffer: while they become fewer, a large message is on a slow way, unless one
        that was published after it has been confirmed.
        """
        window = self._watched.window
        timeout_s = window.limits.confirm_timeout_s
        if window.books.forwarded != self._forwarded or not (window.in_flight or window.publishing):
            self._forwarded = window.books.forwarded
            self._destination_endings.clear()
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes, self._moved_s = unsent_bytes, now_s
        may = self._watched.publishes and not window.throttled(now_s)
        idle = window.publishable and may and not window.publishing
        ending = None
        on_its_way = now_s - self._moved_s < timeout_s and not window.confirm_overtaken
        if window.confirm_overdue(now_s) and not on_its_way:
            ending = Ending("confirm-timeout", f"no confirm for {timeout_s:g} s")
        elif self._unpublished.observe(window.books.forwarded if idle else None, now_s) >= timeout_s:
            ending = Ending("stalled", f"nothing could be written to the destination for {timeout_s:g} s")
        if ending is not None:
            self._unpublished = Lasting()
            self._destination_endings.append(f"destination: {ending.text}")
        return ending

    # --- The source --------------------------------------------------------------------------------------

    def watch_source(self, now_s: float) -> Ending | None:
        """Look at the source's progress; return the reason to end its generation now, None for no reason."""
        watched = self._watched
        timeout_s = watched.window.limits.confirm_timeout_s
        self._see_progress()
        awaited: tuple[EndReason, object] | None = None
        if (first := watched.window.first_quarantining) is not None:
            awaited = "quarantine-timeout", first
        elif watched.cancelling and not watched.paused:
            awaited = "cancel-timeout", watched.received
        if self._answer.observe(awaited, now_s) < timeout_s or awaited is None:
            return None
        what = "publish to the quarantine" if awaited[0] == "quarantine-timeout" else "basic.cancel"
        return self._end_source(Ending(awaited[0], f"no answer to a {what} for {timeout_s:g} s"))

    def consuming(self, before: QueueState, received_before: int) -> None:
        """Note that a consumer has begun, what the queue said of itself right before, and how many had come by then."""
        self._silence = Lasting()
        self._stall = Lasting()
        self._others_consume = before.consumers > 0
        self._received_before = received_before

    def question_due(self, now_s: float) -> bool:
        """Whether the queue should be asked for its state, since it delivers nothing; then call `answered`."""
        watched = self._watched
        expected = watched.expects_deliveries and not watched.stream
        silence_s = self._silence.observe(watched.received if expected else None, now_s)
        return silence_s >= self._ask_every_s and now_s >= self._ask_at_s

    @property
    def question_due_s(self) -> float:
        """When the queue will be due to be asked, if nothing comes; `question_due` has been called before."""
        since_s = self._silence.since_s
        if self._watched.stream or since_s is None:
            return inf
        return max(since_s + self._ask_every_s, self._ask_at_s)

    def answered(self, found: QueueState | None, now_s: float) -> Ending | None:
        """Take the queue's answer, None where there was none; return the reason to end the generation now, if any."""
        watched = self._watched
        self._ask_at_s = now_s + self._ask_every_s
        self._see_progress()
        if found is not None and not found.ready:
            self._source_endings.clear()
        stalled = watched.expects_deliveries and (found is None or found.ready > 0)
        stalled_s = self._stall.observe(watched.received if stalled else None, now_s)
        # One that has received something was no standby.
        had_none = watched.window.books.received == self._received_before
        may_wait = had_none and (self._others_consume or self._uncounted)
        beside_others = found is not None and (found.consumers > 1 or may_wait)
        if stalled_s < (PATIENCE_BESIDE_OTHERS_S if beside_others else self._ask_every_s):
            return None
        what = "does not say how many it has"
        if found is not None:
            what = f"has {found.ready} messages ready and {found.consumers} consumers"
        ending = self._end_source(Ending("stalled", f"the queue delivers nothing, and {what}"))
        self._uncounted = found is not None and not found.consumers
        if beside_others:
            self._source_endings.clear()  # a standby is as it should be
        return ending

    def _see_progress(self) -> None:
        received = self._watched.window.books.received
        if received != self._received:
            self._received = received
            self._source_endings.clear()

    def _end_source(self, ending: Ending) -> Ending:
        self._answer = Lasting()
        self._source_endings.append(f"source: {ending.text}")
        return ending
