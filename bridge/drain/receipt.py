"""The receipt of a drain, sans-I/O: what was moved, in numbers that can be held against the next hop's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from bridge.drain.finish import Conclusion
from bridge.observe.sentence import duration, number
from bridge.observe.text import as_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
"""Of the document."""
OK, NOT_ALL, UNREACHABLE = 0, 1, 69

EXPLAINED = {
    Conclusion.COMPLETE: "all that was asked for is moved",
    Conclusion.EMPTY: "the queue is empty",
    Conclusion.STAYED: "some messages name no queue that they came from, and stay",
    Conclusion.REFUSED: "the destination refuses what is left of it",
    Conclusion.CROWDED: "more messages do not match than one consumer may hold: what is behind them was not seen",
    Conclusion.HELD: "messages were held for as long as the broker lets a consumer hold them",
    Conclusion.REFUSING: "the destination has accepted nothing for too long",
    Conclusion.UNREACHABLE: "a side was not connected for too long",
    Conclusion.RETURNS: "what is moved comes back to the source",
    Conclusion.FAILED: "the bridge could not go on",
    Conclusion.SIGNAL: "interrupted by a signal",
}


@dataclass(frozen=True, slots=True)
class End:
    """One end of a drain: its queue or exchange, and how long the queue was."""

    url: str
    name: str
    ready_before: int | None = None
    ready_after: int | None = None
    """None where that is not known, and for an exchange."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the messages."""

    asked: int | None
    """None for as many as there are."""
    taken: int
    """Deliveries that were settled: moved, acked again, or returned to the queue."""
    moved: int
    """Copies that the destination has confirmed."""
    suppressed: int = 0
    """Redeliveries of what had been confirmed, acked and not moved again."""
    returned: int = 0
    """Deliveries that went back to the queue and were not refused: they were not to be moved."""
    refused: int = 0
    """Deliveries that the destination refused; they are in the queue."""
    left: int | None = None
    """How many of those that were asked for are not moved; None where no number was asked for."""
    size_bytes: int = 0
    """Of the bodies that were moved."""
    digest: str = ""
    """Of what was moved (see `digest`)."""
    duplicates_possible: int = 0
    """Copies at the destination that may be one too many."""
    connections_lost: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a drain hands out at its end."""

    bridge: str
    """The version of the program."""
    started: str
    ended: str
    """Times in UTC, ISO 8601."""
    seconds: float
    source: End
    destination: End
    counts: Counts
    ending: Conclusion
    signal: int = 0
    """The number of the signal that interrupted it; 0 for none."""
    doubts: tuple[str, ...] = ()
    """Reasons why it is not known that what was taken is what was ready at the start."""
    reasons: tuple[str, ...] = ()
    """What the destination says of the messages that it refuses."""
    kept: dict[str, int] = field(default_factory=dict)
    """What was returned, by what is to be said of it."""
    targets: dict[str, int] = field(default_factory=dict)
    """What went back to where it came from, by queue or exchange."""

    @property
    def status(self) -> int:
        """The exit status."""
        if self.signal:
            return 128 + self.signal
        if self.ending is Conclusion.UNREACHABLE and not self.counts.taken:
            return UNREACHABLE
        return OK if self.ending in {Conclusion.COMPLETE, Conclusion.EMPTY} else NOT_ALL

    @property
    def remarks(self) -> list[str]:
        """Sentences on what the numbers do not say by themselves."""
        return [*self._remarks()]

    def _remarks(self) -> Iterator[str]:
        counts = self.counts
        if self.ending in {Conclusion.EMPTY, Conclusion.STAYED} and counts.asked is not None:
            never = counts.asked - counts.moved - counts.returned - counts.refused
            if never > 0:
                yield (
                    f"{number(never)} of the {number(counts.asked)} messages that were ready at the start never came: "
                    f"{self._taken_by}"
                )
        if self.ending is Conclusion.CROWDED and counts.asked is not None:
            yield f"{number(counts.asked - counts.taken)} of the {number(counts.asked)} messages were not seen"
        if counts.refused:
            why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
            yield f"{number(counts.refused)} messages are refused by the destination and stay in the queue{why}"
        for why, kept in self.kept.items():
            yield f"{number(kept)} messages {why}: they were returned to the queue"
        if counts.duplicates_possible:
            yield (
                f"up to {number(counts.duplicates_possible)} messages may be at the destination twice, since a "
                "connection was lost before its answers came, or the messages had been delivered before"
            )
        for doubt in self.doubts:
            yield f"that these are the messages of the start is not known: {doubt}"
        yield from self._depths()

    @property
    def _taken_by(self) -> str:
        others = any("consumer" in doubt for doubt in self.doubts)
        expired = "they expired on the way, or were dropped by a length limit or a purge"
        return f"the queue's other consumers took them, or {expired}" if others else expired

    def _depths(self) -> Iterator[str]:
        here, there, moved = self.source, self.destination, self.counts.moved
        if here.ready_before is not None and here.ready_after and self.ending is Conclusion.COMPLETE:
            arrived = here.ready_after - (here.ready_before - moved - self.counts.suppressed)
            if arrived > 0:
                left = number(here.ready_after)
                yield f"{left} messages are in the source queue now: {number(arrived)} arrived meanwhile"
        if there.ready_before is not None and there.ready_after is not None:
            grown = there.ready_after - there.ready_before
            if grown != moved:
                yield (
                    f"the destination queue went from {number(there.ready_before)} to {number(there.ready_after)} "
                    f"messages and {number(moved)} were confirmed there: its consumers took some, some expired, or "
                    "others publish to it"
                )

    @property
    def as_json(self) -> str:
        """The receipt for machines, and for `amqp-bridge verify`."""
        counts = asdict(self.counts)
        counts["bytes"] = counts.pop("size_bytes")
        document = {
            "version": VERSION,
            "bridge": self.bridge,
            "started": self.started,
            "ended": self.ended,
            "seconds": round(self.seconds, 3),
            "ending": self.ending.value,
            "status": self.status,
            "source": asdict(self.source),
            "destination": asdict(self.destination),
            **counts,
            "kept": self.kept,
            "targets": self.targets,
            "remarks": self.remarks,
        }
        return as_json(document, indent=2) + "\n"

    @property
    def text(self) -> str:
        """The receipt for people."""
        counts = self.counts
        rows = [
            ("moved", f"{number(counts.moved)} messages, {number(counts.size_bytes)} bytes"),
            ("in", duration(self.seconds) if self.seconds >= 1 else f"{self.seconds:.2f} s"),
            ("digest", counts.digest),
            *((name, number(value)) for name, value in self._others()),
        ]
        why = f"{EXPLAINED[self.ending]}" + (f" ({self.signal})" if self.signal else "")
        lines = [f"{'done' if self.status == OK else 'not all'}: {why}"]
        lines += [f"  {name:11}{text}" for name, text in rows]
        lines += [f"  {'to':11}{printable(name)}: {number(moved)}" for name, moved in self.targets.items()]
        lines += [f"  {printable(remark)}" for remark in self.remarks]
        return "\n".join(lines) + "\n"

    def _others(self) -> Iterator[tuple[str, int]]:
        counts = self.counts
        for name, value in (
            ("suppressed", counts.suppressed),
            ("returned", counts.returned),
            ("refused", counts.refused),
            ("left", counts.left or 0),
        ):
            if value:
                yield name, value
