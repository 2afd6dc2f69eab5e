"""The window under a quota: nothing is published that the destination's queue may have no room for."""

from __future__ import annotations

from tests.support.window_scene import Scene


def test_no_more_is_published_than_the_quota_leaves() -> None:
    scene = Scene(destination_counted=True, destination_max_ready=3)
    scene.receive(1, 2, 3, 4, 5)
    assert scene.take() == []
    assert scene.window.throttled(scene.now_s), "it waits for an answer, and nobody is to blame"
    assert scene.window.quota is not None
    scene.window.quota.answered(1)
    assert not scene.window.throttled(scene.now_s)
    assert scene.take() == [1, 2]
    assert scene.take() == []
    assert scene.window.throttled(scene.now_s)
    scene.confirm(1)
    assert scene.window.unconfirmed == 1
    scene.window.quota.asked(scene.window.unconfirmed)
    scene.window.quota.answered(0)
    assert scene.take() == [3, 4], "the queue is empty, but for one that is under way"
    assert scene.books.imbalance == 0


def test_what_is_published_again_counts_again() -> None:
    """Nobody knows whether it has arrived."""
    scene = Scene(destination_counted=True, destination_max_ready=3)
    assert scene.window.quota is not None
    scene.window.quota.answered(0)
    scene.receive(1, 2)
    assert scene.take() == [1, 2]
    scene.lose_destination()
    scene.reopen_destination()
    assert scene.take() == [1]
    assert scene.take() == []
