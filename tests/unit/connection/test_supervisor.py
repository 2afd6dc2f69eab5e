"""The whole bridge between scripted brokers that refuse, fall silent, hang up or talk nonsense.

Each case ends with the checks of `scripted.bridge`: the books balance, and no task and no socket is left.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

from bridge.connection.buffer import MOST_BYTES
from bridge.connection.limits import DEFAULT, TimeLimits
from bridge.connection.session import SourceSession
from bridge.connection.supervisor import TICK_S, Supervisor
from bridge.connection.tap import TapFactory
from bridge.errors import ExhaustedError
from bridge.relay.backoff import Backoff
from bridge.window.rate import STEP_S
from tests.support.scripted import (
    Peer,
    ScriptedBroker,
    bridge,
    confirm,
    eventually,
    hang_up,
    keep,
    on_both_loops,
    refuse,
    silence,
)

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable

    from yarl import URL

    from bridge.observe.status import SideStatus

GARBAGE = b"\x09\x00\x01\x00\x00\x00\x04what\xce"
"""A frame of a type that AMQP 0-9-1 does not have."""

both_sides = pytest.mark.parametrize("side", ("source", "destination"))


class Backoffs:
    """Makes the backoffs of a bridge, and keeps what they are asked."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        """When it was asked how long to wait before the next try."""
        self.resets = 0
        """How often a trouble counted as over."""

    def __call__(self, min_s: float, max_s: float, chance: Callable[[], float]) -> Backoff:
        """Return the next backoff."""
        backoffs = self

        class Recorded(Backoff):
            def begin_delay_s(self, now_s: float) -> float:
                backoffs.delays.append(now_s)
                return super().begin_delay_s(now_s)

            def reset(self) -> None:
                backoffs.resets += 1
                super().reset()

        return Recorded(min_s, max_s, chance)


@pytest.fixture
def backoffs() -> Backoffs:
    return Backoffs()


def status_of(running: Supervisor, side: str) -> SideStatus:
    return running.status.source if side == "source" else running.status.destination


def pauses_of(running: Supervisor) -> list[float]:
    """Return a list of the pauses that the bridge makes from now on, in seconds; it grows."""
    pauses: list[float] = []
    pause_s = running._pause_s

    def noted(now_s: float) -> float:
        pauses.append(pause_s(now_s))
        return pauses[-1]

    running._pause_s = noted  # type: ignore[method-assign]
    return pauses


def answer_raw(data: bytes) -> Callable[[Peer, int, Any], None]:
    return lambda peer, _, __: peer.send_raw(data)


OPENING = {
    "login refused": (
        commands.Connection.StartOk,
        refuse(403, "ACCESS_REFUSED - Login was refused"),
        "login-refused",
        "check user and password in BRIDGE_{side}_URL",
    ),
    "no login mechanism": (
        ProtocolHeader,
        lambda peer, _, __: peer.send(commands.Connection.Start(0, 9, {}, "EXTERNAL", "en_US"), channel=0),
        "login-refused",
        "BRIDGE_{side}_AUTH",
    ),
    "no virtual host": (
        commands.Connection.Open,
        refuse(530, "NOT_ALLOWED - vhost / not found"),
        "vhost",
        "NOT_ALLOWED - vhost / not found",
    ),
    "no queue": (commands.Queue.Declare, refuse(404, "NOT_FOUND - no queue 'q'"), "missing", "no queue 'q'"),
    "no permission": (commands.Queue.Declare, refuse(403, "ACCESS_REFUSED - no"), "forbidden", "ACCESS_REFUSED"),
    "queue locked": (commands.Queue.Declare, refuse(405, "RESOURCE_LOCKED - q"), "locked", "RESOURCE_LOCKED"),
    "another queue": (commands.Queue.Declare, refuse(406, "PRECONDITION_FAILED - q"), "mismatch", "PRECONDITION"),
    "another protocol": (ProtocolHeader, answer_raw(b"AMQP\x00\x00\x09\x01"), "protocol", "protocol"),
    "garbage": (commands.Channel.Open, answer_raw(GARBAGE), "malformed", "the broker sent a frame of type 9"),
    "no capabilities": (
        ProtocolHeader,
        lambda peer, _, __: peer.send(commands.Connection.Start(0, 9, {}, "PLAIN", "en_US"), channel=0),
        "protocol",
        "capabilities",
    ),
    "a method cut short": (
        commands.Queue.Declare,
        answer_raw(b"\x01\x00\x01\x00\x00\x00\x06\x00\x32\x00\x0b\x04q\xce"),
        "protocol",
        "",
    ),
    "hangs up at once": (ProtocolHeader, hang_up, "connection-lost", "is it the one for AMQP"),
    "speaks TLS": (ProtocolHeader, answer_raw(b"\x15\x03\x01\x00\x02\x02\x46"), "protocol", "use amqps://"),
    "speaks HTTP": (ProtocolHeader, answer_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "protocol", "speaks HTTP"),
    "speaks SSH": (ProtocolHeader, answer_raw(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "protocol", "speaks SSH"),
    "hangs up later": (commands.Queue.Declare, hang_up, "connection-lost", "connection"),
    "shuts down": (commands.Channel.Open, lambda p, _, __: p.close(320, "CONNECTION_FORCED - bye", channel=0),
                   "refused", "CONNECTION_FORCED"),
    "silent from the start": (ProtocolHeader, silence, "timeout", "did not answer within"),
    "silent to the channel": (commands.Channel.Open, silence, "timeout", "did not answer within"),
    "silent to the queue": (commands.Queue.Declare, silence, "timeout", "did not answer within"),
}  # fmt: skip
"""What a broker does instead of an answer: to which method, the result in the metrics, words of the reason."""


@both_sides
@pytest.mark.parametrize("case", OPENING)
@on_both_loops
async def test_a_side_that_cannot_be_opened_is_tried_again_and_its_reason_told_once(
    case: str,
    side: str,
    backoffs: Backoffs,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As soon as the broker answers as it should, the bridge forwards."""
    asked, answer, result, words = OPENING[case]
    limits = TimeLimits(connect_s=1.0 if result == "timeout" else 10.0, close_s=0.1)
    caplog.set_level(logging.WARNING, "bridge")
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        broker = source if side == "source" else destination
        usual = broker.answers[asked]
        broker.answers[asked] = answer
        async with bridge(source, destination, limits, backoffs) as running:
            status = status_of(running, side)
            await eventually(lambda: sum(status.connect_attempts.values()) >= 3, "three attempts")
            assert set(status.connect_attempts) == {result}, status.reason
            assert words.format(side=side.upper()) in status.reason
            assert "secret" not in status.reason
            assert any(status.reason in hindrance for hindrance in running.status.hindrances)
            assert len(backoffs.delays) >= len(broker.peers) - 1, "no attempt without a delay before it"
            told = [record.message for record in caplog.records if record.message.startswith(f"{side} not connected")]
            assert len(told) == 1
            broker.answers[asked] = usual
            peer = await source.consumed()
            peer.deliver(b"at last")
            await eventually(lambda: running.books.forwarded == 1)
            await eventually(lambda: running.snapshot()[1].hindrances == [])


@both_sides
@on_both_loops
async def test_an_attempt_that_fails_does_not_end_the_trouble_however_long_it_lasts(
    side: str, backoffs: Backoffs
) -> None:
    """A generation that was open for as long does."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        broker = source if side == "source" else destination
        usual = broker.answers[commands.Connection.Open]
        broker.answers[commands.Connection.Open] = refuse(530, "NOT_ALLOWED - vhost / not found")
        async with bridge(source, destination, TimeLimits(stable_s=1e-9), backoffs) as running:
            await eventually(lambda: status_of(running, side).connect_attempts.get("vhost", 0) >= 3)
            assert not backoffs.resets
            broker.answers[commands.Connection.Open] = usual
            await eventually(lambda: status_of(running, side).up)
            broker.peer.abort()
            await eventually(lambda: backoffs.resets)


@both_sides
@on_both_loops
async def test_a_peer_that_hangs_up_before_a_word_is_tried_again(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where aiormq 7.2.4 reads only after that, it raises `StopAsyncIteration`."""
    create = TapFactory.create

    async def create_late(self: TapFactory, url: URL, **kwargs: object) -> tuple[StreamReader, StreamWriter]:
        reader, writer = await create(self, url, **kwargs)
        await eventually(lambda: reader.at_eof() or not broker.turns_away, "the end is seen")
        return reader, writer

    monkeypatch.setattr(TapFactory, "create", create_late)
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        broker = source if side == "source" else destination
        broker.turns_away = True
        async with bridge(source, destination) as running:
            status = status_of(running, side)
            await eventually(lambda: sum(status.connect_attempts.values()) >= 3, "three attempts")
            assert set(status.connect_attempts) == {"connection-lost"}, status.reason
            broker.turns_away = False
            (await source.consumed()).deliver(b"at last")
            await eventually(lambda: running.books.forwarded == 1)


@pytest.mark.parametrize("step", ("open", "consume"))
@on_both_loops
async def test_a_bug_ends_a_generation_and_not_the_process(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its traceback is logged, and the bridge tries again."""
    works = getattr(SourceSession, step)
    calls = 0

    async def fails_twice(self: SourceSession, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        return 1 // 0 if calls <= 2 else await works(self, *arguments)

    monkeypatch.setattr(SourceSession, step, fails_twice)
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        (await source.consumed()).deliver(b"at last")
        await eventually(lambda: running.books.forwarded == 1)
        assert running.status.source.connect_attempts.get("bug", 0) == (2 if step == "open" else 0)
        assert running.status.source.generations_ended.get("bug", 0) == (2 if step == "consume" else 0)
        assert running.status.source.reason == ""
    assert caplog.text.count("Traceback") == 1, "told once for each change"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("step", ("consume", "deciding"))
@on_both_loops
async def test_without_memory_the_bridge_stops_in_order_and_says_so_once(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_: SourceSession, *arguments: object) -> None:  # noqa: ARG001 - the methods' signatures
        raise MemoryError

    def fails_at_once(*arguments: object) -> None:  # noqa: ARG001
        raise MemoryError

    if step == "deciding":
        monkeypatch.setattr(Supervisor, "_tick", fails_at_once)
    else:
        monkeypatch.setattr(SourceSession, step, fails)
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        running = bridge(source, destination)
        supervisor = await running.__aenter__()
        await eventually(lambda: supervisor.stopping)
        monkeypatch.undo()
        with pytest.raises(ExhaustedError):
            await running.__aexit__(None, None, None)
    assert caplog.text.count("not enough memory (") == 1
    assert "Traceback" not in caplog.text


@on_both_loops
async def test_a_destination_that_opens_and_never_confirms_is_not_the_only_one_tried() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as sick, ScriptedBroker() as healthy:
        sick.published = keep
        urls = f"{sick.url},{healthy.url}"
        async with bridge(source, sick, destination_url=urls, confirm_timeout="1") as running:
            (await source.consumed()).deliver(b"m")
            await eventually(lambda: running.books.forwarded == 1)
            assert healthy.peer.published == [b"m"]
        await eventually(lambda: not healthy.open)


@on_both_loops
async def test_a_source_that_opens_and_cannot_be_consumed_is_not_the_only_one_tried() -> None:
    async with ScriptedBroker() as sick, ScriptedBroker() as healthy, ScriptedBroker() as destination:
        sick.answers[commands.Basic.Consume] = refuse(541, "INTERNAL_ERROR - no quorum")
        async with bridge(sick, destination, source_url=f"{sick.url},{healthy.url}") as running:
            (await healthy.consumed()).deliver(b"m")
            await eventually(lambda: running.books.forwarded == 1)
        await eventually(lambda: not healthy.open)


RUNNING: dict[str, tuple[Callable[[Peer], None], str, str]] = {
    "connection closed": (
        lambda peer: peer.close(320, "CONNECTION_FORCED - bye", channel=0),
        "connection-closed",
        "the broker closed the connection: 320 CONNECTION_FORCED - bye",
    ),
    "channel closed": (
        lambda peer: peer.close(406, "PRECONDITION_FAILED - no"),
        "channel-closed",
        "the broker closed the channel: 406 PRECONDITION_FAILED - no",
    ),
    "hangs up": (Peer.abort, "connection-lost", "connection"),
    "garbage": (lambda peer: peer.send_raw(GARBAGE), "malformed", "the broker sent a frame of type 9"),
    "a frame without its end": (
        lambda peer: peer.send_raw(b"\x01\x00\x01\x00\x00\x00\x04\x00\x14\x00\x0b!"),
        "malformed",
        "without its end octet",
    ),
    "a method cut short": (
        lambda peer: peer.send_raw(b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x50\x00\xce"),
        "malformed",
        "shorter than what it says",
    ),
    "the other side's data": (
        lambda peer: (
            peer.send(commands.Basic.Ack(1))
            if peer.got(commands.Basic.Consume)
            else peer.send(
                commands.Basic.Deliver("ct", 1, False, "", "in"),  # noqa: FBT003 - redelivered
                ContentHeader(0, 0, commands.Basic.Properties()),
            )
        ),
        "malformed",
        " from the ",
    ),
}
"""What a broker does to an open generation: the reason in the metrics, words of the reason."""


@both_sides
@pytest.mark.parametrize("case", RUNNING)
@on_both_loops
async def test_a_generation_that_ends_is_reconnected_by_its_side_alone(
    case: str, side: str, backoffs: Backoffs, caplog: pytest.LogCaptureFixture
) -> None:
    """The other side's connection stays; what was in flight is stale or held, and everything goes on."""
    act, reason, words = RUNNING[case]
    caplog.set_level(logging.WARNING, "bridge")
    async with (
        ScriptedBroker() as source,
        ScriptedBroker() as destination,
        bridge(source, destination, DEFAULT, backoffs) as running,
    ):
        broker, other = (source, destination) if side == "source" else (destination, source)
        destination.published = keep
        peer = await source.consumed()
        peer.deliver(b"one", b"two")
        # Until the scripted broker has read both: what it reads later it would confirm.
        await eventually(lambda: destination.peer.published == [b"one", b"two"])
        destination.published = confirm
        act(broker.peer)
        status = status_of(running, side)
        await eventually(lambda: status.generations_ended == {reason: 1})
        assert running.books.stale_published == (2 if side == "source" else 0)
        told = [record.message for record in caplog.records if " disconnected (generation 1): " in record.message]
        assert len(told) == 1
        assert words in told[0]
        if side == "source":
            confirm(destination.peer, 1)  # the orphans, without which nothing is consumed again
            confirm(destination.peer, 2)
        await eventually(lambda: status.generation == 2 and status.up)
        if side == "source":
            await source.consumed(2)
            source.peer.deliver(b"three")
        await eventually(lambda: running.books.forwarded == (1 if side == "source" else 2))
        assert len(broker.peers) == 2
        assert len(other.peers) == 1
        assert backoffs.delays
        await eventually(lambda: running.snapshot()[1].hindrances == [])


@both_sides
@on_both_loops
async def test_a_half_open_connection_is_ended_by_its_heartbeat(side: str) -> None:
    """A peer from which no byte comes is dropped after 2.5 intervals, and connected to anew."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        source.url, destination.url = source.url + "?heartbeat=1", destination.url + "?heartbeat=1"
        async with bridge(source, destination) as running:
            await source.consumed()
            busy = destination if side == "source" else source
            busy_peer = busy.peer

            def beat() -> object:
                busy_peer.send(Heartbeat(), channel=0)
                return status_of(running, side).generations_ended

            await eventually(beat, "the end of the silent side's generation")
            assert status_of(running, side).generations_ended == {"heartbeat": 1}
            await eventually(lambda: status_of(running, side).generation == 2)
            assert len(busy.peers) == 1


REFUSED_CONSUMING = {
    "channel closed": (refuse(403, "ACCESS_REFUSED - consume"), "ACCESS_REFUSED - consume"),
    "exclusive": (refuse(403, "ACCESS_REFUSED - queue in exclusive use"), "exclusive use"),
    "never answered": (silence, "did not answer within"),
    "hangs up": (hang_up, "connection"),
}


@pytest.mark.parametrize("case", REFUSED_CONSUMING)
@on_both_loops
async def test_a_consumer_that_is_refused_is_tried_again_with_backoff(
    case: str, backoffs: Backoffs, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try is a generation of the source; the destination is not touched."""
    answer, words = REFUSED_CONSUMING[case]
    caplog.set_level(logging.WARNING, "bridge")
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        usual, source.answers[commands.Basic.Consume] = source.answers[commands.Basic.Consume], answer
        async with bridge(source, destination, TimeLimits(connect_s=1.0, close_s=0.1), backoffs) as running:
            await eventually(lambda: sum(running.status.source.generations_ended.values()) >= 3)
            assert words in caplog.text
            assert len(backoffs.delays) >= len(source.peers) - 1, "no attempt without a delay before it"
            assert len(destination.peers) == 1
            source.answers[commands.Basic.Consume] = usual
            tried = len(source.peers)
            await eventually(lambda: len(source.peers) > tried or source.peer.got(commands.Basic.Consume))
            await eventually(lambda: running.snapshot()[1].hindrances == [])
            source.peer.deliver(b"at last")
            await eventually(lambda: running.books.forwarded == 1)


@on_both_loops
async def test_generations_that_end_for_one_reason_again_and_again_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A source that opens and may not be consumed: one line, until it lasts."""
    caplog.set_level(logging.INFO, "bridge")

    def told(words: str) -> int:
        return sum(words in record.message and record.message.startswith("source") for record in caplog.records)

    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        usual = source.answers[commands.Basic.Consume]
        source.answers[commands.Basic.Consume] = refuse(403, "ACCESS_REFUSED - consume")
        async with bridge(source, destination) as running:
            await eventually(lambda: sum(running.status.source.generations_ended.values()) >= 5)
            source.answers[commands.Basic.Consume] = usual
            assert (told(" connected (generation "), told(" disconnected (generation ")) == (2, 1)
            await eventually(lambda: running.snapshot()[1].hindrances == [])
            source.peer.deliver(b"at last")
            await eventually(lambda: running.books.forwarded == 1)
            await eventually(lambda: told(" connected (generation ") == 3, "the generation that lasts to be told")
            source.peer.close(403, "ACCESS_REFUSED - consume")
            await eventually(lambda: told(" disconnected (generation ") == 2, "the end of one that lasted to be told")


def test_a_bridge_that_stood_still_reads_what_came_before_it_blames_a_peer_for_silence() -> None:
    """Frozen for longer than the heartbeat allows: what waits in the sockets may be confirms, or the peers' own end."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        clock, frozen_s = loop.time, 0.0
        loop.time = lambda: clock() + frozen_s  # type: ignore[method-assign]  # asyncio's own loop asks itself
        async with ScriptedBroker() as source, ScriptedBroker() as destination:
            source.url, destination.url = source.url + "?heartbeat=1", destination.url + "?heartbeat=1"
            async with bridge(source, destination) as running:
                await source.consumed()
                ticked = running.relay.tick
                ticks = 0

                def tick(now_s: float, unix_s: float) -> None:
                    nonlocal ticks
                    ticks += 1
                    ticked(now_s, unix_s)

                running.relay.tick = tick  # type: ignore[method-assign]
                await eventually(lambda: ticks)
                frozen_s, ticks = 4.0, 0
                for _ in range(3):  # turns of the loop: the first late tick comes before any byte
                    await asyncio.sleep(0)
                source.peer.deliver(b"m")
                destination.peer.send(Heartbeat(), channel=0)
                await eventually(lambda: ticks and running.books.forwarded)
                for side in (running.status.source, running.status.destination):
                    assert side.generations_ended == {}

    asyncio.run(run())


@on_both_loops
async def test_an_idle_bridge_rests_and_is_awake_at_once_when_a_message_comes() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await source.consumed()
        rests = pauses_of(running)
        running._changed.set()
        await eventually(lambda: rests and rests[-1] > 1.0, "a rest")
        rested = len(rests)
        destination.published = keep
        peer.deliver(b"one")
        await eventually(lambda: len(rests) > rested and rests[-1] == TICK_S, "the end of the rest")
        assert running.books.published == 1
        confirm(destination.peer, 1)
        await eventually(lambda: running.books.forwarded == 1 and rests[-1] > 1.0, "another rest")


@on_both_loops
async def test_what_a_rate_holds_back_is_looked_at_when_it_is_due() -> None:
    settings = {"max_rate": "15"}
    async with (
        ScriptedBroker() as source,
        ScriptedBroker() as destination,
        bridge(source, destination, **settings) as running,
    ):
        peer = await source.consumed()
        pauses = pauses_of(running)
        peer.deliver(*[b"one"] * 20)
        await eventually(lambda: STEP_S <= min(pauses, default=TICK_S) < TICK_S, "a look before the next tick")
        await eventually(lambda: running.books.forwarded == 20)


@on_both_loops
async def test_a_confirm_for_a_publish_that_never_was_ends_the_destinations_generation() -> None:
    """Nothing after it can be trusted; the source is not acked for it."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        destination.published = keep
        peer = await source.consumed()
        peer.deliver(b"one")
        await eventually(lambda: running.books.published == 1)
        first = destination.peer
        confirm(first, 99)
        await eventually(lambda: running.status.destination.generations_ended == {"malformed": 1})
        assert not peer.got(commands.Basic.Ack)
        await eventually(lambda: len(destination.peers) == 2 and destination.peer.published == [b"one"])
        confirm(destination.peer, 1)
        await eventually(lambda: peer.got(commands.Basic.Ack))


@on_both_loops
async def test_a_return_while_nothing_is_published_ends_the_destinations_generation() -> None:
    """What it is about was confirmed before, and the order of the two is all that an ack stands on."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        await source.consumed()
        destination.peer.send(
            commands.Basic.Return(312, "NO_ROUTE", "", "elsewhere"),
            ContentHeader(0, 3, commands.Basic.Properties()),
            ContentBody(b"???"),
        )
        await eventually(lambda: running.status.destination.generations_ended == {"malformed": 1})


@on_both_loops
async def test_a_return_is_about_the_only_one_published_whatever_it_says() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        destination.published = keep
        peer = await source.consumed()
        peer.deliver(b"one")
        await eventually(lambda: running.books.published == 1)
        destination.peer.send(
            commands.Basic.Return(312, "NO_ROUTE", "", "elsewhere"),
            ContentHeader(0, 3, commands.Basic.Properties()),
            ContentBody(b"???"),
        )
        confirm(destination.peer, 1)
        await eventually(lambda: running.books.publish_retries == {"returned": 1} and running.books.held == 1)
        assert not peer.got(commands.Basic.Ack)
        assert running.status.destination.generations_ended == {}


@on_both_loops
async def test_a_consumer_cancelled_by_the_broker_is_drained_and_begun_on_a_new_generation() -> None:
    """The queue may be gone: what is held exists nowhere else, so it is forwarded and acked before."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        destination.published = keep
        peer = await source.consumed()
        peer.deliver(b"one", b"two")
        await eventually(lambda: running.books.published == 2)
        peer.send(commands.Basic.Cancel(peer.got(commands.Basic.Consume)[0].consumer_tag, True))  # noqa: FBT003
        confirm(destination.peer, 1)
        confirm(destination.peer, 2)
        await eventually(lambda: running.status.source.generations_ended == {"consumer-cancelled": 1})
        await eventually(lambda: peer.got(commands.Basic.Ack))
        assert destination.peer.published == [b"one", b"two"]
        assert (running.books.forwarded, running.books.stale_published, running.books.stale_held) == (2, 0, 0)
        await source.consumed(2)


@on_both_loops
async def test_a_full_memory_pauses_the_source_and_its_confirms_resume_it() -> None:
    """What one read completes is held besides (invariant 4); a paused source is not taken for dead."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        destination.published = keep
        async with bridge(source, destination, max_in_flight_bytes=100_000) as running:
            peer = await source.consumed()
            for number in range(40):
                peer.deliver(bytes([number]) * 60_000)
            await eventually(lambda: running.relay.paused)
            tap = running._pump.source
            assert tap is not None
            assert tap.paused
            assert running.books.bytes_in_flight <= 100_000 + MOST_BYTES + 60_000
            destination.published = confirm
            for publish_seqno in range(1, len(destination.peer.published) + 1):
                confirm(destination.peer, publish_seqno)
            await eventually(lambda: running.books.forwarded == 40)
            await eventually(lambda: not tap.paused)
            assert destination.peer.published == [bytes([number]) * 60_000 for number in range(40)]


@both_sides
@on_both_loops
async def test_a_broker_that_does_not_answer_the_close_is_left_in_bounded_time(
    side: str,
) -> None:
    """The socket is dropped; `bridge` checks that it is."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        broker = source if side == "source" else destination
        broker.answers[commands.Connection.Close] = silence
        async with bridge(source, destination, TimeLimits(close_s=0.1)):
            await source.consumed()
        assert broker.peer.got(commands.Connection.Close)


@on_both_loops
async def test_a_confirm_that_never_comes_ends_the_destinations_generation_and_not_the_sources() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        destination.published = keep
        async with bridge(source, destination, confirm_timeout=1) as running:
            peer = await source.consumed()
            peer.deliver(b"one")
            await eventually(lambda: running.status.destination.generations_ended == {"confirm-timeout": 1})
            destination.published = confirm
            await eventually(lambda: running.books.forwarded == 1)
            assert running.books.duplicates_possible == 1
            assert len(source.peers) == 1


@on_both_loops
async def test_a_stop_in_the_middle_of_connecting_leaves_nothing_behind() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        source.answers[commands.Connection.StartOk] = silence
        destination.answers[commands.Queue.Declare] = silence
        async with bridge(source, destination):
            await eventually(lambda: source.peers and source.peer.got(commands.Connection.StartOk))
            await eventually(lambda: destination.peers and destination.peer.got(commands.Queue.Declare))


@on_both_loops
async def test_the_urls_of_a_side_are_tried_in_turn() -> None:
    async with ScriptedBroker() as broken, ScriptedBroker() as source, ScriptedBroker() as destination:
        broken.answers[ProtocolHeader] = hang_up
        urls = f"{broken.url},{source.url}"
        async with bridge(source, destination, source_url=urls) as running:
            await source.consumed()
            assert running.status.source.connect_attempts == {"connection-lost": 1, "ok": 1}


@on_both_loops
async def test_the_reasons_of_several_urls_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedBroker() as refusing, ScriptedBroker() as source, ScriptedBroker() as destination:
        refusing.answers[ProtocolHeader] = hang_up
        usual, source.answers[ProtocolHeader] = source.answers[ProtocolHeader], hang_up
        async with bridge(source, destination, source_url=f"{refusing.url},{source.url}") as running:
            await eventually(lambda: running.status.source.connect_attempts.get("connection-lost", 0) >= 6)
            told = [record.message for record in caplog.records if "source not connected" in record.message]
            assert len(told) == len(set(told)) == 2
            source.answers[ProtocolHeader] = usual
            await source.consumed()


@on_both_loops
async def test_a_side_where_nothing_listens_is_tried_again(backoffs: Backoffs) -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        source._server.close()
        async with bridge(source, destination, DEFAULT, backoffs) as running:
            await eventually(lambda: running.status.source.connect_attempts.get("unreachable", 0) >= 3)
            assert "is the broker running?" in running.status.source.reason
            assert len(backoffs.delays) >= 2


@on_both_loops
async def test_a_blocked_destination_is_told_and_gets_nothing_until_it_is_unblocked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bridge")
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await source.consumed()
        destination.peer.send(commands.Connection.Blocked("low on memory"), channel=0)
        await eventually(lambda: running.status.destination.blocked)
        peer.deliver(b"one")
        await eventually(lambda: running.books.held == 1)
        assert running.snapshot()[1].hindrances == ["destination: blocked by the broker (low on memory)"]
        assert destination.peer.published == []
        destination.peer.send(commands.Connection.Unblocked(), channel=0)
        await eventually(lambda: running.books.forwarded == 1)
        await eventually(lambda: not running.status.destination.blocked)
    told = [
        record.message for record in caplog.records if record.name.startswith("bridge") and "blocked" in record.message
    ]
    assert told == ["destination blocked by the broker (an alarm)", "destination no longer blocked"]


@on_both_loops
async def test_a_refusing_destination_is_told_once_and_tried_until_it_accepts_messages_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is requeued to the source meanwhile."""
    caplog.set_level(logging.INFO, "bridge")
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        destination.published = lambda peer, publish_seqno: peer.send(commands.Basic.Nack(publish_seqno, False, False))  # noqa: FBT003
        async with bridge(source, destination) as running:
            peer = await source.consumed()
            peer.deliver(b"one")
            await eventually(lambda: len(destination.peer.published) >= 2, "another try")
            await eventually(lambda: running.snapshot()[1].trouble)
            destination.published = confirm
            await eventually(lambda: running.books.forwarded == 1)
            await eventually(lambda: "destination accepts messages again" in caplog.text)
            assert not peer.got(commands.Basic.Nack)
    assert len([r for r in caplog.records if re.match("destination (refuses|accepts)", r.message)]) == 2


@on_both_loops
async def test_a_message_that_closes_the_destinations_channel_goes_to_the_quarantine_when_that_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A quarantine that is refused is tried again; the others pass the poison, which is acked only then."""

    def close_by_poison(peer: Peer, publish_seqno: int) -> None:
        if peer.published[-1] == b"poison":
            peer.close(406, "PRECONDITION_FAILED - no")
        else:
            confirm(peer, publish_seqno)

    refusals: list[str] = []

    def refuse_once(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        if frame.queue == "in.quarantine" and not refusals:
            refusals.append(frame.queue)
            peer.close(403, "ACCESS_REFUSED - in.quarantine", channel=channel)
        else:
            peer.send(commands.Queue.DeclareOk(frame.queue, 0, 0), channel=channel)

    caplog.set_level(logging.WARNING, "bridge")
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        destination.published = close_by_poison
        source.answers[commands.Queue.Declare] = refuse_once
        source.published = lambda peer, publish_seqno: peer.send(commands.Basic.Ack(publish_seqno), channel=2)
        async with bridge(source, destination, TimeLimits(retry_max_s=0.1)) as running:
            peer = await source.consumed()
            peer.deliver(b"one", b"poison", b"two", message_id="m")
            await eventually(lambda: running.books.forwarded == 2)
            await eventually(lambda: sum(running.books.quarantined.values()) == 1)
            await eventually(lambda: "message quarantined" in caplog.text)
            assert peer.published == [b"poison"]
            assert "quarantine in.quarantine not available" in caplog.text
            assert len(source.peers) == 1
            assert refusals


@on_both_loops
async def test_a_pause_forwards_what_is_held_and_a_resume_consumes_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bridge")

    def told() -> list[str]:
        return [record.message for record in caplog.records if record.message.startswith(("paused", "resumed"))]

    async with (
        ScriptedBroker() as source,
        ScriptedBroker() as destination,
        bridge(source, destination, shutdown_timeout="5s", source_queue_type="quorum") as running,
    ):
        peer = await source.consumed()
        peer.deliver(b"before")
        await eventually(lambda: running.books.received == 1)
        running.pause()
        await eventually(lambda: told() == ["paused: nothing is consumed until SIGUSR2 or `amqp-bridge resume`"])
        _, status = running.snapshot()
        assert (status.state, status.paused, status.consuming, status.hindrances) == ("paused", True, False, [])
        assert (running.books.forwarded, running.books.requeued) == (1, {})
        running.resume()
        await eventually(lambda: running.snapshot()[1].consuming)
        await eventually(lambda: told()[1:] == ["resumed"])
        peer.deliver(b"after")
        await eventually(lambda: running.books.forwarded == 2)
        assert running.status.source.generation == 1
        assert running.snapshot()[1].hindrances == []


@on_both_loops
async def test_a_bridge_that_starts_paused_connects_and_consumes_nothing() -> None:
    async with (
        ScriptedBroker() as source,
        ScriptedBroker() as destination,
        bridge(source, destination, start_paused="true") as running,
    ):
        await eventually(lambda: running.status.source.up and running.status.destination.up)
        _, status = running.snapshot()
        assert (status.state, status.consuming, status.hindrances) == ("paused", False, [])
        running.resume()
        await eventually(lambda: running.snapshot()[1].consuming)
