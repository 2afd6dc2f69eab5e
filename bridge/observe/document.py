"""The status document: all that is shown of a running bridge, as one value that JSON can hold.

`/status` serves it, the page at `/` and `amqp-bridge status` draw it, and none of them knows more. Each section is
built from the part that owns what it says; a feature with a state of its own adds its section to `SECTIONS`.

It is served to everybody who may scrape. So it names no message and repeats nothing of one, holds no secret, and every
text in it is one printable line (see `text`).
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.observe.events import EventLog
from bridge.observe.history import drain_s, latencies, points, rates, since, trend
from bridge.observe.process import Process, own_process
from bridge.observe.sentence import sentence
from bridge.observe.text import hide, printable, without_message
from bridge.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from bridge.observe.history import Sample
    from bridge.observe.status import SideStatus, Status
    from bridge.settings.settings import Settings
    from bridge.window.books import Books

VERSION = 1
"""Of the document: it grows when a field is taken away or changes its meaning, not when one is added."""
SPANS = {"10s": 10.0, "1m": 60.0, "15m": 900.0}
"""Rates and latencies are over these."""

Document = dict[str, Any]


def _nothing() -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the process runs: what it was set up to do, and since when."""

    source_queue: str = ""
    destination_queue: str | None = None
    destination_exchange: str | None = None
    destination_routing_key: str | None = None
    destination_route: str | None = None
    warnings: Mapping[str, str] = field(default_factory=dict)
    """By side, what about its settings an operator is warned of."""
    quarantine_queue: str = ""
    prefetch: int = 0
    max_in_flight_bytes: int = 0
    started_s: float = field(default_factory=time.time)
    """Unix time."""
    secrets: Callable[[], Iterable[str]] = _nothing
    """Asked for each document: a password file may have been read since the last."""
    events: EventLog = field(default_factory=EventLog)
    process: Process = field(default_factory=own_process)
    """For `amqp-bridge pause` and `resume`, which signal no other."""


def about(settings: Settings, events: EventLog) -> About:
    """Return what the settings say."""
    return About(
        source_queue=settings.source_queue or "",
        destination_queue=settings.destination_queue,
        destination_exchange=settings.destination_exchange,
        destination_routing_key=settings.destination_routing_key,
        destination_route=settings.destination_route,
        warnings={side.name: side.unverified for side in (settings.source, settings.destination)},
        quarantine_queue=settings.quarantine_queue_name,
        prefetch=settings.source_prefetch,
        max_in_flight_bytes=settings.max_in_flight_bytes,
        secrets=settings.secrets,
        events=events,
    )


class Seen(NamedTuple):
    """A consistent copy of all that changes."""

    books: Books
    status: Status
    samples: Sequence[Sample]
    """The last is of now."""
    answers: bool = True
    """Whether the event loop answered; otherwise the copy is as old as its last answer."""

    @property
    def now_s(self) -> float:
        """Unix time of the copy."""
        return self.samples[-1].unix_s


def document(seen: Seen, about: About) -> Document:
    """Return the document."""
    found: Document = {"version": VERSION}
    for name, section in SECTIONS.items():
        found[name] = section(seen, about)
    found["sentence"] = sentence(found)
    secrets = tuple(about.secrets())
    return {name: cleaned(value, secrets) for name, value in found.items()}


def cleaned(value: object, secrets: Collection[str]) -> Any:  # noqa: ANN401 - what JSON can hold
    """Return a value in which nobody's text is obeyed, and in which no secret and nothing of a message stands."""
    match value:
        case str():
            return printable(without_message(hide(value, secrets)))
        case dict():
            return {key: cleaned(entry, secrets) for key, entry in value.items()}
        case list() | tuple():
            return [cleaned(entry, secrets) for entry in value]
        case _:
            return value


def timestamp(unix_s: float | None) -> str | None:
    """Return a Unix time as RFC 3339 has it, in UTC; None for none."""
    if unix_s is None:
        return None
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- Sections --------------------------------------------------------------------------------------------


def _bridge(seen: Seen, about: About) -> Document:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "started": timestamp(about.started_s),
        "now": timestamp(seen.now_s),
        "uptime_s": round(max(0.0, seen.now_s - about.started_s), 1),
        "answers": seen.answers,
        "process": about.process._asdict(),
    }


def _readiness(seen: Seen, _: About) -> Document:
    reasons = seen.status.hindrances if seen.answers else ["the event loop does not answer"]
    status = seen.status
    return {"ready": not reasons, "paused": status.paused, "reasons": reasons, "degraded": status.reservations}


def _source(seen: Seen, about: About) -> Document:
    found = {"queue": about.source_queue, **_side(seen.status.source, about)}
    tracking = seen.status.tracking
    if tracking.name:
        found["offset"] = {"name": tracking.name, "stored": tracking.stored, "trouble": tracking.trouble}
    return found


def _destination(seen: Seen, about: About) -> Document:
    status = seen.status.destination
    return {
        "queue": about.destination_queue,
        "exchange": about.destination_exchange,
        "routing_key": about.destination_routing_key,
        "route": about.destination_route,
        **_side(status, about),
        "blocked": status.blocked,
        "blocked_since": timestamp(status.blocked_since_s),
        "blocked_reason": status.blocked_reason,
        "trouble": seen.status.trouble,
        "trouble_s": round(seen.status.trouble_s, 1),
    }


def _side(status: SideStatus, about: About) -> Document:
    end = status.last_end
    return {
        "state": "connected" if status.up else "not connected",
        "since": timestamp(status.since_s),
        "reason": status.reason,
        "url": status.url,
        "warning": about.warnings.get(status.name, ""),
        "generation": status.generation,
        "last_end": None
        if end is None
        else {"generation": end.generation, "reason": end.reason, "text": end.text, "at": timestamp(end.unix_s)},
        "generations_ended": dict(status.generations_ended),
    }


def _backlog(seen: Seen, _: About) -> Document:
    """Return both queues' length: `messages_ready`, or of a stream `messages_kept`."""
    found: Document = {}
    for status in (seen.status.source, seen.status.destination):
        backlog = status.backlog
        found[status.name] = {
            "messages_kept" if backlog.stream else "messages_ready": backlog.messages,
            "consumers": backlog.consumers,
            "asked": timestamp(backlog.asked_s),
            "unknown": backlog.unknown,
        }
    found["source"]["grows_per_s"] = trend(seen.samples)
    found["source"]["drain_s"] = drain_s(seen.samples)
    return found


def _books(seen: Seen, _: About) -> Document:
    books = seen.books
    return {
        "received": books.received,
        "forwarded": books.forwarded,
        "suppressed": books.suppressed,
        "quarantined": dict(books.quarantined),
        "requeued": dict(books.requeued),
        "stale": {"held": books.stale_held, "published": books.stale_published},
        "in_flight": {"held": books.held, "published": books.published},
        "imbalance": books.imbalance,
        "received_redelivered": books.received_redelivered,
        "forwarded_bytes": books.forwarded_bytes,
        "publish_retries": dict(books.publish_retries),
        "duplicates_possible": books.duplicates_possible,
        "headers_left_out": books.headers_left_out,
        "offsets_missed": books.offsets_missed,
        "last_forward": timestamp(seen.status.last_forward_s),
    }


def _rates(seen: Seen, _: About) -> Document:
    """Return messages and bytes per second, and over how many seconds: a young process has no 15 minutes yet."""
    return {name: rates(seen.samples, seconds)._asdict() for name, seconds in SPANS.items()}


def _latency(seen: Seen, _: About) -> Document:
    books, now = seen.books, seen.samples[-1]
    found: Document = {}
    for name, seconds in SPANS.items():
        before = since(seen.samples, seconds)
        found[name] = {
            "confirm_s": latencies(before.confirm, now.confirm, books.confirm_seconds.bounds),
            "residence_s": latencies(before.residence, now.residence, books.residence_seconds.bounds),
        }
    return found


def _window(seen: Seen, about: About) -> Document:
    status, books = seen.status, seen.books
    oldest_s = None if status.oldest_received_s is None else seen.samples[-1].now_s - status.oldest_received_s
    return {
        "held": books.held,
        "published": books.published,
        "bytes": books.bytes_in_flight,
        "max_bytes": about.max_in_flight_bytes,
        "oldest_s": None if oldest_s is None else round(oldest_s, 3),
        "publish_window": status.publish_window,
        "throttled_s": {reason: round(seconds, 3) for reason, seconds in books.throttled_seconds.items()},
    }


def _consumer(seen: Seen, about: About) -> Document:
    status = seen.status
    return {
        "consuming": status.consuming,
        "state": status.state,
        "stopping": status.stopping,
        "paused": status.paused,
        "braked": status.braked,
        "prefetch": about.prefetch,
        "prefetch_in_use": status.prefetch,
        "quarantine_queue": about.quarantine_queue or None,
    }


def _history(seen: Seen, _: About) -> list[Document]:
    found = []
    for point in points(seen.samples, seen.books.confirm_seconds.bounds):
        entry = {name: _short(value) for name, value in point._asdict().items()}
        found.append({"at": timestamp(entry.pop("unix_s")), **entry})
    return found


def _events(_: Seen, about: About) -> list[Document]:
    return [{"at": timestamp(e.unix_s), "level": e.level, "text": e.text} for e in about.events.events()]


def _short(value: float | None) -> float | None:
    return round(value, 4) if isinstance(value, float) else value


SECTIONS: dict[str, Callable[[Seen, About], object]] = {
    "bridge": _bridge,
    "readiness": _readiness,
    "source": _source,
    "destination": _destination,
    "backlog": _backlog,
    "rates": _rates,
    "latency": _latency,
    "books": _books,
    "window": _window,
    "consumer": _consumer,
    "history": _history,
    "events": _events,
}
"""In the order in which they are shown."""
