"""What an endpoint sees of a bridge, made for tests."""

from __future__ import annotations

from bridge.observe.document import Seen
from bridge.observe.history import sample
from bridge.observe.status import Status
from bridge.window.books import Books

NOON_S = 1_800_014_400.0
"""2027-01-15, 12:00 UTC."""


def seen(books: Books | None = None, status: Status | None = None, now_s: float = 0.0, unix_s: float = NOON_S) -> Seen:
    """Return a copy with a single sample, of now."""
    books, status = books or Books(), status or Status()
    return Seen(books, status, [sample(books, status.source.backlog, now_s, unix_s)])


def ready() -> Status:
    """Return the status of a bridge that is well."""
    status = Status(consuming=True, state="running", prefetch=1000)
    for side in (status.source, status.destination):
        side.opened(f"amqp://reader@{side.name}.example:5672/", NOON_S - 60.0)
    return status
