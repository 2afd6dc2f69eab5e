"""Publishes between publish and confirm: what a confirm or a return is about."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.amqp.events import Delivery, Return
from bridge.amqp.likeness import traits, unchanged
from bridge.errors import MalformedFrameError
from bridge.window.books import Histogram
from bridge.window.publishes import LIKENESS, Comparison, Publishes
from tests.support.frames import PERSISTENT, Properties, content, delivery, frame, table, text
from tests.support.targets import OWN_KEYS, QUEUE

if TYPE_CHECKING:
    from bridge.amqp.likeness import Traits, Unchanged
    from bridge.amqp.target import Target

SOURCE = object()
"""A source generation."""


class Scene:
    """Publishes of a generation that just began, and shorthands by delivery tag."""

    def __init__(self, *delivery_tags: int, target: Target = QUEUE, comparison: Comparison = LIKENESS) -> None:
        self.seconds = Histogram()
        self.publishes = Publishes(self.seconds, target, comparison)
        if delivery_tags:
            self.publishes.publish([delivery(tag) for tag in delivery_tags], 0.0, SOURCE)

    def publish(self, *deliveries: Delivery) -> None:
        """Some more."""
        self.publishes.publish(list(deliveries), 0.0, SOURCE)

    def fate(self, of: Delivery, *, accepted: bool = True) -> str:
        """Confirm one, wherever it stands, and ask what that means."""
        waiting = self.publishes
        seqno = waiting.next_seqno - len(waiting) + list(waiting._places).index(of)
        waiting.confirm(seqno, 0.0, multiple=False)
        return waiting.resolve(of, accepted=accepted)

    def fates(self) -> list[str]:
        """Confirm all at once, and ask what that means for each."""
        _, confirmed = self.publishes.confirm(0, 0.0, multiple=True)
        return [self.publishes.resolve(d, accepted=True) for d in confirmed if d is not None]

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
    scene.publishes.publish([delivery(3), delivery(13)], 0.0, SOURCE)
    scene.publishes.publish([delivery(14)], 0.0, SOURCE)
    assert not scene.publishes.rise_from(2)
    assert scene.publishes.rise_from(3)


def test_each_confirm_is_timed_by_its_own_batch_when_it_comes() -> None:
    """Else the first of a batch would seem to have waited as long as its last."""
    scene = Scene(*range(11, 15))
    scene.publishes.publish([delivery(15), delivery(16)], 1.0, SOURCE)
    scene.publishes.publish([delivery(17)], 2.0, SOURCE)
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
    scene.publishes.publish([delivery(12)], 1.0, SOURCE)
    scene.publishes.publish([delivery(13), delivery(14)], 1.0, SOURCE)
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
        scene.publishes.publish([delivery(1) for _ in range(size)], float(number), SOURCE)
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
    scene.publishes.publish([delivery(1), delivery(2)], 100.0, SOURCE)
    scene.publishes.publish([delivery(3), delivery(4)], 120.0, SOURCE)
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
    scene.publishes.publish([delivery(1)], 100.0, SOURCE)
    for blocked_s in (110.0, 220.0):
        scene.publishes.blocked(blocked_s)
        scene.publishes.blocked(blocked_s + 50.0)
        scene.publishes.unblocked(blocked_s + 100.0)
    scene.publishes.publish([delivery(2)], 325.0, SOURCE)
    assert not scene.publishes.overdue(329.9, 30.0)
    assert scene.publishes.overdue(330.0, 30.0), "10 s each before it was blocked, and 10 s after that"
    scene.confirm(1, 331.0)
    assert not scene.publishes.overdue(354.9, 30.0)
    assert scene.publishes.overdue(355.0, 30.0)


def test_what_waits_is_orphaned_for_every_other_source_generation() -> None:
    scene = Scene()
    assert not scene.publishes.orphaned_for(SOURCE), "nothing waits"
    scene.publishes.publish([delivery(1), delivery(2)], 0.0, SOURCE)
    assert not scene.publishes.orphaned_for(SOURCE)
    assert scene.publishes.orphaned_for(object())
    scene.confirm(2)
    assert scene.publishes.orphaned_for(object()), "the first still waits"
    scene.confirm(1)
    assert not scene.publishes.orphaned_for(object())


# --- Returns ----------------------------------------------------------------------------------------------------


def headers(**fields: str) -> Properties:
    return PERSISTENT | {"headers": table({name: text(value) for name, value in fields.items()})}


def test_a_return_with_nothing_published_is_malformed() -> None:
    scene = Scene()
    with pytest.raises(MalformedFrameError, match="that was not published"):
        scene.returned(b"1")
    scene.publish(delivery(1))
    scene.returned(b"1")
    with pytest.raises(MalformedFrameError, match="that was not published"):
        scene.returned(b"1")


def test_a_return_is_about_the_one_whose_body_it_has() -> None:
    scene = Scene(1, 2, 3)
    assert not scene.publishes.unresolved
    scene.returned(b"2")
    assert scene.publishes.unresolved
    assert scene.fates() == ["accepted", "returned", "accepted"]
    assert not scene.publishes.unresolved


def test_each_return_counts_for_one_confirm_of_those_that_are_alike() -> None:
    scene = Scene()
    alike = [delivery(tag, b"same") for tag in range(1, 5)]
    scene.publish(*alike)
    scene.confirm(2)
    scene.returned(b"same")
    scene.returned(b"same")
    assert [scene.fate(d) for d in (alike[0], *alike[2:])] == ["returned", "returned", "accepted"]


def test_a_return_counts_for_one_that_was_published_later_and_is_like_it() -> None:
    """Which of the two it was does not matter."""
    scene = Scene()
    one, other = delivery(1, b"same"), delivery(2, b"same")
    scene.publish(one)
    scene.returned(b"same")
    scene.publish(other)
    assert [scene.fate(other), scene.fate(one)] == ["returned", "accepted"]


def test_what_is_refused_was_not_returned() -> None:
    scene = Scene()
    alike = [delivery(tag, b"same") for tag in (1, 2, 3)]
    scene.publish(*alike)
    scene.returned(b"same")
    assert scene.fate(alike[0], accepted=False) == "accepted"
    assert scene.publishes.unresolved
    assert scene.fate(alike[1], accepted=False) == "accepted"
    assert scene.fate(alike[2], accepted=False) == "accepted"
    assert not scene.publishes.unresolved, "none of them is left that it could be about"


def test_returns_in_another_order_are_found_too() -> None:
    scene = Scene()
    several = [delivery(1, b"same"), delivery(2, b"same"), delivery(3, b"other"), delivery(4, b"same")]
    scene.publish(*several)
    scene.returned(b"other")
    scene.publishes.confirm(4, 0.0, multiple=False)
    scene.publishes.resolve(several[3], accepted=True)
    scene.returned(b"same")
    scene.returned(b"same")
    assert [scene.fate(d) for d in several[:3]] == ["returned", "returned", "returned"]


def test_with_keys_of_their_own_a_return_is_matched_by_key_too() -> None:
    scene = Scene(target=OWN_KEYS)
    several = [delivery(tag, b"same", routing_key=key) for tag, key in ((1, "a"), (2, "b"))]
    scene.publish(*several)
    scene.returned(b"same", key="b")
    assert scene.fates() == ["accepted", "returned"]


STAMPED = {"timestamp_in_ms": text("1"), "x-routed-by": text("node")}


def test_whatever_the_broker_changed_the_id_tells_which_it_is() -> None:
    """As a destination with an interceptor does, and any of RabbitMQ 4.x with a header that it has in another form."""
    scene = Scene()
    scene.publish(*(delivery(tag, b"same", headers(k="v") | {"message_id": b"m-%d" % tag}) for tag in range(1, 9)))
    scene.returned(b"same", headers(other="form") | {"message_id": b"m-5", "timestamp": bytes(8)})
    assert scene.fates() == [*["accepted"] * 4, "returned", *["accepted"] * 3]


def test_of_those_with_one_id_and_body_the_headers_tell_which_it_is_as_far_as_they_can() -> None:
    scene = Scene()
    scene.publish(*(delivery(number, b"same", headers(n=str(number))) for number in (1, 2, 3)))
    scene.returned(b"same", PERSISTENT | {"headers": table({"n": text("2")} | STAMPED)})
    assert scene.fates() == ["accepted", "returned", "accepted"]


def test_where_they_cannot_tell_all_that_it_may_be_are_in_doubt() -> None:
    """The second may have got its header from an interceptor of the destination, for all that is known here."""
    scene = Scene()
    first, second, third, other = (headers(), headers(x="1"), headers(x="2"), headers(x="1", y="1"))
    scene.publish(*(delivery(tag, b"same", p) for tag, p in enumerate((first, second, third, other), 1)))
    scene.returned(b"same", second)
    assert scene.publishes.unresolved
    scene.returned(b"same", third)
    assert scene.fates() == ["doubtful", "doubtful", "doubtful", "accepted"]
    assert not scene.publishes.unresolved
    assert not scene.publishes.unrecognised


def test_where_no_broker_is_known_to_do_that_all_of_the_id_and_body_are_in_doubt() -> None:
    scene = Scene()
    scene.publish(*(delivery(tag, b"same", headers(x=str(tag))) for tag in (1, 2)), delivery(3, b"other"))
    scene.returned(b"same", headers(x="rewritten"))
    assert scene.fates() == ["doubtful", "doubtful", "accepted"]
    assert not scene.publishes.unrecognised


def test_what_was_returned_already_is_not_in_doubt() -> None:
    """So the last of several is known, though it was changed beyond recognition."""
    scene = Scene(1, 2, 3)
    scene.returned(b"1")
    scene.returned(b"3")
    scene.returned(b"changed beyond recognition")
    assert scene.fates() == ["returned", "returned", "returned"]
    assert not scene.publishes.unrecognised


def test_if_nothing_fits_all_are_in_doubt_and_the_destination_is_known_for_it() -> None:
    scene = Scene(1, 2, 3)
    scene.returned(b"2")
    scene.returned(b"changed beyond recognition")
    assert scene.fates() == ["doubtful", "returned", "doubtful"]
    assert scene.publishes.unrecognised


def test_what_is_published_after_a_return_is_not_in_doubt() -> None:
    scene = Scene(1, 2)
    scene.returned(b"changed beyond recognition")
    scene.publish(delivery(3))
    assert scene.fates() == ["doubtful", "doubtful", "accepted"]


def test_a_doubt_ends_with_a_refusal() -> None:
    scene = Scene()
    several = [delivery(1), delivery(2)]
    scene.publish(*several)
    scene.returned(b"changed beyond recognition")
    assert [scene.fate(d, accepted=False) for d in several] == ["doubtful", "doubtful"]
    assert not scene.publishes.unresolved
    scene.publish(*several)
    assert [scene.fate(d) for d in several] == ["accepted", "accepted"]


def test_what_cannot_be_read_may_be_what_came_back() -> None:
    unreadable = frame(2, 1, pack(">HHQH", 60, 0, 0, 0x8000) + b"\xffshort")
    scene = Scene()
    scene.publish(delivery(1), delivery(2)._replace(content=unreadable), delivery(3))
    scene.returned(b"3")
    assert scene.fates() == ["accepted", "doubtful", "doubtful"]
    scene.publish(delivery(4), delivery(5)._replace(content=unreadable))
    scene.publishes.returned(Return(1, 312, "NO_ROUTE", b"\x02ex\x03key", unreadable, 0))
    assert scene.fates() == ["accepted", "returned"]


def test_what_is_in_doubt_already_is_not_looked_at_again() -> None:
    """Until another of them is published."""
    compared: list[bytes] = []

    def noted(content: bytes) -> Traits:
        compared.append(content)
        return traits(content)

    scene = Scene(comparison=Comparison(traits=noted))
    several = [delivery(tag, b"same", headers(x=str(tag))) for tag in (1, 2, 3)]
    scene.publish(*several[:2])
    scene.returned(b"same", headers(x="rewritten"))
    scene.returned(b"same", headers(x="rewritten"))
    assert len(compared) == 1
    scene.publish(several[2])
    scene.returned(b"same", headers(x="rewritten"))
    assert len(compared) == 2
    assert scene.fates() == ["doubtful"] * 3


def test_of_too_many_with_one_id_and_body_all_are_in_doubt() -> None:
    scene = Scene(comparison=Comparison(most=2))
    scene.publish(*(delivery(tag, b"same", headers(x=str(tag))) for tag in (1, 2, 3)))
    scene.returned(b"same", headers(x="2"))
    assert scene.fates() == ["doubtful"] * 3


def test_each_publish_is_looked_at_once_however_many_are_returned() -> None:
    """Thousands may be returned before their confirms: a search among all each time stops the bridge for seconds."""
    looked_at: list[bytes] = []

    def noted(content: bytes) -> Unchanged | None:
        looked_at.append(content)
        return unchanged(content)

    scene = Scene(*range(101, 200), comparison=Comparison(unchanged=noted))
    scene.confirm(10, multiple=True)
    for tag in range(111, 200):
        scene.returned(b"%d" % tag)
    assert len(looked_at) == 2 * 89, "each publish, and each return"
    assert scene.fates() == ["returned"] * 89
    assert not scene.publishes._alike
    assert not scene.publishes._candidates


contents = st.lists(
    st.tuples(st.sampled_from((b"a", b"b")), st.sets(st.sampled_from(("x", "y", "z")))), min_size=1, max_size=6
)


@given(
    messages=contents,
    data=st.data(),
    added=st.sets(st.sampled_from(("x", "y", "stamp"))),
    mangled=st.booleans(),
)
def test_whatever_is_returned_and_however_it_is_changed_nothing_that_came_back_is_taken(
    messages: list[tuple[bytes, set[str]]], data: st.DataObject, added: set[str], *, mangled: bool
) -> None:
    """Of the publishes with one content, as many are taken as arrived; those in doubt count for nothing."""

    def properties(names: set[str]) -> Properties:
        return headers(**dict.fromkeys(sorted(names), "1"))

    scene = Scene()
    several = [delivery(tag, body, properties(names)) for tag, (body, names) in enumerate(messages, 1)]
    scene.publish(*several)
    back = data.draw(st.sets(st.integers(0, len(several) - 1)))
    for index in sorted(back):
        body, names = messages[index]
        scene.returned(b"mangled" if mangled else body, properties(names | added))
    fates = scene.fates()
    for content_ in {d.content for d in several}:
        alike = [index for index, d in enumerate(several) if d.content == content_]
        taken = sum(fates[index] == "accepted" for index in alike)
        assert taken <= len(alike) - len(back.intersection(alike))
    if not (mangled or added) and len({body for body, _ in messages}) == len(messages):
        assert [fate != "accepted" for fate in fates] == [index in back for index in range(len(several))]


def test_a_successor_is_empty_and_counts_from_1_again() -> None:
    scene = Scene(1, 2)
    successor = scene.publishes.successor()
    assert (len(successor), successor.next_seqno) == (0, 1)
    assert len(scene.publishes) == 2
