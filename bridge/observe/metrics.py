"""The books and the status as Prometheus metrics; names and labels are an interface that dashboards depend on."""

from __future__ import annotations

import platform
from itertools import accumulate
from typing import TYPE_CHECKING, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from bridge.version import __version__
from bridge.words import (
    AgeUnknownReason,
    BrakeReason,
    ConnectResult,
    EndReason,
    QuarantineReason,
    RequeueReason,
    RetryReason,
    ThrottleReason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from bridge.observe.document import Seen
    from bridge.observe.status import Status
    from bridge.window.books import Books, Histogram, Word

QUARANTINE_REASONS: tuple[QuarantineReason, ...] = get_args(QuarantineReason)
REQUEUE_REASONS: tuple[RequeueReason, ...] = get_args(RequeueReason)
AGE_UNKNOWN_REASONS: tuple[AgeUnknownReason, ...] = get_args(AgeUnknownReason)
RETRY_REASONS: tuple[RetryReason, ...] = get_args(RetryReason)
BRAKE_REASONS: tuple[BrakeReason, ...] = get_args(BrakeReason)
THROTTLE_REASONS: tuple[ThrottleReason, ...] = get_args(ThrottleReason)
CONNECT_RESULTS: tuple[ConnectResult, ...] = get_args(ConnectResult)
END_REASONS: tuple[EndReason, ...] = get_args(EndReason)
"""Label values that are there from the start, so that a rate over the first one counts it."""


READY = "messages that wait for a consumer."


class BridgeCollector(Collector):
    """Turns a consistent copy of books and status into metrics whenever it is scraped."""

    def __init__(self, seen: Callable[[], Seen]) -> None:
        """`seen` returns a consistent copy."""
        self._seen = seen

    def describe(self) -> list[Metric]:
        """Nothing: the registry then does not scrape when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        seen = self._seen()
        books, status, now_s = seen.books, seen.status, seen.samples[-1].now_s
        yield from _messages(books)
        yield from _window(books, status, now_s)
        yield from _sides(status)
        yield from _queues(status)
        yield _seconds("bridge_confirm_seconds", "Time from a publish to its confirm.", books.confirm_seconds)
        yield _seconds("bridge_residence_seconds", "Time from a delivery to its ack.", books.residence_seconds)
        yield _seconds(
            "bridge_message_age_seconds",
            "Age of messages when their confirm came, by their own timestamps. A sample: at most 100 a second.",
            books.message_age_seconds,
        )
        unknown = books.message_age_unknown
        text = "Messages of that sample whose age is not known."
        yield _by("bridge_message_age_unknown", text, "reason", unknown, AGE_UNKNOWN_REASONS)
        yield _sizes(books)
        info = GaugeMetricFamily("bridge_build_info", "The version that runs; always 1.", labels=["version", "python"])
        info.add_metric([__version__, platform.python_version()], 1)
        yield info


def _messages(books: Books) -> Iterator[Metric]:
    received = CounterMetricFamily(
        "bridge_messages_received", "Deliveries from the source, by its redelivered flag.", labels=["redelivered"]
    )
    received.add_metric(["false"], books.received - books.received_redelivered)
    received.add_metric(["true"], books.received_redelivered)
    yield received
    yield _count("bridge_messages_forwarded", "Messages confirmed by the destination and acked.", books.forwarded)
    yield _count("bridge_forwarded_bytes", "Bytes of the bodies forwarded.", books.forwarded_bytes)
    stale = CounterMetricFamily(
        "bridge_messages_stale_discarded",
        "Deliveries whose source connection ended before they were settled; held ones were dropped and not published.",
        labels=["stage"],
    )
    stale.add_metric(["held"], books.stale_held)
    stale.add_metric(["published"], books.stale_published)
    yield stale
    yield _count(
        "bridge_messages_suppressed",
        "Redeliveries of messages that were forwarded before; they were acked and not published again.",
        books.suppressed,
    )
    yield _by(
        "bridge_messages_requeued",
        "Deliveries returned to the source queue.",
        "reason",
        books.requeued,
        REQUEUE_REASONS,
    )
    yield _by(
        "bridge_messages_quarantined",
        "Messages moved to the quarantine.",
        "reason",
        books.quarantined,
        QUARANTINE_REASONS,
    )
    yield _by(
        "bridge_publish_retries", "Publishes that are tried again.", "reason", books.publish_retries, RETRY_REASONS
    )
    text = "Seconds for which BRIDGE_MAX_RATE or BRIDGE_MAX_BYTES_PER_SECOND held messages back."
    yield _by("bridge_throttled_seconds", text, "reason", books.throttled_seconds, THROTTLE_REASONS)
    yield _count(
        "bridge_duplicates_possible",
        "Publishes that the destination or the quarantine may hold twice.",
        books.duplicates_possible,
    )
    yield _count(
        "bridge_headers_left_out",
        "Headers of the bridge that were left out of a message, since they did not fit into the frame.",
        books.headers_left_out,
    )
    yield _count(
        "bridge_source_offsets_missed",
        "Offsets of the stream that were deleted (retention) before they were forwarded.",
        books.offsets_missed,
    )


def _window(books: Books, status: Status, now_s: float) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily("bridge_messages_in_flight", "Deliveries received and not settled.", labels=["state"])
    in_flight.add_metric(["held"], books.held)
    in_flight.add_metric(["published"], books.published)
    yield in_flight
    yield GaugeMetricFamily("bridge_bytes_in_flight", "Bytes of the deliveries in flight.", books.bytes_in_flight)
    oldest_s = 0.0 if status.oldest_received_s is None else now_s - status.oldest_received_s
    yield GaugeMetricFamily("bridge_oldest_in_flight_seconds", "Age of the oldest delivery in flight.", oldest_s)
    yield GaugeMetricFamily("bridge_paused", "1 while an operator has paused the bridge.", status.paused)
    braked = GaugeMetricFamily(
        "bridge_braked", "1 while the bridge rests for this state of the destination's queue.", labels=["reason"]
    )
    for reason in BRAKE_REASONS:
        braked.add_metric([reason], status.braked == reason)
    yield braked
    yield GaugeMetricFamily(
        "bridge_publish_window", "Messages that may be published at once now.", status.publish_window
    )
    yield GaugeMetricFamily(
        "bridge_last_forward_timestamp_seconds", "Unix time of the last confirm; 0: none.", status.last_forward_s or 0
    )


def _sides(status: Status) -> Iterator[Metric]:
    sides = (status.source, status.destination)
    up = GaugeMetricFamily("bridge_connection_up", "1 while the side's channel is open.", labels=["side"])
    blocked = GaugeMetricFamily(
        "bridge_connection_blocked", "1 while the broker blocks the side's connection.", labels=["side"]
    )
    generation = GaugeMetricFamily(
        "bridge_generation",
        "Number of the side's present or last generation (a channel's life, numbered from 1).",
        labels=["side"],
    )
    ended = CounterMetricFamily(
        "bridge_generations_ended", "Generations (lives of the side's channel) that ended.", labels=["side", "reason"]
    )
    attempts = CounterMetricFamily("bridge_connect_attempts", "Attempts to connect.", labels=["side", "result"])
    for side in sides:
        up.add_metric([side.name], side.up)
        blocked.add_metric([side.name], side.blocked)
        generation.add_metric([side.name], side.generation)
        for reason, number in (dict.fromkeys(END_REASONS, 0) | side.generations_ended).items():
            ended.add_metric([side.name, reason], number)
        for result, number in (dict.fromkeys(CONNECT_RESULTS, 0) | side.connect_attempts).items():
            attempts.add_metric([side.name, result], number)
    yield from (up, blocked, generation, ended, attempts)


def _queues(status: Status) -> Iterator[Metric]:
    """Yield what is known of the queues: a figure that is not known is left out. A scrape asks no broker."""
    for side in (status.source, status.destination):
        backlog, queue = side.backlog, f"The {side.name}'s queue: "
        if backlog.messages is not None:
            what = ("kept", "messages that the stream keeps, read or not.") if backlog.stream else ("ready", READY)
            yield GaugeMetricFamily(f"bridge_{side.name}_messages_{what[0]}", queue + what[1], backlog.messages)
        if backlog.consumers is not None and not backlog.stream:  # a stream counts none
            yield GaugeMetricFamily(f"bridge_{side.name}_consumers", f"{queue}its consumers.", backlog.consumers)
    yield GaugeMetricFamily(
        "bridge_source_prefetch",
        "Prefetch of the present consumer; 0: not consuming.",
        status.prefetch,
    )
    tracking = status.tracking
    if tracking.stored is not None:
        text = "The offset of the stream that the broker keeps: it and all before it were forwarded."
        yield GaugeMetricFamily("bridge_source_offset_stored", text, tracking.stored)
    yield _count(
        "bridge_source_offset_store_failures",
        "Times that the offset of the stream could not be stored, or asked for.",
        tracking.failures,
    )


def _count(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _by(name: str, text: str, label: str, counts: Mapping[Word, float], known: tuple[Word, ...]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for word, number in (dict.fromkeys(known, 0) | dict(counts)).items():
        family.add_metric([word], number)
    return family


def _seconds(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)


def _sizes(books: Books) -> Metric:
    """A bit length of n means less than 2**n bytes: at most 2**n - 1. Every second power is enough for a graph."""
    counted = list(accumulate(books.size_bits))
    buckets = [(str(float(2**bits - 1)), number) for bits, number in enumerate(counted) if bits % 2 == 0]
    buckets.append(("+Inf", counted[-1]))
    return HistogramMetricFamily(
        "bridge_message_size_bytes", "Size of the bodies received.", buckets=buckets, sum_value=books.size_bytes_total
    )
