"""The HTTP server under clients by the thousand: bounded in threads, descriptors, memory and time, and none left."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bridge.observe.http import MAX_CLIENTS, MAX_HEAD_BYTES
from tests.rig.waiting import wait_until
from tests.support.http_service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


def serving() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def received(client: socket.socket) -> bytes:
    """All that comes until the end of the stream, or until the connection is reset."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def exchanged(client: socket.socket, requests: bytes) -> bytes:
    """Write on a thread of its own, and read meanwhile; return all that came."""

    def write() -> None:
        client.sendall(requests)
        client.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    answers = received(client)
    writer.join()
    return answers


def test_a_thousand_idle_connections_keep_no_probe_out_and_leave_no_thread_and_no_descriptor(service: Service) -> None:
    service.ask("/healthz")
    wait_until(lambda: serving() == 0, "the first client's thread to end")
    before = descriptors()
    for _ in range(10):
        idle = [service.connect() for _ in range(100)]
        assert service.ask("/healthz").status == 200
        wait_until(lambda: serving() <= MAX_CLIENTS, "the threads of those sent away to end")
        for client in idle:
            client.close()
    wait_until(lambda: serving() == 0, "all of their threads to end")
    wait_until(lambda: descriptors() <= before, "all of their descriptors to be closed")


def test_a_thousand_pipelined_requests_are_answered_in_turn_on_one_thread(service: Service) -> None:
    """The client reads while it writes: what nobody reads is not kept, the server stops until it is read."""
    times = 1000
    with service.connect() as client:
        answers = exchanged(client, PROBE * times)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == times
    assert answers.count(b'{"healthy": true') == times
    wait_until(lambda: serving() == 0, "its thread to end")


def test_scrapes_leave_no_thread_and_cost_the_loop_one_callback_each() -> None:
    """So that forwarding meets of each scrape no more than the copy of the books."""
    with Service(sample_every_s=3600) as service:
        check_scrapes(service)


def check_scrapes(service: Service) -> None:
    times, calls = 200, 0
    original = service.snapshot

    def counting() -> object:
        nonlocal calls
        calls += 1
        return original()

    service.ask("/metrics")  # by then the first sample has been taken
    service.answers._snapshot = counting  # type: ignore[assignment]
    with service.connect() as client:
        client.settimeout(None)
        request = b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * times
        answers = exchanged(client, request)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == times
    assert calls == times
    wait_until(lambda: serving() == 0, "its thread to end")


def test_a_client_that_reads_nothing_is_sent_away_and_holds_one_thread_until_then() -> None:
    with Service(client_timeout_s=0.05) as service, service.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            for _ in range(10_000):
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        except ConnectionError:
            pass  # as it should
        wait_until(lambda: serving() == 0, "it to be sent away")
        assert service.ask("/healthz").status == 200


def test_a_head_that_drips_has_a_time_limit_of_its_own() -> None:
    """Each byte comes before the client counts as silent, and for ever."""
    with Service(client_timeout_s=0.5) as service, service.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        client.settimeout(0.05)
        while True:
            try:
                client.sendall(b"x")
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert service.ask("/healthz").status == 200


@pytest.mark.parametrize(
    "head",
    (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * (MAX_HEAD_BYTES // 6),
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"x" * (2 * MAX_HEAD_BYTES),
        b"GET /" + b"x" * (2 * MAX_HEAD_BYTES),
    ),
    ids=("headers", "a header", "the line"),
)
def test_a_head_without_end_is_refused_and_not_kept(service: Service, head: bytes) -> None:
    with service.connect() as client:
        client.sendall(head)
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
    assert service.ask("/healthz").status == 200


@pytest.mark.parametrize("framing", (b"Content-Length: 40", b"Transfer-Encoding: chunked", b"Content-Length: -1"))
def test_a_body_is_never_taken_for_the_next_request(service: Service, framing: bytes) -> None:
    smuggled = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with service.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + smuggled)
        client.shutdown(socket.SHUT_WR)
        answer = received(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
