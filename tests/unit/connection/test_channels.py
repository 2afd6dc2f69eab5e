"""How many channels may be opened, as far as a broker has said."""

from __future__ import annotations

import pytest

from bridge.amqp.events import Close
from bridge.connection.channels import Channels

REFUSED = {
    "3.10.8": "NOT_ALLOWED - number of channels opened for user 'b' has reached the maximum allowed user limit of (2)",
    "4.3.6": "NOT_ALLOWED - number of channels opened for user 'b' has reached the maximum allowed user limit of 2",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_refusal_tells_the_limit_and_is_news_once(text: str) -> None:
    channels = Channels()
    assert channels.for_questions
    assert channels.refused(Close(0, 530, text))
    assert channels.most == 2
    assert not channels.for_questions
    assert not channels.refused(Close(0, 530, text))


def test_another_close_tells_nothing() -> None:
    channels = Channels()
    assert not channels.refused(Close(0, 530, "NOT_ALLOWED - vhost / not found"))
    assert channels.for_questions


@pytest.mark.parametrize(("channel_max", "questions"), ((0, True), (3, False), (4, True), (2047, True)))
def test_what_was_agreed_on_at_the_login_is_a_limit_too(channel_max: int, *, questions: bool) -> None:
    channels = Channels()
    channels.agreed(channel_max)
    assert channels.for_questions is questions
