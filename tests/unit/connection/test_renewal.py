"""A token that is renewed: what is tried, what is handed on, what is logged; and that nothing else is offered."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from pamqp import commands
from pamqp.header import ProtocolHeader

from bridge.connection.limits import TimeLimits
from bridge.connection.renewal import Renewal, Renewed
from bridge.errors import ConnectError
from bridge.observe.log import JsonFormatter
from bridge.observe.status import Status
from bridge.settings.environment import load_settings
from tests.rig.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer
from tests.rig.tokens import unsigned
from tests.support.scripted import Peer, ScriptedBroker, bridge, eventually, on_both_loops, refuse, reply, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bridge.words import Outcome

LIMITS = TimeLimits(renew_s=0.005)
REFUSED = "source: the new token was refused: it refused the login; the present one is good until 2033-05-18T03:33:20Z"
_numbers = itertools.count()


def new_token(user: str = "bridge", exp: float = 2_000_000_000) -> str:
    return unsigned(sub=user, exp=exp, jti=str(next(_numbers)))


class Generation:
    """A generation as far as a renewal knows one."""

    def __init__(self, secret: str) -> None:
        self.end: tuple[str, str] | None = None
        self.index = 0
        self.secret = secret
        self.takes_secrets = True
        self.updates: list[str] = []
        self.refusal: ConnectError | None = None

    async def update_secret(self, secret: str) -> None:
        """Accept it, or refuse."""
        self.updates.append(secret)
        if self.refusal is not None:
            raise self.refusal
        self.secret = secret


class Scene:
    """A renewal of the source's token, its file, and what was tried."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self.write(text)
        environ = {
            "BRIDGE_SOURCE_URL": "amqp://bridge@here",
            "BRIDGE_SOURCE_QUEUE": "in",
            "BRIDGE_SOURCE_PASSWORD_FILE": str(file),
            "BRIDGE_DESTINATION_QUEUE": "out",
        }
        settings = load_settings(environ)
        self.status = Status()
        self.session = Generation(text)
        self.tried: list[str] = []
        self.refused: set[str] = set()
        self.result: Outcome = "login-refused"
        self.renewal = CountedRenewal(settings.source, self.status.source, LIMITS.renew_s, self.try_login)

    def write(self, text: str) -> None:
        """As Kubernetes does: a whole file takes the place of the other."""
        new = self.file.with_name("new")
        new.write_text(text)
        new.replace(self.file)

    def remove(self) -> None:
        """As when a secret is unmounted."""
        self.file.unlink()

    async def try_login(self, index: int, secret: str) -> None:
        """Log in, or be refused."""
        assert index == 0
        self.tried.append(secret)
        if secret in self.refused:
            raise ConnectError(self.result, "it refused the login")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it meanwhile."""
        task = asyncio.ensure_future(self.renewal.run(self.session))
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert self.status.source.token_trouble == "", "it ends with the generation"

    async def looked(self, times: int = 3) -> None:
        """Wait until the file was looked at so many times from now on."""
        enough = self.renewal.looks + 1 + times
        await eventually(lambda: self.renewal.looks >= enough)


class CountedRenewal(Renewal):
    """It counts how often it has looked at the file."""

    looks = 0

    async def _look(self, session: Renewed) -> None:
        await super()._look(session)
        self.looks += 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "password"


async def test_a_new_token_is_tried_and_then_handed_on_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second, third = (new_token() for _ in range(3))
    scene = Scene(file, first)
    async with scene.running():
        for token in (second, third):
            scene.write(f"{token}\n")
            await eventually(lambda token=token: scene.session.secret == token)  # type: ignore[misc]  # bound per round
        await scene.looked()
        await eventually(lambda: not scene.status.source.token_trouble)
    assert scene.session.updates == [second, third]
    assert scene.tried.count(second) == scene.tried.count(third) == 1
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert told == ["source: the broker accepted a new token"] * 2
    assert not any(token in caplog.text for token in (first, second, third))


async def test_a_refused_token_is_tried_again_and_reported_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, bad, good = (new_token() for _ in range(3))
    scene = Scene(file, first)
    scene.refused.add(bad)
    async with scene.running():
        scene.write(bad)
        await eventually(lambda: scene.tried.count(bad) >= 5)
        assert scene.session.updates == []
        assert scene.status.reservations == [REFUSED]
        scene.refused.clear()
        await eventually(lambda: scene.session.secret == bad)
        assert scene.status.reservations == []
        scene.write(good)
        await eventually(lambda: scene.session.secret == good)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [REFUSED]


async def test_a_login_that_does_not_get_to_the_broker_says_nothing_of_the_token(file: Path) -> None:
    scene = Scene(file, new_token())
    scene.result = "unreachable"
    token = new_token()
    scene.refused.add(token)
    async with scene.running():
        scene.write(token)
        await eventually(lambda: "the new token could not be tried: it ref" in scene.status.source.token_trouble)
        scene.refused.clear()
        await eventually(lambda: scene.session.secret == token)


@pytest.mark.parametrize(("first", "second"), (("secret", "another secret"), ("secret", ""), ("secret", None)))
async def test_a_password_that_is_no_token_waits_for_the_next_connect(
    file: Path, first: str, second: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody's account is locked by logins that nobody asked for."""
    scene = Scene(file, first)
    async with scene.running():
        if second is None:
            scene.remove()
        else:
            scene.write(second)
        await scene.looked()
    assert scene.session.updates == []
    assert scene.tried == []
    assert "another secret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    (
        ("no token", "password holds no token any more"),
        ("", "the new token cannot be read: password file"),
        (new_token("other"), 'the new token is of user "other", and the connection of "bridge": it is used from the'),
    ),
)
async def test_what_cannot_take_the_place_of_a_token_leaves_the_present_one(file: Path, text: str, reason: str) -> None:
    scene = Scene(file, new_token())
    async with scene.running():
        scene.write(text)
        await eventually(lambda: reason in scene.status.source.token_trouble)
        assert scene.status.source.token_trouble.endswith("; the present one is good until 2033-05-18T03:33:20Z")
        assert scene.session.updates == []


async def test_the_broker_s_own_refusal_of_an_update_leaves_the_rest_to_the_generation(file: Path) -> None:
    scene = Scene(file, new_token())
    scene.session.refusal = ConnectError("refused", "it closed the connection")
    async with scene.running():
        scene.write(new_token())
        await eventually(lambda: scene.session.updates)
        await eventually(lambda: "it closed the connection" in scene.status.source.token_trouble)


async def test_a_broker_that_knows_no_update_is_left_alone(file: Path) -> None:
    scene = Scene(file, new_token())
    scene.session.takes_secrets = False
    await scene.renewal.run(scene.session)


async def test_a_bug_ends_the_renewal_and_not_the_generation(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(file, new_token())
    scene.session.index = 1
    scene.write(new_token())
    await scene.renewal.run(scene.session)
    assert scene.session.end is None
    assert "a bug in the bridge ended the renewal of the source's token" in caplog.text


# --- Over a connection ----------------------------------------------------------------------------------------


def rabbitmq(broker: ScriptedBroker, version: str = "4.3.6") -> None:
    broker.answers[ProtocolHeader] = start(product="RabbitMQ", version=version)
    broker.answers[commands.Connection.UpdateSecret] = reply(commands.Connection.UpdateSecretOk())


def updates(broker: ScriptedBroker) -> list[str]:
    return [frame.new_secret for peer in broker.peers for frame in peer.got(commands.Connection.UpdateSecret)]


def logins(broker: ScriptedBroker) -> list[str]:
    frames = [frame for peer in broker.peers for frame in peer.got(commands.Connection.StartOk)]
    return [str(frame.response).rpartition("\0")[2] for frame in frames]


@on_both_loops
async def test_both_sides_take_a_new_token_on_their_open_connections_and_no_log_tells_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    first, second = new_token(), new_token()
    file = tmp_path / "password"
    file.write_text(first)
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        rabbitmq(source)
        rabbitmq(destination, "3.8.0")
        files = {"source_password_file": file, "destination_password_file": file}
        async with bridge(source, destination, LIMITS, **files) as supervisor:
            peer = await source.consumed()
            file.write_text(second)
            await eventually(lambda: updates(source) == updates(destination) == [second])
            peer.deliver(b"one")
            await eventually(lambda: supervisor.books.forwarded == 1)
            assert (supervisor.status.source.generation, supervisor.status.destination.generation) == (1, 1)
            for broker in (source, destination):
                assert logins(broker) == [first, second]
                await eventually(lambda broker=broker: len(broker.open) == 1)  # type: ignore[misc]  # bound per round
                trial = broker.peers[1]
                assert trial.got(commands.Channel.Open) == []
    assert second in caplog.text, "the library logs what it sends"
    formatter = JsonFormatter(supervisor.settings.secrets)
    shown = "".join(map(formatter.format, caplog.records))
    assert "UpdateSecretOk" in shown
    assert first not in shown
    assert second not in shown


@on_both_loops
async def test_a_token_is_fetched_before_a_connect_and_again_when_the_broker_has_refused_it(tmp_path: Path) -> None:
    file = tmp_path / "client-secret"
    file.write_text(CLIENT_SECRET)
    tokens = [new_token() for _ in range(3)]
    given = iter(tokens)
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        rabbitmq(source)
        accept = source.answers[commands.Connection.StartOk]

        def refuse_the_first(peer: Peer, channel: int, frame: commands.Connection.StartOk) -> None:
            if str(frame.response).endswith(tokens[0]):
                peer.close(403, "ACCESS_REFUSED", channel=channel)
            else:
                accept(peer, channel, frame)

        source.answers[commands.Connection.StartOk] = refuse_the_first
        with TokenServer(lambda: (200, {"access_token": next(given), "token_type": "bearer"})) as server:
            client = {
                "source_url": source.url.replace("guest:secret@", ""),
                "source_oauth_token_url": server.url,
                "source_oauth_client_id": CLIENT_ID,
                "source_oauth_client_secret_file": file,
            }
            async with bridge(source, destination, LIMITS, **client):
                await source.consumed()
                source.peer.abort()
                await source.consumed(2)
    assert logins(source) == [tokens[0], tokens[1], tokens[1]], "one that is young serves several connects"
    assert len(server.forms) == 2


@on_both_loops
async def test_a_token_that_the_broker_refuses_after_all_ends_the_generation_and_is_used_by_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = new_token(), new_token()
    file = tmp_path / "password"
    file.write_text(first)
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        rabbitmq(source)
        text = "NOT_ALLOWED - New secret was refused by one of the backends"
        source.answers[commands.Connection.UpdateSecret] = refuse(530, text)
        async with bridge(source, destination, LIMITS, source_password_file=file) as supervisor:
            await source.consumed()
            file.write_text(second)
            await source.consumed(2)
            assert supervisor.status.source.generation == 2
            assert logins(source) == [first, second, second]
            assert updates(source) == [second]
    assert f"the broker closed the connection: 530 {text}; the connection is open again as soon as" in caplog.text


@pytest.mark.parametrize(("product", "version"), (("RabbitMQ", "3.7.28"), ("Qpid", "9.0.0")))
async def test_a_broker_that_may_not_know_the_method_is_sent_none(tmp_path: Path, product: str, version: str) -> None:
    file = tmp_path / "password"
    file.write_text(new_token())

    def refuse_all(peer: Peer, _: int, __: object) -> None:
        peer.close(503, "COMMAND_INVALID", channel=0)

    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        source.answers[ProtocolHeader] = start(product=product, version=version)
        source.answers[commands.Connection.UpdateSecret] = refuse_all
        rabbitmq(destination)
        files = {"source_password_file": file, "destination_password_file": file}
        async with bridge(source, destination, LIMITS, **files):
            await source.consumed()
            file.write_text(new_token())
            await eventually(lambda: updates(destination))
            assert len(source.peers) == 1
