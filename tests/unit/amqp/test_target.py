"""The target: what follows from an exchange and a key."""

from __future__ import annotations

import pytest

from bridge.amqp.frames import route
from bridge.amqp.target import OriginalRoutes, Target
from bridge.settings.environment import load_settings
from tests.support.frames import delivery

DELIVERED = [route("amq.topic", "orders.placed"), route("", "sq")]
URLS = {
    "BRIDGE_SOURCE_URL": "amqp://u:p@source.example",
    "BRIDGE_DESTINATION_URL": "amqp://u:p@destination.example",
    "BRIDGE_SOURCE_QUEUE": "sq",
}


def test_a_queue_is_reached_by_the_default_exchange_and_by_nothing_else() -> None:
    target = Target.queue("dq")
    assert target.route == b"\x00\x02dq"
    assert (target.keeps_keys, target.may_fan_out, target.routes_differ) == (False, False, False)
    assert target.routes(DELIVERED) == [target.route] * 2
    assert target.distinguishing_key(DELIVERED[0]) == b""


def test_an_exchange_with_one_key_may_fan_out() -> None:
    target = Target("dx", "key")
    assert target.route == b"\x02dx\x03key"
    assert (target.keeps_keys, target.may_fan_out, target.routes_differ) == (False, True, True)
    assert target.routes(DELIVERED) == [target.route] * 2
    assert target.distinguishing_key(DELIVERED[0]) == b""


def test_without_a_key_each_message_keeps_its_own() -> None:
    target = Target("dx")
    assert (target.keeps_keys, target.may_fan_out, target.routes_differ) == (True, True, True)
    assert target.routes(DELIVERED) == [route("dx", "orders.placed"), route("dx", "sq")]
    assert target.distinguishing_key(DELIVERED[0]) == b"\x0dorders.placed"


def test_an_empty_key_is_a_key() -> None:
    target = Target("dx", "")
    assert not target.keeps_keys
    assert target.routes(DELIVERED) == [route("dx", "")] * 2


def test_the_default_exchange_brings_a_message_to_one_queue_also_with_its_own_key() -> None:
    target = Target("")
    assert (target.keeps_keys, target.may_fan_out, target.routes_differ) == (True, False, True)


@pytest.mark.parametrize(
    ("target", "text"),
    (
        (Target.queue("dq"), 'there is no queue "dq"'),
        (Target("dx", "key"), 'no queue is bound to exchange "dx" for key "key"'),
        (Target("dx"), 'no queue is bound to exchange "dx" for their keys'),
    ),
    ids=("a queue", "an exchange with a key", "an exchange"),
)
def test_what_is_missing_where_nothing_has_a_route_is_named(target: Target, text: str) -> None:
    assert target.without_route == text


@pytest.mark.parametrize(
    ("variables", "target"),
    (
        ({"BRIDGE_DESTINATION_QUEUE": "dq"}, Target.queue("dq")),
        ({"BRIDGE_DESTINATION_EXCHANGE": "dx"}, Target("dx")),
        ({"BRIDGE_DESTINATION_EXCHANGE": "dx", "BRIDGE_DESTINATION_ROUTING_KEY": "key"}, Target("dx", "key")),
        ({"BRIDGE_DESTINATION_ROUTE": "original"}, OriginalRoutes()),
    ),
    ids=("a queue", "an exchange", "an exchange with a key", "original routes"),
)
def test_the_settings_name_one_target(variables: dict[str, str], target: Target) -> None:
    assert load_settings(URLS | variables).target == target


@pytest.mark.parametrize("target", (Target.queue("q"), Target("ex"), Target("ex", "key")))
def test_messages_are_published_as_they_came_and_an_exchange_is_the_destinations(target: Target) -> None:
    assert not target.exchanges_differ
    batch = [delivery(1)]
    assert target.addressed(batch) is batch


def test_an_original_route_is_each_messages_own_exchange_and_key() -> None:
    target = OriginalRoutes()
    assert (target.keeps_keys, target.may_fan_out, target.routes_differ, target.exchanges_differ) == (True,) * 4
    assert target.routes(DELIVERED) is DELIVERED
    assert target.distinguishing_key(DELIVERED[0]) == DELIVERED[0]
    batch = [delivery(number)._replace(route=each) for number, each in enumerate(DELIVERED)]
    assert target.exchanges(batch) == [b"\x09amq.topic", b"\x00"]
    assert target.without_route == "no queue is bound to the messages' own exchanges for their keys"


def test_every_other_message_goes_to_the_targets_exchange() -> None:
    assert Target("dx").exchanges([delivery(1), delivery(2)]) == [b"\x02dx"] * 2
