"""The books: plain numbers that the data plane counts in and `/metrics` reads.

Nothing here locks, looks up a label or knows Prometheus: the pure modules add to integers on the event
loop's thread, which makes a consistent copy for each scrape (see `observe/http`).

The books balance at every instant (invariant 3 of `window`)::

    received = forwarded + suppressed + quarantined + requeued + stale + in the window
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TypeVar

from bridge.words import AgeUnknownReason, QuarantineReason, RequeueReason, RetryReason, ThrottleReason  # noqa: TC001 - a dataclass names its types

Word = TypeVar("Word", bound=str)

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
AGE_BOUNDS = (
    *(0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 604_800.0),
)
"""Up to a week: a message may have waited for long before the bridge got it."""
SIZE_BITS = 30
"""Message sizes are counted by their bit length: RabbitMQ can be set to take up to 512 MiB, 2**29 bytes."""


class Histogram:
    """Counts of observations by upper bound, in seconds; the last count is of those above every bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `times` observations of `value`: a batch shares its clock reading."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


@dataclass(slots=True)
class Books:
    """What has happened to deliveries since the process began, over all generations."""

    received: int = 0
    received_redelivered: int = 0
    """Of `received`, those with the redelivered flag."""
    forwarded: int = 0
    forwarded_bytes: int = 0
    """Bodies of the forwarded, in bytes."""
    suppressed: int = 0
    quarantined: dict[QuarantineReason, int] = field(default_factory=dict)
    """By reason."""
    requeued: dict[RequeueReason, int] = field(default_factory=dict)
    """By reason."""
    stale_held: int = 0
    stale_published: int = 0
    held: int = 0
    """In the window, not (or no longer) published."""
    published: int = 0
    """In the window, published and not confirmed."""
    bytes_in_flight: int = 0

    publish_retries: dict[RetryReason, int] = field(default_factory=dict)
    """Publishes that will be tried again, by reason."""
    duplicates_possible: int = 0
    """Publishes of which the destination, or the quarantine, may hold another copy, by this process's making."""

    throttled_seconds: dict[ThrottleReason, float] = field(default_factory=dict)
    """Seconds for which a rate held back what could have been published."""

    headers_left_out: int = 0
    """Headers of the bridge's own that were left out of a publish, since they did not fit into its frame."""

    offsets_missed: int = 0
    """Offsets of a stream that were not forwarded and do not exist any more."""

    confirm_seconds: Histogram = field(default_factory=Histogram)
    residence_seconds: Histogram = field(default_factory=Histogram)
    message_age_seconds: Histogram = field(default_factory=lambda: Histogram(AGE_BOUNDS))
    """A sample; see `age`."""
    message_age_unknown: dict[AgeUnknownReason, int] = field(default_factory=dict)
    """Of the sample, by reason."""
    size_bits: list[int] = field(default_factory=lambda: [0] * (SIZE_BITS + 1))
    """`size_bits[n]`: messages received whose body length in bytes has a bit length of n."""
    size_bytes_total: int = 0

    def throttled(self, reason: ThrottleReason, seconds: float) -> None:
        """A rate has held messages back for this many seconds."""
        self.throttled_seconds[reason] = self.throttled_seconds.get(reason, 0.0) + seconds

    @property
    def acked(self) -> int:
        """Deliveries that were acked."""
        return self.forwarded + self.suppressed + sum(self.quarantined.values())

    @property
    def progress(self) -> int:
        """Grows whenever a message is done with for good, however often it came."""
        return self.forwarded + sum(self.quarantined.values())

    @property
    def imbalance(self) -> int:
        """Deliveries that the books do not account for; zero unless the bridge has a bug."""
        return (
            self.received
            - self.forwarded
            - self.suppressed
            - sum(self.quarantined.values())
            - sum(self.requeued.values())
            - self.stale_held
            - self.stale_published
            - self.held
            - self.published
        )


def count(counter: dict[Word, int], reason: Word, times: int = 1) -> None:
    """Add to a counter kept by reason."""
    counter[reason] = counter.get(reason, 0) + times
