"""The check against scripted brokers: what is asked, what is never done, and what the answers become."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from pamqp import commands
from pamqp.header import ProtocolHeader

from bridge.check.check import as_json, as_table, check, failed
from bridge.check.finding import Finding
from bridge.check.inspection import Inspection
from bridge.check.tokens import MOST_SCOPES
from bridge.connection.limits import DEFAULT, TimeLimits
from bridge.settings.environment import load_settings
from tests.rig.tokens import unsigned
from tests.support.scripted import CAPABILITIES, ScriptedBroker, eventually, hang_up, refuse, reply, silence

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.scripted import Peer

UNCHANGED: Any = (commands.Basic.Publish, commands.Basic.Get, commands.Queue.Purge, commands.Queue.Delete)


def rabbitmq(broker: ScriptedBroker, version: str, queue: str = "", limit: str = "none", consumers: int = 2) -> None:
    """Make the broker say that it is RabbitMQ, and refuse what RabbitMQ would, for a queue of that type."""

    def declare(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        arguments = frame.arguments or {}
        if frame.passive:
            peer.send(commands.Queue.DeclareOk(frame.queue, 3, consumers), channel=channel)
        elif arguments.get("x-queue-type") != queue:
            peer.close(406, differs("x-queue-type", f"'{queue}'"), channel=channel)
        else:
            peer.close(406, differs("x-delivery-limit", limit), channel=channel)

    properties = CAPABILITIES | {"product": "RabbitMQ", "version": version, "cluster_name": broker.url}
    broker.answers[ProtocolHeader] = reply(commands.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
    broker.answers[commands.Queue.Declare] = declare
    broker.answers[commands.Basic.Consume] = refuse(406, "PRECONDITION_FAILED - invalid arg 'x-priority'")
    broker.answers[commands.Tx.Select] = reply(commands.Tx.SelectOk())
    broker.answers[commands.Tx.Rollback] = reply(commands.Tx.RollbackOk())
    broker.published = lambda *_: None


def differs(argument: str, current: str) -> str:
    """Return RabbitMQ's words."""
    what = f"inequivalent arg '{argument}' for queue 'q' in vhost '/'"
    return f"PRECONDITION_FAILED - {what}: received 'x' but current is {current}"


@asynccontextmanager
async def brokers() -> AsyncIterator[tuple[ScriptedBroker, ScriptedBroker]]:
    """Two brokers of which no connection is left in the end."""
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        yield source, destination
        await eventually(lambda: not source.open and not destination.open, "every socket is closed")


async def findings_of(
    source: ScriptedBroker, destination: ScriptedBroker, limits: TimeLimits = DEFAULT, /, **settings: object
) -> list[Finding]:
    environ = {
        "source_url": source.url,
        "source_queue": "in",
        "destination_url": destination.url,
        "destination_queue": "out",
    } | settings
    return await check(load_settings({f"BRIDGE_{name.upper()}": str(value) for name, value in environ.items()}), limits)


def about(findings: list[Finding], subject: str, side: str = "") -> Finding:
    """Return the only finding about a subject."""
    (found,) = (each for each in findings if each.subject == subject and each.side.startswith(side))
    return found


async def test_of_a_broker_that_is_not_rabbitmq_only_existence_is_asked() -> None:
    async with brokers() as (source, destination):
        findings = await findings_of(source, destination)
        assert not failed(findings)
        assert about(findings, "server", "source").level == "warning"
        assert about(findings, "queue", "source").level == "ok"
        for peer in (source.peer, destination.peer):
            assert all(declare.passive for declare in peer.got(commands.Queue.Declare))
            assert not any(peer.got(kind) for kind in (*UNCHANGED, commands.Basic.Consume))


async def test_a_broker_that_is_not_rabbitmq_is_not_asked_what_might_create_a_queue() -> None:
    """Another broker may not mind a type that does not exist."""
    async with brokers() as (source, destination):
        source.answers[commands.Queue.Declare] = refuse(404, "NOT_FOUND")
        findings = await findings_of(source, destination, source_declare="true")
        assert "the bridge will declare it" in about(findings, "queue", "source").text
        assert all(declare.passive for declare in source.peer.got(commands.Queue.Declare))


async def test_a_publish_stands_in_a_transaction_that_is_rolled_back() -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        rabbitmq(destination, "4.3.6", "classic")
        findings = await findings_of(source, destination)
        assert {finding.level for finding in findings} == {"ok"}
        kinds = (commands.Tx.Select, commands.Basic.Publish, commands.Tx.Rollback, commands.Tx.Commit)
        asked = [type(frame) for frame in destination.peer.frames if isinstance(frame, kinds)]
        assert asked == [commands.Tx.Select, commands.Basic.Publish, commands.Tx.Rollback]
        assert destination.peer.got(commands.Basic.Publish)[0].routing_key == "out"


async def test_no_question_about_a_queue_could_create_it() -> None:
    """A type that does not exist, or a delivery limit that is no number, is refused where the queue is missing."""
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "quorum", "the value '7' of type 'signedint'")
        rabbitmq(destination, "4.3.6", "classic")
        await findings_of(source, destination)
        for peer in (source.peer, destination.peer):
            active = [declare.arguments for declare in peer.got(commands.Queue.Declare) if not declare.passive]
            assert active
            assert all("unknown" in {each["x-queue-type"], each["x-delivery-limit"]} for each in active)


@pytest.mark.parametrize(
    ("source_version", "destination_version", "level", "words"),
    (
        ("3.10.8", "4.3.6", "warning", "the destination takes 16 MiB"),
        ("4.3.6", "4.3.6", "ok", "16 MiB"),
        ("3.10.8", "3.13.7", "ok", "128 MiB"),
        ("4.0.1", "3.13.7", "ok", "128 MiB"),
    ),
)
async def test_the_versions_imply_the_largest_message(
    source_version: str, destination_version: str, level: str, words: str
) -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, source_version, "classic")
        rabbitmq(destination, destination_version, "classic")
        found = about(await findings_of(source, destination), "largest message")
        assert (found.level, words in found.text) == (level, True)


@pytest.mark.parametrize(
    ("version", "limit", "setting", "level", "words"),
    (
        ("4.3.6", "none", 20, "ok", "is 20"),
        ("4.3.6", "none", 0, "warning", "set BRIDGE_DELIVERY_LIMIT=20"),
        ("4.3.6", "the value '7' of type 'signedint'", 20, "warning", "set BRIDGE_DELIVERY_LIMIT=7"),
        ("4.3.6", "the value '7' of type 'signedint'", 7, "ok", "is 7"),
        ("4.3.6", "the value '-1' of type 'signedint'", 20, "ok", "has none"),
        ("3.10.8", "none", 20, "ok", "has none"),
        ("3.10.8", "the value '5' of type 'long'", 20, "warning", "set BRIDGE_DELIVERY_LIMIT=5"),
    ),
)
async def test_the_delivery_limit_is_the_queues_or_the_versions(
    version: str, limit: str, setting: int, level: str, words: str
) -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, version, "quorum", limit)
        rabbitmq(destination, version, "classic")
        found = about(await findings_of(source, destination, delivery_limit=setting), "delivery limit")
        assert (found.level, words in found.text) == (level, True)


@pytest.mark.parametrize(("queue_type", "warned"), (("quorum", True), ("classic", False)))
async def test_a_prefetch_above_a_quorum_queues_cap_is_warned_of(queue_type: str, *, warned: bool) -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", queue_type)
        rabbitmq(destination, "4.3.6", "classic")
        findings = await findings_of(source, destination, source_prefetch=3000)
        assert any(finding.subject == "prefetch" for finding in findings) is warned


@pytest.mark.parametrize("limit", (0, 1, 3))
async def test_a_delivery_limit_that_leaves_no_room_is_not_recommended_as_a_setting(limit: int) -> None:
    """The settings refuse 1 to 3, and 0 switches the guard off."""
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "quorum", f"the value '{limit}' of type 'signedint'")
        rabbitmq(destination, "4.3.6", "classic")
        found = about(await findings_of(source, destination), "delivery limit")
        assert found.level == "warning"
        assert "give the queue a limit of 4 or more" in found.text
        assert f"BRIDGE_DELIVERY_LIMIT={limit}" not in found.text


@pytest.mark.parametrize(
    ("kind", "consumers", "warned"), (("classic", 1, True), ("classic", 2, False), ("quorum", 1, False))
)
async def test_a_single_consumer_of_a_classic_queue_may_be_an_exclusive_one(
    kind: str, consumers: int, *, warned: bool
) -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", kind, consumers=consumers)
        rabbitmq(destination, "4.3.6", "classic")
        findings = await findings_of(source, destination)
        assert any(finding.subject == "exclusive" for finding in findings) is warned


@pytest.mark.parametrize(("key", "level"), ((None, "warning"), ("some.key", "error")))
async def test_topic_permissions_refuse_a_fixed_key_and_say_nothing_about_the_messages_own(
    key: str | None, level: str
) -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        rabbitmq(destination, "4.3.6")
        text = "ACCESS_REFUSED - write access to topic '' in exchange 'ex' in vhost '/' refused for user 'guest'"
        destination.published = lambda peer, _: peer.close(403, text, channel=3)
        more = {} if key is None else {"destination_routing_key": key}
        findings = await findings_of(source, destination, destination_queue="", destination_exchange="ex", **more)
        assert about(findings, "route").level == level
        assert "topic permission" in about(findings, "route").text


async def test_original_routes_need_the_default_exchange_and_which_others_exist_is_for_an_operator_to_see() -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        rabbitmq(destination, "4.3.6")
        findings = await findings_of(source, destination, destination_queue="", destination_route="original")
        assert about(findings, "route").text.startswith("publishing to the default exchange is allowed")
        assert "rabbitmqctl list_exchanges" in about(findings, "exchanges").text
        assert about(findings, "loop").level == "ok"
        (published,) = destination.peer.got(commands.Basic.Publish)
        assert (published.exchange, published.routing_key) == ("", "")


async def test_original_routes_to_the_same_broker_by_another_name_are_an_error() -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        properties = CAPABILITIES | {"product": "RabbitMQ", "version": "4.3.6", "cluster_name": source.url}
        destination.answers[ProtocolHeader] = reply(commands.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
        destination.answers[commands.Queue.Declare] = refuse(405, "RESOURCE_LOCKED - of another connection")
        for kind, answer in (
            (commands.Tx.Select, commands.Tx.SelectOk()),
            (commands.Tx.Rollback, commands.Tx.RollbackOk()),
        ):
            destination.answers[kind] = reply(answer)
        destination.published = lambda *_: None
        source.answers[commands.Queue.Declare] = one_for_itself(source.answers[commands.Queue.Declare])
        findings = await findings_of(source, destination, destination_queue="", destination_route="original")
        assert (about(findings, "loop").level, failed(findings)) == ("error", True)


def one_for_itself(otherwise: Callable[[Peer, int, Any], None]) -> Callable[[Peer, int, Any], None]:
    """Answer the declaration of an exclusive queue, and others as before."""

    def declare(peer: Peer, channel: int, frame: commands.Queue.Declare) -> None:
        if frame.exclusive:
            peer.send(commands.Queue.DeclareOk("amq.gen-1", 0, 0), channel=channel)
        else:
            otherwise(peer, channel, frame)

    return declare


@pytest.mark.parametrize(
    ("found", "settings", "warned"),
    (
        ("stream", {}, True),
        ("classic", {}, False),
        ("", {"destination_declare": "true", "destination_queue_type": "stream"}, True),
        ("", {"destination_declare": "true"}, False),
    ),
)
async def test_a_stream_as_destination_is_warned_of(found: str, settings: dict[str, str], *, warned: bool) -> None:
    """Also one that the bridge has still to declare."""
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        rabbitmq(destination, "4.3.6", found)
        if not found:
            destination.answers[commands.Queue.Declare] = refuse(404, "NOT_FOUND - no queue 'out' in vhost '/'")
        findings = await findings_of(source, destination, **settings)
        texts = [finding.text for finding in findings if finding.subject == "stream" and finding.level == "warning"]
        assert ["makes 1.5 to 1" in text for text in texts] == [True] * warned


BOUND = {"source_declare": "true", "source_queue_type": "classic", "source_bindings": '[{"exchange": "orders"}]'}


async def test_an_exchange_of_a_binding_is_looked_for_and_the_right_to_bind_is_asked_without_a_trace() -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        source.answers[commands.Queue.Declare] = reply(commands.Queue.DeclareOk("in", 3, 0))
        source.answers[commands.Queue.Unbind] = reply(commands.Queue.UnbindOk())
        findings = await findings_of(source, destination, **BOUND)
        first, second = (finding.text for finding in findings if finding.subject == "bindings")
        assert first == 'exchange "orders" exists, and the user may bind the queue to it'
        assert "rabbitmqctl list_bindings" in second
        assert not source.peer.got(commands.Queue.Bind)
        (unbind,) = source.peer.got(commands.Queue.Unbind)
        assert unbind.routing_key.startswith("amqp-bridge.")


@pytest.mark.parametrize(
    ("method", "text"),
    (
        (commands.Exchange.Declare, "NOT_FOUND - no exchange 'orders' in vhost '/'"),
        (commands.Queue.Unbind, "ACCESS_REFUSED - read access to exchange 'orders' in vhost '/' refused"),
    ),
)
async def test_a_binding_that_cannot_be_made_is_an_error(method: type, text: str) -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        source.answers[commands.Queue.Declare] = reply(commands.Queue.DeclareOk("in", 3, 0))
        source.answers[method] = refuse(404 if "NOT_FOUND" in text else 403, text)
        findings = await findings_of(source, destination, **BOUND)
        assert [finding.level for finding in findings if finding.subject == "bindings"] == ["error", "ok"]
        assert failed(findings)


async def test_it_is_said_that_policies_cannot_be_seen_and_how_to_see_them() -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        rabbitmq(destination, "4.3.6", "classic")
        findings = await findings_of(source, destination, source_url=f"{source.url}prod")
        assert about(findings, "policies").level == "ok"
        assert '`rabbitmqctl list_policies --vhost "prod"`' in about(findings, "policies").text


async def test_white_space_at_an_end_of_a_name_is_warned_of() -> None:
    async with brokers() as (source, destination):
        settings = {"source_queue": "in ", "destination_queue": "", "destination_exchange": "ex\n"}
        findings = await findings_of(source, destination, source_username=" me", source_password="x", **settings)  # noqa: S106 - made up
        texts = [finding.text for finding in findings if finding.subject == "white space"]
        names = ('queue "in "', 'user " me"', 'exchange "ex\n"')
        assert [text.partition(" begins or ends")[0] for text in texts] == [f"the name of {name}" for name in names]


async def test_a_stream_that_would_be_read_from_its_start_on_every_connect_is_warned_of() -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "stream")
        rabbitmq(destination, "4.3.6", "classic")
        assert 'here "next"' in about(await findings_of(source, destination), "offset").text


async def test_a_url_that_is_down_is_a_warning_where_another_is_up_and_else_an_error() -> None:
    async with brokers() as (source, destination):
        down = "amqp://guest:secret@127.0.0.1:1/"
        findings = await findings_of(source, destination, source_url=f"{source.url},{down}", destination_url=down)
        assert about(findings, "connection", "source 1").level == "ok"
        assert about(findings, "connection", "source 2").level == "warning"
        assert about(findings, "connection", "destination").level == "error"
        assert "nothing listens there" in about(findings, "connection", "destination").text
        assert failed(findings)
        assert "secret" not in as_json(findings)


@pytest.mark.parametrize("answer", (hang_up, refuse(541, "INTERNAL_ERROR")))
@pytest.mark.parametrize(
    "method",
    (
        *(commands.Connection.StartOk, commands.Connection.Open, commands.Channel.Open, commands.Confirm.Select),
        *(commands.Queue.Declare, commands.Tx.Select, commands.Tx.Rollback, commands.Basic.Publish),
    ),
)
async def test_whatever_the_destination_does_is_a_finding(method: type, answer: Any) -> None:  # noqa: ANN401
    """Never a traceback."""
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "classic")
        rabbitmq(destination, "4.3.6", "classic")
        destination.answers[method] = answer
        findings = await findings_of(source, destination)
        errors = [finding for finding in findings if finding.level == "error"]
        assert [finding.side for finding in errors] == ["destination"]
        assert "amqp://guest@127.0.0.1" in errors[0].text


async def test_a_broker_that_does_not_answer_is_given_up() -> None:
    async with brokers() as (source, destination):
        rabbitmq(destination, "4.3.6", "classic")
        destination.answers[commands.Tx.Rollback] = silence
        findings = await findings_of(source, destination, TimeLimits(connect_s=0.2))
        assert "did not answer" in about(findings, "route").text


async def test_a_blocked_destination_is_a_warning() -> None:
    """The configuration is right, and the alarm will pass."""
    async with brokers() as (source, destination):
        rabbitmq(destination, "4.3.6", "classic")
        destination.published = lambda peer, _: peer.send(commands.Connection.Blocked("low on disk"), channel=0)
        destination.answers[commands.Tx.Rollback] = silence
        found = about(await findings_of(source, destination), "route")
        assert (found.level, "low on disk" in found.text) == ("warning", True)


async def test_without_a_quarantine_it_is_said_what_becomes_of_poison() -> None:
    async with brokers() as (source, destination):
        findings = await findings_of(source, destination, quarantine_queue="")
        assert "is held" in about(findings, "quarantine").text
        assert len(source.peer.got(commands.Queue.Declare)) == 1


@pytest.mark.parametrize(("days", "level"), ((-1, "warning"), (29, "warning"), (31, "ok")))
async def test_a_certificate_that_ends_soon_is_a_warning(days: int, level: str) -> None:
    async with brokers() as (source, destination):
        environ = {"SOURCE_URL": source.url, "SOURCE_QUEUE": "in", "DESTINATION_URL": destination.url}
        settings = load_settings({f"BRIDGE_{k}": v for k, v in (environ | {"DESTINATION_QUEUE": "out"}).items()})
        inspection = Inspection(settings, settings.source, 0)
        not_after = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(time.time() + days * 86400))
        inspection._inspect_expiry("the broker's certificate", not_after)
        assert inspection.findings[0].level == level


@pytest.mark.parametrize(("days", "level"), ((-1, "error"), (29, "warning"), (31, "ok"), (365 * 40, "ok")))
async def test_the_end_of_the_clients_certificate_is_shown_though_no_broker_answers(
    tmp_path: Path, days: int, level: str
) -> None:
    """Beyond 2050 a certificate writes its dates in another form."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    issued = trustme.CA().issue_cert("client@localhost", not_before=datetime(2000, 1, 1, tzinfo=UTC), not_after=end)
    file = tmp_path / "client.pem"
    file.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    environ = {"SOURCE_URL": "amqps://guest:guest@127.0.0.1:1", "SOURCE_QUEUE": "in", "DESTINATION_QUEUE": "out"}
    environ["SOURCE_CERT_FILE"] = str(file)
    findings = await check(load_settings({f"BRIDGE_{name}": text for name, text in environ.items()}))
    found = about(findings, "certificate", "source")
    assert (found.level, "renew it" in found.text) == (level, level != "ok")
    assert found.text.startswith(f"the client certificate {file} ")
    assert end.strftime("%b %d %H:%M:%S %Y GMT") in found.text


def test_the_answer_is_a_line_each_or_json() -> None:
    findings = [Finding("ok", "source", "queue", "is there"), Finding("warning", "bridge", "loop", "may be")]
    assert (
        as_table(findings)
        == "ok       source  queue  is there\nwarning  bridge  loop   may be\n1 ok, 1 warning, 0 error\n"
    )
    document = json.loads(as_json(findings))
    assert document["status"] == "warning"
    assert document["findings"][0] == {"level": "ok", "side": "source", "subject": "queue", "text": "is there"}
    assert not failed(findings)


PAST, FUTURE = 1_000_000_000, 10_000_000_000


@pytest.mark.parametrize(
    ("claims", "level", "words"),
    (
        ({"sub": "bridge", "exp": FUTURE}, "ok", 'of user "bridge", good until'),
        ({"client_id": "bridge"}, "ok", 'of user "bridge", good for ever'),
        (
            {"sub": "bridge", "exp": PAST},
            "error",
            "ago): have a new one written; check the user in BRIDGE_SOURCE_URL and the",
        ),
        (
            {"exp": FUTURE, "nbf": FUTURE},
            "error",
            "of no user (it has neither sub nor client_id), and not good before",
        ),
    ),
)
async def test_a_token_is_read_before_the_broker_refuses_it(
    claims: dict[str, object], level: str, words: str, tmp_path: Path
) -> None:
    token = unsigned(**claims, scope="rabbitmq.read:*/in rabbitmq.write:*/*")
    (file := tmp_path / "token").write_text(token)
    async with brokers() as (source, destination):
        source.answers[commands.Connection.StartOk] = refuse(403, "ACCESS_REFUSED")
        url = source.url.replace("guest:secret@", "bridge@")
        findings = await findings_of(source, destination, source_url=url, source_password_file=file)
    found, granted = (each for each in findings if each.subject == "token")
    assert (found.level, words in found.text) == (level, True), found
    assert granted.text.startswith("it grants rabbitmq.read:*/in, rabbitmq.write:*/*, as")
    assert about(findings, "connection", "source").level == "error"
    assert token.split(".")[1] not in as_json(findings) + as_table(findings)


async def test_a_token_that_cannot_be_renewed_or_grants_nothing_is_a_warning() -> None:
    token = unsigned(sub="bridge", exp=FUTURE)
    async with brokers() as (source, destination):
        findings = await findings_of(source, destination, source_url=source.url.replace("secret", token))
    found, granted = (each for each in findings if each.subject == "token")
    assert "days); it stands where it cannot be renewed: use BRIDGE_SOURCE_PASSWORD_FILE" in found.text
    assert "it grants nothing in the claim scope" in granted.text
    assert {found.level, granted.level} == {"warning"}


async def test_of_a_token_with_many_scopes_the_first_are_listed() -> None:
    token = unsigned(sub="bridge", scope=[f"scope-{number}" for number in range(MOST_SCOPES + 5)])
    async with brokers() as (source, destination):
        findings = await findings_of(source, destination, destination_url=destination.url.replace("secret", token))
    granted = [each for each in findings if each.subject == "token"][1]
    assert f"scope-{MOST_SCOPES - 1} and 5 more, as" in granted.text


async def test_a_password_is_no_token_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    (file := tmp_path / "token").write_text("secret")
    async with brokers() as (source, destination):
        findings = await findings_of(source, destination, source_password_file=file)
        file.write_text("")
        findings += await findings_of(source, destination, source_password_file=str(file))
    assert [each for each in findings if each.subject == "token"] == []
