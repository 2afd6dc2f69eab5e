"""A real Prometheus with this project's configuration scrapes a real bridge, through load and a broker's restart."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pika
import pytest
import yaml

from tests.deploy import tools
from tests.rig.bridge_process import BridgeProcess
from tests.rig.node import Node
from tests.rig.ports import free_port
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.broker

CONFIG = tools.ROOT / "config"
DASHBOARD = json.loads((CONFIG / "grafana-dashboard.json").read_text())
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
] + [
    pytest.param(annotation["expr"], id=f"annotation {annotation['name']}")
    for annotation in DASHBOARD["annotations"]["list"]
]
RECORDS = [
    rule["record"]
    for group in yaml.safe_load((CONFIG / "prometheus-rules.yml").read_text())["groups"]
    for rule in group["rules"]
    if "record" in rule
]
LOAD = 2000
GRAFANA = {"$__rate_interval": "10s", "$__range": "5m", "$cluster": ".*", "$namespace": ".*"}
GRAFANA |= {"$bridge": ".*", "$instance": ".*"}
"""What Grafana puts in, at a scrape each second."""


class Prometheus:
    """A server with the project's configuration, but for the bridge's address and the pace."""

    def __init__(self, folder: Path, bridge: BridgeProcess) -> None:
        self.folder = folder
        self.bridge = bridge
        self.port = free_port()
        config = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(CONFIG / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{bridge.http_port}"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the server until the block ends."""
        command = (
            "prometheus",
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
        )
        with (self.folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{self.port}"], stderr=log)
            try:
                yield
            finally:
                process.terminate()
                process.wait(30)

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON
        """Return the data of an answer of the API, None while the server does not answer."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except (ConnectionError, urllib.error.URLError):
            return None

    def values(self, expression: str) -> list[float]:
        """The values of an instant query."""
        answer = self.ask("query", query=expression)
        return [float(sample["value"][1]) for sample in answer["result"]] if answer else []

    def history(self, expression: str) -> list[float]:
        """The numbers of a query over the last two minutes, as a panel asks."""
        now = time.time()
        answer = self.ask("query_range", query=expression, start=str(now - 120), end=str(now), step="1")
        numbers = [float(value) for series in answer["result"] for _, value in series["values"]] if answer else []
        return [number for number in numbers if math.isfinite(number)]

    def wait_forwarded(self, total: int) -> None:
        """Wait for a scrape that shows this many forwarded messages."""
        forwarded = "sum(bridge_messages_forwarded_total)"
        wait_until(lambda: self.values(forwarded) == [total], f"{total} forwarded messages", interval_s=0.2)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen a bridge forward, lose its source, find it again and forward again."""
    folder = tmp_path_factory.mktemp("prometheus")
    with Node("3.10") as source, Node("3.10") as destination:
        settings: dict[str, str] = {"BRIDGE_QUEUE_POLL": "1s"}
        for side, node in (("SOURCE", source), ("DESTINATION", destination)):
            settings |= {f"BRIDGE_{side}_URL": node.url, f"BRIDGE_{side}_QUEUE": node.declare("orders")}
        with BridgeProcess(settings) as bridge:
            server = Prometheus(folder, bridge)
            with server.running():
                server.wait_forwarded(0)
                publish(source, LOAD)
                server.wait_forwarded(LOAD)
                source.restart()
                publish(source, LOAD)
                server.wait_forwarded(2 * LOAD)
                yield server


def publish(node: Node, count: int) -> None:
    """Put persistent messages into the source queue."""
    with node.channel() as channel:
        for number in range(count):
            properties = pika.BasicProperties(delivery_mode=2, timestamp=int(time.time()))
            channel.basic_publish("", "orders", b"x" * (number % 500), properties)


@pytest.mark.parametrize("expression", QUERIES)
def test_each_query_of_the_dashboard_is_answered(prometheus: Prometheus, expression: str) -> None:
    for name, value in GRAFANA.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    wait_until(lambda: bool(prometheus.history(expression)), f"an answer to {expression}", 15, interval_s=0.2)


@pytest.mark.parametrize("record", RECORDS)
def test_each_recording_rule_records(prometheus: Prometheus, record: str) -> None:
    wait_until(lambda: bool(prometheus.history(record)), f"a value of {record}", 15, interval_s=0.2)


def test_promtool_has_no_complaint_about_what_is_scraped(prometheus: Prometheus) -> None:
    _, page = prometheus.bridge.get("/metrics")
    checked = subprocess.run(
        ("promtool", "check", "metrics"), input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_restart_shows(prometheus: Prometheus) -> None:
    assert sum(prometheus.values('bridge_generations_ended_total{side="source"}')) >= 1
    assert prometheus.values('bridge_generation{side="source"}') >= [2.0]
    assert prometheus.values('bridge_connection_up{side="source", bridge="orders"}') == [1.0]


def test_the_books_balanced_at_every_scrape(prometheus: Prometheus) -> None:
    assert prometheus.values("max_over_time(abs(bridge:books:imbalance)[5m:1s])") == [0.0]


def test_every_rule_evaluates(prometheus: Prometheus) -> None:
    """And none but those about the short restart has anything to say."""
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
