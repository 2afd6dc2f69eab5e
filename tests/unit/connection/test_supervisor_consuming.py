"""The whole bridge between two scripted brokers: with how many it consumes, and how that is changed on the wire."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pamqp import commands

from bridge.connection.limits import TimeLimits
from bridge.relay.action import Consume
from bridge.relay.consumer import Consumer
from tests.support.scripted import Peer, ScriptedBroker, bridge, confirm, eventually, keep, on_both_loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.connection.supervisor import Supervisor


def state(ready: int) -> Callable[[Peer, int, Any], None]:
    """Say that so many messages are ready."""
    return lambda peer, channel, _: peer.send(commands.Queue.DeclareOk("in", ready, 0), channel=channel)


def prefetches(peer: Peer) -> list[int]:
    """What the bridge has consumed with on this connection."""
    return [frame.prefetch_count for frame in peer.got(commands.Basic.Qos)]


def told(peer: Peer, *kinds: type) -> list[str]:
    """The names of the frames of these kinds that came in, in their order."""
    return [type(frame).__name__ for frame in peer.frames if isinstance(frame, kinds)]


async def consuming(source: ScriptedBroker, running: Supervisor) -> Peer:
    """Wait until the bridge knows that it consumes, and return the connection."""
    peer = await source.consumed()
    await eventually(lambda: running.relay.steering.consumer is Consumer.ON)
    return peer


async def widened(source: ScriptedBroker, peer: Peer) -> None:
    """Wait until the old consumer is gone and the first ack has come."""
    await eventually(lambda: peer.got(commands.Basic.Ack), "the ack of the probe")
    assert peer is source.peer


@on_both_loops
async def test_a_new_bridge_consumes_one_message_and_after_it_was_accepted_the_whole_prefetch() -> None:
    """The new consumer first, then the old one's cancel, and the ack last: the queue never is without a consumer."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await consuming(source, running)
        assert prefetches(peer) == [1]
        peer.deliver(b"probe")
        await widened(source, peer)
        assert prefetches(peer) == [1, 1000]
        kinds = commands.Basic.Consume, commands.Basic.Cancel, commands.Basic.Ack
        assert told(peer, *kinds) == ["Consume", "Consume", "Cancel", "Ack"]
        old, new = peer.got(commands.Basic.Consume)
        assert old.consumer_tag != new.consumer_tag
        assert peer.got(commands.Basic.Cancel)[0].consumer_tag == old.consumer_tag
        peer.deliver(b"one", b"two")
        await eventually(lambda: running.books.forwarded == 3)
        assert destination.peer.published == [b"probe", b"one", b"two"]


@on_both_loops
async def test_no_ack_is_written_before_the_old_consumers_cancel_is_answered() -> None:
    cancels: list[tuple[Peer, int, commands.Basic.Cancel]] = []
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        answer = source.answers[commands.Basic.Cancel]
        source.answers[commands.Basic.Cancel] = lambda *asked: cancels.append(asked)
        peer = await consuming(source, running)
        peer.deliver(b"probe")
        await eventually(lambda: cancels)
        peer.deliver(b"one")
        await eventually(lambda: running.books.forwarded == 2)
        assert not peer.got(commands.Basic.Ack)
        source.answers[commands.Basic.Cancel] = answer
        answer(*cancels[0])
        await eventually(lambda: len(peer.got(commands.Basic.Ack)) == 2)


@pytest.mark.parametrize(("acked", "prefetch"), ((True, 1000), (False, 1)))
@on_both_loops
async def test_the_next_generation_consumes_with_all_where_the_last_one_acked_a_message(
    prefetch: int, *, acked: bool
) -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await consuming(source, running)
        if acked:
            peer.deliver(b"probe")
            await widened(source, peer)
        before = len(source.peers)
        peer.abort()
        await eventually(lambda: len(source.peers) > before and prefetches(source.peer))
        assert prefetches(source.peer) == [prefetch]
        await eventually(lambda: source.peer.got(commands.Basic.Consume))
        source.peer.deliver(b"next")
        await eventually(lambda: running.books.forwarded == 1 + acked)


@on_both_loops
async def test_generations_that_end_without_an_ack_are_followed_by_a_pause() -> None:
    """Each of them counts for the message at the head of the queue."""
    limits = TimeLimits(unused_pause_s=100.0)
    async with (
        ScriptedBroker() as source,
        ScriptedBroker() as destination,
        bridge(source, destination, limits) as running,
    ):
        source.answers[commands.Queue.Declare] = state(5)
        for consumers in (1, 2):
            peer = await source.consumed(consumers)
            await eventually(lambda: running.relay.steering.consumer is Consumer.ON)
            peer.abort()
            await eventually(lambda: running.relay.steering.consumer is Consumer.OFF)
        await eventually(lambda: len(source.open) == 1 and running.status.source.up)
        now_s = asyncio.get_running_loop().time()
        await eventually(lambda: running.window.destination_ready)
        assert running.relay.steering.wanted(now_s) is None
        assert running.relay.steering.wanted(now_s + 1000.0) == Consume(1)


@on_both_loops
async def test_a_queue_that_still_exists_after_the_broker_cancelled_has_what_was_held_again() -> None:
    """RabbitMQ 4.3's consumer timeout: publishing stops at once, and a new generation begins."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        destination.published = keep
        peer = await consuming(source, running)
        peer.deliver(b"probe")
        await eventually(lambda: running.books.published == 1)
        source.answers[commands.Queue.Declare] = state(2)
        peer.send(commands.Basic.Cancel(peer.got(commands.Basic.Consume)[0].consumer_tag, True))  # noqa: FBT003
        peer.deliver(b"held")
        await eventually(lambda: running.status.source.generations_ended == {"consumer-cancelled": 1})
        assert running.books.stale_held == 1
        assert running.window.orphans == 1
        assert len(source.open) <= 1
        confirm(destination.peer, 1)
        await eventually(lambda: len(source.peers) > 1 and source.peer.got(commands.Basic.Consume))
        assert destination.peer.published == [b"probe"]


@on_both_loops
async def test_a_refused_probe_is_requeued_and_probed_again() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        settings = {"source_queue_type": "quorum"}
        destination.published = lambda peer, number: peer.send(commands.Basic.Nack(number, False, False))  # noqa: FBT003
        async with bridge(source, destination, **settings) as running:
            peer = await consuming(source, running)
            running.relay.steering.facts = replace(running.relay.steering.facts, requeues_counted=False)
            peer.deliver(b"probe")
            await eventually(lambda: peer.got(commands.Basic.Nack))
            kinds = commands.Basic.Consume, commands.Basic.Cancel, commands.Basic.Nack
            assert told(peer, *kinds)[:3] == ["Consume", "Cancel", "Nack"]
            destination.published = confirm
            await eventually(lambda: len(peer.got(commands.Basic.Consume)) == 2)
            assert prefetches(peer) == [1, 1]
            peer.deliver(b"probe")
            await eventually(lambda: running.books.forwarded == 1)
            assert running.books.requeued == {"probe": 1}


@on_both_loops
async def test_a_stream_is_read_on_after_a_lost_connection() -> None:
    """A user who may not ask what the queue is learns it from the deliveries."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await consuming(source, running)
        peer.deliver(b"one", headers={"x-stream-offset": 1 << 40})
        await eventually(lambda: len(peer.got(commands.Basic.Consume)) == 2)
        assert [frame.arguments for frame in peer.got(commands.Basic.Consume)] == [{}, {"x-stream-offset": 1 << 40}]
        await widened(source, peer)
        peer.abort()
        await eventually(lambda: len(source.peers) > 1 and source.peer.got(commands.Basic.Consume))
        # At the last message that was forwarded: that it comes shows that none before the next is missing.
        assert source.peer.got(commands.Basic.Consume)[0].arguments == {"x-stream-offset": 1 << 40}
        assert running.books.forwarded == 1
