"""One generation of one side against a scripted broker: what is asked of it, and what its refusals become."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiormq import exceptions as amqp
from pamqp import commands
from pamqp.frame import marshal
from pamqp.header import ProtocolHeader

from bridge.assembly import assemble
from bridge.connection.diagnosis import explain, explained
from bridge.connection.limits import DEFAULT, TimeLimits
from bridge.connection.link import CONTROL_CHANNEL
from bridge.connection.session import DestinationSession, Session, SourceSession
from bridge.errors import BridgeError, ConnectError
from bridge.settings.environment import load_settings
from tests.rig.certificates import Certificates, make_certificates
from tests.support.scripted import (
    CAPABILITIES,
    ScriptedBroker,
    eventually,
    hang_up,
    on_both_loops,
    refuse,
    silence,
    start,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.scripted import Peer


@asynccontextmanager
async def session_of(
    kind: type[SourceSession | DestinationSession], limits: TimeLimits = DEFAULT, /, **settings: object
) -> AsyncIterator[Any]:
    """A session of that kind and its broker; closed at the end, with no socket left."""
    async with ScriptedBroker() as broker:
        environ = {"source_url": broker.url, "source_queue": "in", "destination_queue": "out"} | settings
        loaded = load_settings({f"BRIDGE_{name.upper()}": str(value) for name, value in environ.items() if value})
        supervisor = assemble(loaded)
        session = kind(supervisor.relay, supervisor._pump, loaded, limits)
        try:
            yield session, broker
        finally:
            await session.close()
        await eventually(lambda: not broker.open, "the session's socket is closed")


def only(frames: list[Any]) -> Any:  # noqa: ANN401 - a frame of the kind that was asked for
    """Return the only frame."""
    (frame,) = frames
    return frame


# --- Opening -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "queue"), ((SourceSession, "in"), (DestinationSession, "out")))
@on_both_loops
async def test_a_queue_is_verified_and_not_declared(kind: type[Any], queue: str) -> None:
    """Only the destination's channel confirms: the source's publishes nothing."""
    async with session_of(kind) as (session, broker):
        await session.open(0)
        declare = only(broker.peer.got(commands.Queue.Declare))
        assert (declare.queue, declare.passive) == (queue, True)
        assert len(broker.peer.got(commands.Confirm.Select)) == (kind is DestinationSession)


@pytest.mark.parametrize("name", ('Aufträge (100%) "neu"', "ü" * 60, "x" * 255, "two\nlines"))
@on_both_loops
async def test_a_name_may_be_whatever_rabbitmq_takes(name: str) -> None:
    """RabbitMQ's names are any UTF-8 (how long, the settings say); pamqp's are some ASCII, an exchange's 127 of it."""
    exchange = name[:127]
    names = {"source_queue": name, "destination_queue": None, "destination_exchange": exchange, "quarantine_queue": "q"}
    async with session_of(SourceSession, **names) as (session, broker):
        await session.open(0)
        assert only(broker.peer.got(commands.Queue.Declare)).queue == name
    async with session_of(DestinationSession, **names) as (session, broker):
        await session.open(0)
        assert only(broker.peer.got(commands.Exchange.Declare)).exchange == exchange


@pytest.mark.parametrize(("kind", "side"), ((SourceSession, "source"), (DestinationSession, "destination")))
@on_both_loops
async def test_a_queue_is_declared_durable_with_its_type_where_the_settings_say_so(kind: type[Any], side: str) -> None:
    settings = {
        f"{side}_declare": "true",
        f"{side}_queue_type": "classic",
        f"{side}_queue_arguments": '{"x-max-length": 5}',
    }
    async with session_of(kind, **settings) as (session, broker):
        await session.open(0)
        declare = only(broker.peer.got(commands.Queue.Declare))
        assert (declare.passive, declare.durable, declare.auto_delete) == (False, True, False)
        assert declare.arguments == {"x-queue-type": "classic", "x-max-length": 5}


@on_both_loops
async def test_an_exchange_is_verified_and_not_declared() -> None:
    async with session_of(DestinationSession, destination_queue=None, destination_exchange="ex") as (session, broker):
        await session.open(0)
        declare = only(broker.peer.got(commands.Exchange.Declare))
        assert (declare.exchange, declare.passive) == ("ex", True)
        assert not broker.peer.got(commands.Queue.Declare)


def refuse_another_type(type_now: str) -> Callable[[Peer, int, commands.Exchange.Declare], None]:
    """Let there be an exchange of this type, of which nothing can be declared anew."""

    def declare(peer: Peer, channel: int, frame: commands.Exchange.Declare) -> None:
        if frame.passive:
            peer.send(commands.Exchange.DeclareOk(), channel=channel)
            return
        assert channel == CONTROL_CHANNEL, "a refusal closes the channel"
        assert frame.arguments == {"alternate-exchange": 0}, "never valid: a question creates nothing"
        found = f"arg 'type' for exchange 'ex' in vhost '/': received 'direct' but current is '{type_now}'"
        if type_now == "direct":
            found = (
                "arg 'alternate-exchange' for exchange 'ex' in vhost '/': received the value '0' but current is none"
            )
        peer.close(406, f"PRECONDITION_FAILED - inequivalent {found}", channel=channel)

    return declare


@pytest.mark.parametrize("type_now", ("topic", "direct"))
@on_both_loops
async def test_an_exchange_of_a_usual_type_is_published_to(type_now: str) -> None:
    async with session_of(DestinationSession, destination_queue=None, destination_exchange="ex") as (session, broker):
        broker.answers[ProtocolHeader] = start(product="RabbitMQ", version="4.3.6")
        broker.answers[commands.Exchange.Declare] = refuse_another_type(type_now)
        await session.open(0)
        assert len(broker.peer.got(commands.Exchange.Declare)) == 2
        assert session.end is None


@on_both_loops
async def test_an_exchange_that_delivers_what_it_returns_is_not_published_to() -> None:
    """Each message would be published again and again: it says that it has no route for what it delays."""
    async with session_of(DestinationSession, destination_queue=None, destination_exchange="ex") as (session, broker):
        broker.answers[ProtocolHeader] = start(product="RabbitMQ", version="4.3.6")
        broker.answers[commands.Exchange.Declare] = refuse_another_type("x-delayed-message")
        with pytest.raises(ConnectError, match=r"x-delayed-message.*publish to another exchange") as caught:
            await session.open(0)
        assert caught.value.result == "mismatch"


@on_both_loops
async def test_a_user_who_may_not_ask_what_an_exchange_is_publishes_to_it() -> None:
    def declare(peer: Peer, channel: int, frame: commands.Exchange.Declare) -> None:
        if frame.passive:
            peer.send(commands.Exchange.DeclareOk(), channel=channel)
        else:
            peer.close(403, "ACCESS_REFUSED - configure access to exchange 'ex' refused", channel=channel)

    async with session_of(DestinationSession, destination_queue=None, destination_exchange="ex") as (session, broker):
        broker.answers[ProtocolHeader] = start(product="RabbitMQ", version="4.3.6")
        broker.answers[commands.Exchange.Declare] = declare
        await session.open(0)
        assert session.end is None


@on_both_loops
async def test_the_connection_has_a_name_that_operators_find_it_by() -> None:
    async with session_of(SourceSession) as (session, broker):
        await session.open(0)
        properties = only(broker.peer.got(commands.Connection.StartOk)).client_properties
        assert (properties["connection_name"], properties["product"]) == ("amqp-bridge source in", "amqp-bridge")


@on_both_loops
async def test_a_password_file_is_re_read_on_every_connect(tmp_path: Path) -> None:
    """A rotated secret just works."""
    secret = tmp_path / "password"
    secret.write_text("old\n")
    async with session_of(SourceSession, source_password_file=secret) as (session, broker):
        await session.open(0)
        assert only(broker.peer.got(commands.Connection.StartOk)).response == "\0guest\0old"
        secret.write_text("new\n")
        second = SourceSession(session._relay, session._pump, session._settings)
        await session.close()
        await second.open(0)
        assert only(broker.peer.got(commands.Connection.StartOk)).response == "\0guest\0new"
        await second.close()


@on_both_loops
async def test_a_password_file_that_is_away_is_a_reason_to_try_again(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("old\n")
    async with session_of(SourceSession, source_password_file=secret) as (session, broker):
        secret.unlink()
        with pytest.raises(ConnectError, match="password file") as caught:
            await session.open(0)
        assert caught.value.result == "credentials"
        assert not broker.peers


@pytest.mark.parametrize("kind", (SourceSession, DestinationSession))
@on_both_loops
async def test_a_connection_closed_right_after_the_last_answer_is_not_taken_for_open(kind: type[Any]) -> None:
    """The close may be read together with the answer: the generation must not begin after its end."""

    def answer_and_close(peer: Peer, channel: int, _: object) -> None:
        peer.send(commands.Queue.DeclareOk("q", 0, 0), channel=channel)
        peer.close(320, "CONNECTION_FORCED", channel=0)

    async with session_of(kind) as (session, broker):
        broker.answers[commands.Queue.Declare] = answer_and_close
        with pytest.raises(ConnectError, match="CONNECTION_FORCED"):
            await session.open(0)
        assert (session._pump.source, session._pump.destination) == (None, None)


@on_both_loops
async def test_a_cancelled_open_is_cancelled_and_not_explained() -> None:
    async with session_of(SourceSession) as (session, broker):
        broker.answers[commands.Channel.Open] = silence
        opening = asyncio.ensure_future(session.open(0))
        await eventually(lambda: broker.peers and broker.peer.got(commands.Channel.Open))
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()


@on_both_loops
async def test_a_cancellation_goes_on_whatever_the_library_makes_of_it() -> None:
    """What waits for a channel that the broker has just closed raises the close, although it is cancelled (aiormq)."""
    side = load_settings({"BRIDGE_SOURCE_URL": "amqp://h", "BRIDGE_SOURCE_QUEUE": "a", "BRIDGE_DESTINATION_QUEUE": "b"})

    async def opening() -> None:
        async with explained(side.source, 0, 60):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                raise amqp.ChannelAccessRefused("ACCESS_REFUSED") from error

    task = asyncio.ensure_future(opening())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


class FrozenTlsPeer:
    """A broker on a thread, so that no event loop answers for it: it logs in as far as it is told, and freezes."""

    STEPS = (
        commands.Connection.Start(0, 9, CAPABILITIES, "PLAIN", "en_US"),
        commands.Connection.Tune(2047, 131072, 60),
        commands.Connection.OpenOk(),
    )

    def __init__(self, certificates: Certificates, steps: int) -> None:
        self._steps = self.STEPS[:steps]
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.server_cert, certificates.server_key)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"amqps://guest:secret@127.0.0.1:{self._server.getsockname()[1]}/"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._server.close()

    def _run(self) -> None:
        with self._context.wrap_socket(self._server.accept()[0], server_side=True) as connection:
            for step in self._steps:
                connection.recv(65536)
                connection.sendall(marshal(step, 0))
            self._end.wait()


@pytest.mark.parametrize("steps", range(len(FrozenTlsPeer.STEPS) + 1))
@on_both_loops
async def test_a_tls_peer_that_freezes_costs_no_more_than_the_time_to_connect(steps: int, tmp_path: Path) -> None:
    """Nobody waits for the end of its TLS stream, for which asyncio and uvloop take 30 s, nor says goodbye to it."""
    certificates = make_certificates(tmp_path)
    limits = TimeLimits(connect_s=1.0, close_s=60.0)
    with FrozenTlsPeer(certificates, steps) as peer:
        settings = {"source_url": peer.url, "source_ca_file": certificates.ca}
        async with session_of(SourceSession, limits, **settings) as (session, _), asyncio.timeout(20):
            with pytest.raises(ConnectError, match="did not answer within 1 s"):
                await session.open(0)
            await session.close()


@on_both_loops
async def test_only_the_first_reason_for_an_end_counts() -> None:
    async with session_of(SourceSession) as (session, broker):
        await session.open(0)
        broker.peer.close(406, "PRECONDITION_FAILED")
        broker.peer.close(320, "CONNECTION_FORCED", channel=0)
        await eventually(lambda: session.end)
        await eventually(lambda: not broker.open or broker.peer.got(commands.Connection.CloseOk))
        assert session.end == ("channel-closed", "the broker closed the channel: 406 PRECONDITION_FAILED")


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    (
        (
            403,
            "ACCESS_REFUSED - queue 'in' in vhost '/' in exclusive use",
            "; another consumer has it for itself alone",
        ),
        (
            403,
            "ACCESS_REFUSED - access to queue 'in' in vhost '/' refused for user 'u'",
            "; give the user the permission",
        ),
        (404, "NOT_FOUND - no queue 'in' in vhost '/'", "; create it, or set BRIDGE_SOURCE_DECLARE=true"),
        (406, "PRECONDITION_FAILED - unknown delivery tag 1", ""),
    ),
)
@on_both_loops
async def test_a_close_that_an_operator_can_mend_says_how(code: int, text: str, advice: str) -> None:
    async with session_of(SourceSession) as (session, broker):
        await session.open(0)
        broker.peer.close(code, text)
        await eventually(lambda: session.end)
        reason, said = session.end
        assert reason == "channel-closed"
        assert said.startswith(f"the broker closed the channel: {code} {text}{advice}")


@on_both_loops
async def test_a_destination_queue_that_is_missing_explains_why_nothing_was_confirmed() -> None:
    """RabbitMQ 3.10 often confirms nothing more of what it has when a queue is deleted under load."""
    async with session_of(DestinationSession) as (session, broker):
        broker.answers[commands.Queue.Declare] = refuse(404, "NOT_FOUND - no queue 'out' in vhost '/'")
        trouble = session._relay.window.trouble
        now_s = asyncio.get_running_loop().time()
        trouble.unconfirmed(now_s, 30.0, 300.0)
        assert trouble.resting(now_s)
        with pytest.raises(ConnectError, match="no queue 'out'"):
            await session.open(0)
        assert not trouble.resting(now_s)


# --- Consuming and the quarantine ----------------------------------------------------------------------------


@on_both_loops
async def test_a_consumer_has_the_prefetch_the_arguments_and_a_tag_of_its_own() -> None:
    settings = {"source_consumer_priority": 7, "source_consumer_arguments": '{"x-stream-offset": "first"}'}
    async with session_of(SourceSession, **settings) as (session, broker):
        await session.open(0)
        await session.consume(10, None)
        assert only(broker.peer.got(commands.Basic.Qos)).prefetch_count == 10
        consume = only(broker.peer.got(commands.Basic.Consume))
        assert (consume.consumer_tag, consume.no_ack, consume.exclusive) == ("amqp-bridge-1", False, False)
        assert consume.arguments == {"x-priority": 7, "x-stream-offset": "first"}


@on_both_loops
async def test_a_quarantine_that_exists_is_used_as_it_is() -> None:
    async with session_of(SourceSession) as (session, broker):
        await session.open(0)
        await session.open_quarantine()
        declare = broker.peer.got(commands.Queue.Declare)[1]
        assert (declare.queue, declare.passive) == ("in.quarantine", True)
        assert len(broker.peer.got(commands.Queue.Declare)) == 2
        assert len(broker.peer.got(commands.Confirm.Select)) == 1


@on_both_loops
async def test_a_quarantine_that_is_missing_is_declared_durable() -> None:
    """The refusal costs a channel of its own, never the one that consumes."""

    def missing(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        if frame.passive and frame.queue == "in.quarantine":
            peer.close(404, "NOT_FOUND", channel=channel)
        else:
            peer.send(commands.Queue.DeclareOk(frame.queue, 0, 0), channel=channel)

    async with session_of(SourceSession) as (session, broker):
        broker.answers[commands.Queue.Declare] = missing
        await session.open(0)
        await session.open_quarantine()
        declare = broker.peer.got(commands.Queue.Declare)[-1]
        assert (declare.queue, declare.passive, declare.durable) == ("in.quarantine", False, True)
        assert session.end is None


@on_both_loops
async def test_a_quarantine_that_is_refused_says_why_and_does_not_end_the_generation() -> None:
    async with session_of(SourceSession) as (session, broker):
        await session.open(0)
        broker.answers[commands.Queue.Declare] = refuse(403, "ACCESS_REFUSED - in.quarantine")
        for _ in range(3):
            with pytest.raises(BridgeError, match=r"ACCESS_REFUSED - in\.quarantine"):
                await session.open_quarantine()
        assert session.end is None


async def test_a_session_that_was_never_opened_can_be_closed() -> None:
    async with session_of(SourceSession) as (session, _):
        assert isinstance(session, Session)
        await session.close()
        assert session.end == ("closed-by-us", "closed by the bridge")


# --- In an operator's words ----------------------------------------------------------------------------------


def caused(error: Exception, cause: Exception) -> Exception:
    """Return the error with its cause, as aiormq wraps what the socket raised."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "result", "words"),
    (
        (amqp.AMQPConnectionError(111, "Connect call failed"), "unreachable", "Connect call failed"),
        (caused(amqp.AMQPConnectionError(), ConnectionRefusedError(111, "no")), "unreachable", "nothing listens there"),
        (caused(amqp.AMQPConnectionError(), socket.gaierror(-2, "Name not known")), "unresolvable", "Name not known"),
        (caused(amqp.AMQPConnectionError(), ssl.SSLError(1, "bad")), "tls", "check BRIDGE_SOURCE_CA_FILE"),
        (OSError(113, "No route to host"), "unreachable", "No route to host"),
        (amqp.ChannelClosed(540, "NOT_IMPLEMENTED"), "refused", "it closed the channel (NOT_IMPLEMENTED)"),
        (amqp.ConnectionClosed(320, "CONNECTION_FORCED"), "refused", "it closed the connection (CONNECTION_FORCED)"),
        (amqp.ChannelNotFoundEntity("NOT_FOUND - no queue 'q' in vhost '/'"), "missing", "BRIDGE_SOURCE_DECLARE=true"),
        (amqp.ChannelNotFoundEntity("NOT_FOUND - no exchange 'e' in vhost '/'"), "missing", "in vhost '/'; create it."),
        (
            amqp.ChannelNotFoundEntity("NOT_FOUND - no queue 'q ' in vhost '/'"),
            "missing",
            "BRIDGE_SOURCE_DECLARE=true (its name begins or ends with white space)",
        ),
        (
            amqp.ChannelAccessRefused("ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"),
            "locked",
            "another consumer has it for itself alone",
        ),
        (
            amqp.ChannelAccessRefused("ACCESS_REFUSED - access to topic 'k' in exchange 'e' in vhost '/' refused"),
            "forbidden",
            "rabbitmqctl set_topic_permissions",
        ),
        (
            amqp.ChannelAccessRefused("ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'"),
            "forbidden",
            "rabbitmqctl set_permissions",
        ),
        (
            amqp.ChannelAccessRefused("ACCESS_REFUSED - cannot publish to internal exchange 'e' in vhost '/'"),
            "forbidden",
            "name another exchange",
        ),
        (ValueError("<Start object at 0x7f00>."), "protocol", "ValueError: <Start>"),
    ),
)
def test_an_error_is_told_as_a_short_word_and_a_sentence_without_secrets(
    error: Exception, result: str, words: str
) -> None:
    settings = load_settings(
        {
            "BRIDGE_SOURCE_URL": "amqp://user:hunter2@host/",
            "BRIDGE_SOURCE_QUEUE": "in",
            "BRIDGE_DESTINATION_QUEUE": "out",
        }
    )
    explained = explain(error, settings.source, 0)
    assert explained.result == result
    assert words in f"{explained}."
    assert "amqp://user@host:5672/" in str(explained)
    assert "hunter2" not in str(explained)


URL_ALONE = {"source_url": "amqp://me:hunter2@host/"}
OWN_DESTINATION = {"destination_url": "amqp://me:hunter2@other/"}


@pytest.mark.parametrize(
    ("settings", "side", "words"),
    (
        (URL_ALONE, "source", "check user and password in BRIDGE_SOURCE_URL"),
        (URL_ALONE, "destination", "check user and password in BRIDGE_SOURCE_URL"),
        (URL_ALONE | OWN_DESTINATION, "destination", "check user and password in BRIDGE_DESTINATION_URL"),
        (
            {"source_url": "amqp://host/", "source_username": "me", "source_password": "hunter2"},
            "destination",
            "check the user in BRIDGE_SOURCE_USERNAME and the password in BRIDGE_SOURCE_PASSWORD",
        ),
        (
            {"source_url": "amqp://me@host/", "source_password_file": "/dev/null"},
            "source",
            "check the user in BRIDGE_SOURCE_URL and the password in BRIDGE_SOURCE_PASSWORD_FILE (/dev/null)",
        ),
        ({"source_url": "amqp://host/"}, "source", "no user is named, so that it is guest"),
        ({"source_url": "amqp://me%20:hunter2@host/"}, "source", 'the user name "me " begins or ends with white space'),
        ({"source_url": "amqp://me:hunter2%0A@host/"}, "source", "the password begins or ends with white space"),
    ),
)
def test_a_refused_login_names_the_variables_that_user_and_password_come_from(
    settings: dict[str, str], side: str, words: str
) -> None:
    variables = {"source_queue": "in", "destination_queue": "out"} | settings
    loaded = load_settings({f"BRIDGE_{name.upper()}": text for name, text in variables.items()})
    explained = explain(
        amqp.ProbableAuthenticationError("ACCESS_REFUSED"), loaded.source if side == "source" else loaded.destination, 0
    )
    assert words in str(explained)
    assert "hunter2" not in str(explained)


@on_both_loops
async def test_a_password_that_does_not_fit_into_the_handshake_is_named() -> None:
    """RabbitMQ drops the connection without a word."""
    password = "x" * 4000
    async with session_of(SourceSession, source_password=password) as (session, broker):
        broker.answers[commands.Connection.StartOk] = hang_up
        with pytest.raises(ConnectError, match="user and password have 4005 bytes") as caught:
            await session.open(0)
        assert caught.value.result == "login-refused"
        assert "xxx" not in str(caught.value)


@on_both_loops
async def test_tls_to_a_port_without_is_named() -> None:
    async with ScriptedBroker() as broker:
        url = broker.url.replace("amqp:", "amqps:")
        async with session_of(SourceSession, source_url=url) as (session, _):
            with pytest.raises(ConnectError, match="it does not speak TLS on this port; use the port for TLS"):
                await session.open(0)


@pytest.mark.parametrize("lacking", ("authorityKeyIdentifier", "basicConstraints", "keyUsage"))
@on_both_loops
async def test_a_certificate_that_lacks_an_extension_is_refused_under_every_python(
    lacking: str, tmp_path: Path
) -> None:
    """Python insists on these from 3.13 on, so that a certificate passed outside the image and failed in it."""
    certificates = make_certificates(tmp_path, lacking=lacking)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    url = f"amqps://guest:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, session_of(SourceSession, source_url=url, source_ca_file=certificates.ca) as (session, _):
        with pytest.raises(ConnectError, match=f"lacks the extension {lacking}.*have it issued again"):
            await session.open(0)


@pytest.mark.parametrize(
    ("name", "result", "asked_for"), (("rabbit.example", "connection-lost", "rabbit.example"), ("", "tls", None))
)
@on_both_loops
async def test_the_certificate_may_have_another_name_than_the_urls_host(
    name: str, result: str, asked_for: str | None, tmp_path: Path
) -> None:
    """As behind a tunnel. The name is what the broker is asked for, too (SNI): one address may serve several."""
    certificates = make_certificates(tmp_path, server_names=("rabbit.example",))
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    context.sni_callback = lambda _, found, __: asked.append(found)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    settings = {
        "source_url": f"amqps://guest:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/",
        "source_ca_file": certificates.ca,
        "source_tls_server_name": name,
    }
    async with server, session_of(SourceSession, **settings) as (session, _):
        with pytest.raises(ConnectError) as refused:
            await session.open(0)
    assert refused.value.result == result, "its certificate is accepted, and it says no word of AMQP"
    assert asked == [asked_for]
    assert ("set BRIDGE_SOURCE_TLS_SERVER_NAME to one" in str(refused.value)) == (not name)
