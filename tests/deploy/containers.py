"""Bridges in containers: started from the image or from the chart's pod, asked by HTTP, ended by podman."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from tests.deploy import tools
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from types import TracebackType

RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")


class Container:
    """One container of the image on the host's network; the context manager removes it, whatever happens."""

    def __init__(self, environment: Mapping[str, str], port: int) -> None:
        self.name = f"amqp-bridge-test-{secrets.token_hex(4)}"
        self.port = port
        self._environment = {**environment, "BRIDGE_HTTP_HOST": "127.0.0.1", "BRIDGE_HTTP_PORT": str(port)}

    def __enter__(self) -> Self:
        given = [f"--env={name}={value}" for name, value in self._environment.items()]
        tools.podman("run", "--detach", f"--name={self.name}", "--network=host", *RESTRICTED, *given, tools.IMAGE)
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.logs)
        tools.podman("rm", "--force", "--time=0", self.name)

    @property
    def logs(self) -> str:
        """What the bridge has printed."""
        result = tools.attempt("podman", "logs", self.name, env=tools.podman_environment())
        return result.stdout + result.stderr

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        return tools.attempt("podman", "exec", self.name, *command, env=tools.podman_environment())

    def inspect(self) -> dict[str, Any]:
        """What podman knows of it."""
        found: dict[str, Any] = json.loads(tools.podman("inspect", self.name))[0]
        return found

    def wait_ready(self) -> Self:
        """Wait until /readyz says yes."""
        wait_until(lambda: ready(self.port), f"{self.name} to be ready", 30, interval_s=0.1)
        return self

    def terminate(self) -> int:
        """Send SIGTERM, as a runtime does to stop a container, and return the exit status."""
        tools.podman("kill", "--signal=TERM", self.name)
        return int(tools.podman("wait", self.name, timeout_s=60))


def ready(port: int) -> bool:
    """Whether the bridge on a port of loopback says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
