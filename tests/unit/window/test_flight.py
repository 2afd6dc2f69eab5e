"""What is in flight: what may be asked of it, and that each move keeps the books balanced."""

from __future__ import annotations

from math import inf

import pytest

from tests.support.frames import delivery, stream_delivery
from tests.support.targets import OWN_KEYS
from tests.support.window_scene import TOO_LARGE, Scene

FORBIDDEN = "ACCESS_REFUSED - access to topic 'red' in exchange 'ex'"


# --- What can be asked ------------------------------------------------------------------------------------------


def test_deliveries_that_are_neither_published_nor_parked_nor_condemned_are_only_held() -> None:
    scene = Scene()
    assert not scene.window.held_only, "there are none"
    scene.receive(1)
    assert scene.window.held_only
    scene.take()
    assert not scene.window.held_only
    scene.refuse_route(1, 1)
    assert (scene.window.held_only, scene.window.parked) == (False, 1)
    other = Scene()
    other.receive_each(delivery(1, redelivered=1, delivery_count=19))
    assert not other.window.held_only


def test_memory_is_full_at_its_limit_but_not_while_deliveries_are_requeued_or_an_answer_must_be_read() -> None:
    scene = Scene(max_in_flight_bytes=2 * len(delivery(1).content))
    scene.receive(1)
    assert not scene.window.full
    scene.receive_each(delivery(2, redelivered=1, delivery_count=19))
    assert scene.window.full, "invariant 4"
    scene.window.quarantine_asked()
    assert not scene.window.full
    scene.window.release_published("shutdown")
    scene.window.destination_blocked(scene.now_s)
    scene.window.release("hold-timeout")
    assert scene.books.bytes_in_flight == 0
    scene.receive(3)
    assert not scene.window.full


@pytest.mark.parametrize(("source", "destination", "limit"), ((0, 0, 0), (0, 500, 500), (400, 500, 0), (600, 500, 500)))
def test_a_frame_limit_is_told_where_a_delivery_may_have_larger_frames(
    source: int, destination: int, limit: int
) -> None:
    scene = Scene()
    scene.window.source_opened(source)
    scene.window.destination_opened(destination)
    assert scene.window.frame_limit == limit


def test_the_oldest_in_flight_is_told_also_when_it_was_published_last() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.refuse_route(1, 1)
    scene.now_s += 1.0
    scene.receive(2)
    assert scene.window.oldest_received_s == 1000.0
    assert scene.take() == [2]
    scene.wait(0.0)
    assert scene.window.oldest_received_s == 1000.0, "held again"
    scene.window._destination.publish_window.confirmed(9, 9)
    assert scene.take() == [1]
    assert scene.window.oldest_received_s == 1000.0, "published after the younger one"
    assert scene.window.settlement.requeues == []


def test_others_may_overtake_what_is_set_aside_or_bound_for_the_quarantine_and_nothing_else() -> None:
    scene = Scene()
    aside, near_the_limit, held = delivery(1), delivery(2, redelivered=1, delivery_count=17), delivery(3)
    scene.receive_each(aside, near_the_limit, held)
    scene.take()
    scene.refuse_route(1, 1)
    assert [scene.window.passed(d) for d in (aside, near_the_limit, held)] == [True, True, False]


def test_confirm_overdue_is_the_age_of_the_oldest_publish_whatever_else_is_confirmed() -> None:
    scene = Scene(confirm_timeout_s=30.0)
    scene.wait(100.0)
    assert not scene.window.confirm_overdue(scene.now_s), "nothing is published"
    scene.receive(1, 2)
    scene.take()
    assert scene.window.publishing
    scene.wait(29.0)
    assert not scene.window.confirm_overdue(scene.now_s)
    scene.confirm(2)
    assert scene.window.confirm_overtaken
    scene.wait(1.0)
    assert scene.window.confirm_overdue(scene.now_s)
    scene.lose_destination()
    assert not scene.window.confirm_overdue(scene.now_s)
    assert not scene.window.publishing


@pytest.mark.parametrize("prefetch", (1, 2))
def test_messages_that_wait_for_a_quarantine_hinder_everything_once_they_fill_the_window(prefetch: int) -> None:
    scene = Scene(quarantine=False, prefetch=prefetch)
    scene.receive(1)
    scene.take()
    scene.lose_destination(406)
    scene.reopen_destination()
    rejected = "rejects 1 message (poison); holding them, no quarantine accepts them"
    if prefetch == 1:
        assert (scene.window.hindrance, scene.window.degraded) == (rejected, [])
    else:
        assert (scene.window.hindrance, scene.window.degraded) == ("", [rejected])


def test_a_queue_that_is_missing_hinders_everything_from_the_first_return_until_it_accepts() -> None:
    """All messages for a queue take the same route."""
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.refuse_route(1, 1)
    assert scene.window.hindrance == "has no route for 1 message; trying again"
    scene.receive(2)
    assert scene.take() == [2]
    scene.confirm(2)
    assert scene.window.hindrance == ""
    assert scene.window.degraded == ["has no route for 1 message; trying again"]


def test_at_an_exchange_a_message_without_a_route_hinders_no_other() -> None:
    scene = Scene(target=OWN_KEYS)
    scene.receive(1)
    scene.take()
    scene.refuse_route(1, 1)
    assert scene.window.hindrance == ""
    assert scene.window.degraded == ["has no route for 1 message; trying again"]


def test_publishes_are_counted_orphans_among_them_and_those_of_this_generation_apart() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    assert (scene.window.publishable, scene.window.publishing) == (True, False)
    scene.take()
    assert (scene.window.publishable, scene.window.publishing) == (False, True)
    assert (scene.window.unconfirmed, scene.window.orphans) == (3, 0)
    scene.window.source_lost()
    assert (scene.window.unconfirmed, scene.window.orphans) == (3, 3)
    assert scene.window.oldest_received_s is None, "an orphan is no delivery any more"


def test_a_destination_that_is_blocked_is_not_ready_and_its_publish_window_stays() -> None:
    scene = Scene()
    assert (scene.window.blocked, scene.window.destination_ready) == (False, True)
    size = scene.window.publish_window
    scene.window.destination_blocked(scene.now_s)
    assert (scene.window.blocked, scene.window.destination_ready) == (True, False)
    assert scene.window.publish_window == size > 0


def test_what_is_on_its_way_to_the_quarantine_is_told_the_longest_first() -> None:
    scene = Scene()
    scene.receive_each(*(delivery(tag, redelivered=1, delivery_count=19) for tag in (1, 2)))
    assert (scene.window.quarantining, scene.window.first_quarantining) == (0, None)
    for expected in (1, 2):
        scene.window.quarantine_asked()
        assert (scene.window.quarantining, scene.window.first_quarantining) == (expected, 1)
    scene.window.quarantined(1)
    assert (scene.window.quarantining, scene.window.first_quarantining) == (1, 2)


def test_a_rate_bounds_the_prefetch_and_throttles_when_it_is_used_up() -> None:
    assert (Scene().window.prefetch, Scene().window.throttled(1000.0)) == (1000, False)
    scene = Scene(max_rate=5.0, paced_s=10.0)
    assert (scene.window.prefetch, scene.window.throttled(scene.now_s)) == (50, False)
    scene.receive(1)
    scene.take()
    assert scene.window.throttled(scene.now_s)
    assert scene.window.rate_due_s == inf
    scene.receive(2)
    assert 0.0 < scene.window.rate_due_s - scene.now_s < 0.2


def test_so_many_returns_in_a_row_are_the_destinations_doing() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    for tag in (1, 2):
        scene.refuse_route(tag, tag)
        assert not scene.window.everything_returned
    scene.refuse_route(3, 3)
    assert scene.window.everything_returned
    assert scene.window.hindrance.startswith("refuses messages (returned: there is no queue")


# --- Moves ------------------------------------------------------------------------------------------------------


def test_confirms_and_residence_are_timed_in_the_books() -> None:
    scene = Scene()
    scene.receive(1)
    scene.now_s += 2.0
    scene.receive(2)
    scene.take()
    scene.now_s += 0.5
    scene.confirm(2, multiple=True)
    assert scene.books.confirm_seconds.total == 2 * 0.5
    assert scene.books.residence_seconds.total == 2.5 + 0.5


def test_what_the_destination_accepted_is_counted_with_the_last_of_it_orphans_included() -> None:
    scene = Scene()
    assert (scene.window.accepted, scene.window.last_accepted_count) == (0, None)
    scene.receive_each(delivery(1), delivery(2, redelivered=1, delivery_count=2))
    scene.take()
    scene.confirm(1)
    assert scene.window.accepted == 1
    scene.confirm(2)
    assert (scene.window.accepted, scene.window.last_accepted_count) == (2, 2)
    scene.receive(3)
    scene.take()
    scene.window.source_lost()
    scene.confirm(3)
    assert scene.window.accepted == 3


def test_an_age_is_sampled_of_what_was_forwarded_when_one_is_due() -> None:
    scene = Scene()
    scene.window.age.wall_clock(0.0)
    scene.receive(1, 2)
    scene.take()
    scene.confirm(1)
    scene.confirm(2)
    assert sum(scene.books.message_age_unknown.values()) == 1, "one sample, of a message without a timestamp"


def test_more_than_an_eighth_too_many_without_a_route_go_to_the_quarantine_at_once() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=8)
    scene.receive(*range(1, 9))
    scene.take()
    scene.confirm(8)
    for tag in (1, 2, 3):
        scene.now_s -= 0.001  # before the last that was accepted
        scene.refuse_route(tag, tag)
    assert [tag for tag, _, _ in scene.verdicts()] == [3]


def test_when_every_key_is_refused_it_is_the_destination_that_refuses() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=3)
    scene.receive(1, 2, 3)
    while not scene.window.hindrance:
        scene.take()
        scene.lose_destination(403, FORBIDDEN)
        scene.reopen_destination()
    assert scene.window.hindrance == f"refuses messages (closed: {FORBIDDEN})"
    assert scene.window.parked == 3


def test_beyond_a_quarter_of_the_window_the_longest_waiting_without_a_route_go_to_the_quarantine() -> None:
    scene = Scene(prefetch=8, target=OWN_KEYS)
    scene.receive(*range(1, 9))
    assert scene.take() == [*range(1, 9)]
    for tag in (1, 2, 3, 5):
        scene.returned(b"%d" % tag)
    for seqno in (4, 1, 2, 6, 3, 7, 5, 8):
        scene.confirm(seqno)
        scene.now_s += 1.0
    scene.wait(0.0)
    assert scene.verdicts() == [(1, "unroutable", 312), (2, "unroutable", 312)]
    assert scene.window.parked + scene.books.published + len(scene.window._source.held) == 2


def test_without_a_quarantine_what_has_no_route_is_only_held() -> None:
    scene = Scene(prefetch=4, target=OWN_KEYS, quarantine=False)
    scene.receive(1, 2, 3, 4)
    scene.take()
    for tag in (1, 2, 3):
        scene.returned(b"%d" % tag)
    for seqno in (1, 2, 3, 4):
        scene.confirm(seqno)
    assert scene.verdicts() == []


def test_without_a_quarantine_poison_is_held_shown_and_requeued() -> None:
    scene = Scene(quarantine=False, hold_timeout_s=60.0)
    scene.receive_each(delivery(1, b"1234"), delivery(2, b"1234", delivery_count=19))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    assert scene.verdicts() == []
    assert scene.window.degraded == [f"rejects 1 message ({TOO_LARGE}); holding them, no quarantine accepts them"]
    assert scene.take() == [2], "others pass, and are not caught by a limit"
    scene.wait(60.0)
    assert scene.window.settlement.requeues == [1]
    assert scene.books.requeued == {"poison": 1}


def test_a_stream_is_read_on_at_the_lowest_offset_that_was_not_forwarded() -> None:
    scene = Scene()
    assert scene.window.offsets is None
    scene.window.read_stream()
    assert scene.window.offsets is not None
    scene.receive_each(*(stream_delivery(tag, 100 + tag) for tag in (1, 2, 3)))
    assert scene.resume_at == 101
    scene.take()
    scene.confirm(2)
    assert scene.resume_at == 101
    scene.confirm(1)
    assert scene.resume_at == 103
    scene.confirm(3)
    assert scene.resume_at == 104


def test_what_is_known_of_exchanges_belongs_to_a_generation_of_the_destination() -> None:
    scene = Scene()
    before = scene.window.exchanges
    assert scene.window.exchanges is before
    scene.lose_destination()
    scene.reopen_destination()
    assert scene.window.exchanges is not before
