"""Method frames: the notices that decide a generation's fate are read, and nothing is read past a frame's end."""

from __future__ import annotations

import pytest

from bridge.amqp.events import Blocked, Close, ConsumerCancelled, Event, Return, Unblocked
from bridge.amqp.frames import (
    BASIC_CANCEL,
    BASIC_CANCEL_OK,
    BASIC_RETURN,
    CHANNEL_CLOSE,
    CONNECTION_BLOCKED,
    CONNECTION_CLOSE,
    CONNECTION_UNBLOCKED,
    method_frame,
)
from bridge.amqp.methods import basic_return, cancel_ok, checked_route, notice, text_at
from bridge.errors import MalformedFrameError
from tests.support.frames import short

REPLY = b"\x01\x96" + short("PRECONDITION_FAILED")
"""406 and a text."""
CLOSE = REPLY + b"\0\x3c\0\x28"
"""With the method that was wrong: `basic.publish`."""
ROUTE = short("ex") + short("key")


@pytest.mark.parametrize(
    ("channel", "method", "arguments", "event"),
    (
        (1, BASIC_CANCEL, short("ctag") + b"\1", ConsumerCancelled(by_us=False, consumer_tag="ctag")),
        (1, CHANNEL_CLOSE, CLOSE, Close(1, 406, "PRECONDITION_FAILED")),
        (0, CONNECTION_CLOSE, CLOSE, Close(0, 406, "PRECONDITION_FAILED")),
        (0, CONNECTION_BLOCKED, short("low on memory"), Blocked("low on memory")),
        (0, CONNECTION_UNBLOCKED, b"", Unblocked()),
        (1, BASIC_CANCEL_OK, short("ctag"), None),
    ),
)
def test_a_notice_is_read_and_anything_else_is_the_control_planes(
    channel: int, method: int, arguments: bytes, event: Event | None
) -> None:
    assert notice(channel, method, method_frame(channel, method, arguments)) == event


def test_the_answer_to_a_cancel_names_its_consumer() -> None:
    frame = method_frame(1, BASIC_CANCEL_OK, short("ctag"))
    assert cancel_ok(frame) == ConsumerCancelled(by_us=True, consumer_tag="ctag")


def test_a_return_has_reply_route_and_content() -> None:
    frame = method_frame(2, BASIC_RETURN, REPLY + ROUTE)
    assert basic_return(2, frame, b"content", 5) == Return(2, 406, "PRECONDITION_FAILED", ROUTE, b"content", 5)


def test_a_text_that_is_no_utf_8_is_read_with_replacements() -> None:
    assert text_at(method_frame(0, CONNECTION_BLOCKED, b"\x02\xff!"), 11) == "\ufffd!"


def test_a_text_that_reaches_its_frames_end_is_malformed() -> None:
    with pytest.raises(MalformedFrameError, match="a short string of 5 bytes where its frame ends"):
        text_at(method_frame(0, CONNECTION_BLOCKED, b"\x05abc"), 11)


@pytest.mark.parametrize("value", (ROUTE + b"x", ROUTE[:-1], short("ex") + b"\x09key"))
def test_a_route_that_is_more_or_less_than_two_short_strings_is_malformed(value: bytes) -> None:
    assert checked_route(ROUTE) == ROUTE
    with pytest.raises(MalformedFrameError, match=f"do not fill their {len(value)} bytes"):
        checked_route(value)
