"""The window: messages that the destination returns, and those that it closes the channel for."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from bridge.window.blame import LIMIT_TTL_S
from bridge.window.pace import RETRY_MAX_S
from bridge.window.parked import ASIDE_RETRY_MAX_S, RETURNS_IN_A_ROW
from tests.support.frames import PERSISTENT, Properties, delivery, table, text
from tests.support.targets import OWN_KEYS, QUEUE
from tests.support.window_scene import Scene

if TYPE_CHECKING:
    from bridge.amqp.target import Target

# --- Returns ----------------------------------------------------------------------------------------------------


def test_a_returned_message_is_set_aside_the_others_pass_and_it_is_tried_again() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.refuse_route(1, 1)
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(2, False), (3, False)]
    assert scene.window.degraded == ["has no route for 1 message; trying again"]
    assert scene.window.oldest_received_s == scene.now_s
    scene.receive(4)
    assert scene.take() == [4], "others pass"
    scene.confirm(4)
    scene.wait(0.4)
    assert scene.take() == [1]
    scene.confirm(5)
    assert scene.acks() == [(4, False), (1, False)]
    assert scene.window.in_flight == 0
    assert scene.books.publish_retries == {"returned": 1}


def test_others_may_overtake_what_is_set_aside_or_bound_for_the_quarantine_and_nothing_else() -> None:
    scene = Scene()
    aside, near_the_limit, held = delivery(1), delivery(2, redelivered=1, delivery_count=17), delivery(3)
    scene.receive_each(aside, near_the_limit, held)
    scene.take()
    scene.refuse_route(1, 1)
    assert [scene.window.passed(d) for d in (aside, near_the_limit, held)] == [True, True, False]


@pytest.mark.parametrize("target", (QUEUE, OWN_KEYS))
def test_of_several_that_are_alike_the_first_confirm_is_taken_for_that_of_the_returned_one(target: Target) -> None:
    """Another may be under way to the disk still, and a broker that dies then has no copy for this ack."""
    scene = Scene(target=target)
    scene.receive_each(*(delivery(tag, b"alike") for tag in (1, 2, 3, 4)))
    scene.take()
    scene.returned(b"alike")
    scene.confirm(3)
    assert scene.acks() == [], "it may be this one that was returned"
    scene.confirm(4)
    assert scene.acks() == [(4, False)]
    scene.returned(b"alike")
    scene.confirm(1, accepted=False)
    scene.confirm(2)
    assert scene.acks() == []
    assert scene.books.publish_retries == {"returned": 2, "nack": 1}


def test_with_keys_of_their_own_messages_of_different_keys_are_not_alike() -> None:
    scene = Scene(target=OWN_KEYS)
    scene.receive_each(*(delivery(tag, b"same", routing_key=key) for tag, key in ((1, "a"), (2, "b"))))
    scene.take()
    scene.returned(b"same", key="b")
    scene.confirm(2, multiple=True)
    assert scene.acks() == [(1, False)]


STAMPED = {"timestamp_in_ms": b"l" + bytes(8), "x-routed-by": text("node")}
"""What an interceptor of the destination adds before it returns a message."""


def test_one_without_a_route_among_401_whose_headers_the_broker_changes() -> None:
    """With keys of their own: the others are forwarded once, whatever comes back of that one."""
    scene = Scene(target=OWN_KEYS)
    messages = [
        delivery(tag, b"body", {**PERSISTENT, "message_id": b"m-%d" % tag}, routing_key=f"key.{tag}")
        for tag in range(1, 402)
    ]
    scene.receive_each(*messages)
    published, seqno, tries = Counter[int](), 0, 0
    while scene.window.in_flight > 1 or not tries:
        taken = scene.take()
        published.update(taken)
        for tag in taken:
            if tag == 201:
                tries += 1
                changed = {**PERSISTENT, "message_id": b"m-201", "headers": table(STAMPED), "timestamp": bytes(8)}
                scene.returned(b"body", key="key.201", properties=changed)
        seqno += len(taken)
        scene.confirm(seqno, multiple=True)
        scene.wait(0.05)
    assert scene.books.forwarded == 400
    assert scene.books.duplicates_possible == 0
    assert [tag for tag, times in published.items() if times > 1] in ([], [201])
    assert (scene.window.in_flight, tries > 0) == (1, True)


def headers(**fields: str) -> Properties:
    return PERSISTENT | {"headers": table({name: text(value) for name, value in fields.items()})}


def test_what_a_return_may_be_about_is_published_again_one_at_a_time_and_counted() -> None:
    """None of it is acked before it is known which one has no route; the others may have arrived twice then."""
    scene = Scene()
    retried = [delivery(tag, b"same", headers(**{f"retry-{n}": "1" for n in range(tag)})) for tag in (1, 2, 3)]
    scene.receive_each(*retried, delivery(4), delivery(5))
    assert scene.take() == [1, 2, 3, 4, 5]
    scene.returned(b"same", properties=headers(**{"retry-0": "1", "retry-1": "1"}))
    scene.confirm(1)
    assert scene.acks() == [], "it may be this one, stamped by an interceptor"
    scene.confirm(3)
    assert scene.acks() == [(3, False)], "this one has a header more than came back"
    assert scene.take() == [], "the others come first"
    scene.confirm(5, multiple=True)
    assert scene.acks() == [(4, False), (5, False)]
    assert scene.books.duplicates_possible == 2
    assert scene.take() == [1]
    scene.confirm(6)
    assert scene.take() == [2]
    scene.returned(b"same", properties=headers(stamped="beyond recognition"))
    scene.confirm(7)
    assert scene.acks() == [(1, False)]
    assert scene.window.hindrance == "has no route for 1 message; trying again"
    scene.receive(6)
    assert scene.take() == [6]
    scene.confirm(8)
    scene.receive(7, 8)
    assert scene.take() == [7, 8], "all is known: no longer one at a time"
    assert scene.books.duplicates_possible == 2


def test_a_destination_whose_returns_are_not_recognised_is_published_to_one_at_a_time() -> None:
    scene = Scene()
    scene.receive(*range(1, 9))
    assert len(scene.take()) == 8
    scene.returned(b"beyond recognition")
    scene.confirm(8, multiple=True)
    assert scene.acks() == []
    for seqno in range(1, 9):
        assert scene.take() == [seqno]
        scene.confirm(8 + seqno)
    assert scene.acks() == [(tag, False) for tag in range(1, 9)]
    assert scene.books.duplicates_possible == 8
    scene.receive(9, 10)
    assert scene.take() == [9]
    scene.lose_destination()
    scene.reopen_destination()
    assert scene.take() == [9, 10], "until its generation ends"


def test_an_orphan_in_doubt_is_forgotten_and_counted() -> None:
    """It may have arrived, and is forwarded again."""
    scene = Scene()
    named = [delivery(tag, properties={**PERSISTENT, "message_id": b"m-%d" % tag}) for tag in (1, 2, 3)]
    scene.receive_each(*named)
    scene.take()
    scene.window.source_lost()
    scene.returned(b"beyond recognition")
    scene.confirm(2, multiple=True)
    scene.confirm(3, accepted=False)
    assert scene.books.duplicates_possible == 2
    assert len(scene.window.memory) == 0


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


def test_a_message_without_a_route_is_tried_ever_more_rarely_and_requeued_in_the_end() -> None:
    scene = Scene(hold_timeout_s=200.0, unroutable_timeout_s=0.0)
    scene.receive(1)
    seqno, tries = 0, []
    while not scene.window.settlement.requeues:
        if scene.take():
            seqno += 1
            tries.append(scene.now_s - 1000.0)
            scene.refuse_route(1, seqno)
            scene.window._source.parked.returns_in_a_row = 0  # others were taken meanwhile
        scene.wait(0.1)
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps == pytest.approx(
        [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, *[ASIDE_RETRY_MAX_S] * (len(gaps) - 7)], abs=0.11
    )
    assert scene.books.requeued == {"unroutable": 1}


def test_so_many_returns_in_a_row_blame_the_destination_and_the_oldest_is_tried_first() -> None:
    scene = Scene()
    scene.receive(*range(1, 7))
    scene.take()
    for tag in range(1, RETURNS_IN_A_ROW + 1):
        scene.refuse_route(tag, tag)
    assert scene.window.hindrance == 'refuses messages (returned: there is no queue "dq")'
    for tag in range(RETURNS_IN_A_ROW + 1, 7):
        scene.refuse_route(tag, tag)
    scene.receive(7)
    scene.wait(0.01)
    assert scene.window.everything_returned
    assert scene.take() == [], "it backs off"
    scene.now_s += 10.0
    assert scene.take() == [], "the oldest goes first, and that is for the tick to arrange"
    scene.wait(0.0)
    assert scene.take() == [1]
    scene.confirm(7)
    taken = []
    while batch := scene.take():
        taken += batch
        scene.confirm(0, multiple=True)
    assert taken == [2, 3, 4, 5, 6, 7], "invariant 5: it was an outage of the destination"
    assert scene.window.settlement.requeues == []
    assert scene.window.hindrance == ""


def test_a_single_message_whose_own_key_leads_nowhere_does_not_make_others_wait() -> None:
    scene = Scene(target=OWN_KEYS)
    scene.receive(1)
    for seqno in range(1, 8):
        assert scene.take() == [1]
        scene.refuse_route(1, seqno)
        scene.wait(ASIDE_RETRY_MAX_S)
    assert scene.take() == [1]
    scene.refuse_route(1, 8)
    scene.receive(2)
    assert scene.take() == [2]


def test_while_everything_is_returned_a_second_message_tries_too() -> None:
    """The oldest may have no route for ever, and the destination may have one for all others."""
    scene = Scene()
    scene.receive(*range(1, 5))
    scene.take()
    for tag in range(1, 5):
        scene.refuse_route(tag, tag)
    scene.wait(10.0)
    assert scene.take() == [1]
    scene.refuse_route(1, 5)
    scene.wait(0.0)
    assert scene.take() == [2]
    scene.confirm(6)
    assert scene.acks() == [(2, False)]
    assert scene.take() == [1, 3], "all others are tried again"


def test_returns_among_identical_messages_are_counted_one_for_one() -> None:
    scene = Scene()
    scene.receive_each(*(delivery(tag, b"same") for tag in range(1, 5)))
    scene.take()
    scene.confirm(1)
    scene.returned(b"same")
    scene.returned(b"same")
    scene.confirm(4, multiple=True)
    assert scene.acks() == [(1, True), (4, False)]
    assert scene.window.in_flight == 2


# --- Poison -----------------------------------------------------------------------------------------------------


def test_poison_is_found_one_by_one_and_the_others_are_forwarded() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.lose_destination(406, "why")
    scene.reopen_destination()
    assert scene.take() == [1]
    scene.confirm(1)
    assert scene.take() == [2], "one at a time while there are suspects"
    scene.lose_destination(406, "why")
    assert scene.verdicts() == [(2, "poison", 406)]
    scene.reopen_destination()
    assert scene.take() == [3]
    scene.confirm(1)
    assert scene.acks() == [(1, False), (3, False)]
    assert scene.window.oldest_received_s == scene.now_s
    assert scene.window.quarantine_asked()[1].reply_text == "why"
    scene.window.quarantined(2)
    assert scene.acks() == [(2, False)]
    assert scene.books.quarantined == {"poison": 1}


def test_a_close_that_blames_no_message_convicts_none() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(320, "CONNECTION_FORCED")
    assert scene.verdicts() == []
    scene.reopen_destination()
    assert scene.take() == [1]


def test_an_internal_error_must_be_caused_three_times_alone() -> None:
    scene = Scene()
    scene.receive(1)
    for _ in range(2):
        assert scene.take() == [1]
        scene.lose_destination(541, "INTERNAL_ERROR")
        assert scene.verdicts() == []
        scene.reopen_destination()
    assert scene.take() == [1]
    scene.lose_destination(541, "INTERNAL_ERROR")
    assert scene.verdicts() == [(1, "poison", 541)]


def test_a_success_in_between_clears_of_internal_errors() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(541)
    scene.reopen_destination()
    scene.take()
    scene.confirm(1)
    assert scene.window._source.blame.strikes == {}


@pytest.mark.parametrize("code", (403, 404, 405))
def test_a_close_that_blames_the_destination_backs_off(code: int) -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(code, "no exchange")
    scene.reopen_destination()
    assert scene.window.publish_window == 1
    assert scene.take() == []
    assert scene.window.hindrance == "refuses messages (closed: no exchange)"
    scene.wait(0.2)
    assert scene.take() == [1]


FORBIDDEN = "ACCESS_REFUSED - access to topic 'red' in exchange 'ex'"


def test_with_keys_of_their_own_a_refused_topic_is_the_messages() -> None:
    """The message is set aside, others pass."""
    scene = Scene(target=OWN_KEYS)
    scene.receive(1, 2)
    scene.take()
    scene.lose_destination(403, FORBIDDEN)
    scene.reopen_destination()
    assert scene.take() == [1]
    scene.lose_destination(403, FORBIDDEN)
    scene.reopen_destination()
    assert scene.take() == [2]
    assert scene.verdicts() == []
    assert scene.books.held == 1
    assert scene.window.degraded == [f"refuses the keys of 1 message ({FORBIDDEN}); trying again"]


def test_with_keys_of_their_own_a_refused_exchange_is_the_destinations() -> None:
    scene = Scene(target=OWN_KEYS)
    scene.receive(1, 2)
    scene.take()
    scene.lose_destination(403, "ACCESS_REFUSED - access to exchange 'ex'")
    assert scene.window.hindrance == "refuses messages (closed: ACCESS_REFUSED - access to exchange 'ex')"
    assert scene.window.parked == 0


TOO_LARGE = "PRECONDITION_FAILED - message size 4 is larger than configured max size 3"


def test_a_size_limit_is_learned_and_the_next_is_caught_before_it_costs_a_channel() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"123"), delivery(2, b"1234"))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    assert scene.verdicts() == [(2, "too-large", 406)]
    scene.reopen_destination()
    assert scene.take() == [1], "no search is needed"
    scene.receive_each(delivery(3, b"12345"), delivery(4, b"123"))
    assert scene.verdicts()[1] == (3, "too-large", 406)
    assert scene.take() == [4]


def test_a_learned_limit_is_believed_for_a_while() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"1234"))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    scene.wait(LIMIT_TTL_S - 1.0)
    scene.receive_each(delivery(2, b"12345"))
    assert scene.take() == []
    scene.wait(1.0)
    scene.receive_each(delivery(3, b"12345"))
    assert scene.take() == [3]


def test_a_cumulative_ack_covers_nothing_that_is_not_confirmed_though_the_numbers_fit() -> None:
    """Publishes of 1, 4 and 3, in this order: the first is the lowest, the last two above it, and 2 is held."""
    scene = Scene()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    near_the_limit = delivery(3, redelivered=1, delivery_count=17)
    scene.receive_each(delivery(1), delivery(2, b"1234"), near_the_limit, delivery(4))
    assert scene.take() == [1, 4]
    scene.refuse_quarantine()
    scene.refuse_quarantine()
    assert scene.take() == [3]
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (4, False), (3, False)]


def test_a_limit_that_blames_none_of_the_published_means_a_search() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"1"))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    assert scene.verdicts() == [(1, "poison", 406)]


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


def test_what_the_quarantine_refuses_is_held_and_offered_again() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(406)
    scene.reopen_destination()
    scene.refuse_quarantine()
    assert scene.verdicts() == []
    assert scene.window.degraded == ["rejects 1 message (poison); holding them, no quarantine accepts them"]
    scene.wait(RETRY_MAX_S)
    assert scene.verdicts() == [(1, "poison", 406)]
    assert scene.take() == []


def test_what_the_quarantine_refuses_for_long_is_requeued_though_it_is_offered_again_and_again() -> None:
    scene = Scene(hold_timeout_s=3 * RETRY_MAX_S + 0.05)
    scene.receive(1)
    scene.take()
    scene.lose_destination(406)
    scene.reopen_destination()
    for _ in range(3):
        assert scene.window.settlement.requeues == []
        scene.refuse_quarantine()
        scene.wait(RETRY_MAX_S)
        assert "no quarantine accepts" in scene.window.degraded[0], "also while it is offered"
    scene.refuse_quarantine()
    scene.wait(0.1)
    assert scene.window.settlement.requeues == [1]
    assert scene.books.requeued == {"poison": 1}


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


def test_a_destination_that_did_not_confirm_gets_one_message_and_only_after_a_rest() -> None:
    scene = Scene(confirm_timeout_s=5.0)
    scene.receive(1, 2)
    scene.take()
    scene.window.destination_unconfirmed(scene.now_s)
    scene.lose_destination()
    scene.reopen_destination()
    assert scene.take() == []
    assert scene.window.hindrance == "does not confirm what it is sent"
    scene.wait(10.0)
    assert scene.take() == [1]


def test_orphans_may_be_confirmed_out_of_turn() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.window.source_lost()
    scene.confirm(2)
    assert scene.window.orphans == 2
    scene.confirm(3, multiple=True)
    assert scene.window.orphans == 0
