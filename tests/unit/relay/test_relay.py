"""The relay: two ports, one window, and the steering; bytes in, bytes out, no socket."""

from __future__ import annotations

from bridge.relay.plan import Plan
from bridge.relay.relay import Relay
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import PERSISTENT, confirm, content, deliver
from tests.support.relay_scene import CANCEL, Bridge, M, ack, publish


def test_deliveries_are_published_as_they_are_and_acked_when_confirmed() -> None:
    bridge = Bridge()
    messages = [content(b"x" * n) for n in (0, 1, 256)]
    bridge.source(*(deliver(tag, message) for tag, message in enumerate(messages, 1)))
    assert bridge.to_destination() == b"".join(publish() + message for message in messages)
    assert bridge.to_destination() == b"", "published once"
    assert bridge.to_source() == b"", "invariant 1"
    bridge.destination(confirm(2, multiple=True))
    assert bridge.to_source() == ack(2, multiple=True)
    bridge.destination(confirm(3))
    assert bridge.to_source() == ack(3, multiple=True)


def test_a_redelivery_that_has_arrived_is_acked_and_not_published() -> None:
    message = content(b"m", PERSISTENT | {"message_id": b"m-1"})
    bridge = Bridge()
    bridge.source(deliver(1, message))
    bridge.to_destination()
    bridge.relay.source.lost(bridge.now_s)
    bridge.destination(confirm(1))
    bridge.open_source()
    bridge.consume()
    bridge.source(deliver(1, message, redelivered=1))
    assert bridge.to_source() == ack(1, multiple=False)
    assert bridge.to_destination() == b""


def test_with_memory_full_the_source_is_not_read() -> None:
    bridge = Bridge(WindowLimits(max_in_flight_bytes=1))
    assert not bridge.relay.paused
    bridge.source(deliver(1, M))
    assert bridge.relay.paused


def test_what_is_decided_when_a_shutdown_ends_is_written_at_once() -> None:
    bridge = Bridge()
    bridge.stop()
    bridge.time_is_up()
    assert bridge.to_source() == CANCEL


def test_before_the_first_connection_nothing_comes_and_nothing_is_written() -> None:
    relay = Relay(Bridge().window, Plan(), lambda: 0.5)
    assert relay.source.data_to_send() == []
    assert not relay.destination.receive(frames.HEARTBEAT, 1.0)
    relay.source.lost(1.0)


def test_a_pause_writes_its_cancel_at_once_where_nothing_is_on_its_way() -> None:
    bridge = Bridge()
    bridge.relay.destination.lost(bridge.now_s)
    bridge.relay.pause(bridge.now_s)
    assert bridge.to_source() == CANCEL
    bridge.source(frames.CANCEL_OK)
    bridge.relay.resume()
    bridge.open_destination()
    assert bridge.wanted_prefetch == 1
