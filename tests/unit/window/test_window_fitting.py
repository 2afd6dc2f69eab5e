"""The window: what is condemned before it is published, for its header's size or the bridges that it has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.window.blame import Verdict
from tests.support.frames import PERSISTENT, content, delivery, table, text
from tests.support.window_scene import Scene

if TYPE_CHECKING:
    from bridge.amqp.events import Delivery


# --- The destination's frame_max -----------------------------------------------------------------------------


def wide(delivery_tag: int, *, moved: bool) -> Delivery:
    """A delivery whose header frame is of 200 bytes, of which 34 hold a user that was moved there."""
    own = 132 if moved else 166
    fields = {"o": text("o" * own)} | ({"x-bridge-user-id": text("b" * 12)} if moved else {})
    return delivery(delivery_tag, b"m", PERSISTENT | {"headers": table(fields)})


def test_a_header_that_is_too_large_for_the_destination_is_condemned_before_it_costs_a_channel() -> None:
    scene = Scene()
    scene.window.destination_opened(199)
    scene.receive_each(wide(1, moved=False), delivery(2), delivery(3, b"x" * 500))
    assert scene.take() == [2, 3], "a large body is not a large header"
    (_, verdict) = scene.window.condemned[0]
    why = "its headers (200 bytes) are larger than the destination's frame_max (199)"
    assert verdict == Verdict("too-large", 0, why)
    scene.receive_each(wide(4, moved=False))
    assert scene.take() == [], "and nothing else"
    assert (scene.books.held, scene.books.published) == (2, 2)


def test_a_header_that_fits_is_published_as_it_is() -> None:
    for frame_max in (0, 200):
        scene = Scene()
        scene.window.destination_opened(frame_max)
        scene.receive_each(wide(1, moved=True))
        assert scene.window.take(1 << 20, scene.now_s) == [wide(1, moved=True)]
        assert scene.books.headers_left_out == 0


def test_what_was_moved_into_a_header_is_left_out_where_only_that_makes_it_too_large() -> None:
    scene = Scene()
    scene.window.destination_opened(199)
    large = wide(2, moved=True)
    scene.receive_each(delivery(1), large)
    _, published = scene.window.take(1 << 20, scene.now_s)
    assert published.content == content(b"m", PERSISTENT | {"headers": table({"o": text("o" * 132)})})
    assert scene.books.headers_left_out == 1
    scene.confirm(2, multiple=True)
    assert scene.acks() == [(2, True)]
    assert scene.books.bytes_in_flight == 0
    scene.window.source_lost()
    scene.window.source_opened()
    assert scene.books.imbalance == 0


def test_without_a_quarantine_a_header_that_is_too_large_is_held_alone() -> None:
    scene = Scene(quarantine=False)
    scene.window.destination_opened(199)
    scene.receive_each(wide(1, moved=False), delivery(2))
    assert scene.take() == [2]
    assert "its headers (200 bytes)" in scene.window.degraded[0]


# --- Hops ----------------------------------------------------------------------------------------------------


def hopped(tag: int, hops: int) -> Delivery:
    return delivery(tag, b"m", PERSISTENT | {"headers": table({"x-bridge-hops": b"l" + hops.to_bytes(8, "big")})})


def test_a_message_that_has_passed_more_bridges_than_it_may_goes_to_the_quarantine() -> None:
    scene = Scene(max_hops=2)
    scene.receive_each(hopped(1, 2), hopped(2, 3), delivery(3))
    assert scene.take() == [1, 3]
    assert scene.verdicts() == [(2, "max-hops", 0)]
    ((_, verdict),) = scene.window.condemned
    assert verdict.reply_text == "it has passed 3 bridges with this one, and BRIDGE_MAX_HOPS is 2"


def test_without_a_quarantine_it_is_held_for_an_operator() -> None:
    scene = Scene(max_hops=2, quarantine=False)
    scene.receive_each(hopped(1, 3), delivery(2))
    assert scene.take() == [2]
    assert scene.window.parked == 1
    assert scene.window.degraded == [
        (
            "rejects 1 message (it has passed 3 bridges with this one, and BRIDGE_MAX_HOPS is 2); holding them, no "
            "quarantine accepts them"
        )
    ]


def test_hops_are_not_looked_at_without_a_limit() -> None:
    scene = Scene()
    scene.receive_each(hopped(1, 1 << 40))
    assert scene.take() == [1]
