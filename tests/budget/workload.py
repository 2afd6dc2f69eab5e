"""What is counted: messages of one kind on their way through the pure layers, and a reference that is not the bridge.

`python -m tests.budget.workload MESSAGES SUBJECT…` runs under callgrind (see `counting`). The part that counts lies
between two calls of `getppid`, at which callgrind writes its counters down: imports, the making of the messages and a
warm-up are not in the count. After the warm-up CPython has specialised its byte code, without which a message costs
5 % more, and the publish window is open. What follows is steady: 1,000 messages cost as much each as 2,000, within
0.1 %, and so they do with a memory of acks that is full.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from itertools import pairwise
from struct import Struct, pack
from typing import TYPE_CHECKING, NamedTuple

from tests.budget.planes import Planes
from tests.support.frames import PERSISTENT, confirm, content, deliver, table, text
from tests.support.relay_scene import ack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bridge.amqp.additions import Scalar

BODY_FRAME_BYTES = 131_064
"""Of a body in one frame, with RabbitMQ's default `frame_max`."""
CHUNK_BYTES = 64 << 10
"""What a read from the socket brings at full load."""
MESSAGES = 1000
"""How many are counted unless told otherwise."""
WARM_UP_MESSAGES = 1250
WARM_UP_CHUNK_MESSAGES = 12.5
"""Fewer than the publish window of a young generation, and every second chunk ends in the middle of a message."""
EARLIER_MESSAGES = 1000
"""In the source generation before, where there is one."""
SECONDS_PER_MESSAGE = 50e-6
"""20,000 messages a second."""
REFERENCE = "reference"


class Kind(NamedTuple):
    """Messages that take the same way."""

    body_bytes: int = 256
    headers: Mapping[str, bytes] = {}
    redelivered: bool = False
    """Flagged as redelivered in a generation that follows another one, and not a message of that one."""
    own_keys: bool = False
    """Each message keeps its own routing key."""
    added: Mapping[str, Scalar] = {}
    """Headers that the bridge adds."""


THREE_ADDED: Mapping[str, Scalar] = {"site": "berlin", "tenant": "0af7651916cd43dd", "attempt": 1}

KINDS = {
    "plain 256 B": Kind(),
    "three headers 256 B": Kind(
        headers={"origin": text("bench"), "attempt": b"I" + pack(">i", 1), "trace": text("0af7651916cd43dd")}
    ),
    "quorum source 256 B": Kind(headers={"x-delivery-count": b"l" + pack(">q", 0)}),  # RabbitMQ 3.10, each delivery
    "redelivered 256 B": Kind(  # RabbitMQ 4.3, a quorum queue
        headers={"x-acquired-count": b"l" + pack(">q", 1), "x-delivery-count": b"l" + pack(">q", 1)}, redelivered=True
    ),
    "plain 4 kB": Kind(body_bytes=4096),
    "own routing keys 256 B": Kind(own_keys=True),
    "three headers added 256 B": Kind(added=THREE_ADDED),
}


class Step(NamedTuple):
    """A chunk of deliveries, and the destination's confirm of those that it completes."""

    deliveries: bytes
    confirm: bytes
    now_s: float


class Sender:
    """Both brokers: the source that delivers messages of one kind, the destination that confirms them."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        mark = b"#" * 12
        body = b"." * kind.body_bytes
        properties = PERSISTENT | {"message_id": mark}
        if kind.headers:
            properties["headers"] = table(kind.headers)
        self._before, _, self._after = content(body, properties, step=BODY_FRAME_BYTES).partition(mark)
        self._sent = 0
        self.delivery_tag = 0
        """That of the last delivery in this generation."""

    def begin_generation(self) -> None:
        """Delivery tags start at 1; the destination's generation goes on."""
        self.delivery_tag = 0

    def _deliver(self, *, redelivered: bool) -> bytes:
        self._sent += 1
        self.delivery_tag += 1
        key = f"orders.{self._sent:06}.placed" if self._kind.own_keys else "in"
        message = b"%b%012d%b" % (self._before, self._sent, self._after)
        return deliver(self.delivery_tag, message, redelivered=redelivered, exchange="", routing_key=key)

    def steps(self, messages: int, *, chunk_messages: float = 0.0, redelivered: bool = False) -> Iterator[Step]:
        """Deliver so many in chunks of so many messages, or of `CHUNK_BYTES`; the last chunk ends with a message."""
        confirmed = self._sent
        deliveries = [self._deliver(redelivered=redelivered) for _ in range(messages)]
        size = int(chunk_messages * len(deliveries[0])) or CHUNK_BYTES
        ends, end = [], 0
        for delivery in deliveries:
            end += len(delivery)
            ends.append(end)
        stream = b"".join(deliveries)
        complete = 0
        for start, stop in pairwise([*range(0, end, size), end]):
            while complete < messages and ends[complete] <= stop:
                complete += 1
            publish_seqno = confirmed + complete
            yield Step(stream[start:stop], confirm(publish_seqno, multiple=True), publish_seqno * SECONDS_PER_MESSAGE)


def run(kind: Kind, messages: int, mark: Callable[[], object]) -> None:
    """Forward so many messages between two calls of `mark`."""
    planes, sender = Planes(own_keys=kind.own_keys, added=kind.added), Sender(kind)
    planes.consume(0.0)
    if kind.redelivered:
        forward(planes, [*sender.steps(EARLIER_MESSAGES, chunk_messages=WARM_UP_CHUNK_MESSAGES)])
        planes.lose_source(EARLIER_MESSAGES * SECONDS_PER_MESSAGE)
        sender.begin_generation()
        planes.consume(EARLIER_MESSAGES * SECONDS_PER_MESSAGE)
        assert planes.remembered, "what is redelivered is not looked up"
    redelivered = kind.redelivered
    forward(planes, [*sender.steps(WARM_UP_MESSAGES, chunk_messages=WARM_UP_CHUNK_MESSAGES, redelivered=redelivered)])
    steps = [*sender.steps(messages, redelivered=redelivered)]
    mark()
    acks = forward(planes, steps)
    mark()
    assert acks == [ack(sender.delivery_tag, multiple=True)], f"the last message was not acked, but {acks}"


def forward(planes: Planes, steps: list[Step]) -> list[bytes]:
    """Feed the planes step by step; return what was written to the source after the last confirm."""
    to_source: list[bytes] = []
    for deliveries, answer, now_s in steps:
        planes.source_sends(deliveries, now_s)
        to_source = planes.destination_sends(answer, now_s).to_source
    return to_source


def run_reference(messages: int, mark: Callable[[], object]) -> None:
    """Do what the bridge does most, without the bridge: it tells one build of Python from another."""
    refer(WARM_UP_MESSAGES)
    mark()
    refer(messages)
    mark()


def refer(messages: int) -> int:
    """Unpack, slice, compare, make tuples, queue and join, as many times."""
    head, tag = Struct(">BHI"), Struct(">QB")
    data = pack(">BHI", 1, 1, 300) + bytes(300)
    queue: deque[tuple[int, int, bytes]] = deque()
    size = 0
    for number in range(messages):
        kind, channel, length = head.unpack_from(data, 0)
        if kind != 1 or channel != 1 or data[7 + number % length] or not data.startswith(data[:7]):
            continue
        tag_number, flag = tag.unpack_from(data, 20)
        queue.append(tuple.__new__(tuple, (tag_number + number, flag, data[number % 7 :])))
        if len(queue) == 100:
            batch = [queue.popleft() for _ in range(100)]
            size += len(b"".join([content for _, _, content in batch]))
    return size


def run_subject(subject: str, messages: int) -> None:
    """Run a kind of messages, or the reference, with callgrind's marks."""
    if subject == REFERENCE:
        run_reference(messages, os.getppid)
    else:
        run(KINDS[subject], messages, os.getppid)


def main(messages: int, subjects: list[str]) -> int:
    """Run each subject in a process of its own, as many at a time as there are processors; return the exit status.

    They are forked after the imports, which under callgrind take longer than all else. Each line of the output is the
    id of a process and its subject.
    """
    # As in service: the bridge lets the collector run so seldom (`bridge.cli.daemon`) that it costs a message nothing.
    gc.disable()
    failed = running = 0
    for subject in subjects:
        pid = os.fork()
        if not pid:
            run_subject(subject, messages)
            return 0
        # As wide for every id, or the memory of the next processes would differ a little, and with it their counts.
        # Flushed, or they would print it again.
        print(f"{pid:8} {subject}", flush=True)
        running += 1
        if running == (os.cpu_count() or 1):
            failed |= os.wait()[1]
            running -= 1
    for _ in range(running):
        failed |= os.wait()[1]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
