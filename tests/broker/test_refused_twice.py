"""What neither destination nor quarantine accepts as it is: it goes to one of them all the same, and hinders nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pika
import pytest

from tests.broker.scene import Scene, alice, imbalance, in_flight, scene
from tests.broker.test_refusals import quarantined
from tests.rig.amqp10 import publish_amqp10
from tests.rig.client import encode_properties, number_of, publish_numbered
from tests.rig.raw import long_string, table
from tests.rig.tuning import limited

if TYPE_CHECKING:
    from tests.rig.bridge_process import Metrics
    from tests.rig.node import Node

NEIGHBOURS = 100
FRAME_MAX = 131_072
FRAME_AROUND_PROPERTIES = 8 + 12
"""Bytes of a content header's frame that are not its properties, from the flags on: frame, class, weight, body size."""


def wait_passed(this: Scene, *, closes: bool) -> Metrics:
    """Wait until nothing is left; check that the bridge is well, and that one message at most went to the quarantine.

    ``closes`` says whether the destination may have closed the channel to show which message it is.
    """
    done = this.wait_done(20)
    this.bridge.wait_ready(5)
    audit = this.audit()
    # The bridge declares the quarantine when it first needs it.
    some = done.total("bridge_messages_quarantined_total") > 0
    away = [number_of(message) for message in quarantined(this)] if some else []
    assert audit.lost == away, (audit, away)
    assert set(away) <= {NEIGHBOURS}, "a neighbour was quarantined"
    assert audit.out_of_order == 0, audit
    assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), audit
    assert done.total("bridge_messages_requeued_total") == 0
    assert done.total("bridge_generation", side="source") == 1
    if not closes:
        assert done.total("bridge_generation", side="destination") == 1, "what does not fit is known before"
    return done


def publish_wide(this: Scene, user: str = "", room: int = 0) -> None:
    """Publish a message whose header's frame is within ``room`` bytes as large as a frame may be."""
    properties = pika.BasicProperties(message_id="#" * 20, user_id=user or None, delivery_mode=2)
    size = FRAME_MAX - FRAME_AROUND_PROPERTIES - room - len(encode_properties(properties))
    filling = bytes(size - len(table(("filling", long_string(b"")))))
    header_table = table(("filling", long_string(filling)))
    url = alice(this.source) if user else this.source.url
    publish_numbered(url, this.queue_in, 1, first=this.sent, properties=properties, header_table=header_table)
    this.sent += 1


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
@pytest.mark.parametrize(("prefetch", "treatment"), ((1000, "move"), (1, "move"), (1000, "keep"), (1000, "drop")))
def test_a_header_that_no_publisher_may_send_passes(
    source: Node, destination: Node, queue_name: str, prefetch: int, treatment: str
) -> None:
    """``BCC`` as text, which AMQP 1.0 and MQTT bring in: for publishing it by 0-9-1 a broker closes the channel."""
    extra = {"BRIDGE_SOURCE_PREFETCH": prefetch, "BRIDGE_CC": treatment}
    this = scene(source, destination, name=queue_name, extra=extra)
    this.publish(NEIGHBOURS)
    publish_amqp10(source.url, this.queue_in, b"%012d" % this.sent, "no copies", {"BCC": "everybody"})
    this.sent += 1
    this.publish(NEIGHBOURS)
    with this.bridge:
        wait_passed(this, closes=treatment == "keep")


@pytest.mark.parametrize("user_id", ("move", "keep", "drop"))
def test_a_header_that_leaves_no_room_for_additions_passes(
    source: Node, destination: Node, queue_name: str, user_id: str
) -> None:
    """Moved to a header, another's user makes it too large; kept, it is refused, and the reason finds no room."""
    this = scene(source, destination, name=queue_name, extra={"BRIDGE_USER_ID": user_id})
    this.publish(NEIGHBOURS)
    publish_wide(this, "alice")
    this.publish(NEIGHBOURS)
    with this.bridge:
        wait_passed(this, closes=user_id == "keep")


def test_a_header_larger_than_the_destinations_frames_is_quarantined(
    source: Node, destination: Node, queue_name: str
) -> None:
    """It is not published to find that out: a frame above the limit costs the connection."""
    this = scene(source, destination, name=queue_name)
    this.publish(NEIGHBOURS)
    publish_wide(this, room=30_000)
    this.publish(NEIGHBOURS)
    with limited(destination, frame_max=8192), this.bridge:
        done = wait_passed(this, closes=False)
    assert done.total("bridge_messages_quarantined_total") == 1


def test_one_message_that_closes_the_quarantines_channel_keeps_no_other_out(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Condemned together, the first of six larger than the source itself accepts by now: five are quarantined."""
    this = scene(source, destination, name=queue_name)
    this.publish(NEIGHBOURS)
    this.publish(1, size=200_000)
    this.publish(5, size=20_000)
    this.publish(NEIGHBOURS)
    with (
        limited(source, max_message_size=100_000),
        limited(destination, max_message_size=10_000),
        this.bridge,
    ):
        done = this.bridge.wait_for(
            lambda m: (
                m.total("bridge_messages_quarantined_total", reason="too-large") == 5
                and m.total("bridge_messages_forwarded_total") == 2 * NEIGHBOURS
            ),
            "the others to pass",
            20,
        )
        assert in_flight(done) == 1, "the one that nobody accepts is held"
        assert imbalance(done) == 0
        assert this.bridge.terminate() == 0
    assert source.queue_depth(this.queue_in) == 1, "and is requeued in the end"
    audit = this.audit()
    assert audit.lost == list(range(NEIGHBOURS, NEIGHBOURS + 6)), audit
    assert audit.duplicates <= done.total("bridge_duplicates_possible_total"), audit
    assert [number_of(message) for message in quarantined(this)] == list(range(NEIGHBOURS + 1, NEIGHBOURS + 6))
