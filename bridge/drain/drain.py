"""A drain: a bridge that is given its terms, watched, and stopped when it is over; then the receipt is written."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bridge.amqp.origin import Origins
from bridge.drain.breaker import Breaker
from bridge.drain.digest import Tally
from bridge.drain.finish import Conclusion, Finish
from bridge.drain.progress import Standing
from bridge.drain.receipt import Counts, End, Receipt
from bridge.drain.selection import Moved
from bridge.drain.survey import inquiring, survey_destination, survey_source
from bridge.drain.watch import Watch
from bridge.errors import ConnectError, ExhaustedError
from bridge.observe.text import hide
from bridge.version import __version__
from bridge.window.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.connection.supervisor import Supervisor
    from bridge.drain.finish import Look
    from bridge.drain.plan import DrainPlan
    from bridge.drain.progress import Shown
    from bridge.settings.settings import Settings

    Assemble = Callable[[Settings, Terms], Supervisor]

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
LEAST_SHARE = 0.02
"""A ramp begins with this share of the rate."""
MOST_PUBLISHED = 1000
"""So many are published at once, however many one consumer may hold of what is not wanted."""


@dataclass(slots=True)
class Held:
    """What the bridge had not moved when it was told to stop."""

    withheld: int = 0
    parked: int = 0
    reasons: tuple[str, ...] = field(default=())


class Drain:
    """One drain, from its first connection to its receipt."""

    def __init__(self, settings: Settings, plan: DrainPlan, assemble: Assemble, show: Shown) -> None:
        self._settings = settings
        self._plan = plan
        self._show = show
        wanted = plan.request
        self._moved: Moved | None = None
        origins = None
        if wanted.to_original is not None:
            origins = Origins.back(wanted.to_original, plan.source.name, secrets.token_hex(8))
        if origins is not None or wanted.wanted:
            self._moved = Moved(wanted.wanted, origins, wanted.allowed, plan.most_moved)
        self._tally = Tally(origins)
        terms = Terms(
            most=plan.most,
            metered=wanted.exact,
            most_published=MOST_PUBLISHED,
            selection=self._moved,
            proof=self._tally,
            target=origins,
        )
        self._supervisor = assemble(settings, terms)
        self._breaker = Breaker(plan.source.ready)
        self._watch = Watch(self._supervisor.window, self._supervisor.relay.steering)
        self._finish = Finish(settings.hold_timeout)
        self._ending: Conclusion | None = None
        self._held = Held()
        self._signal = 0
        self._started = datetime.now(UTC)
        self._started_s = 0.0

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop, or is over."""
        return self._supervisor.stopping

    def interrupt(self, number: int) -> None:
        """A signal: finish what is in flight, and end."""
        if self._ending is None:
            self._signal = number
            log.info("%s received", signal.Signals(number).name)
            self._end(Conclusion.SIGNAL)

    def unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take an exception that nobody has: without memory there may be hundreds, and each says the same."""
        if isinstance(context.get("exception"), MemoryError):
            self._supervisor.exhausted("for what the network brought")
        else:
            loop.default_exception_handler(context)

    async def run(self) -> Receipt:
        """Move what there is to move; return the receipt."""
        loop = asyncio.get_running_loop()
        self._started_s = loop.time()
        watching = loop.create_task(self._keep_looking())
        watching.add_done_callback(self._looked)
        try:
            await self._supervisor.run()
        except ExhaustedError:
            self._ending = Conclusion.FAILED  # it was logged when it was seen
        finally:
            watching.cancel()
            with suppress(OSError):
                self._show.close()
        return await self._receipt(loop.time() - self._started_s)

    async def _keep_looking(self) -> None:
        """Look at the bridge until it is over."""
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            with suppress(OSError):  # that nobody sees it any more ends no drain
                self._show.show(self._state(), now_s)
            if ramp_s := self._plan.request.ramp_s:
                share = (now_s - self._started_s) / ramp_s
                self._supervisor.window.pace(min(1.0, max(LEAST_SHARE, share)))
            if self._ending is None:
                ending = Conclusion.RETURNS if self._comes_back() else self._finish.look(self._look(now_s))
                if ending is not None:
                    self._end(ending)
            await asyncio.sleep(LOOK_EVERY_S)

    def _looked(self, watching: asyncio.Task[None]) -> None:
        """Nobody looks any more: where a bug is the reason, nobody else would end the drain."""
        if not watching.cancelled() and (error := watching.exception()) is not None:
            log.error("a bug in the bridge ended the drain", exc_info=error)
            self._end(Conclusion.FAILED)

    def _end(self, ending: Conclusion) -> None:
        window = self._supervisor.window
        self._ending = ending
        reasons = [text for text in (window.hindrance, *window.degraded) if text]
        self._held = Held(window.withheld, window.parked, tuple(dict.fromkeys(reasons)))
        self._supervisor.stop()

    def _comes_back(self) -> bool:
        """Look whether what is moved comes back to the source."""
        window, steering = self._supervisor.window, self._supervisor.relay.steering
        backlog = self._supervisor.status.source.backlog
        if steering.last_found is not None:
            self._breaker.begins(steering.last_found.ready)
        return self._breaker.look(
            moved=window.done,
            taken=window.done + window.in_flight,
            ready=backlog.messages,
            answered_s=backlog.asked_s,
            came_back=0 if self._moved is None else self._moved.came_back,
        )

    def _look(self, now_s: float) -> Look:
        status = self._supervisor.status
        return self._watch.look(
            status.source.backlog, now_s, source_up=status.source.up, destination_up=status.destination.up
        )

    def _state(self) -> Standing:
        window = self._supervisor.window
        backlog = self._supervisor.status.source.backlog
        return Standing(window.done, self._plan.most, window.in_flight, backlog.messages)

    # --- The receipt -------------------------------------------------------------------------------------

    async def _receipt(self, seconds: float) -> Receipt:
        books, held, plan = self._supervisor.books, self._held, self._plan
        done = self._supervisor.window.done
        asked = int(plan.most) if self._supervisor.window.terms.numbered else None
        requeued = sum(books.requeued.values())
        refused = min(requeued, held.parked)
        lost = [self._supervisor.status.source, self._supervisor.status.destination]
        source_after, destination_after = await self._depths()
        return Receipt(
            bridge=__version__,
            started=_iso(self._started),
            ended=_iso(datetime.now(UTC)),
            seconds=seconds,
            source=End(plan.source.url, plan.source.name, plan.source.ready, source_after),
            destination=End(plan.destination.url, plan.destination.name, plan.destination.ready, destination_after),
            counts=Counts(
                asked=asked,
                taken=books.received - books.stale_held - books.stale_published,
                moved=self._tally.messages,
                suppressed=books.suppressed,
                returned=requeued - refused,
                refused=refused,
                left=None if asked is None or plan.request.wanted else max(0, asked - done),
                size_bytes=self._tally.size_bytes,
                digest=self._tally.digest,
                duplicates_possible=books.duplicates_possible,
                connections_lost=sum(
                    number
                    for side in lost
                    for reason, number in side.generations_ended.items()
                    if reason != "closed-by-us"
                ),
            ),
            ending=self._concluded,
            signal=self._signal,
            doubts=tuple(plan.doubts),
            reasons=tuple(hide(reason, self._settings.secrets()) for reason in held.reasons),
            kept={} if self._moved is None else dict(self._moved.kept),
            targets=dict(self._tally.targets),
        )

    @property
    def _concluded(self) -> Conclusion:
        """How it has ended, for the receipt: what has nowhere to go was asked for, and is not moved."""
        ending = self._ending or Conclusion.FAILED
        over = ending in {Conclusion.COMPLETE, Conclusion.EMPTY}
        return Conclusion.STAYED if over and self._moved is not None and self._moved.nowhere_to_go else ending

    async def _depths(self) -> tuple[int | None, int | None]:
        """Return how long both queues are now; None where nobody says."""
        settings = self._settings
        found: list[int | None] = []
        for side, survey in ((settings.source, survey_source), (settings.destination, survey_destination)):
            try:
                async with inquiring(settings, side) as inquiry:
                    found.append((await survey(settings, inquiry)).ready)
            except ConnectError as error:
                log.warning("how long queue %s is now is not known: %s", side.queue, error)
                found.append(None)
        return found[0], found[1]


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
