"""Commands import what they need, and no more: a typing error, a help text or a version wait for nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GRAMMAR = {
    *("bridge", "bridge.__main__"),
    *("bridge.cli", "bridge.cli.commands", "bridge.cli.early", "bridge.cli.grammar", "bridge.cli.streams"),
    "bridge.version",
    *("bridge.drain", "bridge.drain.options"),
}
"""What the command line itself is made of."""
LISTED = """
import json, sys
before = set(sys.modules)
from bridge.__main__ import main
try:
    main()
except SystemExit:
    pass
found = {name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}
sys.stderr.write("\\n" + json.dumps(found))
"""


def imported_by(*arguments: str, **environ: str) -> tuple[set[str], set[str]]:
    """The modules of the bridge that a command line imports, and the libraries that are not Python's own."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("BRIDGE_")}
    run = subprocess.run(
        [sys.executable, "-c", LISTED, *arguments],
        env=clean | {"PYTHONPATH": str(Path(__file__).parents[3])} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    files = json.loads(run.stderr.splitlines()[-1])
    own = {name for name in files if name.split(".")[0] == "bridge"}
    installed = {name.split(".")[0] for name, file in files.items() if file and "site-packages" in file}
    return own, installed - {"bridge"}


@pytest.mark.parametrize(
    "arguments",
    (["--version"], ["--help"], [], ["walk"], ["run", "--fast"], ["status", "--help"], ["verify", "--help"]),
    ids=" ".join,
)
def test_help_version_and_mistakes_need_nothing_but_the_command_line(arguments: list[str]) -> None:
    assert imported_by(*arguments) == (GRAMMAR, set())


def test_run_needs_neither_the_check_nor_the_drain_nor_a_terminal() -> None:
    """A signal ends it before it has begun to listen: what is imported by then is what a bridge is made of."""
    needed = {"BRIDGE_SOURCE_URL": "amqp://127.0.0.1:1/", "BRIDGE_SOURCE_QUEUE": "a", "BRIDGE_DESTINATION_QUEUE": "b"}
    own, installed = imported_by("run", BRIDGE_HTTP_HOST="192.0.2.1", BRIDGE_START_TIMEOUT="0", **needed)
    assert {"bridge.cli.daemon", "bridge.assembly"} <= own
    assert "bridge.check" not in own
    assert "bridge.cli.steer" not in own
    assert {name for name in own if name.startswith("bridge.drain")} == {"bridge.drain", "bridge.drain.options"}
    assert "bridge.observe.terminal" not in own
    assert "rich" not in installed


@pytest.mark.parametrize(
    ("command", "needless"),
    (
        ("config", {"aio_pika", "uvloop", "prometheus_client"}),
        ("check", {"prometheus_client"}),
        ("status", {"aio_pika", "uvloop", "prometheus_client", "pydantic"}),
        ("pause", {"aio_pika", "uvloop", "prometheus_client", "pydantic"}),
    ),
)
def test_a_command_does_not_wait_for_what_only_others_need(command: str, needless: set[str]) -> None:
    _, installed = imported_by(command, BRIDGE_SOURCE_PREFETCH="many", BRIDGE_HTTP_PORT="1")
    assert not installed & needless
