"""Each message goes to its own exchange; one that is missing or forbidden costs the messages for it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.scene import in_flight, scene
from tests.broker.test_refusals import declare_exchange, quarantined
from tests.rig.client import decode_properties, drain, number_of, publish_numbered
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node
    from tests.rig.raw import RawMessage

COUNT = 80
"""Messages, which take turns among four exchanges."""


def reply_code(message: RawMessage) -> int:
    """What the destination would have closed the channel with."""
    return int((decode_properties(message.properties).headers or {})["x-bridge-reply-code"])


def test_original_routes(source: Node, destination: Node, queue_name: str) -> None:
    """The default exchange and another have a route; one is missing, and one is not the user's to write to."""
    shop, gone, closed = (f"{queue_name}.{name}" for name in ("shop", "gone", "closed"))
    may_write = f"^(amq\\\\.default|{queue_name}\\\\.(shop|gone))$"
    destination.eval(f"""
        catch rabbit_auth_backend_internal:add_user(<<"writer">>, <<"secret">>, <<"rig">>),
        rabbit_auth_backend_internal:set_permissions(
            <<"writer">>, <<"/">>, <<"^$">>, <<"{may_write}">>, <<"^$">>, <<"rig">>)""")
    this = scene(
        source,
        destination,
        name=queue_name,
        extra={
            "BRIDGE_DESTINATION_URL": destination.url.replace("guest:guest", "writer:secret"),
            "BRIDGE_DESTINATION_QUEUE": "",
            "BRIDGE_DESTINATION_ROUTE": "original",
            "BRIDGE_UNROUTABLE_TIMEOUT": "1",
        },
    )
    destination.declare(this.queue_in)  # where the default exchange leads to
    for exchange in (shop, gone, closed):
        declare_exchange(source, exchange, (this.queue_in, "#"))
    declare_exchange(destination, shop, (this.queue_out, "key.#"))
    declare_exchange(destination, closed, (this.queue_out, "key.#"))
    with this.bridge:
        for first in range(0, COUNT, 4):
            for number, (exchange, key) in enumerate(
                ((shop, "key.x"), ("", this.queue_in), (gone, "k"), (closed, "k"))
            ):
                publish_numbered(source.url, key, 1, first=first + number, exchange=exchange)
        half = COUNT // 2
        this.wait_forwarded(half)
        # What is refused is set aside, and goes to the quarantine once another has been accepted after it.
        arrived: list[int] = []
        aside: dict[int, int] = {}

        def ended() -> bool:
            publish_numbered(source.url, "key.later", 1, first=COUNT, exchange=shop)
            arrived.extend(map(number_of, drain(destination.url, this.queue_out)))
            if source.has_queue(f"{this.queue_in}.quarantine"):
                aside.update({number_of(message): reply_code(message) for message in quarantined(this)})
            return len(aside) == half and in_flight(this.metrics()) == 0

        wait_until(ended, "the refused messages to be in the quarantine", 60, interval_s=0.2)
        assert [number for number in arrived if number < COUNT] == [*range(0, COUNT, 4)], "in their order"
        assert [*map(number_of, drain(destination.url, this.queue_in))] == [*range(1, COUNT, 4)]
        assert aside == {number: 404 if number % 4 == 2 else 403 for number in range(COUNT) if number % 4 > 1}
        metrics = this.metrics()
        assert metrics.total("bridge_generation", side="destination") == 1, "no channel was closed for it"
        assert metrics.total("bridge_duplicates_possible_total") == 0
        assert this.bridge.logs.count(f"exchange '{gone}' accepts no messages") == 1


@pytest.mark.parametrize("exists", (False, True), ids=("missing", "exists"))
@pytest.mark.parametrize("letter", ("x", "ä"))
def test_original_routes_of_long_names(
    source: Node, destination: Node, queue_name: str, letter: str, *, exists: bool
) -> None:
    """Exchanges that the broker cannot be asked about: a publish shows what is missing, and the others pass."""
    long = f"{queue_name}.{letter * (120 // len(letter.encode()) + 60)}"
    shop = f"{queue_name}.shop"
    extra = {"BRIDGE_DESTINATION_QUEUE": "", "BRIDGE_DESTINATION_ROUTE": "original", "BRIDGE_UNROUTABLE_TIMEOUT": "1"}
    this = scene(source, destination, name=queue_name, extra=extra)
    for exchange in (shop, long):
        declare_exchange(source, exchange, (this.queue_in, "#"))
    for exchange in (shop, long) if exists else (shop,):
        declare_exchange(destination, exchange, (this.queue_out, "#"))
    for number in range(COUNT):
        publish_numbered(source.url, "key", 1, first=number, exchange=shop if number % 8 else long)
    this.sent = COUNT
    with this.bridge:
        outcome = this.outcome(60)
        metrics = this.metrics()
    assert (outcome.lost, outcome.left, outcome.quarantined) == (0, 0, 0 if exists else COUNT // 8), outcome
    assert outcome.doubled <= outcome.doubled_at_most
    assert metrics.total("bridge_generation", side="destination") == 1 or not exists
