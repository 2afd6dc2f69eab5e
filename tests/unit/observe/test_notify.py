"""What systemd is told, by a socket of the test's own in its place."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from bridge.observe.notify import Notifier, watchdog_s
from tests.unit.cli.test_grammar import settings_for, silent_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.bridge_process import StartBridge

__all__ = ["silent_broker"]


@pytest.fixture(params=("path", "abstract"))
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket, and its name as systemd gives it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@amqp-bridge-test-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        receiving.settimeout(30)
        yield receiving, name


def received(receiving: socket.socket) -> list[str]:
    """The lines of the next datagram."""
    return receiving.recv(4096).decode().split("\n")


def document(*, answers: bool = True) -> dict[str, Any]:
    return {"bridge": {"answers": answers}, "sentence": "idle, none waiting"}


def test_it_is_ready_says_what_it_does_lives_and_stops(systemd: tuple[socket.socket, str]) -> None:
    receiving, name = systemd
    with Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "90000"}, document) as notifier:
        assert received(receiving) == ["READY=1"]
        for _ in range(3):
            assert received(receiving) == ["STATUS=idle, none waiting", "WATCHDOG=1"]
        notifier.stopping()
        while (lines := received(receiving)) != ["STOPPING=1", "STATUS=stopping"]:
            assert lines[-1] == "WATCHDOG=1"


@pytest.mark.parametrize(
    ("environ", "answers"),
    (({}, True), ({"WATCHDOG_USEC": "30000000"}, False), ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, True)),
    ids=("no watchdog", "stuck", "the watchdog of another process"),
)
def test_no_sign_of_life_where_none_is_due(
    systemd: tuple[socket.socket, str], environ: dict[str, str], *, answers: bool
) -> None:
    receiving, name = systemd
    Notifier({"NOTIFY_SOCKET": name, **environ}, lambda: document(answers=answers)).beat()
    assert received(receiving) == ["STATUS=idle, none waiting"]


def test_an_end_without_a_signal_is_told_too(systemd: tuple[socket.socket, str]) -> None:
    """As when memory is used up."""
    receiving, name = systemd
    with Notifier({"NOTIFY_SOCKET": name}, document):
        assert received(receiving) == ["READY=1"]
    told = [received(receiving)]
    while told[-1][0] != "STOPPING=1":
        told.append(received(receiving))
    assert len(told) <= 2


def test_without_systemd_nothing_is_sent_and_no_thread_runs() -> None:
    def asked() -> dict[str, Any]:
        pytest.fail("nobody wants to know")

    with Notifier({}, asked) as notifier:
        notifier.stopping()


def test_a_socket_that_is_gone_is_logged_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with Notifier({"NOTIFY_SOCKET": "/nowhere/notify"}, document) as notifier:
        notifier.beat()
        notifier.stopping()
    told = [record.getMessage() for record in caplog.records]
    assert told.count("systemd cannot be notified: No such file or directory") == 1


@pytest.mark.parametrize(
    ("environ", "seconds"),
    (
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
    ),
)
def test_how_long_systemd_waits_for_a_sign_of_life(environ: dict[str, str], seconds: float) -> None:
    assert watchdog_s(environ, pid=7) == seconds


def test_a_bridge_is_ready_without_a_broker_and_says_that_it_stops(
    systemd: tuple[socket.socket, str], silent_broker: socket.socket, start_bridge: StartBridge
) -> None:
    receiving, name = systemd
    bridge = start_bridge(settings_for(silent_broker) | {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "600000"})
    assert received(receiving) == ["READY=1"]
    assert bridge.get("/readyz")[0] == 503
    status, alive = received(receiving)
    assert status.startswith("STATUS=source not connected")
    assert alive == "WATCHDOG=1"
    assert bridge.terminate() == 0
    receiving.settimeout(0)
    told: list[str] = []
    while "STOPPING=1" not in told:
        told += received(receiving)
