"""Publishes between publish and confirm: what a confirm or a return is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp.events import Delivery, Return
from bridge.errors import MalformedFrameError
from bridge.window.books import Histogram
from bridge.window.publishes import Publishes
from tests.support.frames import PERSISTENT, Properties, content, delivery, table, text

SOURCE = object()
"""A source generation."""


class Scene:
    """Publishes of a generation that just began, and shorthands by delivery tag."""

    def __init__(self, *delivery_tags: int, own_keys: bool = False) -> None:
        self.seconds = Histogram()
        self.publishes = Publishes(self.seconds, own_keys=own_keys)
        if delivery_tags:
            self.publishes.add([delivery(tag) for tag in delivery_tags], 0.0, SOURCE)

    def confirm(self, publish_seqno: int, now_s: float = 0.0, *, multiple: bool = False) -> tuple[int, list[int]]:
        """The first publish_seqno, and delivery tags; 0 for what was confirmed before."""
        first, confirmed = self.publishes.confirm(publish_seqno, now_s, multiple=multiple)
        return first, [0 if d is None else d.delivery_tag for d in confirmed]

    def returned(self, body: bytes, properties: Properties = PERSISTENT, key: str = "key") -> None:
        """`basic.return`."""
        route = b"\x02ex" + bytes([len(key)]) + key.encode()
        self.publishes.returned(Return(1, 312, "NO_ROUTE", route, content(body, properties), len(body)))


def test_one_at_a_time_several_at_once_and_all_there_are() -> None:
    scene = Scene(*range(11, 20))
    assert scene.confirm(1) == (1, [11])
    assert scene.confirm(3, multiple=True) == (2, [12, 13])
    assert scene.confirm(0, multiple=True) == (4, [14, 15, 16, 17, 18, 19])
    assert not scene.publishes


def test_out_of_turn_one_keeps_its_place_until_those_before_it_are_confirmed() -> None:
    scene = Scene(11, 12, 13, 14)
    assert scene.confirm(2) == (2, [12])
    assert [d.delivery_tag for d in scene.publishes] == [11, 13, 14]
    assert (len(scene.publishes), scene.publishes.waiting) == (4, 3)
    assert scene.confirm(1) == (1, [11])
    assert len(scene.publishes) == 2
    assert scene.confirm(4) == (4, [14])
    assert scene.confirm(4, multiple=True) == (3, [13, 0])


def test_what_is_confirmed_again_confirms_nothing() -> None:
    scene = Scene(11, 12, 13)
    scene.confirm(1)
    assert scene.confirm(1)[1] == []
    assert scene.confirm(1, multiple=True)[1] == []
    scene.confirm(3)
    assert scene.confirm(3) == (3, [0])


@pytest.mark.parametrize("publish_seqno", (3, 1 << 40, -1))
def test_a_confirm_of_what_was_never_published_is_malformed(publish_seqno: int) -> None:
    with pytest.raises(MalformedFrameError, match="only 2 were made"):
        Scene(11, 12).confirm(publish_seqno)


def test_delivery_tags_rise_from_the_last_publish_that_went_back() -> None:
    scene = Scene(11, 12)
    assert scene.publishes.rise_from(1)
    scene.publishes.add([delivery(3), delivery(13)], 0.0, SOURCE)
    scene.publishes.add([delivery(14)], 0.0, SOURCE)
    assert not scene.publishes.rise_from(2)
    assert scene.publishes.rise_from(3)


def test_each_confirm_is_timed_by_its_own_batch_when_it_comes() -> None:
    """Else the first of a batch would seem to have waited as long as its last."""
    scene = Scene(*range(11, 15))
    scene.publishes.add([delivery(15), delivery(16)], 1.0, SOURCE)
    scene.publishes.add([delivery(17)], 2.0, SOURCE)
    seconds = []

    def confirm(publish_seqno: int, now_s: float, *, multiple: bool = False) -> None:
        before = sum(scene.seconds.counts), scene.seconds.total
        scene.confirm(publish_seqno, now_s, multiple=multiple)
        seconds.append((sum(scene.seconds.counts) - before[0], scene.seconds.total - before[1]))

    confirm(1, 3.0)
    confirm(6, 3.0)
    confirm(6, 3.5)
    confirm(3, 4.0)
    confirm(2, 5.0)
    confirm(0, 6.0, multiple=True)
    # One of the first batch; out of turn, of the second; the same once more; two more of the first; all the rest.
    assert seconds == [(1, 3.0), (1, 2.0), (0, 0.0), (1, 4.0), (1, 5.0), (3, 6.0 + 5.0 + 4.0)]


def test_a_batch_that_was_confirmed_out_of_turn_is_not_timed_again() -> None:
    scene = Scene(11)
    scene.publishes.add([delivery(12)], 1.0, SOURCE)
    scene.publishes.add([delivery(13), delivery(14)], 1.0, SOURCE)
    for publish_seqno in (2, 3, 1):
        scene.confirm(publish_seqno, 2.0)
    assert (sum(scene.seconds.counts), scene.seconds.total) == (3, 2.0 + 1.0 + 1.0)
    scene.confirm(4, 9.0, multiple=True)
    assert (sum(scene.seconds.counts), scene.seconds.total) == (4, 4.0 + 8.0)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    confirms=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=40),
)
def test_whatever_the_order_every_confirm_is_timed_once(sizes: list[int], confirms: list[tuple[int, bool]]) -> None:
    scene = Scene()
    published: dict[int, float] = {}
    for number, size in enumerate(sizes):
        published |= dict.fromkeys(range(len(published) + 1, len(published) + size + 1), float(number))
        scene.publishes.add([delivery(1) for _ in range(size)], float(number), SOURCE)
    last, total = len(published), 0.0
    for count, (publish_seqno, multiple) in enumerate([*confirms, (0, True)]):
        if publish_seqno > last or not (publish_seqno or multiple):
            continue
        now_s = 100.0 + count
        scene.publishes.confirm(publish_seqno, now_s, multiple=multiple)
        covered = [n for n in published if n == publish_seqno or (multiple and n <= (publish_seqno or last))]
        total += sum(now_s - published.pop(n) for n in covered)
        assert sum(scene.seconds.counts) == last - len(published)
        assert scene.seconds.total == pytest.approx(total)
    assert not published


def test_overdue_is_the_age_of_the_oldest_whatever_else_is_confirmed() -> None:
    scene = Scene()
    assert not scene.publishes.overdue(100.0, 30.0), "nothing is published"
    scene.publishes.add([delivery(1), delivery(2)], 100.0, SOURCE)
    scene.publishes.add([delivery(3), delivery(4)], 120.0, SOURCE)
    assert not scene.publishes.overtaken
    scene.confirm(2, 129.0)
    scene.confirm(3, 129.0)
    assert scene.publishes.overtaken, "what is confirmed shows that the first has arrived"
    assert not scene.publishes.overdue(129.9, 30.0)
    assert scene.publishes.overdue(130.0, 30.0)
    scene.confirm(1, 131.0)
    assert not scene.publishes.overtaken
    assert not scene.publishes.overdue(149.9, 30.0)
    assert scene.publishes.overdue(150.0, 30.0)
    scene.confirm(4, 151.0)
    assert not scene.publishes.overdue(1000.0, 30.0)


def test_time_blocked_does_not_make_overdue_however_often() -> None:
    scene = Scene()
    scene.publishes.unblocked(90.0)
    scene.publishes.add([delivery(1)], 100.0, SOURCE)
    for blocked_s in (110.0, 220.0):
        scene.publishes.blocked(blocked_s)
        scene.publishes.blocked(blocked_s + 50.0)
        scene.publishes.unblocked(blocked_s + 100.0)
    scene.publishes.add([delivery(2)], 325.0, SOURCE)
    assert not scene.publishes.overdue(329.9, 30.0)
    assert scene.publishes.overdue(330.0, 30.0), "10 s each before it was blocked, and 10 s after that"
    scene.confirm(1, 331.0)
    assert not scene.publishes.overdue(354.9, 30.0)
    assert scene.publishes.overdue(355.0, 30.0)


def test_what_waits_is_orphaned_for_every_other_source_generation() -> None:
    scene = Scene()
    assert not scene.publishes.orphaned_for(SOURCE), "nothing waits"
    scene.publishes.add([delivery(1), delivery(2)], 0.0, SOURCE)
    assert not scene.publishes.orphaned_for(SOURCE)
    assert scene.publishes.orphaned_for(object())
    scene.confirm(2)
    assert scene.publishes.orphaned_for(object()), "the first still waits"
    scene.confirm(1)
    assert not scene.publishes.orphaned_for(object())


# --- Returns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", (b"", b"2", b"22", b"x"))
def test_a_return_of_none_of_ours_is_malformed(other: bytes) -> None:
    scene = Scene(1, 33)
    with pytest.raises(MalformedFrameError, match="that was not published"):
        scene.returned(other)


def test_each_return_counts_for_one_confirm_of_those_that_are_alike() -> None:
    scene = Scene()
    alike = [delivery(tag, b"same") for tag in range(1, 5)]
    scene.publishes.add(alike, 0.0, SOURCE)
    scene.confirm(1)
    scene.returned(b"same")
    scene.returned(b"same")
    assert [scene.publishes.was_returned(d) for d in alike[1:]] == [True, True, False]


def test_returns_in_the_order_of_the_publishes_are_found_right_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands may come before their confirms: a search from the first each time stops the bridge for seconds."""
    looked_at: list[Delivery] = []
    alike = Publishes._alike

    def noted(publishes: Publishes, delivery: Delivery) -> tuple[bytes, bytes]:
        looked_at.append(delivery)
        return alike(publishes, delivery)

    monkeypatch.setattr(Publishes, "_alike", noted)
    scene = Scene(*range(101, 200))
    scene.confirm(10, multiple=True)
    for tag in range(111, 200):
        scene.returned(b"%d" % tag)
    assert [d.delivery_tag for d in looked_at] == [*range(111, 200)]


def test_returns_in_another_order_are_found_too() -> None:
    scene = Scene()
    several = [delivery(1, b"same"), delivery(2, b"same"), delivery(3, b"other"), delivery(4, b"same")]
    scene.publishes.add(several, 0.0, SOURCE)
    scene.returned(b"other")
    scene.publishes.confirm(4, 0.0, multiple=False)
    scene.returned(b"same")
    scene.returned(b"same")
    assert [scene.publishes.was_returned(d) for d in several] == [True, True, True, False]


def test_a_return_is_matched_by_properties_and_the_set_of_headers() -> None:
    """RabbitMQ 4 returns the header table sorted."""
    scene = Scene()
    ordered = {"b": text("1"), "a": text("2")}
    properties = [{"type": b"t"}, {"headers": table(ordered)}, {"headers": table(ordered | {"c": b"V"})}]
    several = [delivery(tag, b"same", PERSISTENT | p) for tag, p in enumerate(properties, 1)]
    scene.publishes.add(several, 0.0, SOURCE)
    scene.returned(b"same", PERSISTENT | {"headers": table(dict(sorted(ordered.items())))})
    assert [scene.publishes.was_returned(d) for d in several] == [False, True, False]


def test_with_keys_of_their_own_a_return_is_matched_by_key_too() -> None:
    scene = Scene(own_keys=True)
    several = [delivery(tag, b"same", routing_key=key) for tag, key in ((1, "a"), (2, "b"))]
    scene.publishes.add(several, 0.0, SOURCE)
    scene.returned(b"same", key="b")
    assert [scene.publishes.was_returned(d) for d in several] == [False, True]
