"""One schedule: brokers, bridges and time, played by a seeded scheduler; then all heals and everything is counted."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from bridge.amqp.target import OriginalRoutes, Target
from bridge.drain.finish import Conclusion
from bridge.window.limits import LIMIT_MARGIN, WindowLimits
from tests.simulation.destination import EXCHANGE, QUEUE, Destination, DestinationConnection, Refusals
from tests.simulation.draining import Errand
from tests.simulation.faults import (
    BRIDGE_FAULTS,
    DESTINATION_FAULTS,
    OTHER_FAULTS,
    QUARANTINE_FAULTS,
    SOURCE_FAULTS,
    Faults,
)
from tests.simulation.ledger import Ledger
from tests.simulation.messages import NARROW_FRAME_MAX, Changes, make_message, make_retry, make_twin
from tests.simulation.process import Process, Session, Setup
from tests.simulation.report import Report, ScheduleError
from tests.simulation.source import Source, SourceConnection
from tests.simulation.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.messages import Keeps, Message

TARGETS: dict[Keeps, Target] = {
    "nothing": Target.queue(QUEUE),
    "key": Target(EXCHANGE),
    "exchange and key": OriginalRoutes(),
}
ALL_FAULTS = (*SOURCE_FAULTS, *DESTINATION_FAULTS, *BRIDGE_FAULTS, *QUARANTINE_FAULTS, *OTHER_FAULTS)
UNCOUNTABLE = {*DESTINATION_FAULTS, "bridge-stopped", "bridge-killed"}
"""Faults after which something that nobody counts may still arrive, from a connection that has ended."""
HEALED_WITHIN_S = 400.0
"""Of simulated time, once no more faults happen: everything is drained."""
WARM = 0.8
"""Chance that a schedule begins with both sides up and the consumer on: getting there takes many events."""
STOPPED_WITHIN = 6
"""Ticks of 50 ms that a healthy bridge takes to stop."""
LATE_FAILURES = 3
"""Answers of the quarantine that may fail after all else has healed: that is when most messages get there."""
SPOILT_FIT_BYTES = 1 << 20
"""More than all messages of a schedule together."""
DRAINS = 0.15
"""Share of schedules in which drains move the messages, one after the other, each of which ends by itself."""
DRAINED_WITHIN = 3
"""So many drains at the most until one has moved all that was asked for, once all has healed."""
TRACKED = 0.8
"""Share of streams whose offset is stored."""
NOT_OF_STREAMS = {"other-takes", "other-returns", "purge", "expiry", "consumer-timeout"}
"""Faults that a stream does not know."""
NOT_OF_DRAINS = {"bridge-paused", *QUARANTINE_FAULTS}
"""Faults that a drain does not know."""
SETTLED_WITHIN = 60
"""Rounds in which everybody does at once what there is to do."""


class Schedule:
    """One seed."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self._trace = trace
        rng = self.rng = Random(seed)
        self.now_s = 1000.0
        self.report = Report(schedules=1)
        self.ledger = Ledger()
        kind = rng.choice(("classic", "quorum-3.10", "quorum-4.3", "stream"))
        self.ledger.stream = kind == "stream"
        self.errand = Errand.draw(rng) if rng.random() < DRAINS and not self.ledger.stream else None
        """What each of the drains is asked for; None where there are bridges."""
        self.names = self.names_drawn = self._draw_faults()
        keeps = self._draw_target()
        self.pair = self.errand is None and not self.ledger.stream and rng.random() < 0.08
        """Two bridges on one queue."""
        self.ledger.in_order = not self.pair
        self.ids = rng.choice((1.0, 1.0, 0.5, 0.0))
        delivery_limit = 0 if self.ledger.stream else rng.choice((0, 6, 20))
        limits, min_consumers = self._draw_limits(delivery_limit, own_routes=keeps != "nothing")
        self.setup = Setup(
            limits,
            TARGETS[keeps],
            keeps,
            destination_min_consumers=min_consumers,
            deduplication=rng.random() < 0.8,
            source_frame_max=rng.choice((0, 4096, 512)),
            # What a stream adds to each header table leaves no room for what only just fits.
            destination_frame_max=rng.choice((0, 4096) if self.ledger.stream else (0, 4096, NARROW_FRAME_MAX)),
            socket_bytes=rng.choice((300, 1 << 20)),
        )
        auto_delete = kind == "classic" and rng.random() < 0.2
        self.source = (
            Stream(rng, self.ledger, tracked=rng.random() < TRACKED)
            if kind == "stream"
            else Source(rng, self.ledger, kind, delivery_limit, auto_delete=auto_delete)
        )
        newer = rng.random() < 0.5
        self.changes = Changes(
            sorts=newer, normalises=newer, stamps=newer and rng.random() < 0.5, mangles=rng.random() < 0.05
        )
        self.destination = Destination(rng, self.ledger, self.changes, keeps)
        self.destination.consumers = rng.choice((0, 1, 3))
        self.processes: list[Process] = []
        self._endings: list[Conclusion | None] = []
        """How each drain has ended; None for one that was stopped or killed."""
        self.counted = 0
        """Duplicates that the bridges which have ended held possible."""
        self._connections_lost = 0
        self.messages_left = rng.randint(5, 60)
        self._number = 0
        self._recent: deque[Message] = deque(maxlen=8)
        """The last that were published."""
        self._faults = Faults(self)
        self._fault_rate = rng.choice((0.01, 0.03, 0.08))
        self._failing_answers = rng.choice((5, 50)) if "quarantine-fails" in self.names else 0
        """How many answers of the quarantine may still be others than a confirm."""
        self._whole_chunks = rng.random() < 0.5
        self.retry_rate = rng.choice((0.0, 0.1, 0.4))
        """Share of messages that have id and body of one before them."""
        often = bool({*QUARANTINE_FAULTS} & {*self.names})
        self._poison_rate = 0.0 if "poison" not in self.names else 0.3 if often else 0.15
        self._spoiling_rate = 0.3 if "quarantine-spoilt" in self.names else 0.0
        fits = self.setup.destination_frame_max != NARROW_FRAME_MAX
        self._wide_rate = 0.0 if not (limits.quarantine or fits) else 0.3 if often else 0.03
        """Of messages whose headers a destination may not be able to take."""
        self._kinds = frozenset({"large"} if fits else ())

    def _draw_target(self) -> Keeps:
        """What messages keep of their own routes."""
        rng, names = self.rng, {*self.names}
        if rng.random() < (0.6 if {"exchange-missing", "exchange-forbidden"} & names else 0.1):
            return "exchange and key"
        return "key" if rng.random() < (0.7 if {"dead-key", "forbidden-key"} & names else 0.2) else "nothing"

    def _draw_limits(self, delivery_limit: int, *, own_routes: bool) -> tuple[WindowLimits, int]:
        """What the window is held to, and how many consumers its brake asks for; 0 for any number."""
        rng = self.rng
        limits = WindowLimits(
            prefetch=rng.choice((1, 3, 8, 20, 50)),
            max_in_flight_bytes=rng.choice((400, 3000, 64 << 20, 64 << 20)),
            confirm_timeout_s=30.0,
            hold_timeout_s=60.0,
            delivery_limit=delivery_limit,
            quarantine=rng.random() < 0.8,
        )
        if rng.random() < 0.15:
            limits = replace(limits, max_rate=rng.choice((5, 50, 1000)), max_bytes_per_s=rng.choice((0, 2000, 100_000)))
        min_consumers = 0
        if self.errand is not None:
            return replace(limits, quarantine=False), min_consumers
        if not own_routes and rng.random() < 0.2:
            min_consumers = rng.choice((0, 0, 1, 2))
            max_ready = rng.choice((1, 4, 20)) if not min_consumers else rng.choice((0, 5))
            limits = replace(limits, destination_counted=True, destination_max_ready=max_ready)
        return limits, min_consumers

    def _draw_faults(self) -> tuple[str, ...]:
        rng = self.rng
        kind = rng.random()
        if kind < 0.05:
            return ()
        if kind < 0.25:
            pool: tuple[str, ...] = SOURCE_FAULTS
        elif kind < 0.4:
            pool = DESTINATION_FAULTS
        elif kind < 0.5:
            pool = (*BRIDGE_FAULTS, *SOURCE_FAULTS)
        elif kind < 0.65:
            pool = (*QUARANTINE_FAULTS, *QUARANTINE_FAULTS, *rng.sample(ALL_FAULTS, 2))
        else:
            pool = ALL_FAULTS
        names = rng.sample(pool, rng.randint(1, min(6, len(pool))))
        if {*QUARANTINE_FAULTS} & {*names}:
            names += ["poison", "too-large"]
        if self.ledger.stream:
            return tuple(name for name in names if name not in NOT_OF_STREAMS)
        return tuple(name for name in names if name not in (NOT_OF_DRAINS if self.errand else {"retention"}))

    # --- Playing -----------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Play it to its end. Raises `ScheduleError` when anything is not as it must be."""
        try:
            self._play()
        except Exception as error:
            message = f"seed {self.seed}, event {self.report.events}: {type(error).__name__}: {error}"
            raise ScheduleError(message) from error
        return self.report

    def _play(self) -> None:
        rng = self.rng
        if self.errand is not None:
            self.publish()
            self.publish()
        self.start_bridge()
        if self.pair:
            self.start_bridge()
        if {*QUARANTINE_FAULTS} & {*self.names}:
            for name in sorted({"poison", "too-large", "quarantine-spoilt"} & {*self.names}):
                self._faults.inject(name)
        if rng.random() < WARM:
            self.publish()
            self.settle()
        for _ in range(rng.randint(40, 240)):
            if self.names and rng.random() < self._fault_rate:
                name = rng.choice(self.names)
                if self._faults.inject(name):
                    self.report.faults[name] += 1
                    self.tell(name)
            else:
                (event,) = rng.choices(EVENTS, cum_weights=CUMULATIVE_WEIGHTS)
                event(self)
            self._look()
        self._heal()
        if self.errand is not None:
            self._end_drains()
        self._drain()
        self._count()

    def tell(self, text: str) -> None:
        """Say what happens, to whoever replays a seed."""
        if self._trace is not None:
            self._trace(f"{self.report.events:4} {self.now_s - 1000:8.3f} s  {text}")

    def _look(self) -> None:
        """After every event: let bridges go that have drained, and hold the others to their invariants."""
        self.report.events += 1
        for process in list(self.processes):
            if process.gone:
                self.tell("a bridge has stopped")
                self.bridge_ended(process)
            elif not process.relay.source.has_data_to_send:  # else it has decided, and is about to say so
                process.witness.audit()
        if self._trace is not None:
            states = [f"{p.steering.consumer.value} {p.window.in_flight}/{p.books.published}" for p in self.processes]
            self.tell(f"    source {self.source.waiting}+{self.source.unsettled}, bridges {states}")

    def start_bridge(self) -> None:
        """A bridge's process begins."""
        self.processes.append(
            Process(self.rng, self.setup, self.source, self.destination, self.ledger, errand=self.errand)
        )

    def bridge_ended(self, process: Process) -> None:
        """Its books are closed; another is started, as an orchestrator does."""
        self.processes.remove(process)
        books = process.books
        if process.drainage is not None:
            process.drainage.audit(process)
            if not self.names_drawn:
                process.drainage.audit_undisturbed(process)
            self._endings.append(process.drainage.ending)
            self.report.drains += process.drainage.ending is not None
        self.counted += books.duplicates_possible
        self._connections_lost += process.connections_lost
        report = self.report
        report.suppressed += books.suppressed
        report.quarantined += sum(books.quarantined.values())
        report.stale += books.stale_held + books.stale_published
        self.source.forget_bridge()
        self.start_bridge()

    # --- Events ------------------------------------------------------------------------------------------

    def _amount(self, available: int) -> int:
        """How much of what is there is taken: a chunk ends anywhere."""
        rng = self.rng
        if self._whole_chunks or rng.random() < 0.3:
            return available
        return rng.randint(1, rng.choice((4, 60, max(1, available))))

    def publish(self) -> None:
        """Somebody publishes messages at the source."""
        rng = self.rng
        for _ in range(min(self.messages_left, rng.randint(1, 12))):
            self.messages_left -= 1
            self._number += 1
            kind = rng.random() if self._recent else 1.0
            if kind < 0.03 and self._may_be_twin(self._recent[-1]):
                message = make_twin(self._recent[-1], self._number)
            elif kind < self.retry_rate:
                message = make_retry(rng, rng.choice(self._recent), self._number)
            else:
                wide = {"wide"} if rng.random() < self._wide_rate else set()
                message = make_message(
                    rng,
                    self._number,
                    with_id=rng.random() < self.ids,
                    keeps=self.setup.keeps,
                    kinds=self._kinds | wide,
                )
            if "expiry" in self.names and rng.random() < 0.1:
                message.expires_s = self.now_s + rng.choice((0.0, 0.5, 5.0))
                self.report.faults["expiry"] += 1
            # What the quarantine cannot take, since its header frame is too large there, would be held for ever.
            message.poison = rng.random() < self._poison_rate and not message.has_large_header
            message.spoils = rng.random() < self._spoiling_rate
            self._recent.append(message)
            self.source.publish(message)
        self.report.messages = self._number

    def _may_be_twin(self, message: Message) -> bool:
        """Deduplication trusts that a message id is one message's own."""
        return not self.setup.deduplication or "message_id" not in message.properties

    def _source_receives(self) -> None:
        if self.source.connections:
            self._source_reads(self.rng.choice(self.source.connections), self.rng.choice((0, 1)))

    def _source_reads(self, connection: SourceConnection, whole: int) -> bool:
        pipe = connection.link.to_broker
        if connection.link.frozen or not (pipe.data or pipe.ended):
            return False
        self.source.now_s = self.now_s
        size = len(pipe.data)
        self.source.receive(connection, size if whole else self._amount(size))
        return True

    def _source_delivers(self) -> None:
        if self.source.connections:
            connection = self.rng.choice(self.source.connections)
            self.source.now_s = self.now_s
            number = self.source.deliver(connection, self.rng.choice((1, 5, 50)))
            if number:
                self.tell(f"the source delivers {number}")

    def _quarantine_answers(self) -> None:
        for connection in self.source.connections:
            if connection.unanswered and not connection.closed:
                answer = "ack"
                if self._failing_answers and self.rng.random() < 0.5:
                    self._failing_answers -= 1
                    answer = self.rng.choice(("nack", "return", "close"))
                    self.report.faults["quarantine-fails"] += 1
                self.tell(f"the quarantine answers {answer}; {len(connection.unanswered)} are on their way")
                if answer == "close":
                    code = self.rng.choice((404, 403, 406, 541))
                    self.source.close_quarantine(connection, code, "closed without cause")
                else:
                    self.source.answer_quarantine(connection, answer)

    def _quarantine_answers_all(self) -> bool:
        active = False
        while any(c.unanswered and not c.closed for c in self.source.connections):
            self._quarantine_answers()
            active = True
        return active

    def _destination_receives(self) -> None:
        if self.destination.connections:
            self._destination_reads(self.rng.choice(self.destination.connections), self.rng.choice((0, 1)))

    def _destination_reads(self, connection: DestinationConnection, whole: int) -> bool:
        pipe = connection.link.to_broker
        if connection.link.frozen or not (pipe.data or pipe.ended) or connection.told_blocked:
            return False
        self.destination.now_s = self.now_s
        size = len(pipe.data)
        self.destination.receive(connection, size if whole else self._amount(size))
        return True

    def _destination_confirms(self) -> None:
        for connection in self.destination.connections:
            if connection.pending and not connection.closed:
                self.destination.confirm(connection)

    def _offset_is_stored(self) -> None:
        for process in self.processes:
            process.store_offset()

    def _destination_counts(self) -> None:
        for process in self.processes:
            process.count(self.now_s, self.rng.random())

    def _destination_is_asked(self) -> None:
        for process in self.processes:
            process.ask_exchange(self.now_s, self.rng.random())

    def _destination_consumes(self) -> None:
        """Somebody consumes from the destination's queue; consumers come and go."""
        if self.rng.random() < 0.1:
            self.destination.consumers = self.rng.choice((0, 0, 1, 3))
        self.destination.consume()

    def _bridge_reads(self) -> None:
        process = self.rng.choice(self.processes)
        for session in self.rng.sample((process.source, process.destination), 2):
            if session is not None:
                self._reads(process, session, whole=False)

    def _reads(self, process: Process, session: Session, *, whole: bool) -> bool:
        pipe = session.link.to_bridge
        if session.link.frozen or not (pipe.data or pipe.ended) or (session is process.source and process.paused):
            return False
        size = len(pipe.data)
        process.read(session, size if whole else self._amount(size), self.now_s)
        return True

    def _steer(self) -> None:
        for process in self.processes:
            if process.source is None:
                process.connect_source(self.now_s)
            else:
                process.steer(process.source, self.now_s)
            if process.gone:
                continue
            if process.destination is None:
                process.connect_destination(self.now_s)
            else:
                process.steer(process.destination, self.now_s)

    def _time_passes(self) -> None:
        self.advance(self.rng.choice((0.01, 0.05, 0.2, 1.0)))

    def advance(self, seconds: float) -> None:
        """Time passes, and the bridges are told."""
        self.now_s += seconds
        for process in self.processes:
            process.tick(self.now_s)

    def settle(self) -> None:
        """Everybody does what there is to do until nobody has anything to do, but for time to pass."""
        connect = True
        for _ in range(SETTLED_WITHIN):
            if not self._round(connect=connect):
                return
            connect = False

    def _round(self, *, connect: bool) -> bool:
        active = False
        self.source.now_s = self.now_s
        for source in list(self.source.connections):
            active |= self._source_reads(source, whole=1)
            active |= self.source.deliver(source, 1000) > 0
        active |= self._quarantine_answers_all()
        for destination in list(self.destination.connections):
            active |= self._destination_reads(destination, whole=1)
            while any(not p.swallowed for p in destination.pending.values()) and not destination.closed:
                self.destination.confirm(destination)
        self.destination.consume()
        for process in list(self.processes):
            active |= process.count(self.now_s, 1.0)
            active |= process.ask_exchange(self.now_s, 1.0)
            for session in (process.source, process.destination):
                if session is not None:
                    active |= self._reads(process, session, whole=True)
                    unread = len(session.link.to_broker.data)
                    process.steer(session, self.now_s)
                    active |= len(session.link.to_broker.data) > unread  # it has asked something
            if process.gone:
                continue  # it has left just now: its sessions are none, and it must not connect again
            if connect and process.source is None:
                process.connect_source(self.now_s)
                active = True
            if connect and process.destination is None:
                process.connect_destination(self.now_s)
                active = True
        self._look()
        return active

    # --- The end -----------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """No more faults; what makes a message poison stays if there is a quarantine for it."""
        self.tell("all heals")
        self.names = ()
        self.source.heal()
        if self.ledger.stream:
            # Whose memory is full of what only a quarantine may take reads nothing, and nothing of it can be requeued:
            # that the source is frozen the kernel tells then, which gives up what it cannot send.
            for connection in self.source.connections:
                if connection.link.frozen:
                    connection.link.cut(self.rng)
        self._failing_answers = min(self._failing_answers, LATE_FAILURES)
        quarantine = self.setup.limits.quarantine
        before = self.destination.refusals
        self.destination.alarm(on=False)
        self.destination.refusals = Refusals(
            poison=quarantine and before.poison, max_size=before.max_size if quarantine else 0
        )
        self.destination.consumers = 3
        for process in self.processes:
            if process.told_to_pause:
                process.pause_or_resume(self.now_s)
        while self.messages_left:
            self.publish()

    def _end_drains(self) -> None:
        """Let a drain move what it is asked for; what is left then is a bridge's."""
        before = len(self._endings)
        done = {Conclusion.COMPLETE, Conclusion.EMPTY, Conclusion.CROWDED}
        self._settle_until(lambda: not done.isdisjoint(self._endings[before:]))
        assert len(self._endings) <= before + DRAINED_WITHIN, f"drains end too early: {self._endings[before:]}"
        if self.errand is not None and self.errand.keys:
            self.ledger.in_order = False  # what was not wanted comes last
        self.errand = None
        (drain,) = self.processes
        drain.kill()
        self.bridge_ended(drain)

    def _drain(self) -> None:
        limits = self.setup.limits
        has_room = self.source.spoilt < limits.prefetch and limits.max_in_flight_bytes > SPOILT_FIT_BYTES
        if self.source.quarantine_spoils and has_room:
            # What the quarantine refuses, too, keeps out nothing else as long as the window has room for both.
            self._settle_until(lambda: self.source.only_spoilt_left)
        self.source.quarantine_spoils = False
        self._settle_until(lambda: self._drained)
        if isinstance(self.source, Stream):
            stream = self.source
            self._settle_until(lambda: sum(p.books.offsets_missed for p in self.processes) >= stream.missed)
        for process in self.processes:
            assert not process.runs_narrow, "runs with a prefetch of 1"
            process.stop(self.now_s)
        for _ in range(STOPPED_WITHIN):
            self.advance(0.05)
            self.settle()
        assert not any(process.stopping for process in self.processes), "a healthy bridge does not stop"
        if not self.ledger.stream:  # of which the next bridge may read again what has come before
            assert not self.source.unsettled

    def _settle_until(self, done: Callable[[], bool]) -> None:
        deadline_s = self.now_s + HEALED_WITHIN_S
        step_s = 0.1
        self.settle()
        while not done():
            assert self.now_s < deadline_s, f"stuck: {self._state()}"
            self.advance(step_s)
            self.settle()
            step_s = min(2.0, step_s * 1.2)

    @property
    def _drained(self) -> bool:
        if self.source.waiting or self.source.unsettled:
            return False
        links = [c.link for c in self.source.connections] + [c.link for c in self.destination.connections]
        busy = any(p.window.in_flight or p.stopping for p in self.processes)
        return not busy and not any(link.frozen for link in links)

    def _state(self) -> str:
        bridges = [
            f"consumer {p.steering.consumer.value}, step {p.source and p.source.step}, {p.window.hindrance or 'well'}, "
            f"{p.window.condemned} condemned, {p.window.publish_window} publish window, {p.books}"
            for p in self.processes
        ]
        return f"{self.source.waiting} waiting, {self.source.unsettled} unsettled, {bridges}"

    def _count(self) -> None:
        ledger = self.ledger
        lost = ledger.lost()
        assert not lost, f"lost: {lost}"
        limits = self.setup.limits
        if limits.destination_max_ready and not self.pair and not UNCOUNTABLE & {*self.names_drawn}:
            most = (
                limits.destination_max_ready + limits.prefetch + 1
            )  # a consumer that is replaced may be sent one more
            assert self.destination.most_ready <= most, f"{self.destination.most_ready} ready, at most {most} allowed"
        self.counted += sum(process.books.duplicates_possible for process in self.processes)
        report = self.report
        report.arrived = ledger.arrived.total()
        report.duplicates = ledger.duplicates()
        report.duplicates_counted = self.counted
        assert not self.source.limit_drops or self._may_drop, "dropped by the delivery limit"
        if not self._connections_lost and not self.names_drawn:
            assert not self.counted, "without a fault no duplicate is possible"
        if self.pair:
            return  # what came back from one went to the other, which could not know
        assert report.duplicates <= self.counted, f"{report.duplicates} duplicates, {self.counted} held possible"
        if self.setup.deduplication and self.ids == 1.0 and not self._faults.may_duplicate:
            assert not report.duplicates, f"{report.duplicates} duplicates from faults of the source alone"

    @property
    def _may_drop(self) -> bool:
        """Whether the brokers' faults alone explain that a message reached the delivery limit."""
        returns = self._faults.returns_to_source
        quarantine = self.setup.limits.quarantine and not self._faults.no_quarantine
        if self.source.kind == "quorum-4.3" or not quarantine:
            return returns > self.source.delivery_limit or (self.source.kind == "quorum-3.10" and not quarantine)
        return returns > LIMIT_MARGIN


EVENTS: tuple[Callable[[Schedule], None], ...] = (
    Schedule.publish,
    Schedule._source_receives,
    Schedule._source_delivers,
    Schedule._quarantine_answers,
    Schedule._destination_receives,
    Schedule._destination_confirms,
    Schedule._destination_counts,
    Schedule._destination_is_asked,
    Schedule._offset_is_stored,
    Schedule._destination_consumes,
    Schedule._bridge_reads,
    Schedule._steer,
    Schedule._time_passes,
)
WEIGHTS = (2, 6, 6, 2, 6, 5, 4, 4, 1, 2, 12, 8, 5)
CUMULATIVE_WEIGHTS = [sum(WEIGHTS[: n + 1]) for n in range(len(WEIGHTS))]
