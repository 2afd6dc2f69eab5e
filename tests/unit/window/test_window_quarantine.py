"""The window: what is bound for the quarantine, and what does not fit the destination's frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.window.blame import Verdict
from tests.support.frames import PERSISTENT, content, delivery, table, text
from tests.support.window_scene import Scene

if TYPE_CHECKING:
    from bridge.amqp.events import Delivery


# --- The quarantine ------------------------------------------------------------------------------------------


def condemned(number: int) -> Scene:
    """So many deliveries that are bound for the quarantine: every second near the delivery limit, the others poison."""
    scene = Scene()
    for tag in range(1, number + 1):
        if tag % 2:
            scene.receive(tag)
            scene.take()
            scene.lose_destination(406)
            scene.reopen_destination()
        else:
            scene.receive_each(delivery(tag, redelivered=1, delivery_count=19, received_s=scene.now_s))
    return scene


def test_what_is_on_its_way_to_the_quarantine_is_counted_passed_and_acked_in_any_order() -> None:
    scene = condemned(3)
    window = scene.window
    assert not window.quarantining
    asked = [window.quarantine_asked()[0] for _ in range(3)]
    scene.now_s += 1.0
    assert [d.delivery_tag for d in asked] == [1, 2, 3]
    assert (window.quarantining, window.first_quarantining, window.oldest_received_s) == (3, 1, 1000.0)
    assert all(map(window.passed, asked))
    for tag in (2, 1):
        found = window.quarantined(tag)
        assert found is not None
        assert found[0] is asked[tag - 1]
    assert scene.acks() == [(2, False), (1, False)]
    assert (window.quarantining, window.first_quarantining) == (1, 3)
    assert window.quarantined(2) is None, "it was acked already"
    window.quarantine_refused(2, scene.now_s)
    assert scene.books.quarantined == {"delivery-limit": 1, "poison": 1}
    assert window.in_flight == 1


def test_what_gets_no_answer_from_the_quarantine_is_published_to_it_again_in_order() -> None:
    scene = condemned(3)
    scene.window.quarantine_asked()
    scene.window.quarantine_asked()
    doubled = scene.books.duplicates_possible
    scene.window.quarantine_interrupted()
    assert [tag for tag, _, _ in scene.verdicts()] == [1, 2, 3]
    assert scene.window.quarantining == 0
    assert scene.books.duplicates_possible == doubled + 2


def test_when_the_quarantine_accepts_nothing_all_that_is_bound_for_it_is_held_or_forwarded() -> None:
    scene = condemned(4)
    scene.window.quarantine_asked()
    scene.window.quarantine_unavailable(scene.now_s)
    assert scene.verdicts() == []
    assert scene.window.degraded[0].startswith("rejects 2 messages (poison)")
    assert scene.take() == [2, 4], "near the delivery limit, their best chance is to be forwarded"


def test_a_message_that_nobody_accepts_is_handed_over_once_to_be_named() -> None:
    scene = condemned(1)
    window = scene.window
    assert window.take_kept() == []
    for _ in range(2):
        window.quarantine_asked()
        window.quarantine_refused(1, scene.now_s, "the quarantine refuses it too", 60.0)
        scene.wait(60.0)
    ((delivery, verdict),) = window.take_kept()
    assert (delivery.delivery_tag, verdict.held_text) == (1, "the quarantine refuses it too")
    assert window.take_kept() == []


def test_a_quarantine_that_is_away_names_none_of_the_messages_that_wait_for_it() -> None:
    scene = condemned(3)
    scene.window.quarantine_unavailable(scene.now_s)
    assert scene.window.take_kept() == []


def test_without_a_quarantine_what_the_destination_rejects_is_named_at_once() -> None:
    scene = Scene(quarantine=False)
    scene.receive(1)
    scene.take()
    scene.lose_destination(406)
    assert [(d.delivery_tag, v.reason) for d, v in scene.window.take_kept()] == [(1, "poison")]


def test_the_reason_of_the_quarantine_is_shown_where_there_is_one() -> None:
    scene = condemned(1)
    scene.window.quarantine_asked()
    scene.window.quarantine_refused(1, scene.now_s, "the quarantine refuses it too", 60.0)
    assert "(the quarantine refuses it too)" in scene.window.degraded[0]
    scene.wait(59.0)
    assert scene.verdicts() == []
    scene.wait(1.0)
    assert scene.verdicts() == [(1, "poison", 406)]


def test_what_is_on_its_way_to_the_quarantine_when_the_source_is_lost_may_be_there_twice() -> None:
    scene = condemned(1)
    scene.window.quarantine_asked()
    doubled = scene.books.duplicates_possible
    scene.window.source_lost()
    assert scene.books.duplicates_possible == doubled + 1
    assert scene.window.quarantining == 0
    assert scene.books.imbalance == 0


# --- The destination's frame_max -----------------------------------------------------------------------------


def wide(delivery_tag: int, *, moved: bool) -> Delivery:
    """A delivery whose header frame is of 200 bytes, of which 34 hold a user that was moved there."""
    own = 132 if moved else 166
    fields = {"o": text("o" * own)} | ({"x-bridge-user-id": text("b" * 12)} if moved else {})
    return delivery(delivery_tag, b"m", PERSISTENT | {"headers": table(fields)})


def test_a_header_that_is_too_large_for_the_destination_is_condemned_before_it_costs_a_channel() -> None:
    scene = Scene()
    scene.window.destination_opened(scene.now_s, 199)
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
        scene.window.destination_opened(scene.now_s, frame_max)
        scene.receive_each(wide(1, moved=True))
        assert scene.window.take(1 << 20, scene.now_s) == [wide(1, moved=True)]
        assert scene.books.headers_left_out == 0


def test_what_was_moved_into_a_header_is_left_out_where_only_that_makes_it_too_large() -> None:
    scene = Scene()
    scene.window.destination_opened(scene.now_s, 199)
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
    scene.window.destination_opened(scene.now_s, 199)
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
