"""Metrics: names and labels are an interface; each is there from the first scrape, and says what the books say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bridge.observe import metrics
from bridge.observe.metrics import BridgeCollector
from bridge.observe.status import Status
from bridge.relay.queue import QueueState
from bridge.window.books import AGE_BOUNDS, SECONDS_BOUNDS, SIZE_BITS, Books, count
from tests.support.seen import seen

PACKAGE = Path(metrics.__file__).parents[1]
SIDES = {"source", "destination"}

INTERFACE: dict[str, dict[str, set[str]]] = {
    "bridge_messages_received_total": {"redelivered": {"true", "false"}},
    "bridge_messages_forwarded_total": {},
    "bridge_messages_stale_discarded_total": {"stage": {"held", "published"}},
    "bridge_messages_requeued_total": {"reason": set(metrics.REQUEUE_REASONS)},
    "bridge_messages_suppressed_total": {},
    "bridge_messages_quarantined_total": {"reason": set(metrics.QUARANTINE_REASONS)},
    "bridge_publish_retries_total": {"reason": set(metrics.RETRY_REASONS)},
    "bridge_throttled_seconds_total": {"reason": set(metrics.THROTTLE_REASONS)},
    "bridge_duplicates_possible_total": {},
    "bridge_headers_left_out_total": {},
    "bridge_source_offset_store_failures_total": {},
    "bridge_source_offsets_missed_total": {},
    "bridge_forwarded_bytes_total": {},
    "bridge_messages_in_flight": {"state": {"held", "published"}},
    "bridge_bytes_in_flight": {},
    "bridge_oldest_in_flight_seconds": {},
    "bridge_publish_window": {},
    "bridge_braked": {"reason": {"max-ready", "min-consumers"}},
    "bridge_paused": {},
    "bridge_connection_up": {"side": SIDES},
    "bridge_connection_blocked": {"side": SIDES},
    "bridge_generation": {"side": SIDES},
    "bridge_generations_ended_total": {"side": SIDES, "reason": set(metrics.END_REASONS)},
    "bridge_connect_attempts_total": {"side": SIDES, "result": set(metrics.CONNECT_RESULTS)},
    "bridge_last_forward_timestamp_seconds": {},
    **{
        f"bridge_{name}{part}": labels
        for name in ("confirm_seconds", "residence_seconds")
        for part, labels in (("_count", {}), ("_sum", {}), ("_bucket", {"le": {*map(str, SECONDS_BOUNDS), "+Inf"}}))
    },
    "bridge_message_size_bytes_count": {},
    "bridge_message_size_bytes_sum": {},
    "bridge_message_size_bytes_bucket": {
        "le": {*(str(float(2**bits - 1)) for bits in range(0, SIZE_BITS + 1, 2)), "+Inf"}
    },
    "bridge_message_age_seconds_count": {},
    "bridge_message_age_seconds_sum": {},
    "bridge_message_age_seconds_bucket": {"le": {*map(str, AGE_BOUNDS), "+Inf"}},
    "bridge_message_age_unknown_total": {"reason": {"no-timestamp", "clock-ahead"}},
    "bridge_source_prefetch": {},
    "bridge_build_info": {"version": set(), "python": set()},
}
"""Every sample with its labels, and their values from the start where they are known in advance."""


def registry(books: Books, status: Status, now_s: float = 100.0) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(BridgeCollector(lambda: seen(books, status, now_s)))
    return made


def samples(books: Books, status: Status | None = None, now_s: float = 100.0) -> dict[str, float]:
    """Every sample by its name and labels as they are written."""
    text = generate_latest(registry(books, status or Status(), now_s)).decode()
    found = re.findall(r"^(bridge_\S*) (\S+)$", text, re.MULTILINE)
    assert len(dict(found)) == len(found), "a sample is there twice"
    return {name: float(value) for name, value in found}


def busy() -> tuple[Books, Status]:
    """Books and a status in which everything has happened."""
    books = Books(received=20, received_redelivered=3, forwarded=5, forwarded_bytes=500, suppressed=2, stale_held=1)
    books.stale_published, books.held, books.published, books.bytes_in_flight = 2, 3, 1, 4000
    count(books.quarantined, "poison", 2)
    count(books.requeued, "shutdown", 3)
    count(books.requeued, "of-tomorrow")  # type: ignore[misc]  # a word that this version does not know
    count(books.publish_retries, "nack", 9)
    books.duplicates_possible = 4
    books.headers_left_out = 6
    status = Status(publish_window=64, oldest_received_s=97.5, last_forward_s=1700000000.25)
    status.source.up, status.source.generation = True, 2
    status.destination.blocked = True
    count(status.source.generations_ended, "heartbeat")
    count(status.destination.connect_attempts, "unreachable", 7)
    return books, status


def test_every_metric_and_label_is_there_from_the_first_scrape() -> None:
    """So that a rate over the first event counts it, and a dashboard shows 0 and not nothing."""
    found: dict[str, dict[str, set[str]]] = {}
    for family in registry(Books(), Status()).collect():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    found["bridge_build_info"] = {label: set() for label in found["bridge_build_info"]}
    assert found == INTERFACE


def test_at_the_start_everything_is_zero() -> None:
    found = samples(Books())
    assert {name for name, value in found.items() if value} == {
        name for name in found if name.startswith("bridge_build_info")
    }


def test_every_family_says_what_it_is() -> None:
    for family in registry(Books(), Status()).collect():
        assert family.documentation.endswith("."), family.name


def test_the_samples_are_what_books_and_status_say() -> None:
    found = samples(*busy())
    expected = {
        'bridge_messages_received_total{redelivered="false"}': 17,
        'bridge_messages_received_total{redelivered="true"}': 3,
        "bridge_messages_forwarded_total": 5,
        "bridge_forwarded_bytes_total": 500,
        "bridge_messages_suppressed_total": 2,
        'bridge_messages_stale_discarded_total{stage="held"}': 1,
        'bridge_messages_stale_discarded_total{stage="published"}': 2,
        'bridge_messages_in_flight{state="held"}': 3,
        'bridge_messages_in_flight{state="published"}': 1,
        "bridge_bytes_in_flight": 4000,
        'bridge_messages_quarantined_total{reason="poison"}': 2,
        'bridge_messages_requeued_total{reason="shutdown"}': 3,
        'bridge_messages_requeued_total{reason="of-tomorrow"}': 1,
        'bridge_publish_retries_total{reason="nack"}': 9,
        "bridge_duplicates_possible_total": 4,
        "bridge_headers_left_out_total": 6,
        "bridge_publish_window": 64,
        "bridge_oldest_in_flight_seconds": 2.5,
        "bridge_last_forward_timestamp_seconds": 1700000000.25,
        'bridge_connection_up{side="source"}': 1,
        'bridge_connection_up{side="destination"}': 0,
        'bridge_connection_blocked{side="destination"}': 1,
        'bridge_generation{side="source"}': 2,
        'bridge_generations_ended_total{reason="heartbeat",side="source"}': 1,
        'bridge_connect_attempts_total{result="unreachable",side="destination"}': 7,
    }
    assert {name: found[name] for name in expected} == expected


def test_the_books_balance_on_the_page() -> None:
    """Invariant 3, from nothing but the page."""
    books, status = busy()
    assert books.imbalance == 0
    total: dict[str, float] = {}
    for name, value in samples(books, status).items():
        base = name.partition("{")[0]
        total[base] = total.get(base, 0) + value
    ends = ("forwarded", "suppressed", "quarantined", "requeued", "stale_discarded")
    settled = sum(total[f"bridge_messages_{end}_total"] for end in ends)
    assert total["bridge_messages_received_total"] == settled + total["bridge_messages_in_flight"]


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    books = Books()
    for value, times in ((0.001, 2), (0.0011, 1), (299.0, 1), (301.0, 3)):
        books.confirm_seconds.observe(value, times)
    found = samples(books)
    expected = {"0.001": 2, "0.0025": 3, "60.0": 3, "300.0": 4, "+Inf": 7}
    assert {bound: found[f'bridge_confirm_seconds_bucket{{le="{bound}"}}'] for bound in expected} == expected
    assert found["bridge_confirm_seconds_count"] == 7
    assert found["bridge_confirm_seconds_sum"] == pytest.approx(0.002 + 0.0011 + 299 + 903)


def test_sizes_are_counted_in_the_bucket_that_holds_them() -> None:
    books = Books()
    sizes = (0, 1, 3, 4, 15, 16, 512 << 20)
    for size in sizes:
        books.size_bits[size.bit_length()] += 1
        books.size_bytes_total += size
    found = samples(books)
    for bits in range(0, SIZE_BITS + 1, 2):
        bound = float(2**bits - 1)
        expected = sum(size <= bound for size in sizes)
        assert found[f'bridge_message_size_bytes_bucket{{le="{bound}"}}'] == expected
    assert found["bridge_message_size_bytes_count"] == len(sizes)
    assert found["bridge_message_size_bytes_sum"] == sum(sizes)


def words(pattern: str) -> set[str]:
    """Return the short words that the package gives at such places."""
    return {word for path in PACKAGE.rglob("*.py") for word in re.findall(pattern, path.read_text())}


@pytest.mark.parametrize(
    ("pattern", "known"),
    (
        (r'Verdict\("([a-z-]+)"', metrics.QUARANTINE_REASONS),
        (r'publish_retries, "([a-z-]+)"', metrics.RETRY_REASONS),
        (r'(?:release|release_published|_requeue_held)\("([a-z-]+)"', metrics.REQUEUE_REASONS),
        (r'\.drop\([^")]*"([a-z-]+)"', metrics.REQUEUE_REASONS),
        (r'(?:\.end|\.ended|\.fail|Ending)\("([a-z-]+)"', metrics.END_REASONS),
        (r'"([a-z]+-timeout)"', (*metrics.END_REASONS, *metrics.REQUEUE_REASONS)),
        (r'attempts, "([a-z-]+)"', metrics.CONNECT_RESULTS),
        (r'ConnectError\("([a-z-]+)"', metrics.CONNECT_RESULTS),
        (
            r'(?:Error|Entity|Refused|Resource|Failed|Closed|Allowed|gaierror),\s+(?:"[^"]*"|\w+),\s+"([a-z-]+)"',
            metrics.CONNECT_RESULTS,
        ),
        (r'return "([a-z-]+)", ', metrics.CONNECT_RESULTS),
    ),
)
def test_every_reason_that_the_code_gives_is_known_in_advance(pattern: str, known: tuple[str, ...]) -> None:
    found = words(pattern)
    assert found
    assert found <= set(known)


def test_openmetrics_is_well_formed() -> None:
    page = generate_openmetrics(registry(*busy())).decode()  # type: ignore[no-untyped-call]
    families = list(text_string_to_metric_families(page))  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert "bridge_messages_received" in names
    assert "bridge_confirm_seconds" in names


# --- What is not always known --------------------------------------------------------------------------------


def test_the_length_of_both_queues_is_shown_while_it_is_known() -> None:
    status = Status()
    status.source.backlog.answered(QueueState(7, 2), 0.0)
    status.destination.backlog.answered(QueueState(8, 3), 0.0)
    found = samples(Books(), status)
    assert found["bridge_source_messages_ready"] == 7
    assert found["bridge_source_consumers"] == 2
    assert found["bridge_destination_messages_ready"] == 8
    assert found["bridge_destination_consumers"] == 3
    status.destination.backlog.failed("it did not answer")
    assert not {name for name in samples(Books(), status) if name.startswith("bridge_destination_")}


def test_a_streams_figure_is_what_it_keeps_and_has_another_name() -> None:
    status = Status()
    status.source.backlog.answered(QueueState(500, 0), 0.0, stream=True)
    found = {name: value for name, value in samples(Books(), status).items() if name.startswith("bridge_source_")}
    offsets = {"bridge_source_offset_store_failures_total": 0, "bridge_source_offsets_missed_total": 0}
    assert found == {"bridge_source_messages_kept": 500, "bridge_source_prefetch": 0} | offsets


def test_the_offset_that_is_stored_is_shown_as_soon_as_it_is_known() -> None:
    books, status = Books(offsets_missed=5), Status()
    assert "bridge_source_offset_stored" not in samples(books, status)
    status.tracking.failed("it is away")
    status.tracking.kept(41)
    found = samples(books, status)
    assert found["bridge_source_offset_stored"] == 41
    assert found["bridge_source_offset_store_failures_total"] == 1
    assert found["bridge_source_offsets_missed_total"] == 5


def test_the_age_of_messages_is_a_histogram_up_to_a_week_and_what_is_unknown_has_a_reason() -> None:
    books = Books()
    books.message_age_seconds.observe(700_000.0)
    books.message_age_seconds.observe(0.02)
    count(books.message_age_unknown, "clock-ahead", 3)
    found = samples(books)
    assert found['bridge_message_age_seconds_bucket{le="0.05"}'] == 1
    assert found['bridge_message_age_seconds_bucket{le="604800.0"}'] == 1
    assert found["bridge_message_age_seconds_count"] == 2
    assert found['bridge_message_age_unknown_total{reason="clock-ahead"}'] == 3
    assert found['bridge_message_age_unknown_total{reason="no-timestamp"}'] == 0
