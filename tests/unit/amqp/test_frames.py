"""Frames that the bridge writes, and routes."""

from __future__ import annotations

from struct import pack

from bridge.amqp import frames
from tests.support.frames import HEARTBEAT, method, short


def test_what_the_bridge_writes_is_what_the_protocol_says() -> None:
    assert frames.publish_frame(1, frames.route("ex", "key")) == method(
        1, 60, 40, pack(">H", 0) + short("ex") + short("key") + b"\x01"
    )
    assert frames.cancel_frame("ct") == method(1, 60, 30, short("ct") + b"\0")
    for multiple in (False, True):
        assert frames.ack_frame(7, multiple=multiple) == method(1, 60, 80, pack(">QB", 7, multiple))
        assert frames.requeue_frame(7, multiple=multiple) == method(1, 60, 120, pack(">QB", 7, 2 | multiple))
    assert frames.HEARTBEAT_FRAME == HEARTBEAT


def test_a_route_comes_apart_as_it_was_put_together() -> None:
    assert frames.split_route(frames.route("ex", "a.key")) == (b"ex", b"a.key")
    assert frames.split_route(frames.route("", "")) == (b"", b"")


def test_the_key_of_a_route_is_split_off_as_it_stands() -> None:
    assert frames.own_key(frames.route("ex", "orders")) == b"\x06orders"
