"""Standard streams that are closed, full or not read any more, and clocks that step: as processes, and by the source.

What happens when descriptors or memory are used up, on real brokers: `tests/broker/test_scarce.py`.
"""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bridge.drain import command
from tests.rig.ports import LOOPBACK
from tests.support.scripted import ScriptedBroker, bridge, confirm, eventually, keep
from tests.unit.test_architecture import TREES

if TYPE_CHECKING:
    from bridge.connection.supervisor import Supervisor

SETTINGS = {
    "BRIDGE_SOURCE_URL": f"amqp://u:p@{LOOPBACK}:1",
    "BRIDGE_SOURCE_QUEUE": "from",
    "BRIDGE_DESTINATION_QUEUE": "to",
    "BRIDGE_HTTP_HOST": LOOPBACK,
    "BRIDGE_HTTP_PORT": "0",
}
COMMANDS = (("config",), ("config", "--json"), ("check",), ("--help",), ("run", "--help"), ("--version",))
FULL = Path("/dev/full")


def start(*arguments: str, redirection: str, **environ: str) -> subprocess.Popen[str]:
    """Run a command in a shell that redirects, and becomes it where there is no pipe."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    words = " ".join(("" if "|" in redirection else "exec", sys.executable, "-m", "bridge", *arguments))
    return subprocess.Popen(
        ("bash", "-c", f"{words} {redirection}"),
        env=clean | SETTINGS | environ,
        cwd=Path(__file__).parents[3],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("redirection", "expected"),
    (
        ("| true; exit ${PIPESTATUS[0]}", {141}),
        (f"> {FULL}", {0, 74}),  # argparse swallows it
        (">&-", {0, 1}),
        ("<&- >&-", {0, 1}),
    ),
)
def test_output_that_nobody_takes_leaves_no_traceback(redirection: str, expected: set[int]) -> None:
    running = {arguments: start(*arguments, redirection=redirection) for arguments in COMMANDS}
    for arguments, process in running.items():
        said = process.communicate(timeout=120)[1]
        assert "Traceback" not in said, arguments
        assert "Exception" not in said, arguments
        assert "Assertion" not in said, arguments
        # What is written before its reader is gone is no error.
        assert process.returncode in expected | ({0, 1} if "PIPESTATUS" in redirection else set()), (arguments, said)


@pytest.mark.parametrize("redirection", (f"2> {FULL}", "2>&-", "<&- >&- 2>&-", "2> >(exec <&-)"))
def test_a_bridge_that_cannot_log_goes_on_and_ends_as_it_should(redirection: str, tmp_path: Path) -> None:
    """It is known to be up by what systemd is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(60)
        process = start("run", redirection=redirection, NOTIFY_SOCKET=str(tmp_path / "notify"))
        try:
            assert receiver.recv(1000) == b"READY=1"
            assert b"source not connected" in receiver.recv(10_000), "it goes on, and says how it is"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.communicate()


WALL_CLOCK = {
    "check.inspection": "how long a certificate is valid",
    "connection.counting": "when a queue was counted, as it is shown",
    "connection.keeper": "since when a side is connected, as it is shown",
    "connection.reporter": "since when a broker blocks, as it is shown",
    "connection.supervisor": "the age of messages, and the time in a quarantined message's header",
    "drain.command": "the age of messages",
    "drain.drain": "the times in a receipt",
    "observe.answers": "the time of a sample, as it is shown",
}
"""What reads the wall clock, and what for: never for a deadline, since it may step."""


def reads_the_wall_clock(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.time", "time.time_ns", "datetime.now"}
        for node in ast.walk(tree)
    )


def test_the_wall_clock_is_read_for_what_is_shown_alone() -> None:
    assert {module for module, tree in TREES.items() if reads_the_wall_clock(tree)} == WALL_CLOCK.keys()
    assert reads_the_wall_clock(ast.parse("until_s = time.time() + 5"))


async def test_a_clock_that_steps_an_hour_ends_nothing_and_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forth, back, and to 1970, with a message on its way each time."""
    real, ahead_s = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    async with ScriptedBroker() as source, ScriptedBroker() as destination, bridge(source, destination) as running:
        peer = await source.consumed()
        for number, step_s in enumerate((0.0, 3600.0, -3600.0, -real()), 1):
            destination.published = keep
            peer.deliver(b"m")
            await eventually(lambda: running.books.published == 1)
            ahead_s = step_s
            destination.published = confirm
            confirm(destination.peer, number)
            await eventually(partial(forwarded, running, number))
        for side in (running.status.source, running.status.destination):
            assert side.generations_ended == {}


def forwarded(running: Supervisor, messages: int) -> bool:
    return running.books.forwarded == messages


def test_a_receipt_for_which_there_is_no_room_leaves_no_half_of_it(tmp_path: Path) -> None:
    full = tmp_path / "folder"
    full.mkdir()
    with pytest.raises(IsADirectoryError):
        command._write(full, "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"], "nothing beside it"
