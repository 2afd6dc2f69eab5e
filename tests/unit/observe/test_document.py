"""The status document: complete, consistent, and nothing in it that must not be there."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from bridge.observe.document import SECTIONS, About, Seen, about, document
from bridge.observe.events import KEPT, EventLog
from bridge.observe.history import sample
from bridge.observe.text import HIDDEN
from bridge.relay.queue import QueueState
from bridge.settings.environment import load_settings
from bridge.window.books import Books
from tests.support.seen import NOON_S, ready, seen

if TYPE_CHECKING:
    from bridge.observe.status import Status

SECRET = "n3ver-Sh0wn"  # noqa: S105 - made up


def moving(pace: int, waiting: tuple[int, int] | None, status: Status | None = None) -> Seen:
    """A bridge that has forwarded so many a second for 15 s, while so many waited at the begin and at the end."""
    status = status or ready()
    samples = []
    for at_s, number in zip((0.0, 15.0), waiting or (None, None), strict=True):
        if number is not None:
            status.source.backlog.answered(QueueState(number, 1), NOON_S + at_s)
        books = Books(received=int(pace * at_s), forwarded=int(pace * at_s))
        samples.append(sample(books, status.source.backlog, at_s, NOON_S + at_s))
    return Seen(books, status, samples)


def said(what: Seen, of: About | None = None) -> str:
    text = document(what, of or About())["sentence"]
    assert isinstance(text, str)
    return text


def test_it_is_json_with_a_version_and_every_section() -> None:
    found = json.loads(json.dumps(document(seen(), About()), allow_nan=False))
    assert found["version"] == 1
    assert {"version", "sentence", *SECTIONS} == found.keys()


def test_the_settings_name_what_it_moves_where() -> None:
    settings = load_settings(
        {
            "BRIDGE_SOURCE_URL": f"amqp://reader:{SECRET}@h",
            "BRIDGE_SOURCE_QUEUE": "from",
            "BRIDGE_DESTINATION_EXCHANGE": "to",
            "BRIDGE_SOURCE_PREFETCH": "7",
        }
    )
    status = ready()
    status.destination.failed("refused", f"the broker said {SECRET}", NOON_S)
    found = document(seen(status=status), about(settings, EventLog()))
    assert (found["source"]["queue"], found["destination"]["exchange"]) == ("from", "to")
    assert (found["consumer"]["prefetch"], found["consumer"]["quarantine_queue"]) == (7, "from.quarantine")
    assert found["destination"]["reason"] == f"the broker said {HIDDEN}"
    assert SECRET not in json.dumps(found)


def test_both_sides_say_since_when_and_how_the_last_generation_ended() -> None:
    status = ready()
    status.source.ended("connection-lost", "the network went away", NOON_S)
    status.source.failed("unreachable", "nothing listens there", NOON_S + 5)
    source = document(seen(status=status), About())["source"]
    assert (source["state"], source["since"]) == ("not connected", "2027-01-15T12:00:00.000Z")
    assert (source["reason"], source["url"]) == ("nothing listens there", "")
    assert source["last_end"] == {
        "generation": 1,
        "reason": "connection-lost",
        "text": "the network went away",
        "at": "2027-01-15T12:00:00.000Z",
    }
    status.source.opened("amqp://h", NOON_S + 9)
    source = document(seen(status=status), About())["source"]
    assert (source["state"], source["generation"], source["since"]) == ("connected", 2, "2027-01-15T12:00:09.000Z")


def test_the_books_stand_there_as_they_are_and_say_what_is_missing() -> None:
    books = Books(received=20, forwarded=9, suppressed=1, quarantined={"poison": 2}, requeued={"shutdown": 3})
    books.stale_held, books.stale_published, books.held, books.published = 1, 1, 1, 1
    found = document(seen(books), About())["books"]
    assert found["imbalance"] == 1
    assert (found["quarantined"], found["requeued"]) == ({"poison": 2}, {"shutdown": 3})
    assert (found["stale"], found["in_flight"]) == ({"held": 1, "published": 1}, {"held": 1, "published": 1})


def test_of_a_stream_is_told_what_it_keeps_and_of_a_failed_question_nothing() -> None:
    status = ready()
    status.source.backlog.answered(QueueState(500, 0), NOON_S, stream=True)
    status.destination.backlog.failed("it did not answer in time")
    backlog = document(seen(status=status), About())["backlog"]
    assert backlog["source"]["messages_kept"] == 500
    assert "messages_ready" not in backlog["source"]
    assert backlog["destination"]["messages_ready"] is None
    assert backlog["destination"]["unknown"] == "it did not answer in time"


def test_text_of_a_broker_is_one_printable_line_without_what_is_a_messages() -> None:
    status = ready()
    evil = "406 \x1b[2J<script>alert(1)</script>\n\u202e user_id property set to 'alice' but"
    status.destination.ended("channel-closed", evil, NOON_S)
    found = document(seen(status=status), About())["destination"]["reason"]
    assert found.isprintable()
    assert f"set to {HIDDEN} but" in found


def test_the_last_events_are_kept_without_their_fields_the_latest_first() -> None:
    events = EventLog()
    logger = logging.Logger("test")  # noqa: LOG001 - of this test alone
    logger.addHandler(events)
    for number in range(KEPT + 5):
        logger.warning("event %d", number, extra={"message_id": SECRET})
    found = document(seen(), About(events=events))["events"]
    assert len(found) == KEPT
    assert (found[0]["text"], found[0]["level"]) == (f"event {KEPT + 4}", "warning")
    assert SECRET not in json.dumps(found)


# --- The sentence ----------------------------------------------------------------------------------------


def test_a_busy_bridge_says_how_fast_how_far_behind_and_how_long() -> None:
    assert said(moving(4100, (73_800, 12_300))) == "forwarding 4,100 messages/s, 12,300 waiting, empty in about 3 s"


def test_a_bridge_that_does_not_catch_up_says_so() -> None:
    assert said(moving(50, (100, 900))) == "forwarding 50 messages/s, 900 waiting, not getting fewer"


def test_without_a_figure_of_the_queue_nothing_is_said_about_it() -> None:
    assert said(moving(50, None)) == "forwarding 50 messages/s"


def test_an_idle_bridge_is_idle() -> None:
    what = moving(0, (0, 0))
    assert said(what) == "idle, none waiting"
    what.status.last_forward_s = NOON_S - 86_400 - 3600
    assert said(what) == "idle, none waiting, last forwarded at 2027-01-14 11:00 UTC"


def test_a_standby_forwards_nothing_though_messages_wait() -> None:
    assert said(moving(0, (100, 100))) == "forwarding nothing, 100 waiting, not getting fewer"


def test_a_blocked_destination_says_why_and_since_when() -> None:
    status = ready()
    status.destination.block("low on memory", NOON_S + 180)
    assert said(moving(0, (0, 0), status)) == "destination blocked since 12:03 UTC: low on memory"


def test_a_lost_side_says_why_and_since_when() -> None:
    status = ready()
    status.source.ended("connection-lost", "connection lost", NOON_S)
    assert said(moving(0, None, status)) == "source not connected since 12:00 UTC: connection lost"


def test_a_new_process_has_no_since() -> None:
    assert said(seen()) == "source not connected: not connected yet"


def test_a_destination_that_refuses_says_for_how_long() -> None:
    status = ready()
    status.trouble, status.trouble_s = "refuses messages (nack)", 90.0
    assert said(moving(0, None, status)) == "destination: refuses messages (nack), for 2 min"


def test_what_hinders_single_messages_comes_after() -> None:
    status = ready()
    status.degraded = ["destination: has no route for 1 message; trying again"]
    assert said(moving(0, (0, 0), status)).endswith("; degraded: destination: has no route for 1 message; trying again")


def test_a_shutdown_says_what_is_left() -> None:
    status = ready()
    status.stopping = True
    assert said(seen(Books(held=2, published=1), status)) == "stopping, 3 messages in flight"


@pytest.mark.parametrize(
    ("seconds", "expected"), ((30, "30 s"), (90, "2 min"), (7200, "2.0 h"), (10 * 86_400, "10.0 days"))
)
def test_times_have_the_unit_that_fits(seconds: float, expected: str) -> None:
    status = ready()
    status.trouble, status.trouble_s = "refuses", seconds
    assert said(moving(0, None, status)) == f"destination: refuses, for {expected}"
