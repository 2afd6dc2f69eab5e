"""A generation of the source against a scripted broker: what it is told of its queue, and how it consumes from it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader, ProtocolHeader

from bridge.assembly import assemble
from bridge.connection.link import CONTROL_CHANNEL
from bridge.connection.session import SourceSession
from bridge.errors import ConnectError
from bridge.relay.queue import QueueFacts, QueueState
from bridge.settings.environment import load_settings
from tests.support.scripted import ScriptedBroker, on_both_loops, refuse, reply, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pamqp.common import FieldTable

    from bridge.connection.supervisor import Supervisor
    from tests.support.scripted import Peer

DIFFERS = "PRECONDITION_FAILED - inequivalent arg '{}' for queue 'in' in vhost '/': received '{}' but current is {}"


@asynccontextmanager
async def source_of(broker: ScriptedBroker, **settings: object) -> AsyncIterator[tuple[SourceSession, Supervisor]]:
    """A session of the source with this broker, not opened yet."""
    environ = {"source_url": broker.url, "source_queue": "in", "destination_queue": "out"} | settings
    loaded = load_settings({f"BRIDGE_{name.upper()}": str(value) for name, value in environ.items()})
    supervisor = assemble(loaded)
    session = SourceSession(supervisor.relay, supervisor._pump, loaded)
    try:
        yield session, supervisor
    finally:
        await session.close()


def rabbitmq(broker: ScriptedBroker, version: str, **queue: str) -> None:
    """Let it be a RabbitMQ whose queue has these arguments: it names one difference in each refusal."""
    broker.answers[ProtocolHeader] = start(product="RabbitMQ", version=version)
    current = {"x-queue-type": "classic", "x-delivery-limit": "", "auto_delete": "false"}
    current |= {name.replace("_", "-") if name.startswith("x_") else name: text for name, text in queue.items()}

    def declare(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        if frame.passive:
            peer.send(commands.Queue.DeclareOk("in", 0, 0), channel=channel)
            return
        assert channel == CONTROL_CHANNEL, "a refusal closes the channel"
        asked = {"auto_delete": str(frame.auto_delete).lower()}
        asked |= {name: str(value).lower() for name, value in (frame.arguments or {}).items()}
        for name, value in sorted(current.items(), key=lambda item: item[0] == "x-delivery-limit"):
            if asked.get(name, "") != value:
                found = f"'{value}'" if value else "none"
                peer.close(406, DIFFERS.format(name, asked.get(name, ""), found), channel=channel)
                return
        raise AssertionError("a question created a queue")

    broker.answers[commands.Queue.Declare] = declare


@pytest.mark.parametrize(
    ("version", "queue", "facts"),
    (
        ("4.3.6", {}, QueueFacts("classic", auto_delete=False, expires=False, requeues_counted=False)),
        ("3.10.8", {}, QueueFacts("classic", auto_delete=False, expires=False, requeues_counted=False)),
        (
            "4.3.6",
            {"auto_delete": "true"},
            QueueFacts("classic", auto_delete=True, expires=False, requeues_counted=False),
        ),
        (
            "4.3.6",
            {"x_expires": "60000"},
            QueueFacts("classic", auto_delete=False, expires=True, requeues_counted=False),
        ),
        (
            "4.3.0",
            {"x_queue_type": "quorum"},
            QueueFacts("quorum", auto_delete=False, expires=False, requeues_counted=False),
        ),
        (
            "4.2.9",
            {"x_queue_type": "quorum"},
            QueueFacts("quorum", auto_delete=False, expires=False, requeues_counted=True),
        ),
        (
            "3.10.8",
            {"x_queue_type": "stream"},
            QueueFacts("stream", auto_delete=False, expires=False, requeues_counted=True),
        ),
        (
            "10.0.0",
            {"x_queue_type": "quorum"},
            QueueFacts("quorum", auto_delete=False, expires=False, requeues_counted=False),
        ),
    ),
)
@on_both_loops
async def test_rabbitmq_is_asked_what_the_queue_is(version: str, queue: dict[str, str], facts: QueueFacts) -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, supervisor):
        rabbitmq(broker, version, **queue)
        await session.open(0)
        told = supervisor.relay.steering.facts
        kept = ("queue_type", "auto_delete", "expires", "requeues_counted")
        assert [getattr(told, name) for name in kept] == [getattr(facts, name) for name in kept]


@on_both_loops
async def test_a_user_who_may_not_ask_is_told_nothing_and_the_settings_say_what_the_queue_is() -> None:
    def declare(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        if frame.passive:
            peer.send(commands.Queue.DeclareOk("in", 0, 0), channel=channel)
        else:
            peer.close(403, "ACCESS_REFUSED - configure access to queue 'in' refused", channel=channel)

    for settings, queue_type, counted in (({}, None, False), ({"source_queue_type": "quorum"}, "quorum", False)):
        async with ScriptedBroker() as broker, source_of(broker, **settings) as (session, supervisor):
            broker.answers[ProtocolHeader] = start(product="RabbitMQ", version="4.3.6")
            broker.answers[commands.Queue.Declare] = declare
            await session.open(0)
            facts = supervisor.relay.steering.facts
            assert (facts.queue_type, facts.auto_delete, facts.expires) == (queue_type, None, None)
            assert facts.requeues_counted is counted
            assert session.end is None


@on_both_loops
async def test_another_broker_is_asked_nothing() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, supervisor):
        await session.open(0)
        assert len(broker.peer.got(commands.Queue.Declare)) == 1
        assert supervisor.relay.steering.facts == QueueFacts()


@on_both_loops
async def test_a_connection_that_is_lost_while_the_queue_is_asked_was_not_opened() -> None:
    def declare(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        if frame.passive:
            peer.send(commands.Queue.DeclareOk("in", 0, 0), channel=channel)
        else:
            peer.close(320, "CONNECTION_FORCED", channel=0)

    async with ScriptedBroker() as broker, source_of(broker) as (session, supervisor):
        broker.answers[ProtocolHeader] = start(product="RabbitMQ", version="4.3.6")
        broker.answers[commands.Queue.Declare] = declare
        with pytest.raises(ConnectError, match="CONNECTION_FORCED"):
            await session.open(0)
        assert supervisor._pump.source is None


# --- Consuming -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "begin_at"), ((None, "first"), (0, 0), (42, 42)))
@on_both_loops
async def test_a_stream_is_read_on_from_an_offset_whatever_the_settings_say(
    offset: int | None, begin_at: str | int
) -> None:
    settings = {"source_consumer_arguments": '{"x-stream-offset": "first", "x-other": 1}'}
    async with ScriptedBroker() as broker, source_of(broker, **settings) as (session, _):
        await session.open(0)
        await session.consume(10, offset)
        (consume,) = broker.peer.got(commands.Basic.Consume)
        assert consume.arguments == {"x-stream-offset": begin_at, "x-other": 1}


@on_both_loops
async def test_a_consumer_that_is_no_longer_wanted_is_not_asked_for() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, supervisor):
        await session.open(0)
        supervisor.relay.stop(0.0)
        assert await session.consume(10, None) is None
        assert not broker.peer.got(commands.Basic.Consume)


@on_both_loops
async def test_what_the_queue_said_right_before_is_returned() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, _):
        await session.open(0)
        broker.answers[commands.Queue.Declare] = lambda peer, channel, _: peer.send(
            commands.Queue.DeclareOk("in", 7, 2), channel=channel
        )
        assert await session.consume(10, None) == QueueState(ready=7, consumers=2)
        assert await session.ask_queue() == QueueState(ready=7, consumers=2)


@on_both_loops
async def test_a_queue_that_is_gone_when_it_is_asked_does_not_exist_and_ends_nothing() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, _):
        await session.open(0)
        broker.answers[commands.Queue.Declare] = refuse(404, "NOT_FOUND - no queue 'in' in vhost '/'")
        assert await session.ask_queue() == QueueState(ready=0, consumers=0, exists=False)
        assert session.end is None


@pytest.mark.parametrize(("code", "text"), ((403, "ACCESS_REFUSED"), (541, "INTERNAL_ERROR - no quorum")))
@on_both_loops
async def test_a_queue_that_refuses_to_answer_says_nothing_of_itself(code: int, text: str) -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, _):
        await session.open(0)
        broker.answers[commands.Queue.Declare] = refuse(code, text)
        with pytest.raises(ConnectError, match=text):
            await session.ask_queue()
        assert session.end is None


def first_at(offset: int | None) -> Callable[[Peer, int, Any], None]:
    """A stream whose first message has this offset, as the consumer learns that asks for it."""

    def answer(peer: Peer, channel: int, consume: Any) -> None:  # noqa: ANN401 - pamqp's
        peer.send(commands.Basic.ConsumeOk(consume.consumer_tag), channel=channel)
        for number in range(2):
            headers: FieldTable = {} if offset is None else {"x-stream-offset": offset + number}
            properties = commands.Basic.Properties(headers=headers)
            deliver = commands.Basic.Deliver(consume.consumer_tag, 1 + number, False, "", "in")  # noqa: FBT003
            peer.send(deliver, ContentHeader(0, 1, properties), ContentBody(b"x"), channel=channel)
        assert consume.arguments == {"x-stream-offset": "first"}

    return answer


@on_both_loops
async def test_a_stream_is_asked_for_its_first_message_beside_what_it_delivers() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, _):
        await session.open(0)
        broker.answers[commands.Basic.Consume] = first_at(70)
        assert await session.ask_first_offset() == 70
        assert session.end is None


@on_both_loops
async def test_a_queue_that_is_no_stream_any_more_has_no_first_offset() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, _):
        await session.open(0)
        broker.answers[commands.Basic.Consume] = first_at(None)
        with pytest.raises(ConnectError, match="no stream any more"):
            await session.ask_first_offset()
        assert session.end is None


@on_both_loops
async def test_a_stream_that_refuses_to_be_asked_ends_nothing() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, _):
        await session.open(0)
        broker.answers[commands.Basic.Consume] = refuse(403, "ACCESS_REFUSED")
        with pytest.raises(ConnectError, match="ACCESS_REFUSED"):
            await session.ask_first_offset()
        assert session.end is None


@on_both_loops
async def test_a_connection_that_ends_while_a_stream_is_asked_ends_the_question() -> None:
    async with ScriptedBroker() as broker, source_of(broker) as (session, _):
        await session.open(0)

        def hang_up_later(peer: Peer, channel: int, _: object) -> None:
            peer.send(commands.Basic.ConsumeOk("first"), channel=channel)
            peer.abort()

        broker.answers[commands.Basic.Consume] = hang_up_later
        with pytest.raises(ConnectError):
            await session.ask_first_offset()


@on_both_loops
async def test_a_declared_queue_is_bound_to_its_exchanges_before_it_is_consumed() -> None:
    bindings = '[{"exchange": "a", "routing_key": "k.#"}, {"exchange": "h", "arguments": {"x-match": "all", "way": 1}}]'
    async with ScriptedBroker() as broker:
        broker.answers[commands.Queue.Bind] = reply(commands.Queue.BindOk())
        async with source_of(broker, source_declare="true", source_bindings=bindings) as (session, _):
            await session.open(0)
            bound = broker.peer.got(commands.Queue.Bind)
            found = [(frame.exchange, frame.routing_key, frame.arguments) for frame in bound]
            assert found == [("a", "k.#", {}), ("h", "", {"x-match": "all", "way": 1})]
