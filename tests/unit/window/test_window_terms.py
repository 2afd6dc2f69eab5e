"""A window with terms: so many messages and no more, of those that are wanted, each confirmed copy told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.window.terms import Terms
from tests.support.frames import delivery
from tests.support.window_scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery

ID = {"delivery_mode": b"\x02", "message_id": b"id"}


class Even:
    """Admits every second message, and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def began(self) -> None:
        """Note it as -1."""
        self.told.append(-1)

    def consuming(self, admitted: int) -> None:
        """Note it."""
        self.told.append(admitted)

    def admits(self, delivery: Delivery) -> bool:
        """Decide by the tag."""
        return delivery.delivery_tag % 2 == 0


class Heard:
    """What was confirmed, by body."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def confirmed(self, deliveries: Iterable[Delivery]) -> None:
        """Note them."""
        self.bodies += [each.content[-2:-1] for each in deliveries]


def test_without_terms_there_is_always_room() -> None:
    scene = Scene()
    scene.receive(1, 2)
    assert scene.window.room == float("inf")
    assert not scene.window.looks_again


def test_room_is_what_is_neither_done_nor_in_flight() -> None:
    scene = Scene(terms=Terms(most=5))
    assert scene.window.room == 5
    scene.receive(1, 2, 3)
    assert scene.window.room == 2
    scene.take()
    scene.confirm(2, multiple=True)
    assert (scene.window.done, scene.window.room, scene.window.in_flight) == (2, 2, 1)


def test_acks_beyond_the_prefetch_are_kept_until_the_consumer_is_gone() -> None:
    scene = Scene(terms=Terms(most=5))
    scene.window.consuming(3, scene.now_s)
    scene.receive(1, 2, 3)
    scene.take()
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (2, False)], "two more may come: the third ack would let in a sixth"
    scene.receive(4, 5)
    scene.take()
    scene.confirm(5, multiple=True)
    assert (scene.acks(), scene.window.settlement.keeps) == ([], 3)
    scene.window.consumer_gone()
    assert scene.acks() == [(5, True)]


def test_acks_are_not_kept_where_they_are_not_metered() -> None:
    scene = Scene(terms=Terms(most=2, metered=False))
    scene.window.consuming(2, scene.now_s)
    scene.receive(1, 2)
    scene.take()
    scene.confirm(2, multiple=True)
    assert scene.acks() == [(2, True)]


def test_what_is_beyond_the_number_is_withheld_and_returned() -> None:
    scene = Scene(terms=Terms(most=2))
    scene.receive(1, 2, 3)
    assert (scene.window.withheld, scene.window.waiting, scene.take()) == (1, 2, [1, 2])
    scene.confirm(2, multiple=True)
    scene.window.release("shutdown")
    assert scene.window.settlement.requeues == [3]
    assert (scene.books.requeued, scene.books.imbalance) == ({"shutdown": 1}, 0)


def test_what_is_not_wanted_keeps_no_more_than_its_delivery_tag() -> None:
    scene = Scene(terms=Terms(selection=Even()))
    scene.receive(1, 2, 3, 4)
    size = len(delivery(1).content)
    assert (scene.window.withheld, scene.books.bytes_in_flight, scene.books.held) == (2, 2 * size, 4)
    assert scene.take() == [2, 4]
    scene.confirm(2, multiple=True)
    assert scene.acks() == [(2, False), (4, False)], "an ack for all below would take what is withheld"
    assert scene.books.imbalance == 0
    scene.window.source_lost()
    assert (scene.books.stale_held, scene.window.withheld) == (2, 0)


def test_the_selection_is_told_of_generations_and_of_what_was_admitted() -> None:
    even = Even()
    scene = Scene(terms=Terms(selection=even))
    scene.window.consuming(10, scene.now_s)
    scene.receive(1, 2, 3, 4)
    scene.take()
    scene.confirm(1)
    scene.window.consuming(10, scene.now_s)
    scene.window.source_lost()
    scene.window.source_opened()
    assert even.told == [-1, 0, 2, -1]


def test_the_pace_is_a_share_of_the_rate_where_there_is_one() -> None:
    scene = Scene(max_rate=100.0)
    scene.receive(*range(1, 201))
    scene.window.pace(0.1)
    taken: list[int] = []
    for _ in range(10):
        scene.now_s += 0.1
        for tag in scene.take():
            taken.append(tag)
            scene.confirm(tag)
    assert len(taken) <= 12
    Scene().window.pace(0.1)


def test_at_most_so_many_are_published_at_once() -> None:
    scene = Scene(terms=Terms(most_published=3))
    scene.receive(*range(1, 41))
    for seqno in range(1, 30):
        assert len(scene.take()) <= 16
        scene.confirm(seqno)
    assert scene.window.publish_window == 3


def test_every_confirmed_copy_is_told_that_of_an_orphan_too() -> None:
    heard = Heard()
    scene = Scene(terms=Terms(proof=heard))
    scene.receive_each(delivery(1, b"a"), delivery(2, b"b"))
    scene.take()
    scene.confirm(1)
    scene.window.source_lost()
    scene.window.source_opened()
    scene.confirm(2)
    assert heard.bodies == [b"a", b"b"]


def test_an_orphan_without_an_id_is_to_be_taken_again() -> None:
    scene = Scene(terms=Terms(most=2))
    scene.receive_each(delivery(1, b"a"), delivery(2, b"b", ID))
    scene.take()
    scene.window.source_lost()
    scene.window.source_opened()
    scene.confirm(2, multiple=True)
    assert (scene.window.accepted, scene.window.done, scene.window.room) == (2, 1, 1)


def test_when_all_is_done_it_looks_for_what_may_come_again_until_another_message_comes() -> None:
    """Redeliveries of what was moved are acked, whatever the number; the first other message is returned."""
    scene = Scene(terms=Terms(most=2))
    scene.window.consuming(2, scene.now_s)
    moved = [delivery(1, b"a", ID, received_s=scene.now_s), delivery(2, b"b", ID, received_s=scene.now_s)]
    scene.receive_each(*moved)
    scene.take()
    scene.confirm(2, multiple=True)
    assert not scene.window.looks_again, "nothing was lost"
    scene.window.source_lost()
    scene.window.source_opened()
    assert scene.window.looks_again
    scene.window.consuming(1, scene.now_s)
    scene.receive_each(moved[0]._replace(redelivered=1))
    assert scene.acks() == [(1, False)]
    assert scene.window.looks_again
    scene.receive_each(delivery(2, b"new"))
    assert (scene.window.withheld, scene.window.looks_again) == (1, False)
    assert scene.books.imbalance == 0
