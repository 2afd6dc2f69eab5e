"""Messages of every shape arrive once, in order and byte for byte."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pika
import pytest

from tests.broker.scene import alice, scene, settings
from tests.rig.bridge_process import BridgeProcess
from tests.rig.client import decode_properties, drain, drain_and_audit, encode_properties, publish_numbered
from tests.rig.node import Node
from tests.rig.raw import RawClient, short_string

if TYPE_CHECKING:
    from tests.rig.certificates import Certificates

SIZES = (0, 1, 256, 200_000)
CONTENT_TYPE, HEADERS, DELIVERY_MODE, USER_ID = 0x8000, 0x2000, 0x1000, 0x0010


def field(name: str, value: bytes) -> bytes:
    """A field of a header table, its value raw."""
    return short_string(name) + value


def table(*fields: bytes) -> bytes:
    """A header table."""
    body = b"".join(fields)
    return struct.pack(">I", len(body)) + body


EVERY_TYPE = table(
    field("array", b"A" + struct.pack(">I", 3) + b"t\x01" + b"V"),
    field("binary", b"x\0\0\0\x03\0\xff\xce"),
    field("byte", b"b\xff"),
    field("decimal", b"D\x02" + struct.pack(">i", -31415)),
    field("double", b"d" + struct.pack(">d", 1e300)),
    field("float", b"f" + struct.pack(">f", 1.5)),
    field("int", b"I" + struct.pack(">i", -(2**31))),
    field("long", b"l" + struct.pack(">q", -(2**63))),
    field("nested", b"F" + table(field("deeper", b"F" + table(field("n", b"I\0\0\0\x01"))))),
    field("short", b"s" + struct.pack(">h", -2)),
    field("string", b"S\0\0\0\x04\xc3\xa4\xc3\xb6"),
    field("time", b"T" + struct.pack(">Q", 1_700_000_000)),
    field("truth", b"t\0"),
    field("ubyte", b"B\xff"),
    field("uint", b"i" + struct.pack(">I", 2**32 - 1)),
    field("ushort", b"u" + struct.pack(">H", 2**16 - 1)),
    field("void", b"V"),
)
"""Every field type that RabbitMQ knows, by name in order, as 4.x sorts them."""

EVERY_PROPERTY = b"".join(
    (
        struct.pack(">H", 0xFFE8),  # all but user_id, cluster_id
        *(short_string("text/plain"), short_string("gzip"), EVERY_TYPE, b"\x02", b"\x05", short_string("correlation")),
        *(short_string("reply"), short_string("3600000"), short_string("id-1"), struct.pack(">Q", 1_700_000_000)),
        *(short_string("type"), short_string("application")),
    )
)


def test_mixed_sizes_arrive_exactly_once_and_in_order(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """15,000 messages of 0 bytes to 10 MB, compared body by body."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    bodies = [b"%d" % n * 64 for n in range(14_940)]
    bodies = [body[: (0, 1, 256)[n % 3]] for n, body in enumerate(bodies)]
    for n in range(60):
        bodies.insert(n * 240, bytes([n]) * 200_000)
    bodies[7_500] = bytes(range(256)) * 40_000
    properties = encode_properties(pika.BasicProperties(delivery_mode=2))
    with this.bridge:
        with RawClient(source.url) as client:
            client.confirm_select()
            for start in range(0, len(bodies), 100):
                client.publish_many("", this.queue_in, [(properties, body) for body in bodies[start : start + 100]])
                client.wait_confirms(leave=2000)
            client.wait_confirms()
        this.wait_done(300)
        assert this.metrics().total("bridge_messages_forwarded_total") == len(bodies)
    arrived = drain(destination.url, this.queue_out)
    assert len(arrived) == len(bodies)
    assert all(message.body == body for message, body in zip(arrived, bodies, strict=True))


def test_every_property_and_field_type_arrives_byte_for_byte(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """What is never decoded is never changed."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    with RawClient(source.url) as client:
        client.confirm_select()
        client.publish("", this.queue_in, EVERY_PROPERTY, b"body")
        client.wait_confirms()
    with this.bridge:
        this.wait_done()
    (message,) = drain(destination.url, this.queue_out)
    expected = [EVERY_PROPERTY]
    if (queue_type, destination.version) == ("quorum", "3.10"):
        # The destination's own queue may add its count behind the other headers.
        counted = (
            struct.pack(">I", len(EVERY_TYPE) - 4 + 26) + EVERY_TYPE[4:] + field("x-delivery-count", b"l" + bytes(8))
        )
        expected.append(EVERY_PROPERTY.replace(EVERY_TYPE, counted))
    assert message.properties in expected
    assert message.body == b"body"


def test_properties_that_must_not_cross_are_moved(source: Node, destination: Node, queue_name: str) -> None:
    """A foreign ``user_id`` would close the channel, ``CC`` would route copies; both are kept as headers."""
    this = scene(source, destination, name=queue_name)
    destination.declare("copies")
    headers = table(field("CC", b"A" + struct.pack(">I", 11) + b"S" + struct.pack(">I", 6) + b"copies"))
    properties = struct.pack(">H", HEADERS | USER_ID) + headers + short_string("alice")
    with RawClient(alice(source)) as client:
        client.confirm_select()
        source.declare("copies")
        client.publish("", this.queue_in, properties, b"moved")
        client.wait_confirms()
    with this.bridge:
        this.wait_done()
        assert destination.queue_depth("copies") == 0
    (message,) = drain(destination.url, this.queue_out)
    arrived = decode_properties(message.properties)
    assert arrived.headers == {"x-bridge-cc": ["copies"], "x-bridge-user-id": "alice"}
    assert arrived.user_id is None
    assert arrived.delivery_mode == 2


def test_bodies_are_cut_again_for_a_smaller_frame_max(broker_version: str, source: Node, queue_name: str) -> None:
    """The two sides agree on frame sizes of their own."""
    with Node(broker_version, config={"frame_max": 8192}) as narrow:
        this = scene(source, narrow, name=queue_name)
        with this.bridge:
            this.publish(50, size=100_000)
            this.publish(50, size=8185)
            this.publish(50, size=8184)
            this.wait_done()
        assert this.audit().is_perfect


def test_names_may_be_any_text(source: Node, destination: Node, queue_name: str) -> None:
    """RabbitMQ takes more than the letters and signs of AMQP 0-9-1."""
    name = f'{queue_name} Aufträge (100%) "neu"\t{{?a=b#c}}'
    source.declare(name)
    destination.declare(name)
    publish_numbered(source.url, name, 100)
    with BridgeProcess(settings(source, destination, name, name)) as bridge:
        bridge.wait_for(lambda m: m.total("bridge_messages_forwarded_total") == 100)
    assert drain_and_audit(destination.url, name, 100).is_perfect


def test_an_exchange_keeps_each_messages_own_key(source: Node, destination: Node, queue_name: str) -> None:
    """Without a routing key of its own the bridge publishes with the message's."""
    source.declare(f"{queue_name}.in")
    with source.channel() as channel:
        channel.exchange_declare("events", "topic", durable=True)
        channel.queue_bind(f"{queue_name}.in", "events", "#")
    with destination.channel() as channel:
        channel.exchange_declare("events", "topic", durable=True)
        for key in ("red", "blue"):
            channel.queue_declare(f"{queue_name}.{key}", durable=True)
            channel.queue_bind(f"{queue_name}.{key}", "events", f"{key}.#")
    configured = settings(source, destination, f"{queue_name}.in", "")
    del configured["BRIDGE_DESTINATION_QUEUE"]
    with BridgeProcess({**configured, "BRIDGE_DESTINATION_EXCHANGE": "events"}) as bridge:
        publish_numbered(source.url, "red.one", 300, exchange="events")
        publish_numbered(source.url, "blue.two", 200, exchange="events")
        bridge.wait_for(lambda m: m.total("bridge_messages_forwarded_total") == 500)
    assert len(drain(destination.url, f"{queue_name}.red")) == 300
    assert {message.routing_key for message in drain(destination.url, f"{queue_name}.blue")} == {"blue.two"}


@pytest.mark.parametrize("auth", ("plain", "external"))
def test_tls_on_both_sides(
    source: Node, destination: Node, certificates: Certificates, queue_name: str, auth: str
) -> None:
    """TLS with a private CA; with a client certificate the broker takes us for its name."""
    this = scene(source, destination, name=queue_name)
    for side, node in (("SOURCE", source), ("DESTINATION", destination)):
        this.bridge.settings |= {
            f"BRIDGE_{side}_URL": node.tls_url,
            f"BRIDGE_{side}_CA_FILE": str(certificates.ca),
        }
        if auth == "external":
            this.bridge.settings |= {
                f"BRIDGE_{side}_AUTH": "external",
                f"BRIDGE_{side}_CERT_FILE": str(certificates.client_cert),
                f"BRIDGE_{side}_KEY_FILE": str(certificates.client_key),
            }
    with this.bridge:
        this.publish(2000)
        this.publish(20, size=300_000)
        this.wait_done()
    assert this.audit().is_perfect


def test_a_broker_that_is_not_verified_is_served_and_every_start_and_status_say_so(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = scene(source, destination, name=queue_name)
    this.bridge.settings |= {"BRIDGE_SOURCE_URL": source.tls_url, "BRIDGE_SOURCE_TLS_VERIFY": "false"}
    this.bridge.settings["BRIDGE_DESTINATION_URL"] = destination.url
    with this.bridge:
        this.publish(10)
        this.wait_done()
        warning = this.bridge.status()["source"]["warning"]
        assert this.bridge.status()["destination"]["warning"] == ""
    assert warning.startswith("BRIDGE_SOURCE_TLS_VERIFY=false: the source's certificate is not verified")
    assert warning in [event["event"] for event in this.bridge.events if event["level"] == "warning"]
    assert this.audit().is_perfect


def test_sigterm_under_full_load_loses_and_doubles_nothing(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """Three times in the middle of everything: what the bridge has is forwarded and acked, or requeued."""
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    this.publish(30_000)
    for n in range(1, 4):
        this.bridge.start()
        this.wait_forwarded(2000)
        assert this.bridge.terminate() == 0, this.bridge.logs
        left = source.queue_ready(this.queue_in)
        assert source.queue_depth(this.queue_in) == left, "something was left unacked"
        this.ended_before = destination.queue_depth(this.queue_out)
        assert this.ended_before + left == this.sent, f"after SIGTERM {n}"
    with this.bridge:
        this.wait_done()
    audit = this.audit()
    assert (audit.lost, audit.duplicates) == ([], 0), audit
    if (queue_type, source.version) != ("quorum", "3.10"):
        # That one puts behind all others what it had set out for a consumer that is cancelled.
        assert audit.out_of_order == 0, audit
