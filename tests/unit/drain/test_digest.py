"""The digest of what was confirmed: no matter in which order, and twins count."""

from __future__ import annotations

from hashlib import blake2b

from bridge.amqp.origin import Origins
from bridge.drain.digest import MOST_TARGETS, Tally, message_digest
from tests.support.frames import content, delivery
from tests.unit.amqp.test_origin import dead, died

ID = {"delivery_mode": b"\x02", "message_id": b"one"}


def digest_of(*deliveries: object) -> str:
    tally = Tally()
    tally.confirmed(deliveries)  # type: ignore[arg-type]  # deliveries
    return tally.digest


def test_a_message_is_its_id_with_the_length_first_and_its_body() -> None:
    expected = int.from_bytes(blake2b(b"\3onebody", digest_size=16).digest(), "big")
    assert message_digest(b"\3one", [b"bo", b"dy"]) == expected
    assert digest_of(delivery(1, b"body", ID)) == f"{expected:032x}"


def test_the_order_does_not_matter_and_twins_count() -> None:
    one, other = delivery(1, b"a", ID), delivery(2, b"b", ID)
    assert digest_of(one, other) == digest_of(other, one)
    assert digest_of(one, one) not in {digest_of(one), f"{0:032x}"}


def test_neither_route_nor_headers_nor_frames_matter() -> None:
    moved = delivery(9, b"abc", {**ID, "priority": b"\x03"}, routing_key="elsewhere")
    moved = moved._replace(content=content(b"abc", {**ID, "priority": b"\x03"}, step=1))
    assert digest_of(moved) == digest_of(delivery(1, b"abc", ID))


def test_the_id_cannot_be_taken_for_a_part_of_the_body() -> None:
    assert digest_of(delivery(1, b"ab", {"message_id": b"c"})) != digest_of(delivery(1, b"b", {"message_id": b"ca"}))


def test_properties_that_cannot_be_read_have_no_id() -> None:
    whole = delivery(1, b"b", {"message_id": b"id"})
    broken = whole._replace(content=whole.content.replace(b"\2id", b"\xffid"))
    assert digest_of(broken) == digest_of(delivery(1, b"b"))


def test_messages_and_bytes_are_counted() -> None:
    tally = Tally()
    tally.confirmed([delivery(1, b"abc"), delivery(2, b"de")])
    tally.confirmed([delivery(3, b"")])
    assert (tally.messages, tally.size_bytes) == (3, 5)


def test_what_is_counted_by_target_is_what_was_confirmed() -> None:
    tally = Tally(Origins.back("exchange", "dead", "mine"))
    tally.confirmed([delivery(1, b"m", dead(died("work", "shop", "key"))), delivery(2, b"m", dead(died("work", "x")))])
    tally.confirmed([delivery(3, b"m", dead(died("other", "shop", "key")))])
    assert tally.targets == {"shop": 2, "x": 1}
    plain = Tally()
    plain.confirmed([delivery(1, b"m", dead(died("work")))])
    assert not plain.targets


def test_a_publisher_that_forges_names_fills_no_memory() -> None:
    tally = Tally(Origins.back("queue", "dead", "mine"))
    tally.confirmed(
        delivery(number + 1, b"m", dead(died(f"work-{number % (MOST_TARGETS + 5)}")))
        for number in range(MOST_TARGETS + 7)
    )
    assert len(tally.targets) == MOST_TARGETS
    assert tally.targets["work-1"] == 2
    assert tally.messages == MOST_TARGETS + 7


def test_what_names_no_origin_has_no_target() -> None:
    """A broken bridge's: the selection admits none."""
    tally = Tally(Origins.back("queue", "dead", "mine"))
    tally.confirmed([delivery(1)])
    assert (tally.messages, tally.targets) == (1, {})
