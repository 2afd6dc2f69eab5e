"""What the bridge has quarantined goes back to the source queue, once, and is forwarded as if nothing had been."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.broker.scene import scene
from tests.broker.test_drain import Draining
from tests.rig.client import decode_properties, drain, number_of
from tests.rig.tuning import limited

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.node import Node

LARGE_BYTES = 40_000


def test_what_was_quarantined_is_put_back_and_forwarded(
    source: Node, destination: Node, queue_type: str, queue_name: str, tmp_path: Path
) -> None:
    this = scene(source, destination, queue_type=queue_type, name=queue_name)
    with this.bridge:
        this.publish(20)
        with limited(destination, max_message_size=LARGE_BYTES // 2):
            this.publish(10, size=LARGE_BYTES)
            this.publish(20)
            done = this.wait_done()
        assert this.bridge.terminate() == 0
    assert done.total("bridge_messages_quarantined_total") == 10
    alone = {name: value for name, value in this.bridge.settings.items() if "DESTINATION" not in name}
    back = Draining(alone, tmp_path / "receipt.json", "--quarantine", "--to-original")
    assert back.run() == 0, back.logs
    this.ended_before = 40
    with this.bridge:  # another process: the first remembers the limit for minutes
        done = this.wait_done()
    assert done.total("bridge_messages_forwarded_total") == 10
    receipt = back.receipt()
    assert (receipt["moved"], receipt["targets"]) == (10, {this.queue_in: 10})
    assert source.queue_depth(f"{this.queue_in}.quarantine") == 0
    arrived = drain(destination.url, this.queue_out)
    assert {number_of(message) for message in arrived} == set(range(50))
    redriven = [(decode_properties(m.properties).headers or {}) for m in arrived if len(m.body) == LARGE_BYTES]
    assert [headers.get("x-bridge-redriven") for headers in redriven] == [1] * 10
    assert not any("x-bridge-reason" in headers for headers in redriven)
