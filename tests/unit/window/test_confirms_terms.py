"""The confirm of an orphan is told, too; one that cannot be recognised is to be taken again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.window.terms import Terms
from tests.support.frames import PERSISTENT, Properties, delivery
from tests.support.window_scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery


class Counted:
    """How many were confirmed."""

    def __init__(self) -> None:
        self.messages = 0

    def confirmed(self, deliveries: Iterable[Delivery]) -> None:
        """Count them."""
        self.messages += len([*deliveries])


@pytest.mark.parametrize(("more", "done"), (({}, 0), ({"message_id": b"id"}, 1)))
@pytest.mark.parametrize("tells", (True, False))
def test_an_orphan_is_done_where_it_will_be_recognised(more: Properties, done: int, *, tells: bool) -> None:
    counted = Counted()
    scene = Scene(terms=Terms(most=5, proof=counted if tells else None))
    scene.receive_each(delivery(1, b"m", PERSISTENT | more))
    scene.take()
    scene.window.source_lost()
    scene.window.source_opened()
    scene.confirm(1)
    assert (counted.messages, scene.window.done) == (int(tells), done)
