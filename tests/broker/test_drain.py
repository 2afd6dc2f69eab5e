"""`amqp-bridge drain`: exactly so many messages move, and the receipt tells what became of them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pika
import pytest

from tests.broker.scene import FAST, settings
from tests.rig.bridge_process import BridgeProcess
from tests.rig.client import decode_properties, drain, number_of, publish_numbered
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.rig.node import Node
    from tests.rig.raw import RawMessage

PREFETCH = 100
COUNTS = {"x-delivery-count", "x-acquired-count"}
"""What a quorum queue adds to what it delivers."""


class Draining(BridgeProcess):
    """`amqp-bridge drain` as a process, and its receipt."""

    def __init__(self, settings: Mapping[str, object], receipt: Path, *arguments: str) -> None:
        self._receipt = receipt
        super().__init__(settings, "drain", "--receipt", str(receipt), *arguments)

    def receipt(self) -> dict[str, Any]:
        """The receipt that it has written."""
        found: dict[str, Any] = json.loads(self._receipt.read_text())
        return found

    def run(self, timeout_s: float = 60) -> int:
        """Run it to its end; return the exit status."""
        with self:
            return self.wait(timeout_s)

    def wait_planned(self) -> None:
        """Wait until the plan is printed: what is published from now on is not of it."""
        wait_until(lambda: any(line.startswith("to ") for line in self.log_lines), "the plan to be printed", 30)


@dataclass
class Queues:
    """A queue on one node, another on the other, and drains between them."""

    source: Node
    destination: Node
    name: str
    folder: Path

    def fill(self, queue_type: str, count: int, **more: Any) -> None:  # noqa: ANN401 - what `publish_numbered` takes
        """Declare both and publish so many messages to the first."""
        self.source.declare(self.queue_in, queue_type)
        self.destination.declare(self.queue_out, queue_type)
        self.publish(count, **more)

    @property
    def queue_in(self) -> str:
        """The queue to be drained."""
        return f"{self.name}.in"

    @property
    def queue_out(self) -> str:
        """The settings' destination."""
        return f"{self.name}.out"

    def publish(self, count: int, **more: Any) -> None:  # noqa: ANN401 - what `publish_numbered` takes
        """Publish numbered messages to the first."""
        publish_numbered(self.source.url, self.queue_in, count, **more)

    def drain(self, *arguments: str, **more: object) -> Draining:
        """A drain, not started yet."""
        variables = settings(self.source, self.destination, self.queue_in, self.queue_out)
        variables |= {"BRIDGE_SOURCE_PREFETCH": PREFETCH, **more}
        return Draining(variables, self.folder / "receipt.json", *arguments)

    def arrived(self) -> list[RawMessage]:
        """Take everything from the destination."""
        return drain(self.destination.url, self.queue_out)

    def stayed(self) -> list[RawMessage]:
        """Take everything from the source."""
        return drain(self.source.url, self.queue_in)


@pytest.fixture
def queues(source: Node, destination: Node, queue_name: str, tmp_path: Path) -> Queues:
    """The two queues, not declared yet."""
    return Queues(source, destination, queue_name, tmp_path)


def numbers(messages: Iterable[RawMessage]) -> list[int]:
    return [number_of(message) for message in messages]


@pytest.mark.parametrize("count", (1, PREFETCH // 2, PREFETCH, 20 * PREFETCH))
def test_what_is_there_is_moved_and_what_arrives_meanwhile_stays(queues: Queues, queue_type: str, count: int) -> None:
    """Whether it is less or more than the prefetch; nothing is requeued, so that order and flags stay as they are."""
    queues.fill(queue_type, count)
    later = 50
    with queues.drain() as drained:
        drained.wait_planned()
        queues.publish(later, first=count)
        assert drained.wait() == 0, drained.logs
    receipt = drained.receipt()
    assert numbers(queues.arrived()) == list(range(count))
    assert receipt["asked"] == receipt["taken"] == receipt["moved"] == count
    assert (receipt["ending"], receipt["returned"], receipt["refused"], receipt["left"]) == ("complete", 0, 0, 0)
    assert receipt["bytes"] == 256 * count
    stayed = queues.stayed()
    assert numbers(stayed) == list(range(count, count + later))
    assert not any(message.redelivered for message in stayed), "none was ever taken"


def test_a_limit_and_an_empty_queue_end_it(queues: Queues, queue_type: str) -> None:
    queues.fill(queue_type, 500)
    assert queues.drain("--limit", "120").run() == 0
    assert numbers(queues.arrived()) == list(range(120))
    more = queues.drain("--until-empty", "--yes")
    assert more.run() == 0
    assert more.receipt()["ending"] == "empty"
    assert numbers(queues.arrived()) == list(range(120, 500))
    nothing = queues.drain()
    assert nothing.run() == 0
    assert (nothing.receipt()["asked"], nothing.receipt()["moved"]) == (0, 0)


def test_a_dry_run_prints_the_plan_and_moves_nothing(queues: Queues) -> None:
    queues.fill("quorum", 3)
    drained = queues.drain("--dry-run")
    assert drained.run() == 0
    assert "drain 3 messages" in drained.logs
    assert numbers(queues.stayed()) == [0, 1, 2]


def test_messages_that_expire_on_the_way_are_explained(queues: Queues, queue_type: str) -> None:
    """Of 10,000 messages 2,000 expire: the drain ends when the queue is empty, and the receipt says why."""
    queues.fill(queue_type, 8000)
    expiring = pika.BasicProperties(expiration="2000")
    queues.publish(2000, first=8000, properties=expiring)
    drained = queues.drain(BRIDGE_MAX_RATE="2500")
    assert drained.run(90) == 0, drained.logs
    receipt = drained.receipt()
    arrived = numbers(queues.arrived())
    never = 10_000 - len(arrived)
    assert never > 0
    assert arrived[:8000] == list(range(8000))
    assert (receipt["ending"], receipt["moved"], receipt["left"]) == ("empty", len(arrived), never)
    assert f"{never:,} of the 10,000 messages that were ready at the start never came" in receipt["remarks"][0]


def test_a_signal_finishes_what_is_in_flight_and_the_next_drain_goes_on(queues: Queues, queue_type: str) -> None:
    queues.fill(queue_type, 2000)
    with queues.drain(BRIDGE_MAX_RATE="1000") as drained:
        wait_until(lambda: queues.destination.queue_ready(queues.queue_out) > 200, "messages to arrive", 30)
        assert drained.terminate() == 143
    receipt = drained.receipt()
    assert (receipt["ending"], receipt["left"]) == ("signal", 2000 - receipt["moved"])
    assert queues.drain().run() == 0
    assert sorted(numbers(queues.arrived())) == list(range(2000)), "none lost, none twice"


def test_what_is_refused_stays_in_the_queue(queues: Queues) -> None:
    """The destination is full after 20: the drain ends when it has accepted nothing for a while."""
    queues.fill("classic", 40)
    queues.destination.accept_only(queues.queue_out, 20)
    drained = queues.drain(BRIDGE_HOLD_TIMEOUT="3s")
    assert drained.run() == 1, drained.logs
    receipt = drained.receipt()
    arrived = numbers(queues.arrived())
    assert (receipt["ending"], receipt["moved"]) == ("refusing", len(arrived))
    assert sorted([*arrived, *numbers(queues.stayed())]) == list(range(40))


def test_exit_codes_tell_what_went_wrong_before_anything_moved(queues: Queues) -> None:
    queues.fill("classic", 1)
    assert queues.drain(BRIDGE_SOURCE_URL="amqp://guest:guest@127.0.0.1:1/").run() == 69
    assert queues.drain("no-such-queue").run() == 69
    assert queues.drain("queue", "--quarantine").run() == 64
    assert queues.drain("--limit", "0").run() == 64
    assert queues.drain(BRIDGE_SOURCE_PREFETCH="many").run() == 78
    assert numbers(queues.stayed()) == [0]


# --- Back to where they came from ----------------------------------------------------------------------------


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
        self.node.declare(self.queue, self.queue_type)
        for number in range(works):
            self.node.declare(
                self.work(number),
                self.queue_type,
                {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.queue},
            )

    def reject(self, number: int, count: int, first: int, **more: Any) -> None:  # noqa: ANN401 - of `publish_numbered`
        """Publish so many messages to a queue, and reject them all."""
        publish_numbered(self.node.url, self.work(number), count, first=first, **more)
        with RawClient(self.node.url) as client:
            client.consume(self.work(number))
            for taken, message in enumerate(client.deliveries(), 1):
                if taken == count or taken % 500 == 0:
                    client.reject(message.delivery_tag, multiple=True)
                if taken == count:
                    break
        self._dead(number, count, first)

    def expire(self, number: int, count: int, first: int) -> None:
        """Publish so many messages to a queue, where they expire."""
        properties = pika.BasicProperties(expiration="1", headers={"own": "kept"})
        publish_numbered(self.node.url, self.work(number), count, first=first, properties=properties)
        self._dead(number, count, first)

    def _dead(self, number: int, count: int, first: int) -> None:
        self.sent.setdefault(self.work(number), []).extend(range(first, first + count))
        total = sum(map(len, self.sent.values()))
        wait_until(lambda: self.node.queue_ready(self.queue) == total, "messages to be dead-lettered", 60)

    def drain(self, *arguments: str, **more: object) -> Draining:
        """A drain back to where they came from, not started yet."""
        variables = {"BRIDGE_SOURCE_URL": self.node.url, "BRIDGE_SOURCE_QUEUE": self.queue, **FAST, **more}
        return Draining(variables, self.folder / "receipt.json", "--to-original", *arguments)

    def back(self, number: int) -> list[RawMessage]:
        """Take what is in a queue that messages came from."""
        return drain(self.node.url, self.work(number))


@pytest.fixture
def dead(source: Node, queue_name: str, queue_type: str, tmp_path: Path) -> Dead:
    """A dead-letter queue, not declared yet."""
    return Dead(source, queue_name, tmp_path, queue_type)


def test_dead_letters_go_back_to_where_each_came_from(dead: Dead) -> None:
    dead.declare(3)
    dead.reject(0, 300, 0)
    dead.expire(1, 200, 300)
    dead.reject(2, 100, 500)
    drained = dead.drain()
    assert drained.run() == 0, drained.logs
    receipt = drained.receipt()
    assert receipt["targets"] == {dead.work(0): 300, dead.work(1): 200, dead.work(2): 100}
    assert (receipt["moved"], receipt["returned"]) == (600, 0)
    for number in (0, 2):
        messages = dead.back(number)
        assert numbers(messages) == dead.sent[dead.work(number)]
        for message in messages:
            properties = decode_properties(message.properties)
            assert {*properties.headers} - COUNTS == {"x-bridge-redriven", "x-bridge-drain"}
            assert properties.headers["x-bridge-redriven"] == 1
    # With its expiration it expires again at once.
    again = drain(dead.node.url, dead.queue)
    assert sorted(numbers(again)) == dead.sent[dead.work(1)]
    assert {decode_properties(message.properties).headers["own"] for message in again} == {"kept"}
    assert {decode_properties(m.properties).headers["x-death"][0]["original-expiration"] for m in again} == {"1"}


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
    assert sorted(numbers(drain(dead.node.url, dead.queue))) == [*range(40, 95)]


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
    assert dead.drain("--reason", "expired").run() == 0
    assert sorted(numbers(drain(dead.node.url, dead.queue))) == [*range(100, 200)]


def test_consumers_that_reject_what_comes_back_trip_the_breaker(dead: Dead) -> None:
    dead.declare(1)
    count = 3000
    dead.reject(0, count, 0)
    rejecting = RawClient(dead.node.url, timeout_s=10)
    with dead.drain("--rate", "200") as drained:
        rejecting.consume(dead.work(0))
        with suppress(TimeoutError):  # nothing comes any more
            for message in rejecting.deliveries():
                rejecting.reject(message.delivery_tag)
        rejecting.abandon()
        assert drained.wait(60) == 1, drained.logs
    receipt = drained.receipt()
    assert receipt["ending"] == "returns"
    assert receipt["moved"] < count
    assert dead.node.queue_ready(dead.queue) == count, "all of them have come back"


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


def test_receipts_of_two_hops_agree_or_say_where_not(queues: Queues) -> None:
    queues.fill("classic", 300)
    queues.destination.declare(f"{queues.queue_out}.next", "classic")
    first = queues.drain()
    assert first.run() == 0
    kept = queues.folder / "first.json"
    kept.write_text((queues.folder / "receipt.json").read_text())
    onward = {
        "BRIDGE_SOURCE_URL": queues.destination.url,
        "BRIDGE_SOURCE_QUEUE": queues.queue_out,
        "BRIDGE_DESTINATION_QUEUE": f"{queues.queue_out}.next",
    }
    assert Draining(onward, queues.folder / "second.json").run() == 0
    for other, status in (("second.json", 0), ("first.json", 1)):
        with BridgeProcess({}, "verify", str(kept), str(queues.folder / other)) as verifying:
            assert verifying.wait() == status, verifying.logs


def test_brokers_and_drains_are_killed_and_nothing_is_lost(dead: Dead) -> None:
    """Ten SIGKILLs of the drain, two of the broker: everything is back, at most a window for each of them twice.

    A classic queue that is killed forgets thousands of acks (see `bridge/window/memory.py`), those of drains that were
    killed before too: of what a drain moved that is gone, the next knows nothing. It also forgets dead letters, which
    nobody confirms (measured: 904 to 5,000 of the 5,000 that had just come), so they are put on disk first.
    """
    works, each, kills = 5, 1000, 10
    dead.declare(works)
    for number in range(works):
        dead.reject(number, each, number * each)
    dead.node.restart()
    for kill in range(kills):
        with dead.drain("--yes", "--rate", "1000", BRIDGE_SOURCE_PREFETCH=PREFETCH) as drained:
            moved = (kill + 1) * 200
            wait_until(lambda: _back(dead, works) >= moved or not drained.is_running, "messages to go back", 60)  # noqa: B023
        if kill in {3, 7}:
            dead.node.kill()
            dead.node.start().wait_ready()
            wait_until(lambda: dead.node.queue_depth(dead.queue) > 0, "the broker to know its queues", 60)
    # Until then what the last one had is nobody's: a queue that is empty twice ends the next.
    wait_until(lambda: dead.node.queue_consumers(dead.queue) == 0, "the broker to notice the last kill")
    last = dead.drain("--until-empty")
    assert last.run(120) == 0, last.logs
    assert dead.node.queue_depth(dead.queue) == 0
    for number in range(works):
        came = numbers(dead.back(number))
        assert {*came} == {*dead.sent[dead.work(number)]}, "none is lost"
        if dead.queue_type == "quorum":
            assert len(came) - each <= kills * PREFETCH


def _back(dead: Dead, works: int) -> int:
    """How many messages are where they came from."""
    return sum(dead.node.queue_ready(dead.work(number)) for number in range(works))
