"""What the destination's answers mean: one ack for many, single ones, another try, or nothing for an orphan."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.amqp.target import Target
from bridge.window.pace import FIRST_PUBLISH_WINDOW, RETRY_MAX_S
from bridge.window.parked import ASIDE_RETRY_MAX_S
from tests.support.frames import PERSISTENT, delivery, table
from tests.support.targets import OWN_KEYS, QUEUE
from tests.support.window_scene import STAMPED, TOO_LARGE, Scene, headers, identified

FORBIDDEN = "ACCESS_REFUSED - access to topic 'red' in exchange 'ex'"


def test_confirmed_in_order_means_one_cumulative_ack() -> None:
    scene = Scene()
    scene.receive(*range(1, 6))
    assert scene.take() == [1, 2, 3, 4, 5]
    assert scene.acks() == []
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(3, True)]
    scene.confirm(0, multiple=True)
    assert scene.acks() == [(5, True)]
    assert scene.books.forwarded == 5
    assert scene.window.last_forward_s == scene.now_s


def test_confirmed_out_of_order_means_single_acks_and_none_twice() -> None:
    scene = Scene()
    scene.receive(*range(1, 6))
    scene.take()
    scene.confirm(2)
    scene.confirm(4)
    assert scene.acks() == [(2, False), (4, False)]
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (3, False)]
    scene.confirm(5)
    assert scene.acks() == [(5, True)]


def test_a_confirm_of_what_is_confirmed_already_is_nothing() -> None:
    scene = Scene()
    scene.receive(1, 2)
    scene.take()
    scene.confirm(1)
    scene.confirm(1)
    scene.confirm(1, multiple=True)
    assert scene.acks() == [(1, True)]


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


def test_the_publish_window_doubles_with_each_round_up_to_the_prefetch() -> None:
    scene = Scene(prefetch=50)
    scene.receive(*range(1, 301))
    rounds = []
    seqno = 0
    for _ in range(4):
        taken = len(scene.take())
        rounds.append(taken)
        seqno += taken
        scene.confirm(seqno, multiple=True)
    assert rounds == [FIRST_PUBLISH_WINDOW, 2 * FIRST_PUBLISH_WINDOW, 50, 50]


# --- Refused ----------------------------------------------------------------------------------------------------


def test_nack_holds_them_in_order_narrows_the_window_and_backs_off_without_requeueing() -> None:
    scene = Scene()
    scene.receive(*range(1, 5))
    scene.take()
    scene.confirm(1)
    scene.confirm(3, multiple=True, accepted=False)
    assert scene.window.publish_window == 1
    assert scene.take() == []
    scene.confirm(4)
    scene.wait(0.2)
    assert scene.take() == [2]
    assert "its queue may be full" in scene.window.hindrance or scene.window.hindrance == ""
    scene.confirm(5)
    assert scene.take() == [3]
    assert scene.window.settlement.requeues == []
    assert scene.books.publish_retries == {"nack": 2}


def test_the_backoff_of_a_refusing_destination_doubles_with_jitter_up_to_its_most_and_ends_with_a_success() -> None:
    waits: list[list[float]] = []
    for chance in (0.0, 1.0):
        scene = Scene(chance)
        scene.receive(1)
        seqno = 0
        waits.append([])
        for _ in range(8):
            assert scene.take() == [1]
            seqno += 1
            scene.confirm(seqno, accepted=False)
            assert scene.window.hindrance == "refuses messages (nack: its queue may be full (reject-publish))"
            waits[-1].append(scene.window.trouble._resting_until_s - scene.now_s)
            scene.now_s = scene.window.trouble._resting_until_s
    assert waits[1] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S])
    assert waits[0] == pytest.approx([wait / 2 for wait in waits[1]])
    scene.take()
    scene.confirm(seqno + 1)
    assert scene.window.hindrance == ""
    assert scene.window.trouble.seconds(scene.now_s) == 0.0


def test_several_nacks_of_one_refusal_back_off_once() -> None:
    scene = Scene()
    scene.receive(1, 2)
    scene.take()
    scene.confirm(1, accepted=False)
    until_s = scene.window.trouble._resting_until_s
    scene.confirm(2, accepted=False)
    assert scene.window.trouble._resting_until_s == until_s


@pytest.mark.parametrize(("target", "copies"), ((QUEUE, 0), (OWN_KEYS, 2), (Target("out", "key"), 2)))
def test_a_nack_of_an_exchange_may_stand_for_copies_that_other_queues_took(target: Target, copies: int) -> None:
    scene = Scene(target=target)
    scene.receive(1, 2)
    scene.take()
    scene.confirm(2, multiple=True, accepted=False)
    assert scene.books.duplicates_possible == copies


# --- Orphans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ("confirmed", "nacked", "returned", "lost"))
def test_an_orphans_fate_decides_over_its_redelivery(fate: str) -> None:
    scene = Scene()
    scene.receive_each(identified(1, "a"))
    scene.take()
    scene.window.source_lost()
    if fate == "returned":
        scene.returned(b"body", properties=PERSISTENT | {"message_id": b"a"})
    if fate == "lost":
        scene.lose_destination(406, "poison, perhaps")
        scene.reopen_destination()
    else:
        scene.confirm(1, accepted=fate != "nacked")
    assert scene.window.orphans == 0
    scene.window.source_opened()
    scene.receive_each(identified(1, "a", redelivered=1))
    if fate == "confirmed":
        assert scene.acks() == [(1, False)]
        assert scene.books.suppressed == 1
        assert scene.take() == []
    else:
        assert scene.acks() == []
        assert scene.take() == [1]
    assert scene.books.imbalance == 0


def test_an_orphan_without_an_id_is_forwarded_again_and_counted() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"body"))
    scene.take()
    scene.window.source_lost()
    scene.confirm(1)
    scene.window.source_opened()
    scene.receive_each(delivery(1, b"body", redelivered=1))
    assert scene.take() == [1]
    assert scene.books.duplicates_possible == 1


def test_orphans_may_be_confirmed_out_of_turn() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.window.source_lost()
    scene.confirm(2)
    assert scene.window.orphans == 2
    scene.confirm(3, multiple=True)
    assert scene.window.orphans == 0


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


# --- Returned ---------------------------------------------------------------------------------------------------


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
