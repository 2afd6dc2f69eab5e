"""The plan: how many messages, what is printed first, and which queues are not drained."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from bridge.connection.kind import Queue
from bridge.drain.filter import Filter
from bridge.drain.plan import LISTED, DrainPlan, Outlook
from bridge.drain.request import Request, WrongUseError
from bridge.drain.sample import Group, Kind
from bridge.drain.survey import Side
from bridge.relay.queue import QueueState

SOURCE = Side("amqp://here/", "dead", QueueState(1200, 0), Queue("quorum"))
DESTINATION = Side("amqp://there/", "orders", QueueState(3, 1))


def plan(request: Request | None = None, source: Side = SOURCE, *, stated: bool = False) -> DrainPlan:
    return DrainPlan(source, DESTINATION, request or Request(), stated=stated)


@pytest.mark.parametrize(
    ("request_", "most"),
    (
        (Request(), 1200),
        (Request(limit=100), 100),
        (Request(limit=5000), 1200),
        (Request(until_empty=True), inf),
        (Request(limit=5000, until_empty=True), 5000),
    ),
)
def test_how_many_are_taken(request_: Request, most: float) -> None:
    assert plan(request_).most == most


def test_a_queue_whose_length_nobody_tells_has_none() -> None:
    assert plan(source=replace(SOURCE, state=None)).most == 0


def test_what_is_printed_first() -> None:
    assert plan().text.splitlines() == [
        "drain 1,200 messages, those that are ready now; what arrives meanwhile stays",
        'from  quorum queue "dead" at amqp://here/, 1,200 ready',
        'to    queue "orders" at amqp://there/, 3 ready',
    ]


@pytest.mark.parametrize(
    ("request_", "said"),
    (
        (Request(limit=7), "drain 7 of 1,200 messages"),
        (Request(until_empty=True), "drain all messages until the queue is empty"),
        (Request(until_empty=True, limit=7), "drain up to 7 messages, those that arrive meanwhile included"),
    ),
)
def test_the_amount_is_said(request_: Request, said: str) -> None:
    assert said in plan(request_).text


def test_an_exchange_has_no_length() -> None:
    to_exchange = DrainPlan(SOURCE, Side("amqp://there/", "orders"), Request())
    assert "to    orders at amqp://there/\n" in to_exchange.text


def test_what_makes_it_unknown_which_messages_are_taken_is_said() -> None:
    assert plan().doubts == []
    odd = replace(SOURCE, state=QueueState(5, 2), queue=Queue(priorities=True))
    assert [text.split(":")[0].split(",")[0] for text in plan(source=odd).doubts] == [
        "the queue has priorities",
        "the queue has 2 other consumers",
        "what kind of queue it is the broker tells only to a user who may configure it",
    ]
    assert plan(source=odd).text.count("\nnote  ") == 3
    assert "1 other consumer," in plan(source=replace(SOURCE, state=QueueState(5, 1))).text


def test_nothing_that_a_name_holds_is_obeyed_by_a_terminal() -> None:
    assert "\x1b" not in plan(source=replace(SOURCE, name="\x1b[2J")).text


@pytest.mark.parametrize("queue", (Queue("classic", auto_delete=True), Queue("classic", expires=True), Queue()))
def test_a_queue_that_may_delete_itself_needs_a_yes(queue: Queue) -> None:
    with pytest.raises(WrongUseError, match="--yes"):
        plan(source=replace(SOURCE, queue=queue)).refuse()
    plan(Request(yes=True), replace(SOURCE, queue=queue)).refuse()


def test_a_queue_whose_type_the_settings_state_needs_none() -> None:
    plan(source=replace(SOURCE, queue=Queue()), stated=True).refuse()


def test_a_stream_is_not_drained() -> None:
    with pytest.raises(WrongUseError, match="stream"):
        plan(Request(yes=True), replace(SOURCE, queue=Queue("stream"))).refuse()
    plan().refuse()


def test_with_filters_the_limit_counts_what_is_moved() -> None:
    wanted = Filter(reasons=("expired",))
    filtered = plan(Request(wanted=wanted, limit=7, allowed=("orders-*",)))
    assert (filtered.most, filtered.most_moved) == (1200, 7)
    assert filtered.text.startswith("drain what matches of the 1,200 messages that are ready now, 7 of them at most\n")
    assert "\nonly  reason is expired\nonly  back to orders-*\n" in filtered.text
    assert "at most" not in plan(Request(wanted=wanted)).text
    assert plan().most_moved == inf


BACK = Request(to_original="queue")


def ways_back(outlook: Outlook | None, request: Request = BACK) -> list[str]:
    """What the plan says after the source and the destination."""
    return replace(plan(request), outlook=outlook).text.splitlines()[3:]


def test_where_messages_go_back_to_is_listed_the_most_first() -> None:
    assert ways_back(Outlook(100, {"orders": 30, "carts": 68}, 2)) == [
        'back  to queue "carts": 68 of the first 100',
        'back  to queue "orders": 30 of the first 100',
        "stay  2 of the first 100 name no queue that they came from",
        "note  the others were not looked at: --allow-target PATTERN bounds where they may go",
    ]
    assert ways_back(Outlook(1200, {"shop": 1200}), Request(to_original="exchange")) == [
        'back  to exchange "shop": 1,200 of the first 1,200'
    ]


def test_what_may_not_go_back_there_is_listed_too() -> None:
    bounded = Request(to_original="queue", allowed=("orders-*", "carts"))
    assert ways_back(Outlook(100, {"orders-eu": 60, "amq.secret": 40}), bounded)[2:] == [
        'back  to queue "orders-eu": 60 of the first 100',
        'back  to queue "amq.secret": 40 of the first 100; --allow-target does not allow it, they stay',
    ]


def test_of_many_targets_only_some_are_listed() -> None:
    lines = ways_back(Outlook(100, {f"work-{number}": 1 for number in range(LISTED + 5)}), BACK)
    assert lines[LISTED] == "back  to 5 others: 5 of the first 100"


def test_where_looking_does_harm_nothing_is_listed_and_the_bound_is_recommended() -> None:
    (note,) = ways_back(None)
    assert note.startswith("note  where they go back to is not listed")
    assert "--allow-target PATTERN" in note


def test_names_of_targets_are_obeyed_by_no_terminal() -> None:
    assert "\x1b" not in "".join(ways_back(Outlook(1, {"\x1b[2J": 1})))


def test_the_outlook_is_by_queue_or_by_exchange() -> None:
    found = [
        Group(Kind("rejected", "work", "shop", "key"), 3),
        Group(Kind("expired", "work", "shop", "other"), 2),
        Group(Kind("", "", "ex", "key"), 1),
    ]
    assert Outlook.of(found, "queue") == Outlook(6, {"work": 5}, 1)
    assert Outlook.of(found, "exchange") == Outlook(6, {"shop": 5}, 1)
