"""Deliveries set aside: when each is tried again, and what several returns in a row mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.amqp.events import Close
from bridge.window.blame import Verdict
from bridge.window.pace import Trouble
from bridge.window.parked import ASIDE_RETRY_MAX_S, FORBIDDEN_IN_A_ROW, RETRIES_AT_ONCE, RETURNS_IN_A_ROW, Parked
from tests.support.frames import delivery
from tests.support.targets import OWN_KEYS, QUEUE

if TYPE_CHECKING:
    from bridge.amqp.target import Target

POISON = Verdict("poison", 406, "why")


class Scene:
    """Nothing is aside yet; shorthands by delivery tag."""

    def __init__(self, *, target: Target = QUEUE, prefetch: int = 3) -> None:
        self.parked = Parked(Trouble(lambda: 1.0), target, prefetch)

    def returned(self, *delivery_tags: int, now_s: float = 0.0) -> list[bool]:
        """What each return says of the destination."""
        return [self.parked.returned(delivery(tag), now_s) for tag in delivery_tags]

    def park(self, delivery_tag: int, now_s: float, retry_in_s: float) -> None:
        """The quarantine does not take it."""
        self.parked.park(delivery(delivery_tag), POISON, now_s, retry_in_s)

    def due(self, now_s: float) -> list[int]:
        """What is published again."""
        return [d.delivery_tag for d in self.parked.take_due(now_s)]

    def taken(self) -> list[int]:
        """What is published again since another message was taken."""
        return [d.delivery_tag for d in self.parked.accepted()]

    def probes(self, *, alone: bool) -> list[int]:
        """What tries whether the destination has a route again, in order."""
        return sorted(d.delivery_tag for d in self.parked.take_probes(alone=alone))

    def given_up(self, now_s: float) -> list[tuple[int, str]]:
        """What has been refused for 100 s."""
        return [(d.delivery_tag, reason) for d, reason in self.parked.take_given_up(now_s, 100.0, returned=True)]

    def unroutable(self, now_s: float, accepted_s: float | None, timeout_s: float = 100.0) -> list[int]:
        """What goes to the quarantine for want of a route."""
        return [d.delivery_tag for d, _ in self.parked.take_unroutable(now_s, timeout_s, accepted_s)]

    def offered(self, now_s: float) -> list[tuple[int, Verdict]]:
        """What the quarantine is offered again."""
        return [(d.delivery_tag, verdict) for d, verdict in self.parked.take_offered(now_s)]


def test_a_returned_message_is_tried_again_ever_more_rarely() -> None:
    scene = Scene()
    now_s = 0.0
    for wait_s in (0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, ASIDE_RETRY_MAX_S, ASIDE_RETRY_MAX_S):
        scene.returned(1, now_s=now_s)
        assert scene.due(now_s + wait_s - 0.01) == []
        now_s += wait_s
        assert scene.due(now_s) == [1]
        assert scene.due(now_s) == [], "it is being tried"


def test_once_settled_it_is_forgotten() -> None:
    scene = Scene()
    scene.returned(1)
    scene.due(0.4)
    scene.parked.settled(1)
    assert scene.parked.retried == {}
    scene.returned(1)
    assert scene.due(0.4) == [1], "another generation's"


def test_what_was_refused_for_long_is_given_up_though_it_was_tried_again() -> None:
    scene = Scene()
    scene.returned(1, now_s=0.0)
    scene.due(50.0)
    scene.returned(1, 2, now_s=60.0)
    scene.park(3, 0.0, 1.0)
    scene.offered(50.0)
    scene.park(3, 60.0, 1.0)
    assert scene.given_up(99.0) == []
    assert scene.given_up(100.0) == [(1, "unroutable"), (3, "poison")]
    assert [d.delivery_tag for d in scene.parked.deliveries] == [2]


def test_the_parked_are_offered_again_and_never_published() -> None:
    scene = Scene()
    scene.park(1, 0.0, 5.0)
    assert scene.due(100.0) == []
    assert scene.offered(4.0) == []
    assert scene.offered(5.0) == [(1, POISON)]
    assert scene.offered(5.0) == []


def test_several_returns_in_a_row_mean_that_the_destination_has_no_route_until_it_takes_one() -> None:
    scene = Scene()
    scene.park(9, 0.0, 5.0)
    assert scene.returned(*range(1, RETURNS_IN_A_ROW + 1)) == [*[False] * (RETURNS_IN_A_ROW - 1), True]
    assert scene.parked.everything_returned
    assert scene.taken() == [*range(1, RETURNS_IN_A_ROW + 1)]
    assert not scene.parked.everything_returned
    assert scene.returned(7) == [False]


def test_a_message_taken_between_returns_says_that_there_is_a_route() -> None:
    scene = Scene()
    scene.returned(1, 2)
    assert scene.taken() == [], "each waits for its own next try"
    assert scene.returned(3, 4) == [False, False]


def test_one_message_to_an_exchange_that_is_returned_again_and_again_says_nothing_of_the_destination() -> None:
    scene = Scene(target=OWN_KEYS)
    for number in range(10):
        assert scene.returned(1, now_s=100.0 * number) == [False]
        assert scene.due(100.0 * number + 50.0) == [1]
    assert scene.returned(2, now_s=1000.0) == [False]
    assert scene.returned(3, now_s=1000.0) == [True], "these are different ones"


def test_a_message_to_the_one_queue_that_is_returned_again_and_again_tells_that_the_queue_is_gone() -> None:
    scene = Scene()
    found = []
    for number in range(RETURNS_IN_A_ROW):
        found += scene.returned(1, now_s=100.0 * number)
        scene.due(100.0 * number + 50.0)
    assert found == [False, False, True]


def test_probes_to_an_exchange_that_are_returned_again_keep_the_others_back() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=20)
    scene.returned(*range(20, 0, -1))
    for number in range(3):
        probes = scene.probes(alone=True)
        assert probes[0] == 1, "the oldest, for order's sake"
        assert RETRIES_AT_ONCE <= len(probes) <= RETRIES_AT_ONCE + 1
        assert scene.returned(*probes, now_s=10.0 * number)[-1]
    assert sorted(scene.taken()) == [*range(1, 21)]


def test_a_message_to_an_exchange_that_was_given_up_may_come_back_as_another() -> None:
    scene = Scene(target=OWN_KEYS)
    for tag in range(1, 10):
        assert scene.returned(tag, now_s=1000.0 * tag) == [False]
        assert scene.given_up(1000.0 * tag + 100.0) == [(tag, "unroutable")]


def test_where_only_parked_ones_are_left_nothing_tells_of_a_route() -> None:
    scene = Scene()
    scene.returned(*range(1, RETURNS_IN_A_ROW + 1))
    scene.parked.release()
    scene.park(9, 0.0, 5.0)
    assert not scene.parked.everything_returned


@pytest.mark.parametrize(("alone", "probes"), ((False, [1]), (True, [1, 3])))
def test_the_oldest_probes_and_when_alone_the_one_that_waits_longest_too(probes: list[int], *, alone: bool) -> None:
    scene = Scene()
    scene.park(0, 0.0, 5.0)
    scene.returned(3, now_s=0.0)
    scene.returned(1, 2, now_s=1.0)
    assert scene.probes(alone=alone) == probes
    assert not scene.parked.everything_returned, "they may pass"
    assert scene.returned(1) == [False]
    assert scene.returned(3) == [True]


def test_an_operator_is_told_why() -> None:
    scene = Scene()
    assert (scene.parked.unrouted, scene.parked.rejected) == ("", "")
    scene.returned(1)
    assert scene.parked.unrouted == "has no route for 1 message; trying again"
    assert [d.delivery_tag for d in scene.parked.take_due(30.0)] == [1]
    assert scene.parked.unrouted == "has no route for 1 message; trying again", "also while it is being tried again"
    scene.park(2, 0.0, 5.0)
    scene.parked.park(delivery(3), Verdict("too-large"), 0.0, 6.0)
    assert scene.parked.rejected == "rejects 2 messages (why); holding them, no quarantine accepts them"
    scene.offered(5.0)
    assert "too-large" in scene.parked.rejected
    assert "rejects 2" in scene.parked.rejected, "also while one is offered"


def test_released_nothing_waits() -> None:
    scene = Scene()
    scene.returned(1, 2)
    assert [d.delivery_tag for d in scene.parked.release()] == [1, 2]
    assert scene.parked.deliveries == []


def test_too_many_without_a_route_are_unroutable_the_longest_waiting_first_once_another_was_accepted() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=12)
    for tag in range(1, 6):
        scene.returned(tag, now_s=float(tag))
        scene.taken()
    assert scene.unroutable(6.0, accepted_s=None) == [], "nothing was ever accepted"
    assert scene.unroutable(6.0, accepted_s=1.5) == [1], "the second was returned after the last that was accepted"
    assert scene.unroutable(6.0, accepted_s=6.0) == [2]
    assert scene.unroutable(6.0, accepted_s=6.0) == []
    assert scene.unroutable(103.5, accepted_s=103.5) == [3], "it has waited for 100 s"
    assert scene.unroutable(1000.0, accepted_s=1000.0, timeout_s=0.0) == [], "0 is for ever"


def test_while_nothing_has_a_route_nothing_is_unroutable() -> None:
    scene = Scene(prefetch=4)
    scene.returned(*range(1, RETURNS_IN_A_ROW + 1))
    assert scene.unroutable(1000.0, accepted_s=1000.0) == []


def test_only_a_few_are_tried_again_at_a_time() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=400)
    scene.returned(*range(1, 21))
    scene.taken()
    scene.returned(*range(21, 41))
    scene.taken()
    assert len(scene.due(1000.0)) == RETRIES_AT_ONCE


def test_the_returned_are_not_given_up_where_they_go_to_the_quarantine() -> None:
    scene = Scene()
    scene.returned(1)
    scene.park(2, 0.0, 5.0)
    assert [d.delivery_tag for d, _ in scene.parked.take_given_up(100.0, 100.0, returned=False)] == [2]


def test_where_the_keys_of_many_close_the_channel_it_is_the_destination_that_refuses() -> None:
    """Each of them costs a generation: to try a whole window of them would cost a thousand."""
    scene = Scene(target=OWN_KEYS, prefetch=1000)
    forbidden = Close(1, 403, "ACCESS_REFUSED - topic")
    found = [scene.parked.returned(delivery(tag), 0.0, forbidden) for tag in range(FORBIDDEN_IN_A_ROW)]
    assert found == [*[False] * (FORBIDDEN_IN_A_ROW - 1), True]


def test_to_look_through_all_is_worth_it_when_there_are_an_eighth_too_many() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=64)
    scene.returned(*range(1, 19))
    assert not scene.parked.overfull
    scene.returned(19)
    assert scene.parked.overfull


def test_keys_that_close_the_channel_are_told_apart_from_a_missing_route() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=1000)
    scene.returned(1)
    assert scene.parked.unrouted == "has no route for 1 message; trying again"
    scene.parked.returned(delivery(2), 0.0, Close(1, 403, "ACCESS_REFUSED - topic"))
    assert scene.parked.unrouted == "refuses the keys of 1 message (ACCESS_REFUSED - topic); trying again"


def test_of_an_exchange_a_whole_window_is_tried_before_nothing_has_a_route() -> None:
    scene = Scene(target=OWN_KEYS, prefetch=200)
    assert scene.returned(*range(200)) == [*[False] * 199, True]


def test_what_goes_to_the_quarantine_for_want_of_a_permission_says_so_there() -> None:
    scene = Scene(target=OWN_KEYS)
    forbidden = Close(1, 403, "ACCESS_REFUSED - topic")
    scene.parked.returned(delivery(1), 0.0, forbidden)
    scene.parked.returned(delivery(2), 0.0)
    found = scene.parked.take_unroutable(100.0, 100.0, 50.0)
    assert [(d.delivery_tag, v.reason, v.reply_code) for d, v in found] == [
        (1, "unroutable", 403),
        (2, "unroutable", 312),
    ]
