"""The rig keeps its promises: otherwise every test that stands on it says nothing."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from tests.rig.amqp10 import publish_amqp10
from tests.rig.bridge_process import StartBridge, bridge_settings
from tests.rig.client import Audit, audit, decode_properties, drain, drain_and_audit, number_of, publish_numbered
from tests.rig.cluster import Cluster
from tests.rig.node import Node
from tests.rig.ports import LOOPBACK, free_port
from tests.rig.proxy import Proxy
from tests.rig.raw import RawClient, RawClosedError, frame
from tests.rig.scheduling import group
from tests.rig.shovel import Shovel
from tests.rig.sieve import CONFIRM, DELIVER, Sieve, Swallowing
from tests.rig.tuning import limited
from tests.rig.waiting import wait_until


@pytest.mark.parametrize(
    ("numbers", "expected"),
    (
        ([0, 1, 2, 3], Audit(4, 4, [], 0, 0)),
        ([0, 1, 3], Audit(4, 3, [2], 0, 0)),
        ([0, 1, 1, 2, 3, 0], Audit(4, 4, [], 2, 0)),
        ([0, 2, 1, 3], Audit(4, 4, [], 0, 1)),
        ([], Audit(4, 0, [0, 1, 2, 3], 0, 0)),
    ),
)
def test_audit_counts_lost_doubled_and_misordered(numbers: list[int], expected: Audit) -> None:
    assert audit(numbers, 4) == expected
    assert expected.is_perfect == (numbers == [0, 1, 2, 3])


def test_numbered_messages_arrive_as_they_were_sent(source: Node, queue_name: str, queue_type: str) -> None:
    """Number, size, id, persistence and given properties, decoded by pika from the raw header."""
    source.declare(queue_name, queue_type)
    properties = pika.BasicProperties(content_type="text/plain", headers={"a": 1})
    publish_numbered(source.url, queue_name, 3, first=7, size=300, properties=properties)
    assert source.queue_depth(queue_name) == 3
    messages = drain(source.url, queue_name)
    assert source.queue_depth(queue_name) == 0
    assert [message.body[:12] for message in messages] == [b"000000000007", b"000000000008", b"000000000009"]
    assert {len(message.body) for message in messages} == {300}
    found = [decode_properties(message.properties) for message in messages]
    assert [each.message_id for each in found] == [f"message-{number:012d}" for number in (7, 8, 9)]
    assert {each.delivery_mode for each in found} == {2}
    assert {each.content_type for each in found} == {"text/plain"}
    assert all(each.headers["a"] == 1 for each in found)


def test_persistent_messages_survive_a_kill(source: Node, queue_name: str, queue_type: str) -> None:
    source.declare(queue_name, queue_type)
    publish_numbered(source.url, queue_name, 2_000)
    source.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((LOOPBACK, source.amqp_port))
    source.start().wait_ready()
    wait_until(lambda: source.queue_depth(queue_name) == 2_000, "the queue to be whole again")
    assert drain_and_audit(source.url, queue_name, 2_000).is_perfect


def test_a_frozen_node_answers_nothing_until_it_is_thawed(source: Node, queue_name: str) -> None:
    source.declare(queue_name)
    with RawClient(source.url, timeout_s=0.5) as client:
        source.freeze()
        with pytest.raises(TimeoutError):
            client.ready(queue_name)
        source.thaw()
        with RawClient(source.url) as another:
            assert another.ready(queue_name) == 0
        client.abandon()


def test_an_alarm_holds_publishers_up_until_it_is_cleared(source: Node, queue_name: str) -> None:
    source.declare(queue_name)
    source.alarm(on=True)
    with RawClient(source.url) as client:
        client.confirm_select()
        client.publish("", queue_name, b"\0\0", b"held")
        assert source.queue_depth(queue_name) == 0
        source.alarm(on=False)
        client.wait_confirms()
    assert source.queue_depth(queue_name) == 1


def test_closed_connections_are_told_why(source: Node, queue_name: str) -> None:
    source.declare(queue_name)
    with RawClient(source.url) as client:
        assert source.close_connections("maintenance") == 1
        with pytest.raises(RawClosedError, match=r"320 .*maintenance"):
            client.ready(queue_name)
        client.abandon()


def test_returned_and_unconfirmed_messages_are_noticed(source: Node) -> None:
    with pytest.raises(RuntimeError, match="1 returned"):
        publish_numbered(source.url, "no such queue", 1)


def test_a_large_message_is_split_into_frames_and_joined_again(source: Node, queue_name: str) -> None:
    source.declare(queue_name)
    body = os.urandom(1_000_000)
    with RawClient(source.url, frame_max=8_192) as client:
        client.confirm_select()
        client.publish("", queue_name, b"\0\0", body)
        client.wait_confirms()
        received = client.get(queue_name)
        assert received
        assert received.body == body


def test_a_proxy_loses_deliveries_whole(source: Node, queue_name: str) -> None:
    """And those alone: what is asked meanwhile is answered, and what comes afterwards arrives."""
    source.declare(queue_name)
    with Proxy(source.amqp_port, by_frame=True) as proxy, RawClient(proxy.url) as client:
        client.consume(queue_name)
        for first, methods in ((0, ()), (2, (DELIVER,)), (5, ())):
            proxy.swallow(*methods)
            publish_numbered(source.url, queue_name, 3 if methods else 2, first=first, size=100_000)
            wait_until(lambda: source.queue_ready(queue_name) == 0, "all to be on their way")
            if methods:
                wait_until(lambda: proxy.swallowed == 3, "the deliveries to be lost")
        client.cancel()
        assert [(number_of(m), m.delivery_tag) for m in client.deliveries()] == [(0, 1), (1, 2), (5, 6), (6, 7)]


def test_frames_are_sifted_wherever_a_chunk_ends() -> None:
    def method(class_id: int, method_id: int) -> bytes:
        return frame(1, 1, struct.pack(">HH", class_id, method_id))

    header, body, heartbeat, other = frame(2, 1, b"header"), frame(3, 1, b"body"), frame(8, 0, b""), frame(3, 2, b"b")
    lost, passing = method(*DELIVER), method(*CONFIRM)
    swallowing = Swallowing(frozenset({DELIVER}))
    sieve = Sieve(swallowing)
    data = lost + header + heartbeat + other + body + passing + header + lost
    assert b"".join(sieve.sift(data[i : i + 1]) for i in range(len(data))) == heartbeat + other + passing + header
    swallowing.methods = frozenset()
    assert Sieve(swallowing).sift(lost + header) == lost + header
    assert sieve.sift(header + body + lost) == lost, "the content of a method that was lost is lost"
    assert swallowing.number == 2


@pytest.mark.parametrize("broker_version", ("4.3",), indirect=True)
def test_amqp_1_0_brings_headers_that_0_9_1_does_not(source: Node, queue_name: str) -> None:
    source.declare(queue_name)
    publish_amqp10(source.url, queue_name, b"body", "an id", {"BCC": "all"})
    (message,) = drain(source.url, queue_name)
    properties = decode_properties(message.properties)
    assert (message.body, properties.message_id, properties.headers) == (b"body", "an id", {"BCC": "all"})
    with pytest.raises(RuntimeError, match="not-found"):
        publish_amqp10(source.url, "no such queue", b"body", "an id", {})


def test_limits_are_others_for_a_while(source: Node, queue_name: str) -> None:
    source.declare(queue_name)
    with limited(source, frame_max=8192, max_message_size=1000):
        with RawClient(source.url) as client:
            assert client.frame_max == 8192
        with pytest.raises(RawClosedError, match="message size 1001 is larger"):
            publish_numbered(source.url, queue_name, 1, size=1001)
    publish_numbered(source.url, queue_name, 1, size=1001)
    with RawClient(source.url) as client:
        assert client.frame_max == 131_072


def test_a_proxy_cuts_refuses_stalls_and_delays(source: Node, queue_name: str) -> None:
    source.declare(queue_name)
    with Proxy(source.amqp_port) as proxy:
        for reset in (True, False):
            with RawClient(proxy.url) as client:
                proxy.cut(reset=reset)
                with pytest.raises((ConnectionResetError, BrokenPipeError, RawClosedError)):
                    client.ready(queue_name)
                client.abandon()
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            RawClient(proxy.url)
        proxy.accept()
        proxy.upstream.delay_s = proxy.downstream.delay_s = 0.01
        publish_numbered(proxy.url, queue_name, 100)
        proxy.stall()
        with pytest.raises(TimeoutError):
            RawClient(proxy.url, timeout_s=0.3)
        proxy.resume()
        assert drain_and_audit(proxy.url, queue_name, 100).is_perfect
        assert proxy.connections >= 5


def test_a_proxy_carries_a_half_close_through(source: Node) -> None:
    """What the broker still says after the client's FIN arrives, and then its own FIN."""
    with Proxy(source.amqp_port) as proxy, socket.create_connection((LOOPBACK, proxy.port), 10) as client:
        client.sendall(b"HTTP/1.1")  # no AMQP: the broker answers with the header it wants, and closes
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100).startswith(b"AMQP")
        assert client.recv(100) == b""


def test_a_cluster_elects_a_new_leader_when_the_old_one_is_killed(broker_version: str, queue_name: str) -> None:
    with Cluster(broker_version) as cluster:
        cluster.nodes[0].declare(queue_name, "quorum")
        publish_numbered(cluster.urls[1], queue_name, 100)
        leader = cluster.leader(queue_name)
        leader.kill()
        new_leader = cluster.leader(queue_name)
        assert new_leader is not leader
        assert drain_and_audit(new_leader.url, queue_name, 100).is_perfect


def test_a_shovel_moves_messages(broker_version: str) -> None:
    with Node(broker_version, plugins=["rabbitmq_shovel"]) as node:
        node.declare("from")
        node.declare("to")
        publish_numbered(node.url, "from", 1_000)
        with Shovel(node, source_url=node.url, source_queue="from", destination_url=node.url, destination_queue="to"):
            wait_until(lambda: node.queue_depth("to") == 1_000, "the shovel to move all")
        assert drain_and_audit(node.url, "to", 1_000).is_perfect


def test_the_bridge_is_watched_through_its_metrics(
    source: Node, destination: Node, queue_name: str, start_bridge: StartBridge
) -> None:
    source.declare(queue_name)
    destination.declare(queue_name)
    publish_numbered(source.url, queue_name, 1_000)
    settings = bridge_settings(source, destination, queue_name)
    bridge = start_bridge(settings).wait_ready()
    bridge.wait_for(lambda metrics: metrics.total("bridge_messages_forwarded_total") == 1_000)
    assert bridge.rss_bytes() > 10_000_000
    assert bridge.cpu_seconds() > 0
    assert bridge.terminate() == 0
    assert bridge.events
    assert drain_and_audit(destination.url, queue_name, 1_000).is_perfect


def test_a_reserved_port_is_nobody_elses() -> None:
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((LOOPBACK, free_port()))


_ABANDON = """
import subprocess, sys, time
from pathlib import Path
from tests.rig import guardian
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
guardian.guard_group(child.pid)
guardian.guard_folder(Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


def test_nothing_outlives_a_killed_rig(tmp_path: Path) -> None:
    """A process and a folder of a rig that is SIGKILLed are gone soon after."""
    folder = tmp_path / "node"
    folder.mkdir()
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _ABANDON, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as rig:
        assert rig.stdout
        child = int(rig.stdout.readline())
        rig.kill()
    wait_until(lambda: not folder.exists(), "the guardian to remove the folder")
    wait_until(lambda: not _is_alive(child), "the guardian to end the child")


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("nodeid", "name"),
    (
        ("tests/broker/test_cluster.py::test_killed[4.3]", "tests/broker/test_cluster.py 4.3"),
        ("tests/broker/test_drain.py::test_all[3.10-quorum-x]", "tests/broker/test_drain.py 3.10"),
        ("tests/rig/test_rig.py::test_a[quorum-4.3]", "tests/rig/test_rig.py 4.3"),
        ("tests/rig/test_rig.py::test_a[x]", "tests/rig/test_rig.py::test_a[x]"),
        ("tests/deploy/test_pod.py::test_a[4.1.4]", "image"),
        ("tests/deploy/test_chart.py::test_a[4.1.4]", "tests/deploy/test_chart.py"),
        ("tests/unit/amqp/test_cutter.py::test_a[4.3]", "tests/unit/amqp/test_cutter.py::test_a[4.3]"),
    ),
)
def test_what_shares_brokers_or_an_image_runs_in_one_process(nodeid: str, name: str) -> None:
    assert group(nodeid) == name
