"""The check on real brokers: it finds what is wrong, says so, and leaves no trace."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from tests.broker.scene import settings as plain_settings
from tests.rig.bridge_process import BridgeProcess, StartBridge
from tests.rig.client import publish_numbered
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pamqp.common import FieldTable

    from tests.rig.certificates import Certificates
    from tests.rig.node import Node

OPERATIONS = Path(__file__).parents[2] / "config" / "README.md"
Findings = list[dict[str, str]]


@pytest.fixture(autouse=True)
def _no_trace(source: Node, destination: Node) -> Iterator[None]:
    """Whatever a check finds, queues, consumers and messages are after it what they were before."""
    source.declare("check.in", "quorum", {"x-max-length": 1000, "x-delivery-limit": 20})
    destination.declare("check.out", "classic", {"x-max-length": 1000, "x-expires": 10_000_000})
    publish_numbered(source.url, "check.in", 3)
    before = contents(source, "check.in"), contents(destination, "check.out")
    yield
    assert (contents(source, "check.in"), contents(destination, "check.out")) == before


def contents(node: Node, queue: str) -> tuple[str, int]:
    """Return every queue with how many messages are ready, and how many the one holds, unacked ones included."""
    queues = node.eval("lists:sort([{amqqueue:get_name(Q), rabbit_amqqueue:stat(Q)} || Q <- rabbit_amqqueue:list()])")
    return queues, node.queue_depth(queue)


def checked(source: Node, destination: Node, **more: object) -> tuple[int, Findings]:
    """Run the check as a user does; return its exit status and findings."""
    settings = plain_settings(source, destination, "check.in", "check.out")
    settings |= {f"BRIDGE_{name}": value for name, value in more.items()}
    with BridgeProcess(settings, "check", "--json") as bridge:
        status = bridge.wait()
    findings: Findings = json.loads(bridge.logs)["findings"]
    assert "Traceback" not in bridge.logs
    return status, findings


def about(findings: Findings, subject: str, side: str = "") -> tuple[str, str]:
    """Return level and text of the only finding about a subject."""
    (found,) = (each for each in findings if each["subject"] == subject and each["side"].startswith(side))
    return found["level"], found["text"]


def user(node: Node, configure: str, write: str, read: str) -> str:
    """Return the URL of a user with these permissions."""
    node.eval(f"""
        catch rabbit_auth_backend_internal:add_user(<<"limited">>, <<"secret">>, <<"rig">>),
        rabbit_auth_backend_internal:set_permissions(
            <<"limited">>, <<"/">>, <<"{configure}">>, <<"{write}">>, <<"{read}">>, <<"rig">>)""")
    return node.url.replace("guest:guest", "limited:secret")


def test_all_is_well(source: Node, destination: Node) -> None:
    status, findings = checked(source, destination)
    assert status == 0
    assert {each["level"] for each in findings} == {"ok"}
    assert "quorum: 3 messages ready, 0 consumers" in about(findings, "queue", "source")[1]
    assert "classic: 0 messages ready" in about(findings, "queue", "destination")[1]
    assert "will be declared when it is needed" in about(findings, "quarantine")[1]
    assert "different brokers" in about(findings, "loop")[1] or "different names" in about(findings, "loop")[1]
    version = about(findings, "connection", "source")[1]
    assert f"RabbitMQ {source.version}" in version


def test_the_table_is_for_people(source: Node, destination: Node) -> None:
    with BridgeProcess(plain_settings(source, destination, "check.in", "check.out"), "check") as bridge:
        assert bridge.wait() == 0
    assert bridge.log_lines[-1].endswith("ok, 0 warning, 0 error")


@pytest.mark.parametrize("arguments", ({}, {"x-single-active-consumer": True, "x-dead-letter-exchange": "dlx"}))
@pytest.mark.parametrize("kind", ("classic", "quorum", "stream"))
def test_the_type_is_found_whatever_the_arguments(
    source: Node, destination: Node, kind: str, arguments: dict[str, Any]
) -> None:
    if kind == "stream":
        arguments = {"x-max-length-bytes": 20_000_000} if arguments else {}
    queue = destination.declare(f"check.{kind}.{len(arguments)}", kind, arguments)
    status, findings = checked(source, destination, DESTINATION_QUEUE=queue)
    destination.delete(queue)
    assert (status, f", {kind}:" in about(findings, "queue", "destination")[1]) == (0, True)


def test_a_queue_that_a_restart_would_lose_is_found_too(source: Node, destination: Node) -> None:
    with destination.channel() as channel:
        channel.queue_declare("check.transient", durable=False, auto_delete=False, exclusive=False)
        _, findings = checked(source, destination, DESTINATION_QUEUE="check.transient")
        channel.queue_delete("check.transient")
    assert about(findings, "durability")[0] == "warning"


def test_missing_queues_are_errors_and_are_not_created(source: Node, destination: Node) -> None:
    status, findings = checked(source, destination, SOURCE_QUEUE="check.none", DESTINATION_QUEUE="check.none.either")
    assert status == 1
    for side in ("source", "destination"):
        level, text = about(findings, "queue", side)
        assert (level, f"create it, or set BRIDGE_{side.upper()}_DECLARE=true" in text) == ("error", True)


def test_queues_that_the_bridge_will_declare_are_not_declared_by_the_check(source: Node, destination: Node) -> None:
    declare = {"SOURCE_DECLARE": "true", "DESTINATION_DECLARE": "true", "DESTINATION_QUEUE": "check.none"}
    status, findings = checked(source, destination, SOURCE_QUEUE="check.none.either", **declare)
    assert status == 0
    for side in ("source", "destination"):
        assert "the bridge will declare it" in about(findings, "queue", side)[1]


def test_a_queue_that_is_another_than_the_bridge_would_declare_is_an_error(source: Node, destination: Node) -> None:
    status, findings = checked(source, destination, DESTINATION_DECLARE="true", DESTINATION_QUEUE_TYPE="quorum")
    assert (status, about(findings, "queue", "destination")[0]) == (1, "error")


def test_a_user_without_permissions_is_told_of_each(source: Node, destination: Node) -> None:
    here = user(source, "^check.in$", "^$", "^$")
    there = user(destination, "^check.out$", "^$", "^$")
    status, findings = checked(source, destination, SOURCE_URL=here, DESTINATION_URL=there)
    assert status == 1
    assert about(findings, "consuming")[0] == "error"
    assert about(findings, "route")[0] == "error"
    assert about(findings, "quarantine")[0] == "warning"


def test_a_user_with_the_least_permissions_passes(source: Node, destination: Node) -> None:
    """Those of `config/`: a queue's type is told only to who may declare it, and that is no error."""
    here = user(source, r"^check\\.in\\.quarantine$", r"^amq\\.default$", r"^check\\.in$")
    there = user(destination, "^$", r"^(amq\\.default|check\\.out)$", "^$")
    status, findings = checked(source, destination, SOURCE_URL=here, DESTINATION_URL=there)
    assert (status, {each["level"] for each in findings}) == (0, {"ok"}), findings
    assert "unknown type" in about(findings, "queue", "source")[1]


def test_a_wrong_password_and_a_missing_virtual_host_are_told(source: Node, destination: Node) -> None:
    status, findings = checked(
        source,
        destination,
        SOURCE_URL=source.url.replace("guest:guest", "guest:wr0ng"),
        DESTINATION_URL=f"{destination.url}nowhere",
    )
    assert status == 1
    assert "refused the login" in about(findings, "connection", "source")[1]
    assert "create the virtual host" in about(findings, "connection", "destination")[1]
    assert "wr0ng" not in str(findings)


def test_topic_permissions_are_no_reason_to_refuse_an_exchange_that_messages_may_reach(
    source: Node, destination: Node
) -> None:
    """Each message has its own key, and which those are is not known: `run` forwards what the permission covers."""
    there = user(destination, "^$", ".*", "^$")
    destination.eval("""
        rabbit_auth_backend_internal:set_topic_permissions(
            <<"limited">>, <<"/">>, <<"amq.topic">>, <<"^allowed">>, <<".*">>, <<"rig">>)""")
    exchange = {"DESTINATION_URL": there, "DESTINATION_QUEUE": "", "DESTINATION_EXCHANGE": "amq.topic"}
    status, findings = checked(source, destination, **exchange)
    level, text = about(findings, "route")
    assert (status, level, "topic permissions" in text) == (0, "warning", True)
    status, findings = checked(source, destination, **exchange, DESTINATION_ROUTING_KEY="forbidden")
    level, text = about(findings, "route")
    assert (status, level, "rabbitmqctl set_topic_permissions" in text) == (1, "error", True)


def test_a_queue_that_may_be_exclusively_consumed_is_not_simply_ok(
    source: Node, destination: Node, start_bridge: StartBridge
) -> None:
    """The check cannot know; the bridge itself names the consumer, and no missing permission."""
    queue = source.declare("check.alone")
    with source.channel() as channel:
        channel.basic_consume(queue, lambda *_: None, exclusive=True)
        status, findings = checked(source, destination, SOURCE_QUEUE=queue)
        bridge = start_bridge(plain_settings(source, destination, queue, "check.out"))
        words = "another consumer has it for itself alone"
        wait_until(lambda: words in bridge.get("/readyz")[1], "the bridge to say why it cannot consume")
        assert bridge.terminate() == 0
    source.delete(queue)
    level, text = about(findings, "exclusive")
    assert (status, level, "exclusive_consumer_tag" in text) == (0, "warning", True)


def test_a_delivery_limit_without_room_is_not_to_be_set(source: Node, destination: Node) -> None:
    queue = source.declare("check.low", "quorum", {"x-delivery-limit": 2})
    _, findings = checked(source, destination, SOURCE_QUEUE=queue)
    source.delete(queue)
    assert "give the queue a limit of 4 or more" in about(findings, "delivery limit")[1]


def test_white_space_in_a_name_is_named(source: Node, destination: Node) -> None:
    names = {"SOURCE_QUEUE": "check.in ", "DESTINATION_QUEUE": "", "DESTINATION_EXCHANGE": "amq.direct "}
    status, findings = checked(source, destination, **names)
    assert status == 1
    level, text = about(findings, "queue", "source")
    assert (level, "its name begins or ends with white space" in text) == ("error", True)
    level, text = about(findings, "exchange", "destination")
    assert (level, "DECLARE" in text, "white space" in text) == ("error", False, True)


def test_a_password_that_does_not_fit_into_the_handshake_is_named(source: Node, destination: Node) -> None:
    """4,096 bytes on 3.x, 8,192 on 4.x, less the rest of the frame: the broker drops the connection."""
    status, findings = checked(source, destination, SOURCE_PASSWORD="x" * 8000)
    level, text = about(findings, "connection", "source")
    assert (status, level, "user and password have 8005 bytes" in text) == (1, "error", True)


@pytest.mark.parametrize("secure", (False, True))
def test_the_other_kind_of_port_is_named(source: Node, destination: Node, *, secure: bool) -> None:
    here = source.tls_url.replace("amqps:", "amqp:") if secure else source.url.replace("amqp:", "amqps:")
    status, findings = checked(source, destination, SOURCE_URL=here, DESTINATION_URL=destination.url)
    level, text = about(findings, "connection", "source")
    words = "it speaks TLS on this port; use amqps://" if secure else "it does not speak TLS on this port"
    assert (status, level, words in text) == (1, "error", True)


def test_fact_a_stream_changes_headers_and_the_check_warns_of_it(source: Node, destination: Node) -> None:
    queue = destination.declare("check.stream", "stream")
    headers: FieldTable = {"text": "as it is", "half": 1.5, "array": [1], "table": {"a": 1}, "x-death": [{"count": 1}]}

    async def publish() -> None:
        connection = await aio_pika.connect(destination.url)
        async with connection:
            channel = await connection.channel()
            await channel.default_exchange.publish(aio_pika.Message(b"x", headers=headers), queue)

    asyncio.run(publish())
    with destination.channel() as channel:
        channel.basic_qos(prefetch_count=1)
        _, properties, _ = next(channel.consume(queue, arguments={"x-stream-offset": "first"}))
    assert properties is not None
    assert properties.headers == {"text": "as it is", "half": 1, "x-stream-offset": 0}
    status, findings = checked(source, destination, DESTINATION_QUEUE=queue)
    destination.delete(queue)
    assert (status, about(findings, "stream")[0]) == (0, "warning")


def test_the_readmes_policy_protects_the_quarantine_from_one_that_empties_all_queues(source: Node) -> None:
    """The check says that it cannot see either."""
    (command,) = re.findall(r"^rabbitmqctl (set_policy .*)$", OPERATIONS.read_text(), re.MULTILINE)
    source.ctl(*shlex.split(command))
    source.ctl("set_policy", "short", ".*", '{"message-ttl": 1}', "--apply-to", "queues")
    try:
        for queue in ("check.other", "check.other.quarantine"):
            publish_numbered(source.url, source.declare(queue), 3)
        wait_until(lambda: source.queue_ready("check.other") == 0, "the policy to empty what is not protected")
        assert source.queue_ready("check.other.quarantine") == 3
    finally:
        for policy in ("short", "keep-quarantine"):
            source.ctl("clear_policy", policy)
        for queue in ("check.other", "check.other.quarantine"):
            source.delete(queue)


def test_one_broker_by_two_names_is_a_loop(source: Node, destination: Node) -> None:
    url = source.url.replace("127.0.0.1", "localhost")
    status, findings = checked(source, destination, DESTINATION_URL=url, DESTINATION_QUEUE="check.in")
    level, text = about(findings, "loop")
    assert (status, level, "choose another queue" in text) == (1, "error", True)


def test_the_same_name_on_two_brokers_is_no_loop(source: Node, destination: Node) -> None:
    destination.declare("check.in", "quorum")
    status, findings = checked(source, destination, DESTINATION_QUEUE="check.in")
    destination.delete("check.in")
    assert (status, about(findings, "loop")[0]) == (0, "ok")


def test_an_exchange_is_looked_for(source: Node, destination: Node) -> None:
    exchange = {"DESTINATION_QUEUE": "", "DESTINATION_ROUTING_KEY": "check.out"}
    status, findings = checked(source, destination, DESTINATION_EXCHANGE="amq.direct", **exchange)
    assert (status, about(findings, "route")[0]) == (0, "ok")
    status, findings = checked(source, destination, DESTINATION_EXCHANGE="check.none", **exchange)
    assert (status, about(findings, "exchange")[0]) == (1, "error")


def test_an_alarm_is_a_warning(source: Node, destination: Node) -> None:
    destination.alarm(on=True)
    status, findings = checked(source, destination)
    destination.alarm(on=False)
    level, text = about(findings, "route")
    assert (status, level, "until the alarm is cleared" in text) == (0, "warning", True)


def test_tls_and_the_certificates_end_are_shown(source: Node, destination: Node, certificates: Certificates) -> None:
    tls = {"SOURCE_CA_FILE": certificates.ca, "DESTINATION_CA_FILE": certificates.ca}
    tls |= {"SOURCE_CERT_FILE": certificates.client_cert, "SOURCE_KEY_FILE": certificates.client_key}
    status, findings = checked(
        source, destination, SOURCE_URL=source.tls_url, DESTINATION_URL=destination.tls_url, **tls
    )
    assert status == 0
    texts = [each["text"] for each in findings if each["subject"] == "certificate" and each["side"] == "source"]
    assert [text.partition(" is good until ")[0] for text in texts] == [
        f"the client certificate {certificates.client_cert}",
        "the broker's certificate",
        f"a CA in {certificates.ca}",
    ]


def test_a_certificate_of_another_name_is_an_error_that_names_the_setting(
    source: Node, destination: Node, certificates: Certificates
) -> None:
    tls = {"SOURCE_URL": source.tls_url, "SOURCE_CA_FILE": certificates.ca, "DESTINATION_URL": destination.url}
    status, findings = checked(source, destination, SOURCE_TLS_SERVER_NAME="rabbit.example", **tls)
    level, text = about(findings, "connection", "source")
    assert (status, level, "set BRIDGE_SOURCE_TLS_SERVER_NAME to one" in text) == (1, "error", True)
    assert checked(source, destination, SOURCE_TLS_SERVER_NAME="localhost", **tls)[0] == 0


def test_a_certificate_that_is_not_verified_is_a_warning(source: Node, destination: Node) -> None:
    tls = {"SOURCE_URL": source.tls_url, "DESTINATION_URL": destination.url}
    status, findings = checked(source, destination, SOURCE_TLS_VERIFY="false", **tls)
    level, text = about(findings, "certificate", "source")
    assert (status, level, "is not verified" in text) == (0, "warning", True)


def test_a_certificate_that_is_not_trusted_is_an_error(source: Node, destination: Node) -> None:
    status, findings = checked(source, destination, SOURCE_URL=source.tls_url)
    level, text = about(findings, "connection", "source")
    assert (status, level, "BRIDGE_SOURCE_CA_FILE" in text) == (1, "error", True)
