"""A large message is in memory once, whatever its way: a container needs little more than its size."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import Scene, scene
from tests.rig.raw import RawClient
from tests.rig.tuning import limited
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.certificates import Certificates
    from tests.rig.node import Node

SIZE_BYTES = 100_000_000
MOST = 2.2
"""Of its size, the process with all that it is made of included."""
BEGINNING = b"the beginning"
PERSISTENT = b"\x10\x00\x02"
OVERSIZED = "a message is larger than BRIDGE_MAX_IN_FLIGHT_BYTES; it is forwarded, and is in memory whole"


def peak_bytes(this: Scene) -> int:
    """The most that was ever resident."""
    lines = Path(f"/proc/{this.bridge.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def publish_large(this: Scene) -> bytes:
    """Publish it and return its body."""
    body = BEGINNING + b"." * (SIZE_BYTES - len(BEGINNING))
    with RawClient(this.source.url) as client:
        client.confirm_select()
        client.publish("", this.queue_in, PERSISTENT, body)
        client.wait_confirms()
    return body


def arrived(node: Node, queue: str) -> bytes:
    """The only message of a queue."""
    with RawClient(node.url) as client:
        message = client.get(queue)
        assert message is not None
        client.ack(message.delivery_tag)
        assert client.ready(queue) == 0
    return message.body


@pytest.mark.parametrize("way", ("plain", "smaller frames", "tls", "quarantine"))
def test_memory_for_one_large_message(
    source: Node, destination: Node, queue_name: str, certificates: Certificates, way: str
) -> None:
    this = scene(source, destination, name=queue_name)
    if way == "tls":
        for side, node in (("SOURCE", source), ("DESTINATION", destination)):
            this.bridge.settings[f"BRIDGE_{side}_URL"] = node.tls_url
            this.bridge.settings[f"BRIDGE_{side}_CA_FILE"] = str(certificates.ca)
    with ExitStack() as stack:
        stack.enter_context(limited(source, max_message_size=1 << 27))
        smaller = {"frame_max": 8192} if way == "smaller frames" else {}
        accepted = 10_000_000 if way == "quarantine" else 1 << 27
        stack.enter_context(limited(destination, max_message_size=accepted, **smaller))
        stack.enter_context(this.bridge)
        this.see_one_through()
        assert arrived(destination, this.queue_out)
        body = publish_large(this)
        where = (source, f"{this.queue_in}.quarantine") if way == "quarantine" else (destination, this.queue_out)
        wait_until(lambda: where[0].has_queue(where[1]) and where[0].queue_ready(where[1]) == 1, "it to arrive")
        assert arrived(*where) == body
        this.sent += 1
        done = this.wait_done()
        assert done.total("bridge_duplicates_possible_total") == (way == "quarantine"), "a close leaves it unconfirmed"
        peak = peak_bytes(this)
        print(f"{way}: {peak / 1e6:.0f} MB resident at the peak, {peak / SIZE_BYTES:.2f} times the message")
        assert peak < MOST * SIZE_BYTES
        assert [event["size_bytes"] for event in this.bridge.events if event["event"] == OVERSIZED] == [SIZE_BYTES]
        assert this.bridge.terminate() == 0


def test_large_messages_one_after_the_other_are_in_memory_one_at_a_time(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Nothing holds on to the one before; that they are large is said once."""
    this = scene(source, destination, name=queue_name)
    with limited(source, max_message_size=1 << 27), limited(destination, max_message_size=1 << 27), this.bridge:
        this.see_one_through()
        for _ in range(3):
            publish_large(this)
            this.sent += 1
        this.wait_done()
        peak = peak_bytes(this)
        print(f"{peak / 1e6:.0f} MB resident at the peak, {peak / SIZE_BYTES:.2f} times each message")
        assert peak < MOST * SIZE_BYTES
        assert [event["event"] for event in this.bridge.events].count(OVERSIZED) == 1
