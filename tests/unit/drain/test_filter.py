"""Which messages a drain wants."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.drain.filter import Filter, as_text, topic
from tests.support.frames import PERSISTENT, Properties, delivery, table, text
from tests.unit.amqp.test_origin import dead, died, quarantined


def match(wanted: Filter, properties: Properties = PERSISTENT, routing_key: str = "key") -> str:
    return wanted.match(delivery(1, b"m", properties, routing_key=routing_key))


def test_without_conditions_there_is_none() -> None:
    assert not Filter()
    assert Filter(headers=(("a", "b"),))
    assert Filter(reasons=("r",))
    assert Filter(keys=("k",))
    assert Filter(before_unix_s=0.0)


@pytest.mark.parametrize(
    ("value", "written"),
    ((text("eu"), "eu"), (b"l" + pack(">q", 7), "7"), (b"t\1", "true"), (b"t\0", "false"), (b"x\0\0\0\1a", "a")),
)
def test_a_header_has_the_value_as_it_is_written(value: bytes, written: str) -> None:
    message = PERSISTENT | {"headers": table({"region": value})}
    assert match(Filter(headers=(("region", written),)), message) == "yes"
    assert match(Filter(headers=(("region", "other"),)), message) == "no"
    assert match(Filter(headers=(("another", written),)), message) == "no"


def test_every_header_must_match() -> None:
    message = PERSISTENT | {"headers": table({"a": text("1"), "b": text("2")})}
    assert match(Filter(headers=(("a", "1"), ("b", "2"))), message) == "yes"
    assert match(Filter(headers=(("a", "1"), ("b", "3"))), message) == "no"


def test_a_reason_is_that_of_the_origin_and_hyphens_are_alike() -> None:
    limit = dead(died("work", reason="delivery_limit"))
    assert match(Filter(reasons=("expired", "delivery-limit")), limit) == "yes"
    assert match(Filter(reasons=("rejected",)), limit) == "no"
    assert match(Filter(reasons=("rejected",))) == "no"


def test_the_key_is_that_of_the_origin_or_else_of_the_delivery() -> None:
    assert match(Filter(keys=("order.*",)), dead(died("work", "ex", "order.new"))) == "yes"
    assert match(Filter(keys=("dead", "order.*")), routing_key="order.old") == "yes"
    assert match(Filter(keys=("order.*",)), dead(died("work", "ex", "bill")), routing_key="order.new") == "no"


def test_the_age_is_known_by_the_death_the_quarantine_or_the_timestamp() -> None:
    wanted = Filter(before_unix_s=100.0)
    stamped = {"timestamp": pack(">Q", 100)}
    assert match(wanted, dead(died("work", time_s=100))) == "yes"
    assert match(wanted, dead(died("work", time_s=101)) | stamped) == "no"
    assert match(wanted, PERSISTENT | {"headers": table(quarantined(100))}) == "yes"
    assert match(wanted, PERSISTENT | {"headers": table(quarantined(101))} | stamped) == "no"
    assert match(wanted, PERSISTENT | stamped) == "yes"
    assert match(wanted) == "undated"


@pytest.mark.parametrize("deaths", (b"A\0\0\0\0", text("none"), b"A\0\0\0\2t\1"))
def test_what_is_no_death_has_no_time(deaths: bytes) -> None:
    assert match(Filter(before_unix_s=1.0), PERSISTENT | {"headers": table({"x-death": deaths})}) == "undated"


def test_what_cannot_be_read_is_not_wanted() -> None:
    assert match(Filter(keys=("#",)), PERSISTENT | {"headers": b"\0\0\0\2ab"}) == "no"


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    (
        ("order.*", ("order.new", "order."), ("order", "order.new.eu", "orders.new")),
        ("order.#", ("order", "order.new", "order.new.eu"), ("orders",)),
        ("#", ("", "order", "order.new"), ()),
        ("#.eu", ("eu", "order.eu", "order.new.eu"), ("order", "neu")),
        ("*.new.#", ("order.new", "order.new.eu"), ("new", "order.old")),
        ("a.#.b", ("a.b", "a.x.b", "a.x.y.b"), ("a", "ab")),
        ("a+b", ("a+b",), ("aab",)),
    ),
)
def test_topic_patterns(pattern: str, fits: tuple[str, ...], fits_not: tuple[str, ...]) -> None:
    assert all(topic(pattern).fullmatch(key) for key in fits)
    assert not any(topic(pattern).fullmatch(key) for key in fits_not)


def test_a_text_of_bytes_is_text() -> None:
    assert (as_text(b"a"), as_text(1.5), as_text(None)) == ("a", "1.5", "None")


def test_the_conditions_are_said() -> None:
    assert Filter().conditions == []
    wanted = Filter((("region", "eu"),), ("expired", "rejected"), ("orders.*",), 1_000_000.0)
    assert wanted.conditions == [
        "header region is eu",
        "reason is expired or rejected",
        "key fits orders.*",
        "from before 1970-01-12 13:46:40 UTC",
    ]
