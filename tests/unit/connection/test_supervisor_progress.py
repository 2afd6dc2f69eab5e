"""The whole bridge beside a source that is up and of no use: begun anew, and `/readyz` says when that is in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pamqp import commands

from bridge.connection.limits import TimeLimits
from bridge.connection.link import CONTROL_CHANNEL
from tests.support.scripted import Peer, ScriptedBroker, bridge, eventually, on_both_loops, refuse, silence

if TYPE_CHECKING:
    from collections.abc import Callable


def state(ready: int) -> Callable[[Peer, int, Any], None]:
    """Say that so many messages are ready, and count the bridge's consumer once it is there."""

    def answer(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        consumers = len(peer.got(commands.Basic.Consume))
        peer.send(commands.Queue.DeclareOk(frame.queue, ready, consumers), channel=channel)

    return answer


QUESTIONS = {
    "delivers nothing": (state(7), "the queue delivers nothing, and has 7 messages ready and 1 consumers"),
    "does not answer": (silence, "the queue delivers nothing, and does not say how many it has"),
    "is gone": (refuse(404, "NOT_FOUND - no queue 'in'"), "the queue delivers nothing, and does not say how many"),
}
"""What the source answers to the watchdog's question, words of what the bridge says."""


@pytest.mark.parametrize("case", QUESTIONS)
@on_both_loops
async def test_a_queue_that_delivers_nothing_is_reconnected_to_and_after_three_times_without_success_is_stuck(
    case: str,
) -> None:
    """Only the source's side; and the first delivery makes all well again."""
    answer, words = QUESTIONS[case]
    limits = TimeLimits(ask_every_s=0.1, connect_s=0.5, close_s=0.1)

    def ask(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        (answer if channel == CONTROL_CHANNEL else state(7))(peer, channel, frame)

    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        source.answers[commands.Queue.Declare] = ask
        async with bridge(source, destination, limits) as running:
            ended = running.status.source.generations_ended
            await eventually(lambda: ended.get("stalled") == 2)
            assert running.relay.steering.watchdog.stuck == ""
            await eventually(lambda: running.relay.steering.watchdog.stuck)
            await eventually(lambda: ended == {"stalled": 3})
            assert running.relay.steering.watchdog.stuck.startswith(f"source: {words}")
            assert running.relay.steering.watchdog.stuck.endswith("reconnected 3 times without success")
            source.answers[commands.Queue.Declare] = state(0)
            await eventually(lambda: len(source.peers) > 3 and source.peer.got(commands.Basic.Consume))
            source.peer.deliver(b"at last")
            await eventually(lambda: running.books.forwarded == 1)
            await eventually(lambda: running.relay.steering.watchdog.stuck == "")
            assert len(destination.peers) == 1
