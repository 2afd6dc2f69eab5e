"""`amqp-bridge pause` and `resume`: whom they signal, whom they do not, and what they say."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from bridge.cli.steer import is_loopback, steer
from bridge.observe.document import About, document
from bridge.observe.process import Process, own_process, process_of
from bridge.relay.queue import QueueState
from tests.rig.bridge_process import BridgeProcess, StartBridge
from tests.rig.waiting import wait_until
from tests.support.answering import answering
from tests.support.seen import NOON_S, ready, seen
from tests.unit.cli.test_grammar import settings_for, silent_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge.observe.document import Document

    Serve = Callable[[Callable[[], Document]], str]

__all__ = ["silent_broker"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer `/status` with what a function returns; give the address."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(answering(lambda _: (200, json.dumps(answer()).encode())))


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals that this process, in place of a bridge, gets."""
    signals: list[int] = []
    before = {n: signal.signal(n, lambda number, _: signals.append(number)) for n in (signal.SIGUSR1, signal.SIGUSR2)}
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


def shown(process: Process, state: str = "running", consumers: int | None = None, **more: bool) -> Document:
    """The document of a bridge that says it is this process."""
    status = ready()
    status.state, status.paused = state, state in {"pausing", "paused"}
    for name, value in more.items():
        setattr(status, name, value)
    if consumers is not None:
        status.source.backlog.answered(QueueState(7, consumers), NOON_S)
    return document(seen(status=status), About(source_queue="orders", process=process))


def ordered(verb: str, url: str, timeout_s: float = 5.0, counted_within_s: float = 5.0) -> tuple[int, str]:
    written: list[str] = []
    code = steer(verb, url, timeout_s=timeout_s, write=written.append, counted_within_s=counted_within_s)
    return code, "".join(written)


def test_a_pause_signals_waits_until_it_is_so_and_names_the_consumers_left(serve: Serve, told: list[int]) -> None:
    states = iter(("running", "pausing", "pausing"))

    def answer() -> Document:
        return shown(own_process(), next(states, "paused"), consumers=2)

    assert ordered("pause", serve(answer)) == (0, "paused; queue orders has 2 consumers left and 7 messages waiting\n")
    assert told == [signal.SIGUSR1]


def test_a_resume_signals_and_waits_until_it_is_so(serve: Serve, told: list[int]) -> None:
    states = iter(("paused", "paused"))
    code, text = ordered("resume", serve(lambda: shown(own_process(), next(states, "probing"))))
    assert (code, text.partition(":")[0]) == (0, "resumed")
    assert told == [signal.SIGUSR2]


def test_consumers_that_nobody_counted_are_unknown(serve: Serve, told: list[int]) -> None:
    code, text = ordered("pause", serve(lambda: shown(own_process(), "paused")), counted_within_s=0.0)
    assert (code, text) == (0, "paused; how many consumers queue orders has left is unknown: not asked yet\n")
    assert told == [signal.SIGUSR1]


def test_a_bridge_that_has_not_done_it_in_time_is_75(
    serve: Serve, told: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ordered("pause", serve(lambda: shown(own_process(), "pausing")), timeout_s=0.0) == (75, "")
    assert "has not done so within 0 s" in capsys.readouterr().err
    assert told


def test_a_bridge_that_stops_cannot_be_paused(
    serve: Serve, told: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ordered("pause", serve(lambda: shown(own_process(), "stopping", stopping=True))) == (69, "")
    assert "it cannot pause" in capsys.readouterr().err
    assert told


OWN = own_process()
NOBODY = 1 << 22
"""Above the largest pid that Linux gives by default on a machine of 64 bits."""


@pytest.mark.parametrize(
    "process",
    (
        OWN._replace(started_ticks=1),
        OWN._replace(namespace="pid:[1]"),
        OWN._replace(started_ticks=None),
        OWN._replace(namespace=None),
        OWN._replace(pid=NOBODY),
        OWN._replace(pid=0),
        OWN._replace(pid=-1),
    ),
    ids=("start", "namespace", "no start", "no namespace", "nobody", "group", "everybody"),
)
def test_another_process_is_sent_nothing_and_the_command_is_named(
    serve: Serve, told: list[int], process: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ordered("pause", serve(lambda: shown(process))) == (69, "")
    said = capsys.readouterr().err
    assert "nothing was sent" in said
    for line in ("docker kill --signal=SIGUSR1", "kubectl exec POD -- amqp-bridge pause", "systemctl kill"):
        assert line in said
    assert told == []


def test_a_document_without_a_process_is_sent_nothing(
    serve: Serve, told: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(OWN)
    del found["bridge"]["process"]
    assert ordered("resume", serve(lambda: found)) == (69, "")
    assert "does not say for certain" in capsys.readouterr().err
    assert told == []


def test_an_address_that_is_not_this_hosts_is_sent_nothing(told: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is it asked: what it says of itself could not be believed."""
    asked: list[str] = []

    def ask(url: str) -> Document:
        asked.append(url)
        return {}

    assert steer("pause", "http://bridge.example:8080", timeout_s=5.0, write=asked.append, ask=ask) == 69
    said = capsys.readouterr().err
    assert "is not a loopback address" in said
    assert "docker kill --signal=SIGUSR1" in said
    assert (asked, told) == ([], [])


def test_a_process_that_this_user_may_not_signal_is_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    assert ordered("pause", serve(lambda: shown(OWN))) == (69, "")
    assert f"may not signal process {OWN.pid}" in capsys.readouterr().err


def test_a_process_that_ends_meanwhile_is_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(signal, "pidfd_send_signal", gone)
    assert ordered("pause", serve(lambda: shown(OWN))) == (69, "")
    assert "has just ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "here"),
    (
        ("http://127.0.0.1:8080", True),
        ("http://127.8.9.1:8080/status", True),
        ("http://[::1]:8080", True),
        ("http://localhost:8080", True),
        ("http://10.0.0.1:8080", False),
        ("http://localhost.example:8080", False),
        ("http://127.0.0.1.example:8080", False),
        ("http://127.0.0.1@bridge.example:8080", False),
        ("http://", False),
        ("http://[::1", False),
    ),
)
def test_what_is_a_loopback_address(url: str, *, here: bool) -> None:
    assert is_loopback(url) is here


# --- As a process --------------------------------------------------------------------------------------------


def command(verb: str, url: str) -> tuple[int, str]:
    result = subprocess.run(
        (sys.executable, "-m", "bridge", verb, "--url", url), check=False, capture_output=True, text=True, timeout=90
    )
    return result.returncode, result.stdout + result.stderr


def test_a_bridge_is_paused_and_resumed_although_no_broker_is_there(
    silent_broker: socket.socket, start_bridge: StartBridge
) -> None:
    bridge = start_bridge(settings_for(silent_broker))
    url = f"http://127.0.0.1:{bridge.http_port}"
    assert process_of(bridge.pid) == tuple(bridge.status()["bridge"]["process"].values())
    assert command("pause", url)[0] == 0
    assert bridge.status()["consumer"]["state"] == "paused"
    assert json.loads(bridge.get("/readyz")[1])["paused"] is True
    assert bridge.metrics().total("bridge_paused") == 1
    code, text = command("resume", url)
    assert (code, text.partition(":")[0]) == (0, "resumed")
    assert bridge.metrics().total("bridge_paused") == 0
    assert command("pause", url)[0] == 0
    assert bridge.terminate() == 0


def test_without_a_bridge_nobody_is_signalled() -> None:
    assert command("pause", "http://127.0.0.1:1")[0] == 69


def test_a_signal_while_the_bridge_is_being_imported_pauses_it(silent_broker: socket.socket) -> None:
    """By its default action it would end the process."""
    with BridgeProcess(settings_for(silent_broker), wrapper=("env", "PYTHONPROFILEIMPORTTIME=1")) as bridge:
        wait_until(lambda: "bridge.errors" in bridge.logs, "the bridge to be imported")
        os.kill(bridge.pid, signal.SIGUSR1)
        assert bridge.status()["consumer"]["state"] == "paused"
        assert bridge.terminate() == 0


def was_told(bridge: BridgeProcess, number: signal.Signals) -> bool:
    return f"{number.name} received" in bridge.logs


def test_of_several_signals_while_the_bridge_waits_to_start_the_last_counts(silent_broker: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        bridge = BridgeProcess(settings_for(silent_broker, HTTP_PORT=str(port), START_PAUSED="yes")).start()
        wait_until(lambda: "waiting for it" in bridge.logs, "the bridge to wait for the port")
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(bridge.pid, number)
            wait_until(partial(was_told, bridge, number), "the signal to be received")
    with bridge:
        assert bridge.status()["consumer"]["paused"] is False
