"""The memory: each confirmed copy covers one redelivery, for a while, within bounds; and it knows what it lost."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.identity import identity
from bridge.window.memory import ACKED_S, DELIVERY_BYTES, KEPT_BYTES, KEY_BYTES, REMEMBERED_S, Memory, MemoryLimits
from tests.support.frames import PERSISTENT, Properties, delivery, table

if TYPE_CHECKING:
    from bridge.amqp.events import Delivery

_numbers = count(1)


def message(message_id: str, size: int = 0, **properties: bytes) -> Delivery:
    identified: Properties = PERSISTENT | {"message_id": message_id.encode()} | properties
    return delivery(next(_numbers), b"x" * size, identified)


def acked(memory: Memory, *messages: Delivery) -> None:
    memory.acked(list(messages), sum(len(m.content) for m in messages))


def hear(memory: Memory, from_s: float, to_s: float) -> None:
    """Deliveries come twice a second."""
    for half in range(int(from_s * 2), int(to_s * 2) + 1):
        memory.heard(half / 2)


@pytest.fixture
def memory() -> Memory:
    return Memory(enabled=True)


def limited(**limits: int) -> Memory:
    return Memory(enabled=True, limits=MemoryLimits(**limits))


SIZES = pytest.mark.parametrize("size", (0, KEPT_BYTES), ids=("kept whole", "kept as hashes"))


@SIZES
def test_what_was_acked_shortly_before_the_loss_covers_one_redelivery_each(memory: Memory, size: int) -> None:
    acked(memory, message("a", size), message("b", size))
    acked(memory, message("c", size))
    memory.acks_lost([])
    assert len(memory) == 3
    for name in "abc":
        assert memory.recall(message(name, size))
        assert not memory.recall(message(name, size))
    assert len(memory) == 0


def test_nothing_is_recalled_before_a_generation_has_ended(memory: Memory) -> None:
    """A redelivered message of that id may then be another one's return to the queue."""
    acked(memory, message("a"))
    assert not memory.recall(message("a"))


@SIZES
def test_what_was_acked_long_before_the_loss_is_not_remembered(memory: Memory, size: int) -> None:
    acked(memory, message("old", size))
    hear(memory, 0.0, 0.5)
    acked(memory, message("young", size))
    hear(memory, 1.0, ACKED_S)
    memory.acks_lost([])
    assert not memory.recall(message("old", size))
    assert memory.recall(message("young", size))


def test_acks_do_not_age_while_nothing_is_heard(memory: Memory) -> None:
    """A connection is dead for a while before that is noticed; what was buffered may still be read after it."""
    hear(memory, 0.0, 5.0)
    acked(memory, message("a"))
    memory.heard(200.0)
    acked(memory, message("b"))
    memory.acks_lost([])
    assert memory.recall(message("a"))
    assert memory.recall(message("b"))


def test_an_ack_counts_for_its_own_generation_only(memory: Memory) -> None:
    acked(memory, message("a"))
    memory.acks_lost([])
    assert memory.recall(message("a"))
    memory.acks_lost([])
    assert not memory.recall(message("a"))


def test_copies_are_counted(memory: Memory) -> None:
    memory.remember(message("a"))
    memory.remember(message("a"))
    assert [memory.recall(message("a")) for _ in range(3)] == [True, True, False]


def test_another_message_of_the_same_id_is_not_taken_for_it(memory: Memory) -> None:
    memory.remember(message("a", 5))
    assert not memory.recall(message("a", 6))
    assert not memory.recall(message("a", 5, type=b"t"))
    assert not memory.recall(delivery(1, b"xxxxx"))
    assert memory.recall(message("a", 5))


@SIZES
def test_messages_without_an_id_are_never_remembered(memory: Memory, size: int) -> None:
    nameless = delivery(1, b"x" * size)
    memory.remember(nameless)
    assert len(memory) == 0
    acked(memory, nameless)
    memory.acks_lost([])
    assert len(memory) == 0
    assert not memory.vouches_for(nameless)


def test_switched_off_it_remembers_nothing_and_vouches_for_nothing_after_a_loss() -> None:
    memory = Memory(enabled=False)
    acked(memory, message("a"))
    memory.remember(message("a"))
    assert memory.vouches_for(message("a"))
    memory.acks_lost([])
    assert not memory.recall(message("a"))
    assert not memory.vouches_for(message("a"))


def test_it_forgets_a_while_after_consuming_began_again(memory: Memory) -> None:
    memory.remember(message("a"))
    memory.expire(1e9)
    assert len(memory) == 1, "an outage may last: redeliveries come only after it"
    memory.consuming(1e9)
    memory.consuming(1e9 + 200.0)
    memory.expire(1e9 + REMEMBERED_S - 0.1)
    assert len(memory) == 1
    memory.expire(1e9 + REMEMBERED_S)
    assert len(memory) == 0
    assert not memory.recall(message("a"))


def test_what_was_forgotten_before_it_came_again_is_not_vouched_for_until_the_next_loss(memory: Memory) -> None:
    memory.acks_lost([])
    memory.remember(message("a"))
    memory.consuming(0.0)
    assert memory.vouches_for(message("b")), "all that may come again is known"
    memory.expire(REMEMBERED_S)
    assert not memory.vouches_for(message("a"))
    memory.acks_lost([])
    memory.consuming(REMEMBERED_S)
    assert memory.vouches_for(message("a")), "another generation, and nothing was forgotten in it"


def test_time_does_not_count_while_nothing_is_taken(memory: Memory) -> None:
    """The redeliveries wait, too; else they would be copies that nobody counts."""
    memory.remember(message("a"))
    memory.expire(0.0)
    memory.consuming(0.0)
    memory.expire(REMEMBERED_S, taking=False)
    memory.expire(2 * REMEMBERED_S - 0.1)
    assert memory.recall(message("a"))


def test_what_came_round_again_and_was_not_forwarded_is_not_taken_for_its_first_copy(memory: Memory) -> None:
    """As a retry does. Which of them a redelivery is cannot be told; the worst case is a duplicate, not vouched for."""
    acked(memory, message("a"), message("a"), message("b"))
    memory.acks_lost([message("a"), message("c")])
    assert not memory.recall(message("a"))
    assert not memory.vouches_for(message("a"))
    assert memory.recall(message("b"))


def test_what_was_requeued_is_not_taken_for_its_first_copy_until_it_was_forwarded(memory: Memory) -> None:
    acked(memory, message("a"), message("b"))
    memory.requeued(message("a"))
    memory.acks_lost([])
    assert not memory.recall(message("a"))
    assert memory.recall(message("b"))
    again = message("a")._replace(redelivered=1)
    acked(memory, again)
    memory.acks_lost([])
    assert memory.recall(again), "it is back, and was forwarded"


def test_forwarding_another_message_of_the_same_id_does_not_stand_for_the_requeued_one(memory: Memory) -> None:
    memory.requeued(message("a"))
    acked(memory, message("a"))
    memory.acks_lost([])
    assert not memory.recall(message("a")), "what was requeued is still to come"


def test_more_acks_than_can_be_remembered_are_not_vouched_for() -> None:
    memory = limited(remembered_messages=1)
    acked(memory, message("a"), message("b"))
    memory.acks_lost([])
    assert not memory.vouches_for(message("a"))


def test_after_a_message_was_requeued_its_like_is_no_longer_suppressed(memory: Memory) -> None:
    acked(memory, message("a"))
    memory.acks_lost([])
    memory.requeued(message("a"))
    memory.requeued(delivery(1, b"", PERSISTENT))
    assert not memory.recall(message("a"))
    assert not memory.vouches_for(message("a"))


def test_a_suppressed_redelivery_may_come_again(memory: Memory) -> None:
    acked(memory, message("a"))
    memory.acks_lost([])
    assert memory.recall(message("a"))
    memory.suppressed(message("a"))
    memory.acks_lost([])
    assert memory.recall(message("a"))


def test_messages_that_are_kept_whole_are_bounded_in_bytes_too() -> None:
    whole = message("w", KEPT_BYTES // 2)
    memory = limited(acked_bytes=2 * (DELIVERY_BYTES + len(whole.content)))
    for name in ("w", "x", "y"):
        acked(memory, message(name, KEPT_BYTES // 2))
    assert [len(deliveries) for _, deliveries, _, _ in memory._acked] == [1, 1]


def test_identities_are_bounded_in_bytes_too_and_what_falls_out_is_not_vouched_for() -> None:
    memory = limited(acked_bytes=3 * KEY_BYTES)
    for number in range(9):
        acked(memory, message(f"k-{number}", KEPT_BYTES))
    assert [len(keys) for _, _, keys, _ in memory._acked] == [1, 1, 1]
    memory.acks_lost([])
    assert len(memory) == 3
    assert memory.recall(message("k-8", KEPT_BYTES))
    assert not memory.vouches_for(message("k-0", KEPT_BYTES))


def test_the_identity_of_a_redelivery_is_worked_out_once() -> None:
    """Until it is forwarded, requeued, suppressed or remembered for the next generation."""
    worked_out: list[bytes] = []

    def counted(route: bytes, content: bytes) -> bytes | None:
        worked_out.append(content)
        return identity(route, content)

    memory = Memory(enabled=True, identify=counted)
    acked(memory, message("suppressed"), message("other"))
    memory.requeued(message("elsewhere"))
    memory.acks_lost([])
    worked_out.clear()
    names = ("suppressed", "forwarded", "returned", "orphan", "unforwarded", "quarantined")
    redelivered = {name: message(name)._replace(redelivered=1) for name in names}
    assert [memory.recall(d) for d in redelivered.values()] == [True, False, False, False, False, False]
    assert all(memory.vouches_for(d) for d in redelivered.values())
    memory.suppressed(redelivered["suppressed"])
    acked(memory, redelivered["forwarded"])
    memory.requeued(redelivered["returned"])
    memory.quarantined(redelivered["quarantined"])
    memory.acks_lost([redelivered["unforwarded"]])
    memory.remember(redelivered["orphan"])
    assert sorted(worked_out) == sorted(d.content for d in redelivered.values())
    assert not memory._known


def test_a_redelivery_is_not_taken_for_another_generations_of_the_same_tag(memory: Memory) -> None:
    memory.remember(message("a"))
    one, other = (message(name)._replace(redelivered=1, delivery_tag=7) for name in "ab")
    assert memory.recall(one)
    assert not memory.recall(other)
    memory.remember(other)
    assert memory.recall(other)
    memory.remember(one)
    assert memory.recall(one)


def test_redeliveries_are_noted_with_the_others_of_their_batch(memory: Memory) -> None:
    memory.remember(message("z"))
    again = message("b")._replace(redelivered=1)
    assert not memory.recall(again)
    acked(memory, message("a"), again, delivery(1, b"", PERSISTENT, redelivered=1), message("c"))
    memory.acks_lost([])
    assert all(memory.recall(message(name)) for name in "abc")


def test_another_message_under_the_same_id_is_not_taken_for_it(memory: Memory) -> None:
    """A killed classic queue flags every ready message as redelivered, a retry by an application among them."""
    first = message("a", headers=table({"x-retry": b"I" + bytes(4)}))
    acked(memory, first)
    memory.acks_lost([])
    for field in (table({"x-retry": b"I" + bytes(3) + b"\1"}), table({})):
        assert not memory.recall(message("a", headers=field))
    assert not memory.recall(first._replace(route=b"\x02ex\x05other"))
    assert memory.recall(first)


def test_large_messages_without_an_id_leave_nothing_behind(memory: Memory) -> None:
    """Batches of nothing would pile up for ever."""
    for _ in range(3):
        acked(memory, delivery(1, b"x" * KEPT_BYTES, PERSISTENT))
    assert not memory._acked


def test_a_loss_gives_more_time(memory: Memory) -> None:
    memory.remember(message("a"))
    memory.consuming(0.0)
    memory.acks_lost([])
    memory.expire(REMEMBERED_S)
    assert memory.recall(message("a"))


def test_recent_acks_are_bounded_and_what_falls_out_is_not_vouched_for() -> None:
    memory = limited(acked_messages=3)
    acked(memory, message("a"), message("b"))
    hear(memory, 0.0, 1.0)
    acked(memory, message("c"), message("d"))
    memory.acks_lost([])
    assert not memory.recall(message("a"))
    assert memory.recall(message("c"))
    assert not memory.vouches_for(message("a"))


def test_what_falls_out_when_it_is_old_is_no_loss() -> None:
    memory = limited(acked_messages=1)
    acked(memory, message("a"))
    hear(memory, 0.0, ACKED_S)
    acked(memory, message("b"))
    memory.acks_lost([])
    assert memory.vouches_for(message("a"))


def test_an_overflow_long_before_the_loss_is_no_loss() -> None:
    memory = limited(acked_messages=1)
    acked(memory, message("a"))
    acked(memory, message("b"))
    hear(memory, 0.0, ACKED_S)
    memory.acks_lost([])
    assert memory.vouches_for(message("a"))


def test_what_is_remembered_is_bounded_the_oldest_goes_first() -> None:
    memory = limited(remembered_messages=2)
    memory.acks_lost([])
    for name in "aba":
        memory.remember(message(name))
    assert memory.vouches_for(message("z"))
    memory.remember(message("c"))
    assert len(memory) == 2
    assert not memory.recall(message("b"))
    assert memory.recall(message("a"))
    assert not memory.vouches_for(message("z"))


def test_after_it_forgot_it_vouches_again() -> None:
    memory = limited(remembered_messages=0)
    memory.acks_lost([])
    memory.remember(message("a"))
    assert not memory.vouches_for(message("a"))
    memory.consuming(0.0)
    memory.expire(REMEMBERED_S)
    assert memory.vouches_for(message("a"))


def test_before_any_loss_a_redelivery_is_not_this_processs_own(memory: Memory) -> None:
    assert memory.vouches_for(delivery(1))
