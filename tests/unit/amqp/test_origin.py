"""Where a message came from, and how it goes back."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.amqp.content import EXPIRATION, HEADERS
from bridge.amqp.fields import headers, properties
from bridge.amqp.origin import MARK, REDRIVEN, Origin, Origins, origin_of, restored
from tests.support import frames
from tests.support.frames import PERSISTENT, Properties, content, delivery, short, table, text
from tests.unit.amqp.test_fields import array


def died(
    queue: str, exchange: str = "ex", *keys: str, reason: str = "rejected", time_s: int = 100, expiration: str = ""
) -> bytes:
    """An event of `x-death`."""
    fields = {
        "count": b"l" + pack(">q", 1),
        "reason": text(reason),
        "queue": text(queue),
        "time": b"T" + pack(">Q", time_s),
        "exchange": text(exchange),
        "routing-keys": array(*map(text, keys)),
    }
    if expiration:
        fields["original-expiration"] = text(expiration)
    return b"F" + table(fields)


def dead(*events: bytes, **more: bytes) -> Properties:
    """The properties of a message with these events, the latest first."""
    fields = {"x-death": array(*events), "x-first-death-queue": text("q"), "x-last-death-reason": text("r")}
    return PERSISTENT | {"headers": table(fields | more)}


def quarantined(time_s: int = 100) -> dict[str, bytes]:
    """The headers that the quarantine adds."""
    return {
        "x-bridge-reason": text("poison"),
        "x-bridge-queue": text("orders"),
        "x-bridge-exchange": text("shop"),
        "x-bridge-routing-key": text("order.new"),
        "x-bridge-time": b"T" + pack(">Q", time_s),
        "x-bridge-expiration": text("60000"),
        "x-bridge-reply-code": b"I" + pack(">I", 406),
        "x-bridge-reply-text": text("no"),
    }


def found(message: Properties, but: str = "") -> Origin | None:
    return origin_of(headers(content(b"m", message)), but)


def test_the_latest_dead_lettering_names_the_origin() -> None:
    events = died("work", "shop", "order.new", "copy", reason="expired", expiration="5000"), died("before")
    assert found(dead(*events)) == Origin("work", "shop", "order.new", "expired", 100, "5000", quarantined=False)


def test_the_first_to_say_what_the_expiration_was_is_believed() -> None:
    origin = found(dead(died("work"), died("retry", expiration="700")))
    assert origin is not None
    assert origin.expiration == "700"


def test_a_queue_that_dead_letters_to_itself_is_no_origin() -> None:
    origin = found(dead(died("dead", reason="expired"), died("work")), but="dead")
    assert origin is not None
    assert origin.queue == "work"
    assert found(dead(died("dead")), but="dead") is None


def test_the_quarantine_names_the_origin() -> None:
    message = PERSISTENT | {"headers": table(quarantined())}
    assert found(message) == Origin("orders", "shop", "order.new", "poison", 100, "60000", quarantined=True)


@pytest.mark.parametrize(("died_s", "queue"), ((99, "orders"), (100, "orders"), (101, "work")))
def test_what_happened_last_counts(died_s: int, queue: str) -> None:
    origin = found(dead(died("work", time_s=died_s), **quarantined(100)))
    assert origin is not None
    assert origin.queue == queue


@pytest.mark.parametrize(
    "forged",
    (
        {},
        {"x-death": text("work")},
        {"x-death": array(text("work"))},
        {"x-death": array(b"F" + table({}))},
        {"x-death": array(b"F" + table({"queue": b"l" + pack(">q", 1)}))},
        {"x-bridge-queue": b"t\1"},
    ),
)
def test_what_names_no_queue_has_no_origin(forged: dict[str, bytes]) -> None:
    assert found(PERSISTENT | {"headers": table(forged)}) is None


@pytest.mark.parametrize("keys", (array(b"t\1"), array(), text("key")))
def test_a_key_that_is_none_is_empty(keys: bytes) -> None:
    event = b"F" + table({"queue": text("work"), "routing-keys": keys})
    origin = found(PERSISTENT | {"headers": table({"x-death": array(event)})})
    assert origin is not None
    assert origin.routing_key == ""


BACK = Origins.back("queue", "dead", "mark")
TO_EXCHANGE = Origins.back("exchange", "dead", "mark")


def test_it_goes_back_to_its_queue_by_the_default_exchange() -> None:
    (moved,) = BACK.addressed([delivery(1, b"m", dead(died("work", "shop", "order.new")))])
    assert moved.route == short("") + short("work")
    assert BACK.routes([moved.route]) == [moved.route]


def test_it_goes_back_to_its_exchange_with_its_key() -> None:
    (moved,) = TO_EXCHANGE.addressed([delivery(1, b"m", dead(died("work", "shop", "order.new")))])
    assert moved.route == short("shop") + short("order.new")


def test_it_goes_back_as_it_was_but_for_two_headers() -> None:
    own = {"own": text("kept"), "x-bridge-user-id": text("alice")}
    dead_letter = content(b"body", dead(died("work", expiration="5000"), **own))
    origin = BACK.origin(dead_letter)
    assert origin is not None
    back = restored(dead_letter, origin, "mark")
    assert headers(back) == {"own": "kept", "x-bridge-user-id": "alice", REDRIVEN: 1, MARK: "mark"}
    assert properties(back)[EXPIRATION] == short("5000")
    assert back.endswith(dead_letter[-12:]), "the body"


def test_what_names_another_time_stays() -> None:
    """It was dead-lettered before the bridge took it, and had these headers then."""
    message = content(b"m", dead(died("work", time_s=1), **quarantined(100)))
    origin = BACK.origin(message)
    assert origin is not None
    assert {*headers(restored(message, origin, "mark"))} == {
        *("x-death", "x-first-death-queue", "x-last-death-reason", REDRIVEN, MARK)
    }


@pytest.mark.parametrize(("before", "after"), ((3, 4), (-7, 1), ((1 << 63) - 1, (1 << 62) + 1)))
def test_it_is_counted_how_often_it_went_back(before: int, after: int) -> None:
    message = content(b"m", dead(died("work"), **{REDRIVEN: b"l" + pack(">q", before), MARK: text("another")}))
    origin = BACK.origin(message)
    assert origin is not None
    assert headers(restored(message, origin, "mark")) == {REDRIVEN: after, MARK: "mark"}


def test_without_an_expiration_none_is_set() -> None:
    (moved,) = BACK.addressed([delivery(1, b"m", dead(died("work")))])
    assert {*properties(moved.content)} & {EXPIRATION, HEADERS} == {HEADERS}


@pytest.mark.parametrize(
    "message",
    (
        content(b"m"),
        content(b"m", PERSISTENT | {"headers": b"\0\0\0\2ab"}),
        content(b"m", dead(died("w" * 256))),
        content(b"m", dead(died("work", "e" * 256))),
        # Its headers can be read, and what follows them is more than its flags say.
        frames.frame(2, 1, frames.header(0, dead(died("work")))[7:-1] + b"x"),
    ),
)
def test_what_cannot_go_back_has_no_origin(message: bytes) -> None:
    assert BACK.origin(message) is None


def test_what_follows_from_the_way_back() -> None:
    assert (BACK.keeps_keys, BACK.routes_differ) == (True, True)
    assert (BACK.may_fan_out, BACK.exchanges_differ) == (False, False)
    assert (TO_EXCHANGE.may_fan_out, TO_EXCHANGE.exchanges_differ) == (True, True)
    back = [delivery(1, b"m", dead(died("work", "shop", "order.new")))]
    assert (TO_EXCHANGE.exchanges(back), BACK.exchanges(back)) == ([b"\x04shop"], [b"\x00"])
    assert BACK.distinguishing_key(short("") + short("work")) == b""
    assert "gone" in BACK.without_route


def test_a_target_is_the_queue_or_the_exchange_of_the_origin() -> None:
    message = content(b"m", dead(died("work", "shop", "key")))
    for origins, name in ((BACK, "work"), (TO_EXCHANGE, "shop")):
        origin = origins.origin(message)
        assert origin is not None
        assert origins.named(origin) == name
