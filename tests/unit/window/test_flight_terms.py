"""What is in flight with terms: room, what is done, and each confirmed copy told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.window.terms import Terms
from tests.support.window_scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery


class Told:
    """The delivery tags of what was confirmed."""

    def __init__(self) -> None:
        self.tags: list[int] = []

    def confirmed(self, deliveries: Iterable[Delivery]) -> None:
        """Note them."""
        self.tags += [delivery.delivery_tag for delivery in deliveries]


def test_every_confirmed_copy_is_told_and_makes_what_is_done() -> None:
    told = Told()
    scene = Scene(terms=Terms(most=4, proof=told))
    scene.receive(1, 2, 3)
    assert (scene.window.room, scene.window.waiting, scene.window.withheld) == (1, 3, 0)
    scene.take()
    scene.confirm(2, multiple=True)
    assert (told.tags, scene.window.done, scene.window.room) == ([1, 2], 2, 1)
    assert not scene.window.looks_again


def test_without_terms_nobody_is_told_and_there_is_always_room() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.confirm(1)
    assert (scene.window.done, scene.window.room) == (1, float("inf"))
