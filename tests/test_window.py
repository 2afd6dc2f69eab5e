"""The window: each row of its table directly, and anything in any order against a naive model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from bridge.books import Books
from bridge.errors import MalformedFrameError
from bridge.memory import Memory
from bridge.window import (
    ASIDE_RETRY_MAX_S,
    FIRST_PUBLISH_WINDOW,
    LIMIT_TTL_S,
    RETRY_MAX_S,
    RETURNS_IN_A_ROW,
    Window,
    WindowLimits,
)
from bridge.wire import Close, Delivery, Return
from tests.frames import PERSISTENT, Properties, content, delivery, table, text
from tests.window_model import LIMITS, WindowMachine


class NoQuarantine(WindowMachine):
    """What the destination refuses is held."""

    limits = replace(LIMITS, quarantine=False)


class OwnKeys(WindowMachine):
    """A route is a matter of the message."""

    limits = replace(LIMITS, own_keys=True, prefetch=7)


@pytest.mark.parametrize(
    ("machine", "examples"),
    ((WindowMachine, 200), (NoQuarantine, 60), (OwnKeys, 60)),
    ids=("quarantine", "no quarantine", "own keys"),
)
def test_in_any_order_of_events_the_invariants_hold_and_in_the_end_all_is_settled(
    machine: type[WindowMachine], examples: int
) -> None:
    limits = settings(max_examples=examples, stateful_step_count=60, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


class Scene:
    """A window with both sides open, and shorthands by delivery tag."""

    def __init__(self, chance: float = 1.0, **limits: float) -> None:
        self.now_s = 1000.0
        self.books = Books()
        self.window = Window(
            replace(WindowLimits(), **limits),  # type: ignore[arg-type]  # numbers and booleans by name
            self.books,
            Memory(enabled=True),
            lambda: chance,
        )
        self.window.source_opened()
        self.window.destination_opened(self.now_s)

    def receive(self, *delivery_tags: int) -> None:
        """Plain deliveries."""
        self.receive_each(*(delivery(tag, received_s=self.now_s) for tag in delivery_tags))

    def receive_each(self, *deliveries: Delivery) -> None:
        """Deliveries of one chunk."""
        notable = any(d.redelivered or d.delivery_count for d in deliveries)
        self.window.receive(list(deliveries), self.now_s, notable=notable)

    def take(self) -> list[int]:
        """Delivery tags of what is published now."""
        return [d.delivery_tag for d in self.window.take(1 << 20, self.now_s)]

    def confirm(self, publish_seqno: int, *, multiple: bool = False, accepted: bool = True) -> None:
        """`basic.ack` or `basic.nack`."""
        self.window.confirm(publish_seqno, self.now_s, multiple=multiple, accepted=accepted)

    def returned(self, body: bytes, key: str = "key", properties: Properties = PERSISTENT) -> None:
        """`basic.return`."""
        route = b"\x02ex" + bytes([len(key)]) + key.encode()
        self.window.returned(Return(1, 312, "NO_ROUTE", route, content(body, properties), len(body)), self.now_s)

    def refuse_route(self, delivery_tag: int, publish_seqno: int) -> None:
        """Returned and then confirmed, as the protocol has it."""
        self.returned(b"%d" % delivery_tag)
        self.confirm(publish_seqno)

    def lose_destination(self, code: int = 0, why: str = "") -> None:
        """Its generation ends, with the broker's word or without."""
        self.window.destination_lost(Close(1, code, why) if code else None, self.now_s)

    def reopen_destination(self) -> None:
        """Its next generation begins."""
        self.window.destination_opened(self.now_s)

    def wait(self, seconds: float) -> None:
        """Time passes, and is told."""
        self.now_s += seconds
        self.window.tick(self.now_s)

    def acks(self) -> list[tuple[int, bool]]:
        """What is acked since last asked: delivery tags, and whether with all below."""
        found = list(self.window.acks)
        self.window.acks.clear()
        return found

    def verdicts(self) -> list[tuple[int, str, int]]:
        """What is bound for the quarantine: delivery tag, reason and reply code."""
        return [(d.delivery_tag, v.reason, v.reply_code) for d, v in self.window.condemned]


# --- received → held → published → confirmed → acked -----------------------------------------------------------


def test_confirmed_in_order_means_one_cumulative_ack() -> None:
    scene = Scene()
    scene.receive(*range(1, 6))
    assert scene.take() == [1, 2, 3, 4, 5]
    assert scene.acks() == []
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(3, True)]
    scene.confirm(0, multiple=True)
    assert scene.acks() == [(5, True)]
    assert scene.books.forwarded == 5
    assert scene.window.last_forward_s == scene.now_s


def test_confirmed_out_of_order_means_single_acks_and_none_twice() -> None:
    scene = Scene()
    scene.receive(*range(1, 6))
    scene.take()
    scene.confirm(2)
    scene.confirm(4)
    assert scene.acks() == [(2, False), (4, False)]
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (3, False)]
    scene.confirm(5)
    assert scene.acks() == [(5, True)]


def test_a_confirm_of_what_is_confirmed_already_is_nothing() -> None:
    scene = Scene()
    scene.receive(1, 2)
    scene.take()
    scene.confirm(1)
    scene.confirm(1)
    scene.confirm(1, multiple=True)
    assert scene.acks() == [(1, True)]


@pytest.mark.parametrize("publish_seqno", (3, 1 << 40, -1))
def test_a_confirm_of_what_was_never_published_is_malformed(publish_seqno: int) -> None:
    scene = Scene()
    scene.receive(1, 2)
    scene.take()
    with pytest.raises(MalformedFrameError, match="only 2 were made"):
        scene.confirm(publish_seqno)


def test_the_publish_window_doubles_with_each_round_up_to_the_prefetch() -> None:
    scene = Scene(prefetch=50)
    scene.receive(*range(1, 301))
    rounds = []
    seqno = 0
    for _ in range(4):
        taken = len(scene.take())
        rounds.append(taken)
        seqno += taken
        scene.confirm(seqno, multiple=True)
    assert rounds == [FIRST_PUBLISH_WINDOW, 2 * FIRST_PUBLISH_WINDOW, 50, 50]


def test_a_batch_is_bounded_in_bytes() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    size = len(delivery(1).content)
    assert len(scene.window.take(size + 1, scene.now_s)) == 2
    assert len(scene.window.take(size, scene.now_s)) == 1


def test_confirms_and_residence_are_timed_in_the_books() -> None:
    scene = Scene()
    scene.receive(1)
    scene.now_s += 2.0
    scene.receive(2)
    scene.take()
    scene.now_s += 0.5
    scene.confirm(2, multiple=True)
    assert scene.books.confirm_seconds.total == 2 * 0.5
    assert scene.books.residence_seconds.total == 2.5 + 0.5


# --- The destination ends, blocks, nacks ------------------------------------------------------------------------


def test_destination_generation_ends_and_the_published_are_held_in_order_and_published_again() -> None:
    scene = Scene()
    scene.receive(*range(1, 6))
    scene.take()
    scene.confirm(2)
    scene.receive(6)
    scene.lose_destination()
    assert scene.take() == []
    scene.reopen_destination()
    assert scene.take() == [1, 3, 4, 5, 6], "invariant 5"
    assert scene.books.duplicates_possible == 4
    assert scene.books.publish_retries == {"destination-lost": 4}
    scene.confirm(5, multiple=True)
    assert (scene.acks()[-1], scene.window.in_flight) == ((6, False), 0)


def test_a_loss_with_nothing_published_makes_no_duplicates() -> None:
    scene = Scene()
    scene.receive(1)
    scene.lose_destination(320)
    assert scene.books.duplicates_possible == 0
    assert scene.books.publish_retries == {}


def test_nack_holds_them_in_order_narrows_the_window_and_backs_off_without_requeueing() -> None:
    scene = Scene()
    scene.receive(*range(1, 5))
    scene.take()
    scene.confirm(1)
    scene.confirm(3, multiple=True, accepted=False)
    assert scene.window.publish_window == 1
    assert scene.take() == []
    scene.confirm(4)
    scene.wait(0.2)
    assert scene.take() == [2]
    assert "its queue may be full" in scene.window.hindrance or scene.window.hindrance == ""
    scene.confirm(5)
    assert scene.take() == [3]
    assert scene.window.requeues == []
    assert scene.books.publish_retries == {"nack": 2}


def test_the_backoff_of_a_refusing_destination_doubles_with_jitter_up_to_its_most_and_ends_with_a_success() -> None:
    waits: list[list[float]] = []
    for chance in (0.0, 1.0):
        scene = Scene(chance)
        scene.receive(1)
        seqno = 0
        waits.append([])
        for _ in range(8):
            assert scene.take() == [1]
            seqno += 1
            scene.confirm(seqno, accepted=False)
            assert scene.window.hindrance == "refuses messages (nack: its queue may be full (reject-publish))"
            waits[-1].append(scene.window._backoff_until_s - scene.now_s)
            scene.now_s = scene.window._backoff_until_s
    assert waits[1] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S])
    assert waits[0] == pytest.approx([wait / 2 for wait in waits[1]])
    scene.take()
    scene.confirm(seqno + 1)
    assert scene.window.hindrance == ""
    assert scene.window.refuses_since(scene.now_s) == 0.0


def test_several_nacks_of_one_refusal_back_off_once() -> None:
    scene = Scene()
    scene.receive(1, 2)
    scene.take()
    scene.confirm(1, accepted=False)
    until_s = scene.window._backoff_until_s
    scene.confirm(2, accepted=False)
    assert scene.window._backoff_until_s == until_s


def test_blocked_writes_nothing_and_confirm_timeouts_stand_still() -> None:
    scene = Scene(confirm_timeout_s=30.0)
    scene.receive(1)
    scene.take()
    scene.window.destination_blocked(scene.now_s)
    scene.receive(2)
    scene.wait(1000.0)
    assert not scene.window.destination_ready
    assert not scene.window.publishable
    assert scene.take() == []
    assert scene.window.refuses_since(scene.now_s) == 1000.0
    assert not scene.window.confirm_overdue(scene.now_s)
    scene.window.destination_unblocked(scene.now_s)
    assert not scene.window.confirm_overdue(scene.now_s)
    assert scene.take() == [2]
    scene.wait(30.0)
    assert scene.window.confirm_overdue(scene.now_s)


def test_confirm_overdue_counts_from_the_last_sign_of_progress() -> None:
    scene = Scene(confirm_timeout_s=30.0)
    scene.wait(100.0)
    assert not scene.window.confirm_overdue(scene.now_s), "nothing is published"
    scene.receive(1, 2)
    scene.take()
    assert scene.window.publishing
    scene.wait(29.0)
    assert not scene.window.confirm_overdue(scene.now_s)
    scene.confirm(1)
    scene.wait(29.0)
    assert not scene.window.confirm_overdue(scene.now_s)
    scene.wait(1.0)
    assert scene.window.confirm_overdue(scene.now_s)
    scene.lose_destination()
    assert not scene.window.confirm_overdue(scene.now_s)
    assert not scene.window.publishing


def test_trouble_without_a_message_in_flight_is_over_when_the_destination_is_back() -> None:
    scene = Scene()
    scene.lose_destination()
    scene.wait(10.0)
    assert scene.window.refuses_since(scene.now_s) == 10.0
    scene.reopen_destination()
    scene.wait(0.1)
    assert scene.window.refuses_since(scene.now_s) == 0.0


# --- Returns ----------------------------------------------------------------------------------------------------


def test_a_returned_message_is_set_aside_the_others_pass_and_it_is_tried_again() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.refuse_route(1, 1)
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(2, False), (3, False)]
    assert scene.window.hindrance == "has no route for 1 messages, which are tried again"
    assert scene.window.oldest_received_s == scene.now_s
    scene.receive(4)
    assert scene.take() == [4], "others pass"
    scene.confirm(4)
    scene.wait(0.4)
    assert scene.take() == [1]
    scene.confirm(5)
    assert scene.acks() == [(4, False), (1, False)]
    assert scene.window.in_flight == 0
    assert scene.books.publish_retries == {"returned": 1}


def test_a_message_without_a_route_is_tried_ever_more_rarely_and_given_back_in_the_end() -> None:
    scene = Scene(hold_timeout_s=200.0)
    scene.receive(1)
    seqno, tries = 0, []
    while not scene.window.requeues:
        if scene.take():
            seqno += 1
            tries.append(scene.now_s - 1000.0)
            scene.refuse_route(1, seqno)
            scene.window._returns_in_a_row = 0  # others were taken meanwhile
        scene.wait(0.1)
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps == pytest.approx(
        [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, *[ASIDE_RETRY_MAX_S] * (len(gaps) - 7)], abs=0.11
    )
    assert scene.books.requeued == {"unroutable": 1}


def test_so_many_returns_in_a_row_blame_the_destination_and_the_oldest_is_tried_first() -> None:
    scene = Scene()
    scene.receive(*range(1, 7))
    scene.take()
    for tag in range(1, RETURNS_IN_A_ROW + 1):
        scene.refuse_route(tag, tag)
    assert scene.window.hindrance == "refuses messages (returned: no queue is bound for them)"
    for tag in range(RETURNS_IN_A_ROW + 1, 7):
        scene.refuse_route(tag, tag)
    scene.receive(7)
    scene.wait(0.01)
    assert scene.take() == [], "it backs off"
    scene.now_s += 10.0
    assert scene.take() == [], "the oldest goes first, and that is for the tick to arrange"
    scene.wait(0.0)
    assert scene.take() == [1]
    scene.confirm(7)
    taken = []
    while batch := scene.take():
        taken += batch
        scene.confirm(0, multiple=True)
    assert taken == [2, 3, 4, 5, 6, 7], "invariant 5: it was an outage of the destination"
    assert scene.window.requeues == []
    assert scene.window.hindrance == ""


def test_while_everything_is_returned_a_second_message_tries_too() -> None:
    """The oldest may have no route for ever, and the destination may have one for all others."""
    scene = Scene()
    scene.receive(*range(1, 5))
    scene.take()
    for tag in range(1, 5):
        scene.refuse_route(tag, tag)
    scene.wait(10.0)
    assert scene.take() == [1]
    scene.refuse_route(1, 5)
    scene.wait(0.0)
    assert scene.take() == [2]
    scene.confirm(6)
    assert scene.acks() == [(2, False)]
    assert scene.take() == [1, 3], "all others are tried again"


@pytest.mark.parametrize("other", (b"", b"2", b"22", b"x"))
def test_a_return_of_none_of_ours_is_malformed(other: bytes) -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"1"), delivery(2, b"33"))
    scene.take()
    with pytest.raises(MalformedFrameError, match="that was not published"):
        scene.returned(other)


def test_returns_are_matched_by_properties_and_the_set_of_headers() -> None:
    """RabbitMQ 4 returns the header table sorted."""
    scene = Scene()
    ordered = {"b": text("1"), "a": text("2")}
    many = [{"type": b"t"}, {"headers": table(ordered)}, {"headers": table(ordered | {"c": b"V"})}]
    scene.receive_each(*(delivery(tag, b"same", PERSISTENT | p) for tag, p in enumerate(many, 1)))
    scene.take()
    scene.returned(b"same", properties=PERSISTENT | {"headers": table(dict(sorted(ordered.items())))})
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (3, False)]


def test_returns_among_identical_messages_are_counted_one_for_one() -> None:
    scene = Scene()
    scene.receive_each(*(delivery(tag, b"same") for tag in range(1, 5)))
    scene.take()
    scene.confirm(1)
    scene.returned(b"same")
    scene.returned(b"same")
    scene.confirm(4, multiple=True)
    assert scene.acks() == [(1, True), (4, False)]
    assert scene.window.in_flight == 2


def test_with_keys_of_their_own_returns_are_matched_by_key() -> None:
    scene = Scene(own_keys=True)
    scene.receive_each(delivery(1, b"same", routing_key="a"), delivery(2, b"same", routing_key="b"))
    scene.take()
    scene.returned(b"same", key="b")
    scene.confirm(2, multiple=True)
    assert scene.acks() == [(1, False)]


# --- Poison -----------------------------------------------------------------------------------------------------


def test_poison_is_found_one_by_one_and_the_others_are_forwarded() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.lose_destination(406, "why")
    scene.reopen_destination()
    assert scene.take() == [1]
    scene.confirm(1)
    assert scene.take() == [2], "one at a time while there are suspects"
    scene.lose_destination(406, "why")
    assert scene.verdicts() == [(2, "poison", 406)]
    scene.reopen_destination()
    assert scene.take() == [3]
    scene.confirm(1)
    assert scene.acks() == [(1, False), (3, False)]
    assert scene.window.oldest_received_s == scene.now_s
    assert scene.window.quarantined()[1].reply_text == "why"
    assert scene.acks() == [(2, False)]
    assert scene.books.quarantined == {"poison": 1}


def test_a_close_that_blames_no_message_convicts_none() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(320, "CONNECTION_FORCED")
    assert scene.verdicts() == []
    scene.reopen_destination()
    assert scene.take() == [1]


def test_an_internal_error_must_be_caused_three_times_alone() -> None:
    scene = Scene()
    scene.receive(1)
    for _ in range(2):
        assert scene.take() == [1]
        scene.lose_destination(541, "INTERNAL_ERROR")
        assert scene.verdicts() == []
        scene.reopen_destination()
    assert scene.take() == [1]
    scene.lose_destination(541, "INTERNAL_ERROR")
    assert scene.verdicts() == [(1, "poison", 541)]


def test_a_success_in_between_clears_of_internal_errors() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(541)
    scene.reopen_destination()
    scene.take()
    scene.confirm(1)
    assert scene.window._strikes == {}


@pytest.mark.parametrize("code", (403, 404, 405))
def test_a_close_that_blames_the_destination_backs_off(code: int) -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(code, "no exchange")
    scene.reopen_destination()
    assert scene.window.publish_window == 1
    assert scene.take() == []
    assert scene.window.hindrance == "refuses messages (closed: no exchange)"
    scene.wait(0.2)
    assert scene.take() == [1]


def test_with_keys_of_their_own_a_refused_permission_is_the_messages() -> None:
    """Topic permissions: the message is set aside, others pass."""
    scene = Scene(own_keys=True)
    scene.receive(1, 2)
    scene.take()
    scene.lose_destination(403, "ACCESS_REFUSED")
    scene.reopen_destination()
    assert scene.take() == [1]
    scene.lose_destination(403, "ACCESS_REFUSED")
    scene.reopen_destination()
    assert scene.take() == [2]
    assert scene.verdicts() == []
    assert scene.books.held == 1


TOO_LARGE = "PRECONDITION_FAILED - message size 4 is larger than configured max size 3"


def test_a_size_limit_is_learned_and_the_next_is_caught_before_it_costs_a_channel() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"123"), delivery(2, b"1234"))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    assert scene.verdicts() == [(2, "too-large", 406)]
    scene.reopen_destination()
    assert scene.take() == [1], "no search is needed"
    scene.receive_each(delivery(3, b"12345"), delivery(4, b"123"))
    assert scene.verdicts()[1] == (3, "too-large", 406)
    assert scene.take() == [4]


def test_a_learned_limit_is_believed_for_a_while() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"1234"))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    scene.wait(LIMIT_TTL_S)
    scene.receive_each(delivery(2, b"12345"))
    assert scene.take() == [2]


def test_a_cumulative_ack_covers_nothing_that_is_not_confirmed_though_the_numbers_fit() -> None:
    """Publishes of 1, 4 and 3, in this order: the first is the lowest, the last two above it, and 2 is held."""
    scene = Scene()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    near_the_limit = delivery(3, redelivered=1, delivery_count=17)
    scene.receive_each(delivery(1), delivery(2, b"1234"), near_the_limit, delivery(4))
    assert scene.take() == [1, 4]
    scene.window.quarantine_refused(scene.now_s)
    scene.window.quarantine_refused(scene.now_s)
    assert scene.take() == [3]
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (4, False), (3, False)]


def test_a_limit_that_blames_none_of_the_published_means_a_search() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"1"))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    assert scene.verdicts() == [(1, "poison", 406)]


def test_without_a_quarantine_poison_is_held_shown_and_given_back() -> None:
    scene = Scene(quarantine=False, hold_timeout_s=60.0)
    scene.receive_each(delivery(1, b"1234"), delivery(2, b"1234", delivery_count=19))
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    scene.take()
    scene.lose_destination(406, TOO_LARGE)
    scene.reopen_destination()
    assert scene.verdicts() == []
    assert scene.window.hindrance == f"holds 1 messages that it refuses and no quarantine takes ({TOO_LARGE})"
    assert scene.take() == [2], "others pass, and are not caught by a limit"
    scene.wait(60.0)
    assert scene.window.requeues == [1]
    assert scene.books.requeued == {"poison": 1}


def test_what_the_quarantine_refuses_is_held_and_offered_again() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.lose_destination(406)
    scene.reopen_destination()
    scene.window.quarantine_refused(scene.now_s)
    assert scene.verdicts() == []
    assert scene.window.hindrance == "holds 1 messages that it refuses and no quarantine takes (poison)"
    scene.wait(RETRY_MAX_S)
    assert scene.verdicts() == [(1, "poison", 406)]
    assert scene.take() == []


# --- The source -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delivery_count", "limit", "caught"), ((17, 20, True), (16, 20, False), (99, 0, False)))
def test_a_delivery_near_the_limit_goes_to_the_quarantine(delivery_count: int, limit: int, *, caught: bool) -> None:
    scene = Scene(delivery_limit=limit)
    scene.receive_each(delivery(1, redelivered=1, delivery_count=delivery_count))
    assert bool(scene.verdicts()) == caught
    assert scene.take() == ([] if caught else [1])


def test_near_the_limit_and_refused_by_the_quarantine_its_best_chance_is_to_be_forwarded() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, redelivered=1, delivery_count=17))
    scene.window.quarantine_refused(scene.now_s)
    assert scene.take() == [1]


def test_source_generation_ends_and_all_of_the_window_is_stale() -> None:
    scene = Scene()
    scene.receive(*range(1, FIRST_PUBLISH_WINDOW + 4))
    scene.take()
    scene.confirm(1)
    scene.window.source_lost(scene.now_s)
    assert scene.acks() == [], "invariant 2: an ack that was not written is not written any more"
    assert scene.take() == []
    assert (scene.books.stale_held, scene.books.stale_published) == (3, FIRST_PUBLISH_WINDOW - 1)
    assert scene.window.orphans == FIRST_PUBLISH_WINDOW - 1
    assert scene.window.oldest_received_s is None
    assert scene.books.bytes_in_flight == 0


def identified(delivery_tag: int, name: str, redelivered: int = 0) -> Delivery:
    return delivery(delivery_tag, b"body", PERSISTENT | {"message_id": name.encode()}, redelivered=redelivered)


@pytest.mark.parametrize("fate", ("confirmed", "nacked", "returned", "lost"))
def test_an_orphans_fate_decides_over_its_redelivery(fate: str) -> None:
    scene = Scene()
    scene.receive_each(identified(1, "a"))
    scene.take()
    scene.window.source_lost(scene.now_s)
    if fate == "returned":
        scene.returned(b"body", properties=PERSISTENT | {"message_id": b"a"})
    if fate == "lost":
        scene.lose_destination(406, "poison, perhaps")
        scene.reopen_destination()
    else:
        scene.confirm(1, accepted=fate != "nacked")
    assert scene.window.orphans == 0
    scene.window.source_opened()
    scene.receive_each(identified(1, "a", redelivered=1))
    if fate == "confirmed":
        assert scene.acks() == [(1, False)]
        assert scene.books.suppressed == 1
        assert scene.take() == []
    else:
        assert scene.acks() == []
        assert scene.take() == [1]
    assert scene.books.imbalance == 0


def test_an_orphan_without_an_id_is_forwarded_again_and_counted() -> None:
    scene = Scene()
    scene.receive_each(delivery(1, b"body"))
    scene.take()
    scene.window.source_lost(scene.now_s)
    scene.confirm(1)
    scene.window.source_opened()
    scene.receive_each(delivery(1, b"body", redelivered=1))
    assert scene.take() == [1]
    assert scene.books.duplicates_possible == 1


def test_a_suppressed_redelivery_is_known_again_when_its_ack_was_lost_too() -> None:
    scene = Scene()
    scene.receive_each(identified(1, "a"))
    scene.take()
    scene.confirm(1)
    for _ in range(3):
        scene.window.source_lost(scene.now_s)
        scene.window.source_opened()
        scene.receive_each(identified(1, "a", redelivered=1))
        assert scene.acks() == [(1, False)]
    assert (scene.books.forwarded, scene.books.suppressed) == (1, 3)


def test_nothing_is_published_while_orphans_wait() -> None:
    scene = Scene()
    scene.receive(1)
    scene.take()
    scene.window.source_lost(scene.now_s)
    scene.window.source_opened()
    scene.receive(1)
    assert scene.take() == []
    assert scene.window.publishing
    scene.confirm(1)
    assert scene.take() == [1]


# --- Giving back ------------------------------------------------------------------------------------------------


def test_release_gives_back_all_that_is_not_published_in_order_and_what_still_comes() -> None:
    scene = Scene()
    scene.receive_each(delivery(1), delivery(2, redelivered=1, delivery_count=19), delivery(3), delivery(4))
    assert scene.take() == [1, 3, 4]
    scene.refuse_route(3, 2)
    scene.receive(5)
    scene.window.release("hold-timeout")
    assert scene.window.requeues == [2, 3, 5]
    scene.receive(6)
    assert scene.window.requeues == [2, 3, 5, 6]
    scene.window.released()
    scene.receive(7)
    assert scene.window.requeues == [2, 3, 5, 6]
    assert scene.books.requeued == {"hold-timeout": 4}
    scene.confirm(3, multiple=True)
    assert scene.acks() == [(1, False), (4, False)]


def test_release_leaves_what_is_on_its_way_to_the_quarantine() -> None:
    scene = Scene()
    scene.receive_each(*(delivery(tag, redelivered=1, delivery_count=19) for tag in (1, 2)))
    scene.window.quarantining = True
    scene.window.release("shutdown")
    assert scene.window.requeues == [2]
    scene.window.quarantined()
    assert scene.acks() == [(1, False)]


def test_release_published_gives_back_the_rest_but_never_orphans() -> None:
    scene = Scene()
    scene.receive(1, 2, 3)
    scene.take()
    scene.confirm(2)
    scene.window.release_published("shutdown")
    assert scene.window.requeues == [1, 3]
    assert scene.books.duplicates_possible == 2
    other = Scene()
    other.receive(1)
    other.take()
    other.window.source_lost(other.now_s)
    other.window.release_published("shutdown")
    assert other.window.requeues == [], "invariant 2"


# --- Memory -----------------------------------------------------------------------------------------------------


def test_full_at_so_many_bytes_and_not_while_what_comes_is_given_back_or_an_answer_must_be_read() -> None:
    scene = Scene(max_in_flight_bytes=2 * len(delivery(1).content))
    scene.receive(1)
    assert not scene.window.full
    scene.receive(2)
    assert scene.window.full, "invariant 4"
    scene.window.quarantining = True
    assert not scene.window.full
    scene.window.quarantining = False
    scene.window.destination_blocked(scene.now_s)
    scene.window.release("hold-timeout")
    assert scene.books.bytes_in_flight == 0
    scene.receive(3)
    assert not scene.window.full
