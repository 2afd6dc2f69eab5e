"""Who only publishes, and who only consumes: what a broker takes and gives when nobody forwards.

Both speak as the bridge does: finished frames, 256 KiB at a time, persistent messages with confirms, acks of all up to
a tag. They look at no frame that they need not, so that the broker is what is measured.
"""

from __future__ import annotations

import time
from struct import Struct
from typing import TYPE_CHECKING

import pika

from tests.bench.load import Sample
from tests.rig.client import encode_properties
from tests.rig.raw import RawClient, publish_frames

if TYPE_CHECKING:
    from tests.bench.contestants import Route

BLOCK_BYTES = 256 << 10
_DELIVER = b"\0\x3c\0\x3c"
"""Class and method of a delivery. It stands nowhere else in messages whose bodies are dots."""
_confirm = Struct(">BHIHHQB")
_ACK_FRAME = 21


class Confirmed:
    """How many publishes are confirmed, singly and in any order or all up to one."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self._flags = bytearray(most + 1)
        self._all_up_to = 0
        self._rest = b""

    def note(self, data: bytes) -> None:
        """Count the confirms in what the broker sent, which may end within one."""
        data = self._rest + data
        whole = len(data) // _ACK_FRAME * _ACK_FRAME
        self._rest = data[whole:]
        for _, _, _, _, _, publish_seqno, bits in _confirm.iter_unpack(_without_ends(data[:whole])):
            first = self._all_up_to + 1 if bits & 1 else publish_seqno
            self.count += self._flags.count(0, first, publish_seqno + 1)
            self._flags[first : publish_seqno + 1] = b"\1" * (publish_seqno + 1 - first)
            if bits & 1:
                self._all_up_to = max(self._all_up_to, publish_seqno)


def _without_ends(frames: bytes) -> bytes:
    return b"".join(frames[at : at + _ACK_FRAME - 1] for at in range(0, len(frames), _ACK_FRAME))


def publish(route: Route, count: int, size: int, window: int) -> list[Sample]:
    """Publish ``count`` messages to the destination, at most ``window`` of them unconfirmed; sample on the way."""
    properties = encode_properties(pika.BasicProperties(delivery_mode=2, message_id="#" * 12))
    with RawClient(route.destination_url) as client:
        client.confirm_select()
        message = publish_frames("", route.destination_queue, properties, b"." * size, client.frame_max)
        most = min(window, max(1, BLOCK_BYTES // len(message)))
        block = message * most
        published = 0
        confirmed = Confirmed(count)
        samples = [_sample(route, 0)]
        while confirmed.count < count:
            while (room := min(most, count - published, window - published + confirmed.count)) > 0:
                client.send_raw(block if room == most else message * room)
                published += room
            confirmed.note(client.receive_raw())
            samples.append(_sample(route, confirmed.count))
    return samples


def consume(route: Route, count: int, prefetch: int) -> list[Sample]:
    """Take ``count`` messages from the source with a prefetch; sample on the way."""
    with RawClient(route.source_url) as client:
        samples = [_sample(route, 0)]
        client.consume(route.source_queue, prefetch)
        taken, acked, end = 0, 0, b""
        while acked < count:
            data = end + client.receive_raw()
            end = data[-len(_DELIVER) + 1 :]
            taken += data.count(_DELIVER)
            whole = taken if taken == count else taken - 1  # the last may not be there yet
            if whole > acked:
                acked = whole
                client.ack(acked, multiple=True)
                samples.append(_sample(route, acked))
        client.abandon()  # what was read was read in pieces, so no frame can be told from the next any more
    return samples


def _sample(route: Route, messages: int) -> Sample:
    return Sample(time.monotonic(), messages, 0, route.node.cpu_seconds())
