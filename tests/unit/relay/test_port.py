"""A port: a chunk at a time, the control plane's part, and the end of a connection."""

from __future__ import annotations

from bridge.amqp.events import Close
from tests.support import frames
from tests.support.frames import confirm, deliver
from tests.support.relay_scene import Bridge, M


def test_closes_of_the_data_channel_and_the_connection_are_kept() -> None:
    for channel in (0, 1):
        bridge = Bridge()
        bridge.source(frames.close(channel, 320, "bye"))
        bridge.destination(frames.close(channel, 406, "no"))
        assert bridge.relay.source.close == Close(channel, 320, "bye")
        assert bridge.relay.destination.close == Close(channel, 406, "no")
        assert bridge.closes == [bridge.relay.source.close, bridge.relay.destination.close]
        bridge.open_source()
        bridge.connect_destination()
        assert bridge.relay.source.close is None
        assert bridge.relay.destination.close is None


def test_closes_of_other_channels_are_the_control_planes() -> None:
    bridge = Bridge()
    bridge.source(frames.close(3, 404, "no queue"))
    bridge.destination(frames.close(3, 404, "no queue"))
    assert bridge.relay.source.close is None
    assert bridge.relay.destination.close is None


def test_a_close_is_reported_after_all_that_came_before_it() -> None:
    """A confirm right before it still counts, and its ack is written."""
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    forwarded: list[int] = []
    port = bridge.relay.connect_destination(lambda *_: forwarded.append(bridge.books.forwarded))
    port.opened(0)
    bridge.source(deliver(2, M))
    assert bridge.to_destination()
    port.receive(confirm(1) + frames.close(1, 406, "no"), bridge.now_s)
    assert forwarded == [1]


def test_a_chunk_says_whether_anything_has_come_of_it() -> None:
    bridge = Bridge()
    whole = deliver(1, M)
    assert not bridge.relay.source.receive(whole[:5], bridge.now_s)
    assert bridge.relay.source.receive(whole[5:], bridge.now_s)
    assert not bridge.relay.source.receive(frames.HEARTBEAT, bridge.now_s)
    assert bridge.relay.source.take_control() == frames.HEARTBEAT
    assert bridge.relay.source.take_control() == b""


def test_what_comes_after_the_end_reaches_nobody_but_the_control_plane() -> None:
    """The broker may still deliver while we say goodbye, and a port of an old connection is no other's."""
    bridge = Bridge()
    old = bridge.relay.source
    old.lost(bridge.now_s)
    bridge.open_source()
    assert not old.receive(deliver(1, M) + frames.QUEUE_DECLARE_OK, bridge.now_s)
    assert bridge.books.received == 0
    assert old.take_control() == frames.QUEUE_DECLARE_OK


def test_a_generation_ends_once() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    port = bridge.relay.source
    port.lost(bridge.now_s)
    assert bridge.books.stale_held == 1
    bridge.open_source()
    bridge.source(deliver(1, M))
    port.lost(bridge.now_s)
    assert bridge.window.in_flight == 1


def test_a_connection_that_ends_before_its_channel_is_open_has_been_no_generation() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.relay.connect_destination(lambda *_: None).lost(bridge.now_s)
    assert bridge.books.duplicates_possible == 0
