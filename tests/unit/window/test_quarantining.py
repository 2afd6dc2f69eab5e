"""The window: what is bound for the quarantine, and what is said of it."""

from __future__ import annotations

from tests.support.frames import delivery
from tests.support.window_scene import Scene


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
