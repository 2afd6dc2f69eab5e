"""A bridge over TLS that wants a token or a certificate, as a process: what is known to those that ask it by itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.rig.bridge_process import BridgeProcess
from tests.rig.certificates import make_certificates
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "correct-horse-battery"  # noqa: S105 - a test's


def ask(environ: dict[str, str], *command: str) -> tuple[int, str]:
    """Run a command with no setting but these: its exit code and what it writes."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    result = subprocess.run(
        (sys.executable, "-m", *command), check=False, capture_output=True, text=True, timeout=60, env=clean | environ
    )
    return result.returncode, result.stdout + result.stderr


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a running bridge, whose source is nowhere; its port included."""
    certificates = make_certificates(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as nobody, socket.create_server(("127.0.0.1", 0)) as free:
        broker, port = nobody.getsockname()[1], free.getsockname()[1]
    environ = {
        "BRIDGE_SOURCE_URL": f"amqp://u:p@127.0.0.1:{broker}",
        "BRIDGE_SOURCE_QUEUE": "from",
        "BRIDGE_DESTINATION_QUEUE": "to",
        "BRIDGE_HTTP_HOST": "127.0.0.1",
        "BRIDGE_HTTP_PORT": str(port),
        "BRIDGE_HTTP_CERT_FILE": str(certificates.server_cert),
        "BRIDGE_HTTP_KEY_FILE": str(certificates.server_key),
        "BRIDGE_HTTP_CLIENT_CA_FILE": str(certificates.ca),
        "BRIDGE_HTTP_TOKEN_FILE": str(tmp_path / "token"),
    }
    with BridgeProcess(environ) as bridge:
        wait_until(lambda: any('"port": ' in line for line in bridge.log_lines), "it to listen")
        yield environ


def test_the_health_check_and_status_of_the_same_environment_know_tls_and_token(
    served: dict[str, str], tmp_path: Path
) -> None:
    assert ask(served, "bridge.cli.health") == (0, '{"healthy": true, "reason": ""}\n')
    code, text = ask(served, "bridge", "status")
    assert (code, text[:23]) == (1, "not ready: source not c")
    url = f"https://127.0.0.1:{served['BRIDGE_HTTP_PORT']}"
    code, text = ask(served, "bridge", "status", "--url", url, "--ca-file", str(tmp_path / "ca.pem"))
    assert (code, "it answers 401" in text) == (69, True), "the token is for the bridge of its environment alone"
    shown = ("--cert-file", str(tmp_path / "client.pem"), "--key-file", str(tmp_path / "client-key.pem"))
    assert ask({}, "bridge", "status", "--url", url, "--ca-file", str(tmp_path / "ca.pem"), *shown)[0] == 1
    assert ask(served, "bridge", "pause")[0] in {0, 75}


def test_the_health_check_fails_where_nothing_answers_and_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    code, text = ask({"BRIDGE_HTTP_PORT": port}, "bridge.cli.health")
    assert (code, text) == (1, "amqp-bridge: no answer: [Errno 111] Connection refused\n")
    code, text = ask({"BRIDGE_HTTP_PORT": "0"}, "bridge.cli.health")
    assert (code, text.startswith("amqp-bridge: no answer: BRIDGE_HTTP_PORT is 0")) == (1, True)
