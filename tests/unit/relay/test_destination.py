"""The destination's port: confirms and returns in, publishes out."""

from __future__ import annotations

import pytest

from bridge.amqp.pieces import LARGE_BYTES, PIECE_BYTES
from bridge.errors import MalformedFrameError
from bridge.relay.action import EndGeneration
from bridge.relay.destination import JOIN_BYTES
from tests.support import frames
from tests.support.frames import PERSISTENT, confirm, content, deliver, returned, table, text
from tests.support.relay_scene import Bridge, M, ack, publish, quarantining
from tests.support.targets import OWN_KEYS


@pytest.mark.parametrize("sizes", ((JOIN_BYTES + 1, 1), (1, JOIN_BYTES + 1), (1, 1)))
def test_large_contents_go_out_uncopied(sizes: tuple[int, int]) -> None:
    bridge = Bridge()
    messages = [content(b"x" * size) for size in sizes]
    bridge.source(*(deliver(tag, message) for tag, message in enumerate(messages, 1)))
    parts = bridge.relay.destination.data_to_send(bridge.now_s)
    assert b"".join(parts) == b"".join(publish() + message for message in messages)
    assert len(parts) == (1 if sizes == (1, 1) else 4)


LARGE = content(b"x" * LARGE_BYTES, step=130_000)


def test_a_very_large_content_goes_out_piece_by_piece_and_is_unsent_until_then() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M), deliver(2, LARGE), deliver(3, M))
    first = b"".join(bridge.relay.destination.data_to_send(bridge.now_s))
    assert first.startswith(publish() + M + publish())
    assert len(first) < 2 * PIECE_BYTES
    for _ in range(3):
        bridge.wait(29.0)
        assert not isinstance(bridge.relay.decide(bridge.now_s), EndGeneration), "it becomes less: the way is slow"
        bridge.relay.destination.data_to_send(bridge.now_s)
    bridge.wait(0.1)
    bridge.relay.decide(bridge.now_s)
    bridge.wait(30.0)
    ending = bridge.relay.decide(bridge.now_s)
    assert isinstance(ending, EndGeneration)
    assert ending.reason == "confirm-timeout"


def rest(bridge: Bridge) -> bytes:
    """All that is published until there is nothing more, socket by socket."""
    return b"".join(iter(bridge.to_destination, b""))


@pytest.mark.parametrize("frame_max", ((0, 0), (0, 4096)))
def test_what_is_begun_is_written_to_its_end_though_nothing_else_may_be(frame_max: tuple[int, int]) -> None:
    bridge = Bridge(frame_max=frame_max)
    bridge.source(deliver(1, LARGE), deliver(2, M))
    begun = bridge.to_destination()
    bridge.steering.publishes = False
    step = frame_max[1] - 8 if frame_max[1] else 130_000
    steps = [b"x" * min(130_000, LARGE_BYTES - at) for at in range(0, LARGE_BYTES, 130_000)]
    bodies = [frames.frame(3, 1, s[at : at + step]) for s in steps for at in range(0, len(s), step)]
    assert begun + rest(bridge) == publish() + frames.header(LARGE_BYTES, PERSISTENT) + b"".join(bodies)
    bridge.steering.publishes = True
    assert rest(bridge) == publish() + M


def test_the_rest_of_a_large_content_is_gone_with_its_connection() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, LARGE))
    bridge.to_destination()
    bridge.lose_destination()
    assert rest(bridge) == publish() + LARGE, "from the start"


def test_with_an_exchange_alone_each_message_keeps_its_own_key() -> None:
    bridge = Bridge(target=OWN_KEYS)
    bridge.source(deliver(1, M, routing_key="a"), deliver(2, M, routing_key="", exchange=""))
    assert bridge.to_destination() == publish("a", "out") + M + publish("", "out") + M


@pytest.mark.parametrize(
    ("source", "destination", "cut"),
    ((4096, 100, True), (0, 100, True), (100, 100, False), (100, 4096, False), (4096, 0, False)),
)
def test_bodies_are_cut_again_only_for_a_smaller_frame_max(source: int, destination: int, *, cut: bool) -> None:
    bridge = Bridge(frame_max=(source, destination))
    step = (source or 4096) - 8
    small, large = content(b"s"), content(b"x" * 300, step=step)
    bridge.source(deliver(1, small), deliver(2, large))
    expected = content(b"x" * 300, step=92) if cut else large
    assert bridge.to_destination() == publish() + small + publish() + expected


def test_a_header_too_large_for_the_destination_goes_to_the_quarantine_within_the_call_that_finds_it() -> None:
    """It costs no channel, and stops none of the others."""
    bridge = quarantining(1)
    bridge.source(confirm(1, channel=2))
    bridge.to_source()
    bridge.relay.destination.lost(bridge.now_s)
    bridge.connect_destination()
    bridge.relay.destination.opened(200)
    wide = content(b"wide", PERSISTENT | {"headers": table({"o": text("o" * 200)})})
    user = content(b"user", PERSISTENT | {"headers": table({"o": text("o" * 150)}), "user_id": b"alice"})
    bridge.source(deliver(2, wide), deliver(3, user), deliver(4, M))
    small = content(b"user", PERSISTENT | {"headers": table({"o": text("o" * 150)})})
    assert bridge.to_destination() == publish() + small + publish() + M
    assert bridge.to_source().startswith(publish("sq.quarantine", channel=2) + frames.header(4, {}, 2)[:1])
    assert bridge.window.quarantining == 1
    assert bridge.books.headers_left_out == 1


def test_a_connection_that_is_blocked_before_its_channel_opens_stays_blocked_and_the_next_one_is_not() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.connect_destination()
    bridge.destination(frames.BLOCKED)
    bridge.relay.destination.opened(0)
    assert bridge.to_destination() == b""
    bridge.destination(frames.UNBLOCKED)
    assert bridge.to_destination() == publish() + M
    bridge.relay.destination.lost(bridge.now_s)
    bridge.connect_destination()
    bridge.destination(frames.BLOCKED)
    bridge.open_destination()
    assert bridge.to_destination() == publish() + M


@pytest.mark.parametrize("raw", (deliver(1, M), frames.CANCEL), ids=("delivery", "cancel"))
def test_the_destination_delivers_nothing(raw: bytes) -> None:
    with pytest.raises(MalformedFrameError, match="from the destination"):
        Bridge().destination(raw)


def test_a_returned_message_is_not_acked_but_tried_again() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(returned(M, routing_key="dq"), confirm(1))
    assert bridge.to_source() == b"", "invariant 1"
    bridge.wait(1.0)
    assert bridge.to_destination() == publish() + M


def test_what_the_destination_closed_for_reaches_the_window() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, "PRECONDITION_FAILED"))
    bridge.relay.destination.lost(bridge.now_s)
    assert [verdict.reason for _, verdict in bridge.window.condemned] == ["poison"]


def test_while_nobody_knows_whether_what_is_held_is_still_ours_nothing_is_published() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M), frames.CANCEL)
    assert bridge.to_destination() == b""


def test_what_the_destination_says_after_the_end_has_nobody_to_hear_it() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.stop()
    bridge.time_is_up()
    bridge.destination(confirm(1))
    assert bridge.books.forwarded == 0


def test_a_blocked_destination_gets_nothing() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.destination(frames.BLOCKED)
    assert bridge.to_destination() == b""
    bridge.destination(frames.UNBLOCKED)
    assert bridge.to_destination() == publish() + M
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)


def test_the_destinations_words_when_it_blocks_are_kept() -> None:
    bridge = Bridge()
    assert bridge.relay.destination.blocked_reason == ""
    bridge.destination(frames.BLOCKED)
    assert bridge.relay.destination.blocked_reason == "low on memory"


def test_that_the_queue_is_missing_explains_why_it_did_not_confirm() -> None:
    """What RabbitMQ 3.10 had accepted for a queue that was deleted is never confirmed, and is no reason to rest."""
    bridge = Bridge()
    bridge.window.destination_unconfirmed(bridge.now_s)
    assert bridge.window.trouble.resting(bridge.now_s)
    bridge.relay.destination.missing()
    assert not bridge.window.trouble.resting(bridge.now_s)
