"""What cannot be forwarded is held within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.broker.scene import scene
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

LIMIT_BYTES = 64 << 20
BASE_BYTES = 60 << 20
"""Interpreter, libraries and buffers: some 45 MiB when idle, and a message more than the limit."""
SIZE_BYTES = 2_000_000
MESSAGES = 200


def test_memory_is_bounded_while_the_destination_accepts_nothing(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Prefetch 1000 and 200 messages of 2 MB, 400 MB together, against a blocked destination."""
    this = scene(source, destination, name=queue_name)
    sizes = []

    def in_memory() -> float:
        """Content bytes in flight; notes resident memory, too."""
        sizes.append(this.bridge.rss_bytes())
        return this.metrics().total("bridge_bytes_in_flight")

    with this.bridge:
        this.see_one_through()
        in_memory()
        destination.alarm(on=True)
        this.publish(MESSAGES, size=SIZE_BYTES)
        wait_until(lambda: in_memory() >= LIMIT_BYTES, "memory to be full")
        assert in_memory() < LIMIT_BYTES + 2 * SIZE_BYTES, "one message more at the most"
        destination.alarm(on=False)
        wait_until(
            lambda: in_memory() == 0 and source.queue_depth(this.queue_in) == 0, "everything to be forwarded", 90
        )
    print(f"resident: {sizes[0] >> 20} MiB when idle, {max(sizes) >> 20} MiB at most")
    assert max(sizes) < LIMIT_BYTES + BASE_BYTES
    audit = this.audit()
    assert audit.is_perfect, audit
