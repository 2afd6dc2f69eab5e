"""A broker returns a message otherwise than it was published: only the one without a route is set aside.

RabbitMQ 4.3 encodes what it returns again, after its message interceptors; a bridge that looks for the very same
message finds none. So the source here is 3.10, which keeps every byte, and the destination 4.3.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pika
import pytest

from tests.broker.scene import Scene, imbalance, in_flight, scene
from tests.broker.test_refusals import declare_exchange, to_exchange
from tests.rig.client import audit, decode_properties, drain, encode_properties, publish_numbered, with_headers
from tests.rig.node import Node
from tests.rig.raw import RawClient, long_string, table
from tests.rig.tuning import intercepting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.bridge_process import Metrics

pytestmark = pytest.mark.parametrize("broker_version", ("3.10",), indirect=True)

COUNT = 401
UNROUTABLE = 200
UNSIGNED = b"L" + (7).to_bytes(8, "big")
"""What 3.10 keeps, and 4.3 returns as ``l``."""


@dataclass(frozen=True)
class Change:
    """What the messages have, or the destination does, that a return is not what was published."""

    header_table: bytes = b""
    expiration: str | None = None
    interceptor: Literal["timestamp", "routing_node"] | None = None

    def on(self, node: Node) -> AbstractContextManager[None]:
        """Have the node change messages while this lasts."""
        return intercepting(node, self.interceptor) if self.interceptor else nullcontext()


CHANGES = {
    "a timestamp that the broker sets": Change(interceptor="timestamp"),
    "a header that the broker adds": Change(interceptor="routing_node"),
    "a header of type L": Change(table(("x-number", UNSIGNED))),
    "a header of type L in a table": Change(table(("x-table", b"F" + table(("x-number", UNSIGNED))))),
    "two headers of one name": Change(table(("x-name", long_string(b"one")), ("x-name", long_string(b"two")))),
    "a boolean that is neither 0 nor 1": Change(table(("x-flag", b"t\x02"))),
    "an expiration with leading zeros": Change(expiration="00600000"),
}


@pytest.fixture(scope="module")
def _newer() -> Iterator[Node]:
    with Node("4.3") as node:
        yield node


@pytest.fixture
def newer(_newer: Node) -> Iterator[Node]:
    """A destination of 4.3."""
    yield _newer
    _newer.delete_all_queues()


def wait_all_but_one(this: Scene) -> Metrics:
    """Wait until the others are forwarded and the one has come back often enough to show whom it hinders."""
    metrics = this.bridge.wait_for(
        lambda m: (
            m.total("bridge_messages_forwarded_total") >= COUNT - 1
            and m.total("bridge_publish_retries_total", reason="returned") >= 3
        ),
        "all but one to be forwarded",
        20,
    )
    assert imbalance(metrics) == 0
    assert in_flight(metrics) == 1, "the unroutable one is held"
    assert metrics.total("bridge_messages_quarantined_total") == 0
    assert metrics.total("bridge_generation", side="destination") == 1, "no generation was lost by a return"
    assert "no route for 1 message" in this.bridge.get("/readyz")[1]
    return metrics


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_return_that_the_broker_has_changed_sets_one_message_aside(
    source: Node, newer: Node, queue_name: str, change: Change
) -> None:
    """Key, id and body still tell it from the others: none of them is published twice."""
    this = scene(source, newer, name=queue_name)
    declare_exchange(source, queue_name, (this.queue_in, "#"))
    declare_exchange(newer, queue_name, (this.queue_out, "good.#"))
    to_exchange(this, queue_name)
    publish_numbered(
        source.url,
        lambda number: f"{'bad' if number == UNROUTABLE else 'good'}.{number}",
        COUNT,
        exchange=queue_name,
        properties=pika.BasicProperties(expiration=change.expiration),
        header_table=change.header_table,
    )
    this.sent = COUNT
    with change.on(newer), this.bridge:
        wait_all_but_one(this)
        declare_exchange(newer, queue_name, (this.queue_out, "bad.#"))
        done = this.wait_done()
    assert done.total("bridge_duplicates_possible_total") == 0
    audit = this.audit()
    assert (audit.lost, audit.duplicates, audit.out_of_order) == ([], 0, 1), audit


def test_a_return_that_fits_many_messages_loses_none_of_them(source: Node, newer: Node, queue_name: str) -> None:
    """Same key, same body, no id: which of them has no route is found out, at the cost of counted duplicates."""
    this = scene(source, newer, name=queue_name)
    with newer.channel() as channel:
        channel.exchange_declare(queue_name, "headers", durable=True)
        channel.queue_bind(this.queue_out, queue_name, "", {"x-match": "all", "way": "good"})
    to_exchange(this, queue_name)
    with RawClient(source.url) as client:
        client.confirm_select()
        client.publish_many("", this.queue_in, [(_numbered_by_header(number), b"all alike") for number in range(COUNT)])
        client.wait_confirms()
    this.sent = COUNT
    with this.bridge:
        wait_all_but_one(this)
        with newer.channel() as channel:
            channel.queue_bind(this.queue_out, queue_name, "", {"x-match": "all", "way": "bad"})
        done = this.wait_done()
    arrived = drain(newer.url, this.queue_out)
    found = audit((decode_properties(message.properties).headers["x-number"] for message in arrived), COUNT)
    assert found.lost == [], found
    assert found.duplicates <= done.total("bridge_duplicates_possible_total"), found


def _numbered_by_header(number: int) -> bytes:
    way = b"bad" if number == UNROUTABLE else b"good"
    # The type L makes the return differ from what was published.
    headers = table(("x-number", b"L" + number.to_bytes(8, "big")), ("way", long_string(way)))
    return with_headers(encode_properties(pika.BasicProperties(delivery_mode=2)), headers)
