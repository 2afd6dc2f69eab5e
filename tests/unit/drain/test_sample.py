"""What a look at a queue shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from bridge.check.inquiry import Glimpse
from bridge.drain.sample import EXAMPLES, SHOWN_BYTES, as_json, as_text, delivery_count, groups, plain

NOW_S = 1_000_000.0
DEAD = {
    "x-death": [
        {
            "queue": "work",
            "exchange": "shop",
            "routing-keys": ["order.new"],
            "reason": "rejected",
            "time": datetime.fromtimestamp(NOW_S - 3600, UTC),
        }
    ]
}


def seen(body: bytes = b"body", headers: dict[str, object] | None = None, **changed: object) -> Glimpse:
    found = Glimpse(DEAD if headers is None else headers, "ex", "key", "id", None, body)
    return found._replace(**changed)  # type: ignore[arg-type]  # by name


def test_messages_are_grouped_by_where_and_why_they_left() -> None:
    found = groups([seen(headers={}), seen(), seen()], NOW_S)
    assert [(group.messages, *group.kind) for group in found] == [
        (2, "rejected", "work", "shop", "order.new"),
        (1, "", "", "ex", "key"),
    ]
    assert [group.oldest_s for group in found] == [3600.0, None]
    assert as_text(found, 3, 12).splitlines() == [
        "looked at 3 of 12 messages, and returned them",
        '2 messages from queue "work", rejected: exchange "shop", key "order.new", 1.0 h old',
        "  id  body",
        "  id  body",
        '1 messages naming no queue that they came from: exchange "ex", key "key"',
        "  id  body",
    ]


def test_ages_are_a_range_and_those_of_the_timestamp_where_nothing_else_says() -> None:
    times = [datetime.fromtimestamp(NOW_S - age, UTC) for age in (60, 10, 600)]
    (group,) = groups([seen(headers={}, timestamp=time) for time in times], NOW_S)
    assert (group.youngest_s, group.oldest_s) == (10.0, 600.0)
    assert ", 10 s to 10 min old" in as_text([group], 3, None)


def test_examples_are_few_cut_and_obeyed_by_no_terminal() -> None:
    body = b"\x1b[2J" + b"x" * SHOWN_BYTES
    found = groups([seen(body, message_id="")] * (EXAMPLES + 2), NOW_S)
    text = as_text(found, 5, 5)
    assert text.count("(no id)") == EXAMPLES
    assert "\x1b" not in text
    assert "… and 4 bytes" in text


def test_it_is_json_for_machines() -> None:
    document = json.loads(as_json(groups([seen()], NOW_S), 1, 7))
    assert (document["looked_at"], document["ready"]) == (1, 7)
    (group,) = document["groups"]
    assert (group["queue"], group["messages"], group["oldest_s"]) == ("work", 1, 3600.0)
    assert group["examples"] == [{"id": "id", "body": "body"}]


@pytest.mark.parametrize(
    ("value", "read"),
    (
        (datetime.fromtimestamp(5, UTC), 5),
        (b"a", "a"),
        (bytearray(b"a"), "a"),
        ([True, None], [True, None]),
        ({"k": b"v"}, {"k": "v"}),
        (Decimal("1.5"), "1.5"),
    ),
)
def test_values_are_read_as_the_librarys(value: object, read: object) -> None:
    assert plain(value) == read


def test_a_delivery_count_is_the_queues() -> None:
    assert delivery_count(seen(headers={"x-delivery-count": 4})) == 4
    assert delivery_count(seen(headers={"x-delivery-count": "many"})) == 0
