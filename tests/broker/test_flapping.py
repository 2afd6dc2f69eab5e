"""The source's connection or the bridge itself ends again and again: no message that it never worked on pays for it.

A quorum queue of 4.x counts each of these ends for every message that it had set out, and drops what has come back
more than twenty times.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, suppress

import pika
import pytest

from tests.broker.scene import Outcome, Scene, in_flight, refused, scene
from tests.rig.client import drain, encode_properties, number_of
from tests.rig.node import Node
from tests.rig.proxy import Proxy
from tests.rig.raw import RawClient
from tests.rig.waiting import wait_until

COUNT = 1000
ENDS = 25
"""More often than the 20 times that 4.x lets a message come back."""
QUICK = {"BRIDGE_RECONNECT_MAX": "0.1", "BRIDGE_HOLD_TIMEOUT": "20s"}
"""The hold timeout is longer than the trouble lasts, and ends the wait for a destination that accepts again."""

LIMIT = 10

MEMORY_BYTES = 4 << 20
PATIENCE_S = 13.0
"""More than the ten seconds that the bridge lets memory be full, less than the default of thirty."""
STEADY_S = 4.0
"""By then an impatient broker has given up, and the bridge has noticed."""

LARGE_ID = "with-large-header"
LARGE_HEADER_BYTES = 130_900
"""A frame of 131,072 bytes has room for as much, and not for the ``x-death`` that dead-lettering adds."""


def source_generation(this: Scene) -> float:
    """The number of the source's present generation, or of the last one."""
    return this.metrics().total("bridge_generation", side="source")


def wait_open(this: Scene, generation: int) -> None:
    """Wait until this generation of the source is open."""
    this.bridge.wait_for(
        lambda m: (
            m.total("bridge_generation", side="source") >= generation
            and m.total("bridge_connection_up", side="source") == 1
        ),
        f"generation {generation} of the source",
    )


def has_worked(this: Scene) -> bool:
    """Whether the bridge has got as far as it can with what the destination refuses, or nothing is left to work on."""
    metrics = this.metrics()
    done = metrics.total("bridge_publish_retries_total") + metrics.total("bridge_messages_quarantined_total")
    return done > 0 or this.source.queue_depth(this.queue_in) == 0


def generation_ends(this: Scene) -> bool:
    """Whether the source's generation is followed by another soon."""
    generation = source_generation(this)
    try:
        wait_until(lambda: source_generation(this) > generation, "the connection to end", STEADY_S)
    except TimeoutError:
        return False
    return True


def wait_delivered(this: Scene, timeout_s: float) -> None:
    """Wait for a delivery, ``timeout_s`` at most: the bridge may well choose not to consume for a while."""
    with suppress(TimeoutError):
        wait_until(lambda: in_flight(this.metrics()) > 0, "a delivery", timeout_s)


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_source_that_is_cut_again_and_again_costs_no_message(
    source: Node, destination: Node, queue_name: str
) -> None:
    this = refused(source, destination, queue_type="quorum", name=queue_name, extra=QUICK)
    this.publish(COUNT)
    with Proxy(source.amqp_port) as proxy:
        this.bridge.settings["BRIDGE_SOURCE_URL"] = proxy.url
        with this.bridge:
            for generation in range(1, ENDS + 1):
                wait_open(this, generation)
                wait_delivered(this, 0.3)
                proxy.cut()
            destination.accept_all(this.queue_out)
            outcome = this.outcome()
    assert outcome.is_faultless, outcome


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_bridge_that_is_killed_again_and_again_costs_no_message(
    source: Node, destination: Node, queue_name: str
) -> None:
    """Killed soon after each start, as when memory runs out, and then left alone.

    The message that each of the killed had in hand may go to the quarantine: nothing tells it from a guilty one.
    """
    extra = {"BRIDGE_DELIVERY_LIMIT": LIMIT}
    arguments = {"x-delivery-limit": LIMIT}
    this = refused(source, destination, queue_type="quorum", name=queue_name, arguments=arguments, extra=extra)
    this.publish(COUNT)
    for _ in range(LIMIT + 3):
        with this.bridge:
            wait_until(lambda: has_worked(this), "a message to be refused or quarantined")
    with this.bridge:
        destination.accept_all(this.queue_out)
        outcome = this.outcome()
    assert (outcome.lost, outcome.left, outcome.doubled) == (0, 0, 0), outcome
    assert outcome.quarantined <= 1, outcome


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_a_source_that_gives_up_sending_costs_no_message(destination: Node, queue_name: str) -> None:
    """Memory is full and the bridge does not read: a broker ends the connection when it cannot write for a while.

    One broker has hardly any patience; its destination accepts a message more for each connection that ended, so that
    there is always something to hope for. The other has as much as the bridge must cope with: it ends none at all.
    """
    with ExitStack() as stack:
        scenes = []
        for send_timeout_s in (0.5, PATIENCE_S):
            node = Node("4.3", config={"tcp_listen_options.send_timeout": int(send_timeout_s * 1000)}).start()
            stack.callback(node.kill)
            scenes.append((node, f"{queue_name}-{send_timeout_s:g}"))
        impatient, patient = (full_of_memory(node.wait_ready(), destination, name) for node, name in scenes)
        for this in (patient, impatient):
            stack.enter_context(this.bridge)
        patient.bridge.wait_for(lambda m: m.total("bridge_bytes_in_flight") >= MEMORY_BYTES, "memory to be full")
        until_s = time.monotonic() + PATIENCE_S + STEADY_S
        for accepted in range(2, ENDS + 2):
            destination.accept_only(impatient.queue_out, accepted)
            if not generation_ends(impatient) and not generation_ends(impatient):
                break
        # That a connection does not end can only be seen by letting time pass.
        wait_until(lambda: time.monotonic() > until_s, "the patient broker's time to pass", 2 * PATIENCE_S)
        patient_generation = source_generation(patient)
        for this in (patient, impatient):
            destination.accept_all(this.queue_out)
        outcomes = [this.outcome() for this in (patient, impatient)]
    assert all(outcome.is_faultless for outcome in outcomes), outcomes
    assert patient_generation == 1


def full_of_memory(source: Node, destination: Node, name: str) -> Scene:
    """A bridge that is to hold more than it may, and a broker whose socket does not hold the rest."""
    extra = QUICK | {"BRIDGE_MAX_IN_FLIGHT_BYTES": MEMORY_BYTES, "BRIDGE_HOLD_TIMEOUT": "60s"}
    this = refused(source, destination, queue_type="quorum", name=name, extra=extra)
    this.bridge.settings["BRIDGE_SOURCE_URL"] += "?heartbeat=2"  # who does not read notices the end by writing
    this.publish(300, size=128_000)
    return this


def publish_large_header(this: Scene) -> int:
    """Have the source hold a message whose header frame exceeds ``frame_max``; return its number."""
    before = f"{this.queue_in}.before"
    to_source = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": this.queue_in, "x-message-ttl": 0}
    this.source.declare(before, arguments=to_source)
    headers = {"large": "." * (LARGE_HEADER_BYTES - len("\0\0\0\0\5largeS\0\0\0\0"))}
    properties = pika.BasicProperties(delivery_mode=2, message_id=f"{LARGE_ID}-{this.sent}", headers=headers)
    with RawClient(this.source.url) as client:
        client.confirm_select()
        client.publish("", before, encode_properties(properties), b"%012d" % this.sent)
        client.wait_confirms()
    this.sent += 1
    wait_until(lambda: this.source.queue_depth(this.queue_in) == this.sent, "the message to be dead-lettered")
    return this.sent - 1


def test_headers_larger_than_a_frame_hold_up_nobody(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """RabbitMQ does not hold itself to ``frame_max``. Such a message is forwarded, quarantined or at least named.

    One is the first of its generation, another comes in the middle of many.
    """
    this = scene(source, destination, queue_type=queue_type, name=queue_name, extra=QUICK)
    large = {publish_large_header(this)}
    this.publish(COUNT // 2)
    large.add(publish_large_header(this))
    this.publish(COUNT // 2)
    arrived: list[int] = []
    quarantined: list[int] = []

    def all_healthy_arrived() -> bool:
        arrived.extend(map(number_of, drain(destination.url, this.queue_out)))
        return len({*arrived} - large) == COUNT

    def unnamed() -> set[int]:
        """Which of the large ones are not at the destination nor in the quarantine, and nobody has heard of."""
        if source.has_queue(f"{this.queue_in}.quarantine"):
            quarantined.extend(map(number_of, drain(source.url, f"{this.queue_in}.quarantine")))
        said = this.bridge.logs + this.bridge.get("/readyz")[1]
        return {n for n in large - {*arrived, *quarantined} if not re.search(rf"{LARGE_ID}-{n}\b", said)}

    with this.bridge:
        with suppress(TimeoutError):
            wait_until(all_healthy_arrived, "the healthy ones to arrive", 20)
            wait_until(lambda: not unnamed(), "the large ones to be dealt with", 10)
        left_unnamed = unnamed()
        metrics = this.metrics()
    ended = metrics.total("bridge_generations_ended_total", side="source")
    found = {*arrived, *quarantined, *map(number_of, drain(source.url, this.queue_in))}
    outcome = Outcome(
        lost=this.sent - len(found),
        left=0,
        quarantined=len({*quarantined} - large),
        doubled=len(arrived) - len({*arrived}),
        doubled_at_most=metrics.total("bridge_duplicates_possible_total"),
    )
    held_up = COUNT - len({*arrived} - large)
    assert outcome.is_faultless, (outcome, held_up, ended)
    assert (held_up, left_unnamed) == (0, set())
    assert ended <= len(large), "a generation of the source for each large one at the most"


def wait_up(this: Scene) -> float:
    """Wait until the source is connected; return the number of the generation."""
    return this.bridge.wait_for(
        lambda m: m.total("bridge_connection_up", side="source") == 1, "the source to be connected"
    ).total("bridge_generation", side="source")


def store_unreadable(this: Scene) -> None:
    """Have the source queue begin with a message that its own broker cannot encode: a header's text is a number."""
    this.source.eval(f"""
        X = rabbit_misc:r(<<"/">>, exchange, <<>>),
        P = {{'P_basic', undefined, undefined, [{{<<"bad">>, longstr, 42}}], 2, undefined, undefined, undefined,
             undefined, <<"unreadable">>, undefined, undefined, undefined, undefined, undefined}},
        {{ok, M}} = rabbit_basic:message(X, <<"{this.queue_in}">>, {{content, 60, P, none, none, [<<"body">>]}}),
        rabbit_basic:publish(rabbit_basic:delivery(false, false, M, undefined))""")
    wait_until(lambda: this.source.queue_depth(this.queue_in) == 1, "the message to be stored")


@pytest.mark.parametrize("broker_version", ("3.10",), indirect=True)  # 4.3 lets no such message in
def test_a_message_that_the_broker_cannot_send_is_named_and_costs_no_other(
    source: Node, destination: Node, queue_type: str, queue_name: str
) -> None:
    """The broker closes the connection at it (541). On a quorum queue each of these counts towards the limit."""
    arguments = {"x-delivery-limit": LIMIT} if queue_type == "quorum" else {}
    extra = QUICK | {"BRIDGE_HOLD_TIMEOUT": "1s", "BRIDGE_DELIVERY_LIMIT": LIMIT}
    this = scene(source, destination, queue_type=queue_type, name=queue_name, arguments=arguments, extra=extra)
    store_unreadable(this)
    this.publish(20)
    expected = "consuming has stopped" if queue_type == "quorum" else "it cannot read the message"
    with this.bridge:
        wait_until(lambda: expected in this.bridge.get("/readyz")[1], "the message at the head to be named")
        assert this.bridge.get("/readyz")[0] == 503
        if queue_type == "quorum":
            stopped_at = wait_up(this)
            this.publish(1)
            with suppress(TimeoutError):
                wait_until(lambda: source_generation(this) > stopped_at, "another generation", STEADY_S)
            assert source_generation(this) == stopped_at, "it consumes no more"
        assert this.metrics().total("bridge_messages_forwarded_total") == 0
    assert source.queue_depth(this.queue_in) == 1 + this.sent, "none is dropped"
