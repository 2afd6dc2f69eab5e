"""`python -m tests.fuzz --seconds 60 [--seed N]`: streams, damaged and cut at random, into the real relay.

What may come of it: events, or `MalformedFrameError`. What may not: another exception, books that do not balance, more
bytes kept than came in, an ack of what was not confirmed (the relay has no destination here, so any ack at all).
A failing seed is printed and replays exactly.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from bridge.amqp.frames import BASIC_ACK, BASIC_NACK
from bridge.amqp.target import Target
from bridge.errors import MalformedFrameError
from bridge.relay.action import Consume
from bridge.relay.plan import Plan
from bridge.relay.queue import QueueState
from bridge.relay.relay import Relay
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import Memory
from bridge.window.window import Window
from tests.support.frames import content, deliver, frame

SAMPLES = 12
"""Messages in a stream."""


def stream(chance: random.Random) -> bytearray:
    """A valid stream of deliveries and control frames."""
    out = bytearray()
    for delivery_tag in range(1, SAMPLES + 1):
        if chance.random() < 0.2:
            out += chance.choice((b"\x08\0\0\0\0\0\0\xce", frame(1, 0, b"\0\x0a\0\x3d"), frame(1, 7, b"\0\x14\0\x0b")))
        body = chance.randbytes(chance.choice((0, 1, 40, 300)))
        out += deliver(delivery_tag, content(body, step=chance.choice((64, 4096))))
    return out


def damage(data: bytearray, chance: random.Random) -> None:
    """Change, insert, drop, double or swap some bytes."""
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                del data[at : at + chance.randrange(1, 9)]
            case 3:
                data[at:at] = data[at : at + chance.randrange(1, 300)]
            case _:
                data[at : at + 8] = data[at : at + 8][::-1]


def schedule(seed: int) -> str:
    """Run one stream; return what came of it. Raises what must not happen."""
    chance = random.Random(seed)
    books = Books()
    window = Window(WindowLimits(prefetch=SAMPLES), Target.queue("out"), books, Memory(enabled=True), chance.random)
    relay = Relay(window, Plan(quarantine_queue="q"), chance.random)
    source = relay.connect_source(lambda *_: None)
    source.opened(131_072)
    relay.connect_destination(lambda *_: None).opened(131_072, 0.0)
    assert relay.decide(0.0) == Consume(1)
    relay.steering.starting("tag", 0.0)
    relay.started(QueueState(ready=0, consumers=0), 0.0)
    data = stream(chance)
    damage(data, chance)
    position = 0
    outcome = "cut"
    try:
        while position < len(data):
            size = chance.choice((1, 7, 64, 1000))
            source.receive(bytes(data[position : position + size]), 0.0)
            position += size
            source.take_control()
    except MalformedFrameError:
        outcome = "malformed"
    assert books.imbalance == 0, books
    assert books.bytes_in_flight <= 2 * len(data) + 100 * SAMPLES, books
    for output in source.data_to_send():
        assert int.from_bytes(output[7:11], "big") not in (BASIC_ACK, BASIC_NACK), output
    source.lost(0.0)
    assert books.imbalance == 0, books
    assert (books.held, books.published, books.bytes_in_flight) == (0, 0, 0), books
    return outcome


def main() -> int:
    """Run schedules until time is up; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="replay this one alone")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        print(schedule(arguments.seed))
        return 0
    outcomes: dict[str, int] = {}
    ends_s = time.monotonic() + arguments.seconds
    seed = random.SystemRandom().randrange(1 << 48)
    while time.monotonic() < ends_s:
        seed += 1
        try:
            outcome = schedule(seed)
        except Exception:
            print(f"FAILED: python -m tests.fuzz --seed {seed}", flush=True)
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(f"{sum(outcomes.values())} streams: {outcomes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
