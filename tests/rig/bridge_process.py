"""The bridge as a user runs it: a process of its own, watched through its logs, HTTP endpoints and ``/proc``."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.rig import guardian
from tests.rig.ports import LOOPBACK
from tests.rig.usage import cpu_seconds, resident_bytes
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node

_ROOT = Path(__file__).resolve().parents[2]


class Metrics(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """One scrape: values by name and labels."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 when there is none."""
        wanted = set(labels.items())
        return sum(value for (found, its_labels), value in self.items() if found == name and wanted <= its_labels)


class BridgeProcess:
    """``python -m bridge run`` with these settings (and no others of this process's ``BRIDGE_`` variables).

    ``with BridgeProcess(settings) as bridge:`` starts it, and ends it by SIGKILL unless it has ended before.
    """

    def __init__(self, settings: Mapping[str, object], *arguments: str, wrapper: tuple[str, ...] = ()) -> None:
        """`wrapper` goes before the command: it must end in becoming the bridge, by `exec`."""
        self.settings = {"BRIDGE_HTTP_HOST": LOOPBACK, "BRIDGE_HTTP_PORT": "0", "BRIDGE_LOG_FORMAT": "json"}
        self.settings |= {name: str(value) for name, value in settings.items()}
        self.log_lines: list[str] = []
        self._command = *wrapper, sys.executable, "-m", "bridge", *(arguments or ("run",))
        self._http_port = 0
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> Self:
        """Start the process and return at once."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed bridge has been compiled
        self._http_port = 0
        self._process = subprocess.Popen(
            self._command,
            env={**environment, "PYTHONUNBUFFERED": "1", **self.settings},
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        guardian.guard_group(self._process.pid)
        self._reader = threading.Thread(target=self._read_logs, args=(self._process,), daemon=True)
        self._reader.start()
        return self

    def _read_logs(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            self.log_lines.append(line.rstrip("\n"))
            if not self._http_port and isinstance(port := _as_event(line).get("port"), int):
                self._http_port = port

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def terminate(self, timeout_s: float = 60) -> int:
        """Send SIGTERM and return the exit status. Raises subprocess.TimeoutExpired."""
        self._running.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open, and it does nothing."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: go on after ``freeze``."""
        self._running.send_signal(signal.SIGCONT)

    def pause(self) -> None:
        """SIGUSR1, as `amqp-bridge pause` sends it; not to a process that has not logged its HTTP port yet."""
        self._running.send_signal(signal.SIGUSR1)

    def resume(self) -> None:
        """SIGUSR2, as `amqp-bridge resume` sends it; the same holds."""
        self._running.send_signal(signal.SIGUSR2)

    def kill(self) -> None:
        """SIGKILL the process if it runs."""
        if self._process and self._process.poll() is None:
            self._process.kill()
        if self._process:
            self.wait()

    def wait(self, timeout_s: float = 60) -> int:
        """Wait for the process's own end and return its exit status. Raises subprocess.TimeoutExpired."""
        process = self._running
        status = process.wait(timeout_s)
        assert self._reader
        self._reader.join()
        assert process.stdout
        process.stdout.close()
        guardian.release_group(process.pid)
        return status

    @property
    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the bridge has not been started")
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running.pid

    @property
    def logs(self) -> str:
        """Everything it has written so far."""
        return "\n".join(self.log_lines)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log lines that are JSON objects, decoded."""
        return [event for line in self.log_lines if (event := _as_event(line))]

    @property
    def http_port(self) -> int:
        """The port that it serves HTTP on, once it has logged it (waits for that). Raises RuntimeError if it ends."""

        def known() -> bool:
            if not self._http_port and not self.is_running:
                raise RuntimeError(f"the bridge ended:\n{self.logs[-4000:]}")
            return bool(self._http_port)

        wait_until(known, "the bridge to log its HTTP port")
        return self._http_port

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """GET a path of its HTTP server: status and body. Raises OSError when it does not answer."""
        connection = http.client.HTTPConnection(LOOPBACK, self.http_port, timeout=10)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metrics(self) -> Metrics:
        """Scrape ``/metrics``."""
        _, text = self.get("/metrics")
        families = text_string_to_metric_families(text)
        samples = (sample for family in families for sample in family.samples)
        return Metrics({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})

    def status(self) -> dict[str, Any]:
        """Return the document of ``/status``."""
        document: dict[str, Any] = json.loads(self.get("/status")[1])
        return document

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says that it consumes and can publish."""
        return self.get("/readyz")[0] == 200

    def wait_ready(self, timeout_s: float = 30) -> Self:
        """Wait until ``is_ready``."""
        wait_until(self.is_ready, "the bridge to be ready", timeout_s)
        return self

    def wait_for(self, predicate: Callable[[Metrics], bool], what: str = "metrics", timeout_s: float = 60) -> Metrics:
        """Scrape until the predicate holds and return that scrape. Raises TimeoutError with the last one."""
        found = Metrics()

        def holds() -> bool:
            nonlocal found
            found = self.metrics()
            return predicate(found)

        try:
            wait_until(holds, what, timeout_s, interval_s=0.05)
        except TimeoutError as error:
            lines = "\n".join(f"{name} {dict(labels)} {value}" for (name, labels), value in found.items() if value)
            raise TimeoutError(f"{error}\n{lines}\n{self.logs[-4000:]}") from None
        return found

    def rss_bytes(self) -> int:
        """Resident memory."""
        return resident_bytes(self.pid)

    def cpu_seconds(self) -> float:
        """User and system time since it started."""
        return cpu_seconds(self.pid)


StartBridge = Callable[[Mapping[str, object]], BridgeProcess]
"""The fixture ``start_bridge``: settings in, a bridge that ends with the test out."""


def bridge_settings(source: Node, destination: Node, queue: str, **more: object) -> dict[str, object]:
    """Settings for a bridge from a queue to the queue of the same name; ``more`` are names without ``BRIDGE_``."""
    return {
        "BRIDGE_SOURCE_URL": source.url,
        "BRIDGE_SOURCE_QUEUE": queue,
        "BRIDGE_DESTINATION_URL": destination.url,
        "BRIDGE_DESTINATION_QUEUE": queue,
        **{f"BRIDGE_{name}": value for name, value in more.items()},
    }


def _as_event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
