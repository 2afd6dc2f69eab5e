"""The HTTP server: real sockets, a real event loop that can be made to hang, and clients that behave badly."""

from __future__ import annotations

import asyncio
import errno
import http.client
import logging
import re
import resource
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from socketserver import TCPServer
from typing import TYPE_CHECKING

import pytest

from bridge.errors import ConfigurationError, NotYetError
from bridge.observe.answers import Answers
from bridge.observe.http import MAX_CLIENTS, HttpServer, most_clients
from bridge.observe.status import Status
from bridge.settings.http import HttpSettings
from bridge.window.books import Books
from tests.rig.waiting import wait_until
from tests.support.http_service import TIMEOUT_S, Service

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


@pytest.fixture
def impatient() -> Iterator[Service]:
    """One that soon gives up a loop that hangs and a client that is silent."""
    with Service(loop_timeout_s=0.1, client_timeout_s=0.05) as running:
        yield running


def test_metrics_are_prometheus_text_and_openmetrics_for_who_asks(service: Service) -> None:
    text = service.ask("/metrics")
    assert text.status == 200
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert b"\nbridge_messages_forwarded_total 0.0\n" in text.body
    openmetrics = service.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")
    odd = service.ask("/metrics", Accept="application/openmetrics-text; version=abc")
    assert odd.headers["content-type"].startswith("text/plain")


def test_the_processes_own_metrics_are_there_too(service: Service) -> None:
    page = service.ask("/metrics").body
    for name in (b"process_resident_memory_bytes", b"python_info", b"python_gc_collections_total"):
        assert name in page


def test_every_scrape_shows_the_books_of_now(service: Service) -> None:
    service.books.forwarded = 7
    assert b"\nbridge_messages_forwarded_total 7.0\n" in service.ask("/metrics").body


def test_the_copy_is_made_on_the_loops_thread_and_nowhere_else(service: Service) -> None:
    for path in ("/status", "/metrics", "/healthz", "/readyz"):
        service.ask(path)
    assert service.threads == {service.loop_thread}


def test_the_books_balance_on_every_scrape_while_traffic_flows(service: Service) -> None:
    """The traffic is on the loop: between any two steps the books balance, within one they do not."""
    flowing = True

    def step() -> None:
        service.books.received += 1
        service.books.held += 1
        service.books.held -= 1
        service.books.forwarded += 1
        if flowing:
            service.loop.call_soon(step)

    service.loop.call_soon_threadsafe(step)
    seen = set()
    for _ in range(30):
        page = service.ask("/metrics").body.decode()
        numbers = dict(
            re.findall(r"^bridge_messages_(received|forwarded)_total(?:{.*false.*})? (\S+)$", page, re.MULTILINE)
        )
        assert numbers["received"] == numbers["forwarded"]
        seen.add(numbers["received"])
    flowing = False
    assert len(seen) > 1


def test_readiness_gives_its_reasons(service: Service) -> None:
    ready = service.ask("/readyz")
    assert (ready.status, ready.json()) == (200, {"ready": True, "paused": False, "reasons": [], "degraded": []})
    service.status.source.up, service.status.source.reason = False, "nothing listens there"
    service.status.destination.blocked = True
    hindered = service.ask("/readyz")
    assert hindered.status == 503
    assert hindered.headers["content-type"] == "application/json"
    reasons = ["source: nothing listens there", "destination: blocked by the broker"]
    assert hindered.json() == {"ready": False, "paused": False, "reasons": reasons, "degraded": []}


def test_what_hinders_single_messages_is_told_and_does_not_hinder_readiness(service: Service) -> None:
    service.status.degraded = ["destination: has no route for 1 message; trying again"]
    ready = service.ask("/readyz")
    degraded = service.status.degraded
    said = {"ready": True, "paused": False, "reasons": [], "degraded": degraded}
    assert (ready.status, ready.json()) == (200, said)


def test_a_paused_bridge_is_ready_and_says_what_it_would_meet(service: Service) -> None:
    service.status.paused, service.status.consuming = True, False
    ready = service.ask("/readyz")
    assert (ready.status, ready.json()) == (200, {"ready": True, "paused": True, "reasons": [], "degraded": []})
    service.status.source.up, service.status.source.reason = False, "nothing listens there"
    away = service.ask("/readyz")
    assert (away.status, away.json()["degraded"]) == (200, ["source: nothing listens there"])
    service.status.paused, service.status.stopping = False, True
    stopping = service.ask("/readyz")
    assert (stopping.status, stopping.json()["reasons"]) == (503, ["source: nothing listens there", "stopping"])


def test_the_status_is_one_document_and_never_kept_by_a_cache(service: Service) -> None:
    service.books.received = service.books.forwarded = 7
    answer = service.ask("/status")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    said = answer.json()
    assert (said["version"], said["books"]["forwarded"], said["readiness"]["ready"]) == (1, 7, True)


def test_the_status_of_a_bridge_that_is_not_ready_is_answered_all_the_same(service: Service) -> None:
    service.status.source.ended("connection-lost", "the broker went away", 0.0)
    answer = service.ask("/status")
    assert (answer.status, answer.json()["readiness"]["reasons"]) == (200, ["source: the broker went away"])


def test_samples_are_taken_by_the_loop_and_not_by_scrapes() -> None:
    with Service(sample_every_s=0.001) as service:
        wait_until(lambda: len(service.answers._history._samples) >= 3, "some samples")


def test_a_stopped_server_takes_no_more_samples() -> None:
    with Service() as service:
        service.ask("/status")
        sampling = service.answers._sampling
        assert sampling is not None
        assert not sampling.cancelled()
    assert sampling.cancelled()


def test_health_is_not_readiness(service: Service) -> None:
    """A fault of a broker is no reason to restart the bridge, also where reconnecting does not help."""
    service.status.source.up = False
    service.status.stuck = "source: no progress for 60 s"
    healthy = service.ask("/healthz")
    assert (healthy.status, healthy.json()) == (200, {"healthy": True, "reason": ""})
    ready = service.ask("/readyz")
    assert (ready.status, ready.json()["reasons"][-1]) == (503, "source: no progress for 60 s")


def test_a_loop_that_hangs_is_seen_and_the_last_books_are_still_shown(impatient: Service) -> None:
    service = impatient
    service.books.forwarded = 5
    service.ask("/metrics")
    end = service.hang()
    service.books.forwarded = 6
    health, ready, page, told = (service.ask(path) for path in ("/healthz", "/readyz", "/metrics", "/status"))
    assert told.json()["readiness"]["reasons"] == ["the event loop does not answer"]
    assert told.json()["sentence"].startswith("the event loop does not answer; everything else is as of ")
    assert (health.status, health.json()["reason"]) == (503, "the event loop has not answered for 0.1 s")
    assert (ready.status, ready.json()["ready"]) == (503, False)
    assert page.status == 200
    assert b"\nbridge_messages_forwarded_total 5.0\n" in page.body
    end.set()
    assert service.ask("/healthz").status == 200
    assert b"\nbridge_messages_forwarded_total 6.0\n" in service.ask("/metrics").body


def test_a_loop_that_has_ended_is_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    answers = Answers(lambda: (Books(), Status()), loop)
    with HttpServer(HttpSettings(), answers):
        loop.close()
        assert answers.healthz()[0] == 503
        assert answers.readyz()[0] == 503
        assert answers.metrics("")[0] == 200
        assert answers.status()[0] == 200
    assert not caplog.records


def test_the_page_asks_nobody_else_and_links_to_the_rest(service: Service) -> None:
    answer = service.ask("/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for path in (b"/status", b"/metrics", b"/healthz", b"/readyz"):
        assert b'href="' + path in answer.body
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ("/metric", "/metrics/", "/../etc/passwd", "/%00"))
def test_anything_else_is_not_found_and_not_repeated(service: Service, path: str) -> None:
    answer = service.ask(path)
    assert answer.status == 404
    assert answer.body == b"404 Not Found\n"


def test_a_query_changes_nothing(service: Service) -> None:
    assert service.ask("/healthz?x=1").status == 200


@pytest.mark.parametrize("method", ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))
def test_other_methods_are_not_allowed(service: Service, method: str) -> None:
    answer = service.ask("/metrics", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ("/", "/status", "/metrics", "/healthz", "/readyz"))
def test_head_is_get_without_the_body(service: Service, path: str) -> None:
    answer = service.ask(path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_a_connection_serves_several_requests(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.server.port, timeout=TIMEOUT_S)
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read().startswith(b'{"healthy": true')
    connection.close()


def test_clients_that_only_occupy_connections_do_not_keep_a_probe_out(service: Service) -> None:
    silent = [service.connect() for _ in range(MAX_CLIENTS)]
    dripping = [service.connect() for _ in range(3 * MAX_CLIENTS)]
    for client in dripping:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX-")
    assert service.ask("/healthz").status == 200

    def serving() -> int:
        return sum("process_request_thread" in thread.name for thread in threading.enumerate())

    wait_until(lambda: serving() <= MAX_CLIENTS, "the threads of those sent away to end")
    for client in (*silent, *dripping):
        client.close()


@pytest.mark.parametrize(
    ("limit", "clients"), ((16, 1), (30, 6), (1024, MAX_CLIENTS), (resource.RLIM_INFINITY, MAX_CLIENTS))
)
def test_a_low_limit_of_descriptors_leaves_some_for_the_brokers(
    limit: int, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert most_clients() == clients


def test_a_client_for_whom_no_thread_can_be_started_is_sent_away_and_that_is_said_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with service.connect() as client:
                assert client.recv(1) == b""
    assert caplog.text.count("a request could not be answered for lack of memory") == 1
    assert "Traceback" not in caplog.text
    assert service.ask("/healthz").status == 200


def test_without_descriptors_the_oldest_client_makes_room(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that asks waits in the queue of the socket meanwhile."""
    idle = service.connect()
    assert service.ask("/healthz").status == 200
    accept, refusals = TCPServer.get_request, iter((errno.EMFILE,))

    def scarce(server: TCPServer) -> object:
        if code := next(refusals, 0):
            raise OSError(code, "Too many open files")
        return accept(server)

    monkeypatch.setattr(TCPServer, "get_request", scarce)
    assert service.ask("/healthz").status == 200
    with idle:
        assert idle.recv(1) == b"", "it was sent away"


def test_a_silent_client_is_sent_away(impatient: Service) -> None:
    with impatient.connect() as client:
        client.sendall(b"GET /met")
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "garbage",
    (
        b"\x00\xff\r\n\r\n",
        b"AMQP\x00\x00\x09\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
    ),
    ids=lambda garbage: repr(garbage[:16]),
)
def test_garbage_is_answered_or_dropped_in_silence(
    service: Service, garbage: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with service.connect() as client:
        try:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
        except OSError:
            pass  # it was dropped before all of it was sent
    assert service.ask("/healthz").status == 200
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.mark.parametrize(
    "garbage", (b"\x00\xff", b"HEAD / HTTP/1.1\roHost: x", b"GET / HTTP/0.9\r\nHost: a\r\nHost: b")
)
def test_a_refusal_says_that_it_is_one(service: Service, garbage: bytes) -> None:
    """http.server takes these for HTTP/0.9, where an answer has no status."""
    with service.connect() as client:
        client.sendall(garbage + b"\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_leaves_before_the_answer_is_no_event(
    service: Service, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(5):
        with service.connect() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 20)
    assert service.ask("/healthz").status == 200
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_a_bug_in_the_copy_is_logged_with_its_traceback(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> tuple[Books, Status]:
        raise ZeroDivisionError

    monkeypatch.setattr(service.answers, "_snapshot", broken)
    with caplog.at_level(logging.ERROR), pytest.raises(http.client.RemoteDisconnected):
        service.ask("/metrics")
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


@pytest.mark.skipif(not socket.has_ipv6, reason="NOT TESTED: this Python has no IPv6")
@pytest.mark.parametrize("host", ("::1", "[::1]"))
def test_ipv6_addresses(host: str) -> None:
    with Service(host) as service:
        assert service.ask("/healthz").status == 200


def reached(server: HttpServer) -> list[str]:
    """Which of this host's own addresses lead to the server."""
    found = []
    for host in ("127.0.0.1", "::1"):
        with suppress(ConnectionRefusedError):
            client = http.client.HTTPConnection(host, server.port, timeout=5)
            client.request("GET", "/healthz")
            assert client.getresponse().status == HTTPStatus.OK
            client.close()
            found.append(host)
    return found


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="NOT TESTED: this machine has no IPv6")
@pytest.mark.parametrize("host", (None, "::"))
def test_by_default_both_families_are_served(service: Service, host: str | None) -> None:
    with HttpServer(HttpSettings(host), service.answers) as server:
        assert reached(server) == ["127.0.0.1", "::1"]


def test_a_machine_without_ipv6_serves_ipv4(service: Service) -> None:
    with HttpServer(HttpSettings(None), service.answers, has_both=lambda: False) as server:
        assert reached(server) == ["127.0.0.1"]


@pytest.mark.parametrize("both", (True, False))
def test_a_port_in_use_is_named_alone_where_no_address_is_set(
    service: Service,
    both: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    with pytest.raises(NotYetError, match=rf"^BRIDGE_HTTP_PORT={service.server.port} cannot be listened on"):
        HttpServer(HttpSettings(None, service.server.port), service.answers, has_both=lambda: both)


@pytest.mark.parametrize("host", ("999.1.1.1", "::zz", "192.0.2.1", "[ff02::1]"))
def test_an_address_that_cannot_be_had_is_told_from_a_port_that_is_taken(service: Service, host: str) -> None:
    named = rf"^BRIDGE_HTTP_HOST={re.escape(host)} cannot be listened on \(.+\); expected an address of this machine$"
    with pytest.raises((ConfigurationError, NotYetError), match=named):
        HttpServer(HttpSettings(host), service.answers)
    with pytest.raises(NotYetError, match=r"\(Address already in use\); expected a free port here$"):
        HttpServer(HttpSettings(port=service.server.port), service.answers)


def test_a_port_in_use_names_the_setting(service: Service) -> None:
    port = service.server.port
    with pytest.raises(NotYetError, match=rf"BRIDGE_HTTP_PORT={port} cannot be listened on \(Address already"):
        HttpServer(HttpSettings(port=port), service.answers)


@pytest.mark.parametrize("host", ("192.0.2.1", "no-such-host.invalid"))
def test_an_address_that_is_not_ours_names_the_setting(service: Service, host: str) -> None:
    """Whether it passes depends on the machine's own name server."""
    with pytest.raises((ConfigurationError, NotYetError), match=f"BRIDGE_HTTP_HOST={re.escape(host)} "):
        HttpServer(HttpSettings(host), service.answers)


def test_a_port_that_we_may_not_have_is_a_wrong_configuration(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a port below 1024 for a user who is not root."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        HttpServer(HttpSettings(port=80), service.answers)


def test_listening_asks_no_name_server(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """http.server looks its own name up, which takes half a minute where there is no name server."""

    def refuse(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(socket, "getfqdn", refuse)
    monkeypatch.setattr(socket, "gethostbyaddr", refuse)
    with HttpServer(HttpSettings("0.0.0.0"), service.answers) as server:  # noqa: S104 - closed at once
        assert server.port


def test_after_closing_the_port_is_free_at_once() -> None:
    with Service() as service:
        service.ask("/healthz")
        port = service.server.port
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_no_thread_keeps_the_process() -> None:
    with Service() as service, service.connect():
        service.ask("/healthz")
        servers = [t for t in threading.enumerate() if t not in (threading.main_thread(), service._thread)]
        assert servers
        assert all(thread.daemon for thread in servers)


def test_a_scrape_takes_next_to_nothing_from_the_loop(service: Service) -> None:
    """While the page is written the loop goes on: of a scrape it sees one callback."""
    service.ask("/metrics")  # by then the first sample has been taken
    calls = 0
    original = service.snapshot

    def counting() -> tuple[Books, Status]:
        nonlocal calls
        calls += 1
        return original()

    service.answers._snapshot = counting
    service.ask("/metrics")
    assert calls == 1
