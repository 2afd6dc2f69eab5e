"""A destination whose exchanges are asked for: what is asked, what an answer lets go, and what is logged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from pamqp import commands
from pamqp.header import ProtocolHeader

from bridge.amqp.events import Close
from bridge.assembly import assemble
from bridge.connection.exchanging import MOST_NEWS, Exchanging
from bridge.connection.link import CONTROL_CHANNEL
from bridge.connection.session import DestinationSession
from bridge.connection.tap import Pump
from bridge.errors import ConnectError
from bridge.settings.environment import load_settings
from tests.support.scripted import ScriptedBroker, bridge, eventually, on_both_loops, refuse, reply, silence, start
from tests.unit.connection.test_session import session_of

if TYPE_CHECKING:
    from tests.support.scripted import Peer

MISSING = "NOT_FOUND - no exchange 'gone' in vhost '/'"
ORIGINAL = {"destination_queue": "", "destination_route": "original"}


class Exchanges:
    """A scripted destination with some exchanges: it knows transactions, and confirms what is published outside."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self.refusals: dict[str, tuple[int, str]] = {"gone": (404, MISSING)}
        self.asked: list[str] = []
        self.published: list[str] = []
        self._asking = False
        broker.answers |= {commands.Tx.Select: self._select, commands.Tx.Rollback: self._roll_back}
        broker.published = self._published

    def _select(self, peer: Peer, channel: int, _: object) -> None:
        self._asking = True
        peer.send(commands.Tx.SelectOk(), channel=channel)

    def _roll_back(self, peer: Peer, channel: int, _: object) -> None:
        """Answer; on a channel that was closed meanwhile a broker says no more."""
        if self._asking:
            self._asking = False
            peer.send(commands.Tx.RollbackOk(), channel=channel)

    def _published(self, peer: Peer, _: int) -> None:
        exchange = peer.got(commands.Basic.Publish)[-1].exchange
        if not self._asking:
            self.published.append(exchange)
            peer.send(commands.Basic.Ack(len(self.published), False))  # noqa: FBT003 - the field `multiple`
            return
        self.asked.append(exchange)
        if exchange in self.refusals:
            self._asking = False
            peer.close(*self.refusals[exchange], channel=CONTROL_CHANNEL)


def rabbitmq(broker: ScriptedBroker) -> Exchanges:
    """Make it a RabbitMQ with exchanges."""
    broker.answers[ProtocolHeader] = start(product="RabbitMQ", version="4.3.6")
    return Exchanges(broker)


@on_both_loops
async def test_a_message_goes_to_its_own_exchange_once_the_broker_has_said_that_it_accepts_messages() -> None:
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        there = rabbitmq(destination)
        async with bridge(source, destination, **ORIGINAL) as supervisor:
            peer = await source.consumed()
            peer.deliver(b"1")
            await eventually(lambda: supervisor.books.forwarded == 1)
            assert (there.asked, there.published) == ([""], [""])


@on_both_loops
async def test_a_refusal_is_the_close_that_the_publish_would_bring_about() -> None:
    async with session_of(DestinationSession) as (session, broker):
        there = rabbitmq(broker)
        there.refusals |= {
            "closed": (403, "ACCESS_REFUSED - access to exchange 'closed' refused"),
            "topic": (403, "ACCESS_REFUSED - access to topic '' in exchange 'topic' refused"),
        }
        await session.open(0)
        gone, closed = await session.ask_exchange(b"gone"), await session.ask_exchange(b"closed")
        assert (gone.reply_code, closed.reply_code) == (404, 403)
        assert MISSING in gone.reply_text
        assert await session.ask_exchange(b"topic") is None, "which keys are allowed only a publish shows"
        assert await session.ask_exchange(b"") is None
        nameless = await session.ask_exchange(b"\xff")
        assert nameless.reply_code == 404
        assert session.end is None


@on_both_loops
async def test_an_exchange_that_delays_messages_is_refused() -> None:
    async with session_of(DestinationSession) as (session, broker):
        rabbitmq(broker)
        text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'later' in vhost '/': received 'direct' but "
        broker.answers[commands.Exchange.Declare] = refuse(406, f"{text}current is 'x-delayed-message'")
        await session.open(0)
        assert (await session.ask_exchange(b"later")).reply_code == 540


@on_both_loops
async def test_another_broker_is_asked_whether_the_exchange_exists_but_for_the_default_exchange() -> None:
    async with session_of(DestinationSession) as (session, broker):
        await session.open(0)
        assert await session.ask_exchange(b"") is None
        assert broker.peer.got(commands.Exchange.Declare) == []
        assert await session.ask_exchange(b"here") is None
        broker.answers[commands.Exchange.Declare] = refuse(404, MISSING)
        assert (await session.ask_exchange(b"gone")).reply_code == 404
        assert all(frame.passive for frame in broker.peer.got(commands.Exchange.Declare))


@on_both_loops
async def test_without_a_channel_for_questions_the_publish_shows_it() -> None:
    async with session_of(DestinationSession) as (session, broker):
        broker.answers[commands.Connection.StartOk] = reply(commands.Connection.Tune(2, 131072, 60))
        await session.open(0)
        assert await session.ask_exchange(b"gone") is None


@pytest.mark.parametrize(("exchange", "asked"), (("x" * 127, 1), ("x" * 128, 0), ("ä" * 49, 1), ("ä" * 50, 0)))
@on_both_loops
async def test_what_cannot_be_asked_for_the_publish_shows(exchange: str, asked: int) -> None:
    """The library does not write the longer ones, and of longer other letters RabbitMQ's answer ends the connection."""
    async with session_of(DestinationSession) as (session, broker):
        await session.open(0)
        assert await session.ask_exchange(exchange.encode()) is None
        assert len(broker.peer.got(commands.Exchange.Declare)) == asked


@on_both_loops
async def test_a_refusal_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bridge")
    async with session_of(DestinationSession) as (session, broker):
        there = rabbitmq(broker)
        await session.open(0)
        window = session._relay.window
        exchanging = Exchanging(window, Pump(session._relay))

        async def ask(exchange: bytes, now_s: float) -> object:
            window.exchanges.consult(exchange, now_s)
            assert window.exchanges.take_question(now_s) == exchange
            await exchanging.ask(session, exchange)
            return window.exchanges.consult(exchange, now_s)

        now_s = asyncio.get_running_loop().time()
        assert MISSING in str(await ask(b"\4gone", now_s))
        await ask(b"\4gone", now_s + 1000.0)
        del there.refusals["gone"]
        assert await ask(b"\4gone", now_s + 2000.0) == "open"
        said = [record.getMessage() for record in caplog.records if "accepts" in record.getMessage()]
        assert [text.partition(":")[0] for text in said] == [
            "exchange 'gone' accepts no messages, others pass",
            "exchange 'gone' accepts messages again",
        ]


@on_both_loops
async def test_a_question_that_is_not_answered_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async with session_of(DestinationSession) as (session, broker):
        await session.open(0)
        window = session._relay.window
        broker.answers[commands.Exchange.Declare] = refuse(406, "PRECONDITION_FAILED - odd")
        window.exchanges.consult(b"\4here", 0.0)
        assert window.exchanges.take_question(0.0) == b"\4here"
        await Exchanging(window, Pump(session._relay)).ask(session, b"\4here")
        assert "exchange 'here' did not report whether it accepts messages" in caplog.text
        assert window.exchanges.consult(b"\4here", 0.0) == "unknown"
        broker.answers[commands.Exchange.Declare] = silence
        asking = asyncio.ensure_future(session.ask_exchange(b"here"))
        await eventually(lambda: len(broker.peer.got(commands.Exchange.Declare)) == 2)
        broker.peer.abort()
        with pytest.raises(ConnectError):
            await asking
        assert session.end is not None


@on_both_loops
async def test_an_answer_belongs_to_the_generation_that_asked() -> None:
    async with session_of(DestinationSession) as (session, broker):
        await session.open(0)
        window = session._relay.window
        before = window.exchanges
        before.consult(b"\4here", 0.0)
        assert before.take_question(0.0) == b"\4here"
        asking = Exchanging(window, Pump(session._relay)).ask(session, b"\4here")
        window.destination_connecting()
        await asking
        assert before.consult(b"\4here", 0.0) == "open"
        assert window.exchanges.consult(b"\4here", 0.0) == "unknown"
        assert len(broker.peer.got(commands.Exchange.Declare)) == 1


def test_the_news_of_no_more_exchanges_than_so_many_are_kept() -> None:
    settings = load_settings(
        {
            "BRIDGE_SOURCE_URL": "amqp://u:p@here",
            "BRIDGE_SOURCE_QUEUE": "in",
            "BRIDGE_DESTINATION_URL": "amqp://u:p@there",
            "BRIDGE_DESTINATION_ROUTE": "original",
        }
    )
    relay = assemble(settings).relay
    exchanging = Exchanging(relay.window, Pump(relay))
    for number in range(MOST_NEWS + 1):
        exchanging._tell(b"%d" % number, Close(3, 404, MISSING), 0.0)
    assert len(exchanging._refused) == 1
