"""`amqp-bridge drain`: exactly so many messages move, and the receipt tells what became of them."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pika
import pytest

from tests.broker.scene import settings
from tests.rig.bridge_process import BridgeProcess
from tests.rig.client import drain, number_of, publish_numbered
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.rig.node import Node
    from tests.rig.raw import RawMessage

PREFETCH = 100


class Draining(BridgeProcess):
    """`amqp-bridge drain` as a process, and its receipt."""

    def __init__(
        self, settings: Mapping[str, object], receipt: Path, *arguments: str, wrapper: tuple[str, ...] = ()
    ) -> None:
        self._receipt = receipt
        super().__init__(settings, "drain", "--receipt", str(receipt), *arguments, wrapper=wrapper)

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

    def drain(self, *arguments: str, wrapper: tuple[str, ...] = (), **more: object) -> Draining:
        """A drain, not started yet."""
        variables = settings(self.source, self.destination, self.queue_in, self.queue_out)
        variables |= {"BRIDGE_SOURCE_PREFETCH": PREFETCH, **more}
        return Draining(variables, self.folder / "receipt.json", *arguments, wrapper=wrapper)

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


@pytest.mark.parametrize("count", (PREFETCH // 2, 20 * PREFETCH))
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


def test_that_nobody_sees_how_far_it_is_ends_no_drain(queues: Queues) -> None:
    """Standard error is full: a line is lost every ten seconds."""
    queues.fill("classic", 130)
    drained = queues.drain("--rate", "10", wrapper=("sh", "-c", 'exec "$@" 2>/dev/full', "sh"))
    assert drained.run() == 0, drained.logs
    assert drained.receipt()["moved"] == 130


def test_a_receipt_that_cannot_be_written_any_more_is_printed(queues: Queues) -> None:
    queues.fill("classic", 30)
    queues.folder /= "receipts"
    queues.folder.mkdir()
    with queues.drain("--rate", "10") as drained:
        drained.wait_planned()
        queues.folder.rmdir()
        assert drained.wait() == 74, drained.logs
    assert "moved      30 messages" in drained.logs
    assert "the receipt cannot be written to" in drained.logs


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


def test_messages_that_expire_are_explained(queues: Queues, queue_type: str) -> None:
    """Of 10,000 messages 2,000 have expired where they lie, which counts them as ready: they never come."""
    queues.fill(queue_type, 8000)
    queues.publish(2000, first=8000, properties=pika.BasicProperties(expiration="1"))
    drained = queues.drain(BRIDGE_SOURCE_PREFETCH=1000)
    assert drained.run(90) == 0, drained.logs
    receipt = drained.receipt()
    assert numbers(queues.arrived()) == list(range(8000))
    assert (receipt["ending"], receipt["asked"], receipt["moved"], receipt["left"]) == ("empty", 10_000, 8000, 2000)
    explained = "2,000 of the 10,000 messages that were ready at the start never came: they expired on the way"
    assert receipt["remarks"][0].startswith(explained)


@pytest.mark.parametrize(("number", "status"), ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_a_signal_finishes_what_is_in_flight_and_the_next_drain_goes_on(
    queues: Queues, number: signal.Signals, status: int
) -> None:
    queues.fill("classic" if number is signal.SIGINT else "quorum", 2000)
    with queues.drain(BRIDGE_MAX_RATE="1000") as drained:
        wait_until(lambda: queues.destination.queue_ready(queues.queue_out) > 200, "messages to arrive", 30)
        os.kill(drained.pid, number)
        assert drained.wait() == status, drained.logs
    receipt = drained.receipt()
    left = 2000 - receipt["moved"]
    assert (receipt["ending"], receipt["status"], receipt["left"]) == ("signal", status, left)
    assert queues.source.queue_depth(queues.queue_in) == left > 0
    assert f"left       {left:,}" in drained.logs
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


def test_a_side_that_cannot_be_reached_is_69(queues: Queues) -> None:
    queues.fill("classic", 1)
    assert queues.drain(BRIDGE_SOURCE_URL="amqp://guest:guest@127.0.0.1:1/").run() == 69
    missing = queues.drain("no-such-queue")
    assert missing.run() == 69
    assert 'no queue "no-such-queue"' in missing.logs or "no-such-queue" in missing.logs
    assert numbers(queues.stayed()) == [0]


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
