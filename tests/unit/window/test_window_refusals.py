"""The window: messages that the destination returns, and those that it closes the channel for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bridge.window.blame import LIMIT_TTL_S
from bridge.window.pace import RETRY_MAX_S
from bridge.window.parked import ASIDE_RETRY_MAX_S, RETURNS_IN_A_ROW
from tests.support.frames import delivery
from tests.support.targets import OWN_KEYS
from tests.support.window_scene import TOO_LARGE, Scene

# --- Returns ----------------------------------------------------------------------------------------------------


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


def test_a_limit_that_blames_none_of_the_published_means_a_search() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"1"))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    assert scene.verdicts() == [(1, "poison", 406)]


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
