"""`amqp-bridge drain --to-original`: dead letters go back to where each came from, and nowhere else."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from threading import Thread
from typing import TYPE_CHECKING, Any

import pika
import pytest

from tests.broker.scene import FAST
from tests.broker.test_drain import PREFETCH, Draining, numbers
from tests.rig.bridge_process import BridgeProcess
from tests.rig.client import NUMBER_DIGITS, decode_properties, drain, number_of, publish_numbered
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.rig.node import Node
    from tests.rig.raw import RawMessage

COUNTS = {"x-delivery-count", "x-acquired-count"}
"""What a quorum queue adds to what it delivers."""
OWN = pika.BasicProperties(content_type="text/plain", headers={"own": "kept"})


@dataclass
class Dead:
    """Queues whose messages are dead-lettered to one, and what they were."""

    node: Node
    name: str
    folder: Path
    queue_type: str
    sent: dict[str, list[int]] = field(default_factory=dict)

    @property
    def queue(self) -> str:
        """The dead-letter queue."""
        return f"{self.name}.dead"

    def work(self, number: int) -> str:
        """One of the queues that messages come from."""
        return f"{self.name}.work-{number}"

    def declare(self, works: int) -> None:
        """Declare the dead-letter queue and so many others."""
        for number in range(works):
            self.declare_work(number, {})

    def declare_work(self, number: int, arguments: Mapping[str, Any]) -> None:
        """Declare one of the queues that messages come from, and the dead-letter queue."""
        self.node.declare(self.queue, self.queue_type)
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.queue}
        self.node.declare(self.work(number), self.queue_type, {**dead, **arguments})

    def reject(self, number: int, count: int, first: int, *, publish: bool = True, **more: Any) -> None:  # noqa: ANN401 - of `publish_numbered`
        """Publish so many messages to a queue, unless they are there, and reject them all."""
        if publish:
            publish_numbered(self.node.url, self.work(number), count, first=first, **more)
        with RawClient(self.node.url) as client:
            client.consume(self.work(number))
            for taken, message in enumerate(client.deliveries(), 1):
                if taken == count or taken % 500 == 0:
                    client.reject(message.delivery_tag, multiple=True)
                if taken == count:
                    break
        self._dead(number, count, first)

    def leave(self, number: int, count: int, first: int) -> None:
        """Publish so many messages to a queue that keeps none."""
        publish_numbered(self.node.url, self.work(number), count, first=first, properties=OWN)
        self._dead(number, count, first)

    def _dead(self, number: int, count: int, first: int) -> None:
        self.sent.setdefault(self.work(number), []).extend(range(first, first + count))
        self.wait_dead(sum(map(len, self.sent.values())))

    def wait_dead(self, count: int) -> None:
        """Wait until so many messages are in the dead-letter queue; fail with the numbers of those that are not."""
        try:
            wait_until(lambda: self.node.queue_ready(self.queue) == count, "messages to be dead-lettered", 60)
        except TimeoutError:
            held = self.node.queue_depth(self.queue)
            arrived = numbers(drain(self.node.url, self.queue))
            missing = sorted(set(chain.from_iterable(self.sent.values())).difference(arrived))
            raise AssertionError(
                f"of {count} the queue holds {held}, {len(arrived)} of them ready; "
                f"missing: {missing}, twice: {len(arrived) - len(set(arrived))}"
            ) from None

    def drain(self, *arguments: str, to: str = "--to-original", **more: object) -> Draining:
        """A drain back to where they came from, not started yet."""
        variables = {"BRIDGE_SOURCE_URL": self.node.url, "BRIDGE_SOURCE_QUEUE": self.queue, **FAST, **more}
        return Draining(variables, self.folder / "receipt.json", *([to] if to else []), *arguments)

    def back(self, number: int) -> list[RawMessage]:
        """Take what is in a queue that messages came from."""
        return drain(self.node.url, self.work(number))


@pytest.fixture
def dead(source: Node, queue_name: str, queue_type: str, tmp_path: Path) -> Dead:
    """A dead-letter queue, not declared yet."""
    return Dead(source, queue_name, tmp_path, queue_type)


def test_dead_letters_of_every_kind_go_back_to_where_each_came_from(dead: Dead) -> None:
    """20,000 from five queues, rejected, expired, and dropped for length: as they were, and in their order."""
    each = 4000
    for number, arguments in enumerate(({}, {}, {"x-message-ttl": 1}, {"x-message-ttl": 1}, {"x-max-length": 0})):
        dead.declare_work(number, arguments)
        if arguments:
            dead.leave(number, each, number * each)
        else:
            dead.reject(number, each, number * each, properties=OWN)
    for number in range(5):  # without what made them leave, so that they stay
        dead.node.delete(dead.work(number))
        dead.node.declare(dead.work(number), dead.queue_type)
    drained = dead.drain()
    assert drained.run(120) == 0, drained.logs
    receipt = drained.receipt()
    assert receipt["targets"] == {dead.work(number): each for number in range(5)}
    assert (receipt["asked"], receipt["moved"], receipt["returned"], receipt["left"]) == (20_000, 20_000, 0, 0)
    assert dead.node.queue_depth(dead.queue) == 0
    for number in range(5):
        messages = dead.back(number)
        assert numbers(messages) == dead.sent[dead.work(number)]
        for message in messages:
            properties = decode_properties(message.properties)
            assert message.body == message.body[:NUMBER_DIGITS].ljust(256, b".")
            assert properties.message_id == f"message-{message.body[:NUMBER_DIGITS].decode()}"
            assert (properties.content_type, properties.delivery_mode) == ("text/plain", 2)
            headers = {name: value for name, value in properties.headers.items() if name not in COUNTS}
            assert headers.pop("x-bridge-drain")
            assert headers == {"own": "kept", "x-bridge-redriven": 1}


def test_by_the_exchange_every_queue_that_is_bound_gets_a_copy(dead: Dead) -> None:
    """With its key and its expiration; the plan lists the exchange first, where looking does no harm."""
    dead.declare(2)
    shop, audit = f"{dead.name}.shop", f"{dead.name}.audit"
    dead.node.declare(audit, dead.queue_type)
    with dead.node.channel() as channel:
        channel.exchange_declare(shop, "topic")
        for queue, key in ((dead.work(0), "order.new"), (audit, "order.new"), (dead.work(1), "order.late")):
            channel.queue_bind(queue, shop, key)
    publish_numbered(dead.node.url, "order.new", 30, exchange=shop)
    dead.reject(0, 30, 0, publish=False)
    late = pika.BasicProperties(expiration="1")
    publish_numbered(dead.node.url, "order.late", 5, first=30, exchange=shop, properties=late)
    dead.wait_dead(35)
    assert len(drain(dead.node.url, audit)) == 30
    drained = dead.drain("--to-original=exchange", "--allow-target", shop, "--rate", "50", "--ramp", "2s", to="")
    assert drained.run() == 0, drained.logs
    uncounted = dead.queue_type == "classic" or dead.node.version == "4.3"
    assert (f'back  to exchange "{shop}": 35 of the first 35' in drained.logs) is uncounted
    assert ("where they go back to is not listed" in drained.logs) is not uncounted
    receipt = drained.receipt()
    assert (receipt["moved"], receipt["targets"]) == (35, {shop: 35})
    assert receipt["seconds"] > 1.0, "without the ramp it would take 0.7 s"
    for queue in (dead.work(0), audit):
        assert [(number_of(m), m.exchange, m.routing_key) for m in drain(dead.node.url, queue)] == [
            (number, shop, "order.new") for number in range(30)
        ]
    dead.wait_dead(5)
    again = drain(dead.node.url, dead.queue)
    assert numbers(again) == [*range(30, 35)], "with their expiration they expire again"
    deaths = [decode_properties(message.properties).headers["x-death"][0] for message in again]
    assert {death["original-expiration"] for death in deaths} == {"1"}


def test_what_names_no_origin_or_one_that_is_gone_stays(dead: Dead) -> None:
    """Its neighbours go back, and nobody is blamed for another."""
    dead.declare(3)
    dead.reject(0, 40, 0)
    publish_numbered(dead.node.url, dead.queue, 5, first=40)
    dead.sent["nowhere"] = [*range(40, 45)]
    dead.reject(1, 30, 45)
    dead.reject(2, 20, 75)
    dead.node.delete(dead.work(1))
    drained = dead.drain("--allow-target", f"{dead.name}.work-[01]")
    assert drained.run() == 1, drained.logs
    receipt = drained.receipt()
    assert (receipt["ending"], receipt["moved"], receipt["refused"], receipt["returned"]) == ("refused", 40, 30, 25)
    assert sorted(receipt["kept"].values()) == [5, 20]
    assert numbers(dead.back(0)) == dead.sent[dead.work(0)]
    dead.node.declare(dead.work(1), dead.queue_type)
    again = dead.drain()
    assert again.run() == 1, again.logs
    assert (again.receipt()["ending"], again.receipt()["moved"], again.receipt()["left"]) == ("stayed", 50, 5)
    assert sorted(numbers([*dead.back(1), *dead.back(2)])) == [*range(45, 95)]
    assert sorted(numbers(drain(dead.node.url, dead.queue))) == [*range(40, 45)]


def test_filters_choose_what_is_moved_and_the_rest_is_returned(dead: Dead) -> None:
    dead.declare(2)
    dead.reject(0, 100, 0, properties=pika.BasicProperties(headers={"region": "eu"}))
    dead.reject(1, 100, 100, properties=pika.BasicProperties(headers={"region": "us"}))
    moved = dead.drain("--match", "region=eu", "--limit", "30")
    assert moved.run() == 0, moved.logs
    assert (moved.receipt()["moved"], moved.receipt()["returned"]) == (30, 170)
    assert dead.drain("--match", "region=eu", "--reason", "rejected", "--key", f"{dead.name}.#").run() == 0
    assert sorted(numbers(dead.back(0))) == [*range(100)]
    young = dead.drain("--older-than", "1h")
    assert young.run() == 0
    assert (young.receipt()["moved"], young.receipt()["returned"]) == (0, 100)
    assert sorted(numbers(drain(dead.node.url, dead.queue))) == [*range(100, 200)]


def test_consumers_that_reject_what_comes_back_trip_the_breaker(dead: Dead) -> None:
    dead.declare(1)
    count = 3000
    dead.reject(0, count, 0)
    drained = dead.drain("--rate", "200")
    with RawClient(dead.node.url, timeout_s=120) as rejecting:
        rejecting.consume(dead.work(0))
        consumer = Thread(target=reject_all, args=(rejecting,))
        consumer.start()
        try:
            assert drained.run(60) == 1, drained.logs
            wait_until(lambda: dead.node.queue_depth(dead.work(0)) == 0, "all that was moved to be rejected")
        finally:
            rejecting.cancel()
            consumer.join()
    receipt = drained.receipt()
    assert receipt["ending"] == "returns"
    assert 0 < receipt["moved"] < count
    dead.wait_dead(count)


def reject_all(client: RawClient) -> None:
    """Reject whatever comes, until the consumer is cancelled."""
    for message in client.deliveries():
        client.reject(message.delivery_tag)


def test_a_look_shows_groups_and_changes_nothing(dead: Dead) -> None:
    dead.declare(2)
    dead.reject(0, 30, 0)
    dead.reject(1, 10, 30)
    variables = {"BRIDGE_SOURCE_URL": dead.node.url, "BRIDGE_SOURCE_QUEUE": dead.queue}
    uncounted = dead.queue_type == "classic" or dead.node.version == "4.3"
    with BridgeProcess(variables, "peek", "--json") as peeking:
        assert peeking.wait() == (0 if uncounted else 64), peeking.logs
    if uncounted:
        found = json.loads(peeking.logs)
        assert [(group["queue"], group["messages"]) for group in found["groups"]] == [
            (dead.work(0), 30),
            (dead.work(1), 10),
        ]
        assert numbers(drain(dead.node.url, dead.queue)) == [*range(40)], "in their order"
    else:
        assert "--yes" in peeking.logs


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_message_near_its_delivery_limit_ends_a_look(source: Node, queue_name: str) -> None:
    """It would be dropped for being looked at: all five come back three times, with a limit of five.

    A quorum queue keeps what has come back in a list of its own, and puts what comes back again to its end.
    """
    source.declare(queue_name, "quorum", {"x-delivery-limit": 5})
    publish_numbered(source.url, queue_name, 5)
    for _ in range(3):
        with RawClient(source.url) as client:
            client.consume(queue_name)
            assert [message.delivery_tag for message in islice(client.deliveries(), 5)] == [1, 2, 3, 4, 5]
            client.abandon()
        wait_until(lambda: source.queue_ready(queue_name) == 5, "all to be back")
    variables = {"BRIDGE_SOURCE_URL": source.url, "BRIDGE_SOURCE_QUEUE": queue_name}
    with BridgeProcess(variables, "peek") as peeking:
        assert peeking.wait() == 0, peeking.logs
    assert "looked at 1 of 5 messages" in peeking.logs
    assert "the last of them is near the queue's delivery limit (5), which ends the look" in peeking.logs
    assert numbers(drain(source.url, queue_name)) == [1, 2, 3, 4, 0]


def test_brokers_and_drains_are_killed_and_nothing_is_lost(source: Node, queue_name: str, tmp_path: Path) -> None:
    """Ten SIGKILLs of the drain, two of the broker: everything is back, at most a window for each of them twice.

    Queues of both types side by side, since a broker takes seconds to start.

    A classic queue that is killed forgets thousands of acks (see `bridge/window/memory.py`), those of drains that were
    killed before too: of what a drain moved that is gone, the next knows nothing. It also forgets dead letters, which
    nobody confirms (measured: 904 to 5,000 of the 5,000 that had just come), so they are put on disk first.
    """
    works, each, kills = 5, 1000, 10
    both = [Dead(source, f"{queue_name}.{kind}", tmp_path / kind, kind) for kind in ("classic", "quorum")]
    for dead in both:
        dead.folder.mkdir()
        dead.declare(works)
        for number in range(works):
            dead.reject(number, each, number * each)
    source.restart()
    for kill in range(kills):
        drain_and_kill(both, works)
        if kill in {2, 5}:
            source.kill()
            source.start().wait_ready()
            for dead in both:
                wait_until(lambda: source.queue_depth(dead.queue) > 0, "the broker to know its queues", 60)  # noqa: B023
    # Until then what the last ones had is nobody's: a queue that is empty twice ends the next.
    for dead in both:
        wait_until(lambda: source.queue_consumers(dead.queue) == 0, "the broker to notice the last kill")  # noqa: B023
        last = dead.drain("--until-empty")
        assert last.run(120) == 0, last.logs
        assert source.queue_depth(dead.queue) == 0
        for number in range(works):
            came = numbers(dead.back(number))
            assert {*came} == {*dead.sent[dead.work(number)]}, "none is lost"
            if dead.queue_type == "quorum":
                assert len(came) - each <= kills * PREFETCH


def drain_and_kill(both: list[Dead], works: int) -> None:
    """Drain side by side, and kill each drain when it has moved some messages more."""
    before = [_back(dead, works) for dead in both]
    drains = [dead.drain("--yes", "--rate", "300", BRIDGE_SOURCE_PREFETCH=PREFETCH) for dead in both]
    with ExitStack() as stack:
        for drained in drains:
            stack.enter_context(drained)
        for dead, drained, back in zip(both, drains, before, strict=True):
            _wait_moved(dead, works, back + 200, drained)
            drained.kill()


def _back(dead: Dead, works: int) -> int:
    """How many messages are where they came from."""
    return sum(dead.node.queue_depth(dead.work(number)) for number in range(works))


def _wait_moved(dead: Dead, works: int, count: int, drained: Draining) -> None:
    """Wait until so many are where they came from, or the drain has ended."""
    wait_until(lambda: _back(dead, works) >= count or not drained.is_running, "messages to go back", 60)
