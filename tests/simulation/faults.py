"""What can go wrong, by name; each is injected when the scheduler draws it and it has something to hit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.messages import EXCHANGES, ROUTING_KEYS
from tests.simulation.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.destination import DestinationConnection
    from tests.simulation.schedule import Schedule
    from tests.simulation.source import SourceConnection

SOURCE_FAULTS = (
    *("source-cut", "source-frozen", "source-crash", "source-channel-closed", "source-connection-closed"),
    *("consumer-cancelled", "consumer-timeout", "retention"),
)
DESTINATION_FAULTS = (
    *("destination-cut", "destination-frozen", "destination-crash", "destination-connection-closed", "alarm", "full"),
    *("nacks", "confirms-swallowed", "routeless", "dead-key", "forbidden-key"),
    *("exchange-missing", "exchange-forbidden", "too-large", "poison", "internal-error"),
)
BRIDGE_FAULTS = ("bridge-stopped", "bridge-killed", "bridge-paused")
QUARANTINE_FAULTS = ("quarantine-refused", "quarantine-fails", "quarantine-spoilt")
OTHER_FAULTS = ("other-takes", "other-returns", "purge", "expiry", "time-jump")

JUMPS_S = (6.0, 31.0, 61.0, 130.0)
JUMP_STEP_S = 1.0


class Faults:
    """Injects into one schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.returns_to_source = 0
        """How often what was unacked may have returned to the source's queue without the bridge's doing."""
        self.no_quarantine = False
        """Whether the quarantine has failed."""
        self.may_duplicate = False
        """Whether something happened after which nobody can tell whether a publish arrived."""
        self._methods: dict[str, Callable[[], bool]] = {
            "source-cut": lambda: self._source(self._cut),
            "source-frozen": lambda: self._source(self._freeze),
            "source-crash": self._crash_source,
            "source-channel-closed": lambda: self._source(lambda c: self._close_source(c, 1, 406, "timeout")),
            "source-connection-closed": lambda: self._source(lambda c: self._close_source(c, 0, 320, "forced")),
            "consumer-cancelled": lambda: self._source(self._cancel),
            "consumer-timeout": lambda: self._source(self._time_out),
            "retention": self._delete_oldest,
            "destination-cut": lambda: self._destination(self._cut),
            "destination-frozen": lambda: self._destination(self._freeze),
            "destination-crash": self._crash_destination,
            "destination-connection-closed": lambda: self._destination(self._close_destination),
            "bridge-stopped": self._stop,
            "bridge-killed": self._kill,
            "bridge-paused": self._pause,
            "quarantine-refused": self._refuse_quarantine,
            "quarantine-spoilt": self._spoil_quarantine,
            "other-takes": lambda: self._other(keep=True),
            "other-returns": lambda: self._other(keep=False),
            "purge": self._purge,
            "time-jump": self._jump,
        }

    def inject(self, name: str) -> bool:
        """Let it happen; whether there was something that it could happen to."""
        self.no_quarantine |= name in QUARANTINE_FAULTS
        if name in {"quarantine-fails", "expiry"}:
            return False  # these happen where answers are given and where messages are made
        if name in DESTINATION_FAULTS:
            self.may_duplicate = True
        method = self._methods.get(name)
        return self._refuse(name) if method is None else method()

    # --- Connections -------------------------------------------------------------------------------------

    def _source(self, hit: Callable[[SourceConnection], bool]) -> bool:
        connections = self._schedule.source.connections
        self.returns_to_source += 1
        return bool(connections) and hit(self._schedule.rng.choice(connections))

    def _destination(self, hit: Callable[[DestinationConnection], bool]) -> bool:
        connections = self._schedule.destination.connections
        return bool(connections) and hit(self._schedule.rng.choice(connections))

    def _cut(self, connection: SourceConnection | DestinationConnection) -> bool:
        connection.link.cut(self._schedule.rng)
        return True

    def _freeze(self, connection: SourceConnection | DestinationConnection) -> bool:
        if connection.link.to_broker.ended:
            return False
        connection.link.frozen = not connection.link.frozen
        return True

    def _close_source(self, connection: SourceConnection, channel: int, code: int, text: str) -> bool:
        if connection.closed:
            return False
        self._schedule.source.close(connection, channel, code, text)
        return True

    def _close_destination(self, connection: DestinationConnection) -> bool:
        if connection.closed:
            return False
        self._schedule.destination.close(connection, 0, 320, "CONNECTION_FORCED")
        return True

    def _cancel(self, connection: SourceConnection) -> bool:
        if not connection.consumers or connection.closed:
            return False
        self._schedule.source.cancel(connection)
        return True

    def _time_out(self, connection: SourceConnection) -> bool:
        source = self._schedule.source
        if not connection.consumers or connection.closed or source.kind != "quorum-4.3":
            return False
        source.time_out(connection)
        return True

    def _delete_oldest(self) -> bool:
        source, rng = self._schedule.source, self._schedule.rng
        return isinstance(source, Stream) and source.delete_oldest(rng.choice((rng.randint(1, 5), 1000)))

    def _crash_source(self) -> bool:
        self.returns_to_source += 1
        if self._schedule.rng.random() < 0.5:
            self._schedule.publish()  # just before: these are ready, and a classic queue flags them as redelivered
        self._schedule.source.now_s = self._schedule.now_s
        self._schedule.source.crash()
        return True

    def _crash_destination(self) -> bool:
        self._schedule.destination.crash()
        return True

    # --- Refusals, on and off ----------------------------------------------------------------------------

    def _refuse(self, name: str) -> bool:
        rng, destination = self._schedule.rng, self._schedule.destination
        refusals = destination.refusals
        if name == "alarm":
            destination.alarm(on=not refusals.alarm)
        elif name in {"full", "routeless"}:
            setattr(refusals, name, not getattr(refusals, name))
        elif name in {"exchange-missing", "exchange-forbidden"}:
            exchanges = refusals.missing_exchanges if name == "exchange-missing" else refusals.forbidden_exchanges
            exchanges ^= {rng.choice(EXCHANGES)}
            refusals.exchange_missing ^= name == "exchange-missing"
        elif name in {"dead-key", "forbidden-key"}:
            keys = refusals.dead_keys if name == "dead-key" else refusals.forbidden_keys
            keys ^= {rng.choice(ROUTING_KEYS)}
        elif name == "too-large":
            refusals.max_size = 0 if refusals.max_size else rng.choice((10, 150, 500))
        elif name == "poison":
            refusals.poison = not refusals.poison
        else:
            field = {"nacks": "nack", "confirms-swallowed": "swallow", "internal-error": "internal_error"}[name]
            setattr(refusals, field, rng.choice((0.0, 0.05, 0.3)))
        return True

    def _refuse_quarantine(self) -> bool:
        source = self._schedule.source
        source.quarantine_refuses = not source.quarantine_refuses
        return True

    def _spoil_quarantine(self) -> bool:
        source = self._schedule.source
        source.quarantine_spoils = not source.quarantine_spoils
        return True

    # --- Bridges, others, time ---------------------------------------------------------------------------

    def _stop(self) -> bool:
        process = self._schedule.rng.choice(self._schedule.processes)
        if process.stopping:
            return False
        process.stop(self._schedule.now_s)
        return True

    def _pause(self) -> bool:
        """Paused by an operator, or resumed: at any moment, also right after the other."""
        process = self._schedule.rng.choice(self._schedule.processes)
        if process.stopping:
            return False
        process.pause_or_resume(self._schedule.now_s)
        return True

    def _kill(self) -> bool:
        self.returns_to_source += 1
        process = self._schedule.rng.choice(self._schedule.processes)
        process.kill()
        self._schedule.bridge_ended(process)
        return True

    def _other(self, *, keep: bool) -> bool:
        self.returns_to_source += not keep  # each gives every message back that waits
        source = self._schedule.source
        if not source.waiting:
            return False
        self._schedule.ledger.in_order = self._schedule.ledger.in_order and keep
        source.now_s = self._schedule.now_s
        source.take_by_other(keep=keep)
        return True

    def _purge(self) -> bool:
        source = self._schedule.source
        if not source.waiting:
            return False
        source.purge()
        return True

    def _jump(self) -> bool:
        """For longer than a network or a healthy broker keeps anything under way: they do what they can meanwhile."""
        schedule = self._schedule
        for _ in range(int(schedule.rng.choice(JUMPS_S) / JUMP_STEP_S)):
            schedule.settle()
            schedule.advance(JUMP_STEP_S)
        return True
