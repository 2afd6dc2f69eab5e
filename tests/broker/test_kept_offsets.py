"""A stream whose offset the broker keeps: the next process of the bridge reads on where the last one has come to."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

import aio_pika
import pika
import pytest
from rstream.client import Client

from bridge.connection.stream import NO_CERTIFICATE
from tests.broker.scene import Scene, alice, in_flight, scene
from tests.rig.client import drain, number_of
from tests.rig.ports import LOOPBACK
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aio_pika.abc import AbstractIncomingMessage

    from tests.rig.bridge_process import Metrics
    from tests.rig.certificates import Certificates
    from tests.rig.node import Node

NAME = "bridge-ä"
PREFETCH = 200
RETAINED = {"x-max-length-bytes": 20_000, "x-stream-max-segment-size-bytes": 5_000}


def tracked(  # noqa: PLR0913 - all but the nodes and the name by name
    source: Node,
    destination: Node,
    name: str,
    *,
    arguments: Mapping[str, object] | None = None,
    queue_type: str = "classic",
    extra: Mapping[str, object] | None = None,
) -> Scene:
    """A bridge from a stream of which the broker keeps the offset."""
    source.declare(f"{name}.in", "stream", arguments)
    destination.declare(f"{name}.out", queue_type)
    own = {
        "BRIDGE_SOURCE_OFFSET_NAME": NAME,
        "BRIDGE_SOURCE_STREAM_URL": source.stream_url,
        "BRIDGE_SOURCE_PREFETCH": PREFETCH,
    }
    this = scene(source, destination, name=name, declare=False, extra=own | dict(extra or {}))
    this.source_keeps = True
    return this


class Bytes(str):
    """A text whose length is that of its bytes: `rstream` 1.1.1 counts characters, where the protocol has bytes."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.encode())


def message_at(node: Node, stream: str, offset: int | str) -> tuple[int, bytes]:
    """The first message of a stream from an offset on: its offset, and its body.

    Not by pika: a stream sends whole chunks, of which pika refuses what nobody has taken when it closes, and streams
    know no refusal (540).
    """

    async def first() -> tuple[int, bytes]:
        found: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

        async def receive(message: AbstractIncomingMessage) -> None:
            if not found.done():
                found.set_result(message)

        async with await aio_pika.connect(node.url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            queue = await channel.get_queue(stream)
            await queue.consume(receive, arguments={"x-stream-offset": offset})
            message = await found
        place = message.headers["x-stream-offset"]
        assert isinstance(place, int)
        return place, message.body

    return asyncio.run(first())


async def store(node: Node, stream: str, offset: int) -> None:
    """Store an offset as any other client does, and wait until the broker has it."""
    client = Client(LOOPBACK, node.stream_port, frame_max=1 << 20, heartbeat=60)
    await client.start()
    await client.authenticate("/", "guest", "guest")
    await client.store_offset(stream, Bytes(NAME), offset)
    assert await client.query_offset(stream, Bytes(NAME)) == offset
    await client.close()


def test_what_was_forwarded_before_a_restart_or_a_crash_is_not_read_again(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Stopped in order: nothing comes twice. SIGKILLed: what it forwarded since it last stored. Nothing is lost."""
    this = tracked(source, destination, queue_name, extra={"BRIDGE_MAX_RATE": 1500})
    arrived: list[int] = []

    def take() -> int:
        arrived.extend(map(number_of, drain(destination.url, this.queue_out)))
        return len({*arrived})

    this.publish(6_000)
    this.bridge.start()
    this.wait_forwarded(500)
    assert this.bridge.terminate() == 0
    assert take() == len(arrived), "an orderly end"
    this.bridge.start()
    this.wait_forwarded(500)
    assert take() == len(arrived)
    assert this.metrics().total("bridge_messages_suppressed_total") == 1, "the landmark"
    source.kill()
    source.start().wait_ready()
    this.bridge.wait_for(lambda m: m.total("bridge_generation", side="source") >= 2, "the source to be back")
    counted = this.wait_forwarded(1_000).total("bridge_duplicates_possible_total")
    this.bridge.kill()
    take()
    before = {*arrived}
    this.bridge.start()
    this.bridge.wait_ready()
    (kept,) = re.findall(r"offset (\d+) of stream", this.bridge.logs)[-1:]
    _, body = message_at(source, this.queue_in, int(kept))
    settled = int(body[:10])
    wait_until(lambda: take() >= this.sent, "every message to arrive", 60, interval_s=0.2)
    twice = [number for number, times in Counter(arrived).items() if times > 1]
    assert set(range(settled + 1)) <= before, "all before what is stored was forwarded"
    assert len([number for number in twice if number <= settled]) <= counted
    this.bridge.wait_for(lambda m: in_flight(m) == 0, "the last confirms")
    assert this.bridge.terminate() == 0
    this.bridge.start()
    this.bridge.wait_for(lambda m: m.total("bridge_messages_suppressed_total") == 1, "the landmark")
    assert take() == this.sent, "nothing is left"
    assert this.metrics().total("bridge_messages_forwarded_total") == 0


def test_what_retention_has_deleted_is_counted_and_another_bridge_of_the_same_name_is_reported(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = tracked(source, destination, queue_name, arguments=RETAINED)
    this.publish(3)
    for _ in range(12):
        this.publish(10, size=1000)
    first: list[int] = []

    def deleted() -> bool:
        first[:] = [message_at(source, this.queue_in, "first")[0]]
        return first[0] > 3

    wait_until(deleted, "retention", interval_s=0.2)
    asyncio.run(store(source, this.queue_in, 1))
    with this.bridge:
        metrics = this.bridge.wait_for(lambda m: m.total("bridge_messages_forwarded_total") > 0, "the rest")
        # Whatever was stored since took an offset, and may have been what another segment was deleted for.
        assert (
            first[0] - 2
            <= metrics.total("bridge_source_offsets_missed_total")
            <= message_at(source, this.queue_in, "first")[0] - 2
        )
        assert any("were deleted" in event["event"] for event in this.bridge.events)
        this.bridge.wait_for(lambda m: m.total("bridge_source_offset_stored") > first[0], "the offset to be stored")
        asyncio.run(store(source, this.queue_in, 2))
        wait_until(lambda: "another bridge stores" in this.bridge.get("/readyz")[1], "the other to be seen", 30)
        this.bridge.wait_for(lambda m: m.total("bridge_source_offset_stored") > first[0], "ours to be stored again")


def test_what_a_stream_refuses_goes_to_the_quarantine_and_is_not_read_again(
    source: Node, destination: Node, queue_name: str
) -> None:
    extra = {"BRIDGE_USER_ID": "keep", "BRIDGE_DESTINATION_URL": alice(destination)}
    this = tracked(source, destination, queue_name, queue_type="stream", extra=extra)
    with source.channel() as channel:
        channel.confirm_delivery()
        for user in (None, "guest", None):
            channel.basic_publish("", this.queue_in, b"m", pika.BasicProperties(user_id=user))

    def settled(metrics: Metrics) -> bool:
        return metrics.total("bridge_source_offset_stored") == 2 and in_flight(metrics) == 0

    for forwarded in (2, 0):
        this.bridge.start()
        this.wait_forwarded(forwarded)
        metrics = this.bridge.wait_for(settled, "all to be settled")
        assert metrics.total("bridge_messages_forwarded_total") == forwarded
        assert this.bridge.terminate() == 0
    assert source.queue_depth(f"{this.queue_in}.quarantine") == 1


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_who_may_read_the_stream_and_nothing_else_keeps_its_offset_over_tls(
    source: Node, destination: Node, queue_name: str, certificates: Certificates
) -> None:
    extra = {
        "BRIDGE_SOURCE_URL": source.tls_url.replace("guest:guest", "reader:secret"),
        "BRIDGE_SOURCE_CA_FILE": certificates.ca,
        "BRIDGE_SOURCE_STREAM_URL": source.stream_tls_url,
        "BRIDGE_DESTINATION_URL": destination.url,
        "BRIDGE_QUARANTINE_QUEUE": "",
    }
    this = tracked(source, destination, queue_name, extra=extra)
    this.publish(5)
    permissions = f'<<"reader">>, <<"/">>, <<"^$">>, <<"^$">>, <<"^{this.queue_in}$">>, <<"rig">>'
    source.eval(f"""
        catch rabbit_auth_backend_internal:add_user(<<"reader">>, <<"secret">>, <<"rig">>),
        rabbit_auth_backend_internal:set_permissions({permissions})""")
    with this.bridge:
        this.wait_forwarded(5)
        this.bridge.wait_for(lambda m: m.total("bridge_source_offset_stored") == 4, "it to be stored")


def test_who_comes_by_a_certificate_keeps_the_offset_and_is_told_where_the_broker_cannot(
    source: Node, destination: Node, queue_name: str, certificates: Certificates
) -> None:
    """RabbitMQ 3.10 cannot over the stream protocol, and needs a login there."""
    extra = {
        "BRIDGE_SOURCE_URL": source.tls_url.replace("guest:guest@", ""),
        "BRIDGE_SOURCE_AUTH": "external",
        "BRIDGE_SOURCE_CA_FILE": certificates.ca,
        "BRIDGE_SOURCE_CERT_FILE": certificates.client_cert,
        "BRIDGE_SOURCE_KEY_FILE": certificates.client_key,
        "BRIDGE_SOURCE_STREAM_URL": source.stream_tls_url,
        "BRIDGE_DESTINATION_URL": destination.url,
    }
    this = tracked(source, destination, queue_name, extra=extra)
    this.publish(5)
    if source.version == "3.10":
        with this.bridge:
            wait_until(lambda: NO_CERTIFICATE in this.bridge.get("/readyz")[1], "the reason")
        extra["BRIDGE_SOURCE_STREAM_URL"] = source.stream_tls_url.replace("://", "://guest:guest@")
        this = tracked(source, destination, queue_name, extra=extra)
    with this.bridge:
        this.wait_forwarded(5)
        this.bridge.wait_for(lambda m: m.total("bridge_source_offset_stored") == 4, "it to be stored")
