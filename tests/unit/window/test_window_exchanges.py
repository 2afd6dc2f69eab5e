"""The window: messages that name their own exchange, and exchanges that are missing or forbidden."""

from __future__ import annotations

import pytest

from bridge.amqp.events import Close, Delivery
from bridge.amqp.frames import route
from bridge.amqp.target import OriginalRoutes
from bridge.window.exchanges import REFUSED_AGAIN_S
from bridge.window.terms import UNLIMITED
from tests.support.frames import delivery
from tests.support.window_scene import Scene

MISSING = Close(3, 404, "NOT_FOUND - no exchange 'gone' in vhost '/'")


def to(exchange: str, tag: int) -> Delivery:
    """A delivery that came from an exchange of that name."""
    return delivery(tag)._replace(route=route(exchange, "key"))


class Routed(Scene):
    """A window whose messages keep their routes, at a broker with some exchanges."""

    def __init__(self, **limits: float) -> None:
        super().__init__(1.0, OriginalRoutes(), UNLIMITED, **limits)
        self.missing = {"gone"}
        self.asked: list[str] = []

    def answer(self) -> int:
        """The broker answers what is asked; return how many questions that were."""
        asked_before = len(self.asked)
        while (name := self.window.exchanges.take_question(self.now_s)) is not None:
            self.asked.append(name[1:].decode())
            self.window.exchanges.answered(MISSING if self.asked[-1] in self.missing else None, self.now_s)
        return len(self.asked) - asked_before

    def publish(self) -> list[int]:
        """Delivery tags of what is published now, whatever has to be asked before."""
        taken = self.take()
        while self.answer():
            taken += self.take()
        return taken


def test_nothing_goes_to_an_exchange_before_the_broker_has_answered_nor_what_comes_after_it() -> None:
    scene = Routed()
    scene.receive_each(to("a", 1), to("a", 2), to("b", 3), to("a", 4))
    assert scene.take() == []
    scene.answer()
    assert scene.take() == [1, 2], "invariant 5"
    scene.answer()
    assert scene.take() == [3, 4]
    assert scene.asked == ["a", "b"]
    scene.receive_each(to("b", 5), to("a", 6))
    assert scene.take() == [5, 6]


def test_a_missing_exchange_costs_only_the_messages_for_it() -> None:
    scene = Routed()
    scene.receive_each(to("a", 1), to("gone", 2), to("a", 3), to("", 4))
    assert scene.publish() == [1, 3, 4]
    assert scene.window.parked == 1
    scene.confirm(3, multiple=True)
    assert scene.window.degraded == [f"refuses the exchanges of 1 message ({MISSING.reply_text}); trying again"]
    assert scene.window.hindrance == ""


def test_what_a_missing_exchange_refused_is_quarantined_after_the_unroutable_timeout() -> None:
    scene = Routed(unroutable_timeout_s=30.0)
    scene.receive_each(to("gone", 1), to("a", 2))
    assert scene.publish() == [2]
    scene.wait(1.0)
    scene.confirm(1)
    while scene.now_s < 1000.0 + 31.0:
        scene.wait(0.5)
        assert scene.publish() == []
    assert scene.verdicts() == [(1, "unroutable", 404)]


def test_an_exchange_that_was_created_is_published_to_once_it_was_asked_for_again() -> None:
    scene = Routed()
    scene.receive_each(to("gone", 1), to("a", 2))
    scene.publish()
    scene.confirm(1)
    scene.missing.clear()
    scene.wait(REFUSED_AGAIN_S + 0.1)
    assert scene.publish() == [], "the refusal counts until the answer has come"
    scene.wait(60.0)
    assert scene.publish() == [1]


def test_a_whole_window_for_a_missing_exchange_is_held_and_named() -> None:
    """As with a lost binding: nothing shows that it is not the destination's own trouble."""
    scene = Routed(prefetch=40)
    scene.receive_each(*(to("gone", tag) for tag in range(1, 41)))
    assert scene.publish() == []
    assert scene.window.hindrance == f"refuses messages (no exchange: {MISSING.reply_text})"
    assert scene.window.everything_returned
    assert scene.verdicts() == []


def test_one_by_one_a_thousand_messages_for_a_missing_exchange_are_set_aside_in_one_go() -> None:
    scene = Routed(prefetch=4000)
    scene.window._source.blame.suspect(1)
    scene.window.destination_lost(None, scene.now_s)
    scene.window.destination_opened()
    assert scene.window.publish_window == 1
    scene.receive_each(*(to("gone", tag) for tag in range(1, 1501)), to("a", 1501))
    assert scene.publish() == [1501]


def test_a_channel_that_was_closed_for_an_exchange_deleted_meanwhile_is_closed_once() -> None:
    scene = Routed()
    scene.missing.clear()
    scene.receive_each(to("gone", 1), to("a", 2), to("a", 3))
    assert scene.publish() == [1, 2, 3]
    scene.missing.add("gone")
    scene.lose_destination(404, MISSING.reply_text)
    scene.reopen_destination()
    assert scene.publish() == [2], "what is guilty is searched one by one, and asked for first"
    scene.confirm(1)
    assert scene.publish() == [3]
    scene.confirm(2)
    assert scene.window.publish_window > 1, "the search is over"
    assert scene.verdicts() == []


@pytest.mark.parametrize("blocked", (False, True))
def test_a_question_without_an_answer_leaves_messages_held(blocked: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    scene = Routed()
    scene.receive_each(to("a", 1))
    scene.take()
    assert scene.window.exchanges.take_question(scene.now_s) is not None
    if blocked:
        scene.window.destination_blocked(scene.now_s)
        scene.window.destination_unblocked(scene.now_s)
    scene.window.exchanges.unanswered(scene.now_s)
    assert scene.publish() == []
    scene.now_s += 1.0
    assert scene.publish() == [1]
