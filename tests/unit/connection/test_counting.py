"""Counting a queue over a connection of the bridge: a broker that answers, refuses, is silent or lies hurts nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from pamqp import commands
from pamqp.header import ProtocolHeader

from bridge.connection.counting import COUNTING_CHANNEL
from tests.support.scripted import Peer, ScriptedBroker, bridge, eventually, on_both_loops, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.connection.supervisor import Supervisor
    from bridge.observe.backlog import Backlog

    Answer = Callable[[Peer], None]

POLL = "20ms"
PATIENT_POLL = "500ms"
"""An answer may take as long: on a busy machine none comes too late."""
PATIENT = "500ms"
"""Where an answer must not be late, however busy the machine is."""
both_sides = pytest.mark.parametrize("side", ("source", "destination"))


def says(messages: int, consumers: int) -> Answer:
    return lambda peer: peer.send(commands.Queue.DeclareOk("q", messages, consumers), channel=COUNTING_CHANNEL)


def refuses(peer: Peer) -> None:
    peer.close(403, "ACCESS_REFUSED - not yours", channel=COUNTING_CHANNEL)


def is_silent(_: Peer) -> None:
    pass


class Counted:
    """A broker that answers questions on the counting channel as `answer` says, and others as ever."""

    def __init__(self, broker: ScriptedBroker, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        before = broker.answers[commands.Queue.Declare]

        def declare(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
            if channel != COUNTING_CHANNEL:
                before(peer, channel, frame)
                return
            assert frame.passive, "a question creates no queue"
            self.asked += 1
            self.answer(peer)

        broker.answers[commands.Queue.Declare] = declare


def backlog_of(running: Supervisor, side: str) -> Backlog:
    return (running.status.source if side == "source" else running.status.destination).backlog


@both_sides
@on_both_loops
async def test_both_queues_are_counted_over_and_over(side: str) -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        counted = Counted(source if side == "source" else destination, says(7, 2))
        async with bridge(source, destination, queue_poll=POLL) as running:
            backlog = backlog_of(running, side)
            await eventually(lambda: (backlog.messages, backlog.consumers) == (7, 2))
            counted.answer = says(8, 3)
            await eventually(lambda: (backlog.messages, backlog.consumers) == (8, 3))
            channels = [f for f in source.peer.frames if isinstance(f, commands.Channel.Open)]
            assert len(channels) <= 4, "its channel stays open"


@both_sides
@on_both_loops
async def test_a_refusal_is_told_once_and_leaves_neither_figure_nor_generation_behind(
    side: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        counted = Counted(source if side == "source" else destination, says(7, 2))
        async with bridge(source, destination, queue_poll=PATIENT_POLL) as running:
            backlog = backlog_of(running, side)
            await eventually(lambda: backlog.messages == 7)
            counted.answer, counted.asked = refuses, 0
            await eventually(lambda: counted.asked >= 3)
            await eventually(lambda: "ACCESS_REFUSED" in backlog.unknown)
            assert backlog.messages is None
            counted.answer = says(9, 1)
            await eventually(lambda: backlog.messages == 9)
            assert running.status.source.generation == running.status.destination.generation == 1
    told = [record.getMessage() for record in caplog.records if "not counted" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("give the user the permission (rabbitmqctl set_permissions)")


@both_sides
@on_both_loops
async def test_a_question_that_is_not_answered_expires_alone_and_no_other_follows(side: str) -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        counted = Counted(source if side == "source" else destination, says(7, 2))
        async with bridge(source, destination, queue_poll=POLL) as running:
            backlog = backlog_of(running, side)
            await eventually(lambda: backlog.messages == 7)
            counted.answer, counted.asked = is_silent, 0
            await eventually(lambda: "did not answer within" in backlog.unknown)
            assert (backlog.messages, counted.asked) == (None, 1)
            peer = await source.consumed()
            peer.deliver(b"one")
            await eventually(lambda: running.books.forwarded == 1)
            counted.answer = says(5, 5)
            says(99, 99)((source if side == "source" else destination).peer)
            await eventually(lambda: backlog.messages is not None)
            assert backlog.messages == 5, "a late answer is not believed"
            assert running.status.source.generation == running.status.destination.generation == 1


@on_both_loops
async def test_a_destination_that_answers_0_and_0_once_is_not_believed() -> None:
    answers = [says(7, 2), says(0, 0), says(8, 2)]
    seen: list[int | None] = []
    async with ScriptedBroker() as source, ScriptedBroker() as destination:

        def in_turn(peer: Peer) -> None:
            answers[min(counted.asked, len(answers)) - 1](peer)

        counted = Counted(destination, in_turn)
        async with bridge(source, destination, queue_poll=PATIENT) as running:
            backlog = running.status.destination.backlog
            while backlog.messages != 8:
                if not seen or seen[-1] != backlog.messages:
                    seen.append(backlog.messages)
                await asyncio.sleep(0)
    assert seen == [None, 7, None]


@on_both_loops
async def test_without_a_poll_nobody_is_asked() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        counted = Counted(source, says(7, 2))
        async with bridge(source, destination, queue_poll="0") as running:
            await source.consumed()
            assert (counted.asked, running.status.source.backlog.unknown) == (0, "BRIDGE_QUEUE_POLL is 0")


@on_both_loops
async def test_an_exchange_is_not_asked() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        settings = {"destination_queue": "", "destination_exchange": "out", "queue_poll": POLL}
        async with bridge(source, destination, **settings) as running:
            await source.consumed()
            assert running.status.destination.backlog.unknown == "an exchange has no length"


@on_both_loops
async def test_what_was_known_ends_with_the_generation() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        Counted(source, says(7, 2))
        async with bridge(source, destination, queue_poll=POLL) as running:
            backlog = running.status.source.backlog
            await eventually(lambda: backlog.messages == 7)
            source.answers[ProtocolHeader] = lambda peer, _, __: peer.abort()
            source.peer.abort()
            # A question that was under way may be reported first, as not answered.
            await eventually(lambda: backlog.unknown == "not connected")
            assert backlog.messages is None


@on_both_loops
async def test_the_broker_is_asked_once_whether_the_destination_is_a_stream() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        destination.answers[ProtocolHeader] = start(product="RabbitMQ", version="4.3.6")
        before = destination.answers[commands.Queue.Declare]
        differs = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'out' in vhost '/': received "

        def declare(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
            if channel != COUNTING_CHANNEL:
                before(peer, channel, frame)
            elif frame.passive:
                says(500, 0)(peer)
            elif (frame.arguments or {}).get("x-queue-type") == "unknown":
                peer.close(406, f"{differs}'unknown' but current is 'stream'", channel=channel)
            else:
                text = differs.replace("x-queue-type", "x-delivery-limit")
                peer.close(406, f"{text}'unknown' but current is none", channel=channel)

        destination.answers[commands.Queue.Declare] = declare
        async with bridge(source, destination, queue_poll=POLL) as running:
            backlog = running.status.destination.backlog
            await eventually(lambda: backlog.messages == 500)
            assert backlog.stream


@on_both_loops
async def test_a_bug_in_counting_is_logged_and_ends_no_generation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> bool:
        raise ZeroDivisionError

    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        monkeypatch.setattr("bridge.observe.backlog.Backlog.answered", broken)
        async with bridge(source, destination, queue_poll=POLL) as running:
            peer = await source.consumed()
            await eventually(lambda: "a bug in the bridge ended the counting of queue in" in caplog.text)
            assert running.status.source.backlog.unknown == "a bug in the bridge; see the log"
            peer.deliver(b"one")
            await eventually(lambda: running.books.forwarded == 1)
            assert running.status.source.generation == 1


@on_both_loops
async def test_a_source_that_is_paused_is_counted_at_once() -> None:
    """Without the bridge's own consumer: `amqp-bridge pause` names those that are left."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        counted = Counted(source, says(7, 2))
        async with bridge(source, destination, queue_poll="1h", source_queue_type="quorum") as running:
            backlog = backlog_of(running, "source")
            await source.consumed()
            await eventually(lambda: backlog.consumers == 2)
            counted.answer = says(7, 1)
            running.pause()
            await eventually(lambda: backlog.consumers == 1)
            counted.answer = says(7, 0)
            running.pause()
            await eventually(lambda: backlog.consumers == 0)


@on_both_loops
async def test_a_brake_hears_what_is_asked_and_answered_and_has_the_queue_counted_at_once() -> None:
    """The poll is far away: it is the brake that asks again, while it rests and when its quota is used up."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        counted = Counted(destination, says(5, 1))
        settings = {"queue_poll": "1h", "destination_max_ready": "5"}
        async with bridge(source, destination, **settings) as running:
            steering = running.relay.steering
            await eventually(lambda: steering.told_state == "braked")
            assert running.snapshot()[1].hindrances == []
            (told,) = running.snapshot()[1].reservations
            assert told.startswith(
                "braked: destination: 5 messages wait in its queue (BRIDGE_DESTINATION_MAX_READY is 5)"
            )
            counted.answer = says(1, 1)
            peer = await source.consumed()
            assert not steering.braked
            for body in (b"1", b"2", b"3", b"4"):
                peer.deliver(body)
            await eventually(lambda: running.books.forwarded >= 4 or steering.brake.holds)
            counted.answer = says(0, 1)
            asked = counted.asked
            peer.deliver(b"5")
            await eventually(lambda: running.books.forwarded == 5)
            assert counted.asked > asked
            assert running.books.imbalance == 0


@on_both_loops
async def test_a_brake_whose_queue_cannot_be_counted_rests_and_says_why() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        counted = Counted(destination, refuses)
        settings = {"queue_poll": POLL, "destination_min_consumers": "1"}
        async with bridge(source, destination, **settings) as running:
            await eventually(lambda: "ACCESS_REFUSED" in " ".join(running.snapshot()[1].hindrances))
            await eventually(lambda: running.relay.steering.told_state == "braked")
            counted.answer = says(0, 1)
            await source.consumed()
            assert running.snapshot()[1].trouble == ""
