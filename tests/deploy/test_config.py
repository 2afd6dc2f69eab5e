"""What an operator copies from `config/`: rules, dashboard, compose file, broker definitions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from bridge.settings.environment import load_settings
from bridge.settings.settings import Settings
from tests.deploy import tools

CONFIG = tools.ROOT / "config"
RULES = yaml.safe_load((CONFIG / "prometheus-rules.yml").read_text())
RULE_TESTS = yaml.safe_load((CONFIG / "prometheus-rules.test.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
DASHBOARD = json.loads((CONFIG / "grafana-dashboard.json").read_text())
COMPOSE = yaml.safe_load((CONFIG / "compose.yaml").read_text())


def test_prometheus_accepts_the_configuration() -> None:
    tools.run("promtool", "check", "config", CONFIG / "prometheus.yml")


def test_the_rules_pass_their_own_tests() -> None:
    tools.run("promtool", "test", "rules", CONFIG / "prometheus-rules.test.yml")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_is_tested_firing_and_silent_and_says_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    tests = [
        bool(check["exp_samples"])
        for test in RULE_TESTS["tests"]
        for check in test["promql_expr_test"]
        if f'alertname="{alert["alert"]}"' in check["expr"]
    ]
    assert set(tests) == {True, False}
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}


@pytest.fixture(scope="session")
def grafana_types() -> Path:
    """The folder with Grafana's published types, installed by its lock file."""
    folder = tools.CACHE / "grafana-schema"
    source = Path(__file__).parent / "grafana"
    lock = (source / "package-lock.json").read_text()
    if not (folder / "package-lock.json").exists() or (folder / "package-lock.json").read_text() != lock:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text((source / "package.json").read_text())
        (folder / "package-lock.json").write_text(lock)
        tools.run("npm", "ci", "--no-audit", "--no-fund", "--prefix", folder, timeout_s=300)
    return folder


def schema_of(folder: Path, types: str, name: str) -> jsonschema.Draft7Validator:
    """Return a validator of one of Grafana's types; fields that the type does not have are mistakes."""
    path = folder / "node_modules" / "@grafana" / "schema" / "dist" / "types" / "raw" / types / "x" / "types.gen.d.ts"
    generator = folder / "node_modules" / ".bin" / "ts-json-schema-generator"
    text = tools.run(generator, "--path", path, "--type", name, "--no-type-check")
    return jsonschema.Draft7Validator(json.loads(text))


def test_the_dashboard_is_what_grafana_accepts(grafana_types: Path) -> None:
    """Its annotations less what belongs to the Prometheus plugin, which Grafana's types leave to each plugin."""
    dashboard = json.loads(json.dumps(DASHBOARD))
    for annotation in dashboard["annotations"]["list"]:
        for field in ("expr", "step", "titleFormat", "textFormat", "useValueForTime"):
            del annotation[field]
    schema_of(grafana_types, "dashboard", "Dashboard").validate(dashboard)


def test_the_panels_options_are_what_grafana_accepts(grafana_types: Path) -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    for kind in sorted({panel["type"] for panel in panels}):
        options = schema_of(grafana_types, f"composable/{kind}/panelcfg", "Options")
        fields = schema_of(grafana_types, f"composable/{kind}/panelcfg", "FieldConfig")
        for panel in panels:
            if panel["type"] == kind:
                options.validate(panel["options"])
                fields.validate(panel["fieldConfig"]["defaults"].get("custom", {}))


def test_the_dashboard_has_no_two_panels_in_one_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identifiers) == len(set(identifiers))


def test_the_compose_file_mounts_what_there_is() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            assert (CONFIG / volume.split(":")[0]).exists(), volume
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]
        for name in service.get("depends_on", {}):
            assert "healthcheck" in COMPOSE["services"][name]
    assert (CONFIG / COMPOSE["services"]["bridge"]["build"] / "Dockerfile").exists()


def test_the_compose_files_bridge_is_configured_for_its_brokers() -> None:
    """User, password and queue are those that the mounted definitions make."""
    settings = load_settings(COMPOSE["services"]["bridge"]["environment"])
    queues = {"source": settings.source_queue, "destination": settings.destination_queue}
    for side in (settings.source, settings.destination):
        definitions = json.loads((CONFIG / f"rabbitmq-{side.name}.json").read_text())
        url = side.url(0)
        assert url.host == side.name
        assert (url.user, url.password) == (definitions["users"][0]["name"], definitions["users"][0]["password"])
        assert queues[side.name] == definitions["queues"][0]["name"]


def test_the_compose_files_prometheus_scrapes_its_bridge() -> None:
    jobs = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: [t for group in job["static_configs"] for t in group["targets"]] for job in jobs}
    services = COMPOSE["services"]
    assert all(target.split(":")[0] in services for found in targets.values() for target in found)
    assert targets["rabbitmq"] == [f"{side}:15692" for side in ("source", "destination")]
    job = next(job for job in jobs if targets[job["job_name"]] == ["bridge:8080"])
    assert all(re.search(f'job="{job["job_name"]}"', alert["expr"]) for alert in ALERTS if "up{" in alert["expr"])


def test_each_variable_of_the_dashboard_chooses_in_every_query() -> None:
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert variables == ["cluster", "namespace", "bridge", "instance"]
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    queries += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    chosen = ", ".join(f'{name}=~"${name}"' for name in variables)
    for query in queries:
        assert query.count(chosen) == len(re.findall(r"(?:bridge|process)_[a-z_]+\{", query)), query


UNITS = pytest.mark.parametrize("name", ("amqp-bridge.service", "amqp-bridge@.service"))


@UNITS
def test_the_systemd_unit_is_sound(tmp_path: Path, name: str) -> None:
    """With the program that it starts in another place, since it is not installed here."""
    unit = tmp_path / name.replace("@", "@orders")
    text = (CONFIG / name).read_text()
    assert "ExecStart=/opt/amqp-bridge/bin/amqp-bridge run\n" in text
    unit.write_text(text.replace("/opt/amqp-bridge/bin/amqp-bridge", "/bin/true"))
    result = tools.attempt("systemd-analyze", "verify", unit)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_units_differ_in_what_is_a_routes_own_alone() -> None:
    one, many = ((CONFIG / name).read_text() for name in ("amqp-bridge.service", "amqp-bridge@.service"))
    as_one = many.replace("/%i/", "/").replace("/%i.env", "/bridge.env").replace(" (%i)", "")
    assert as_one.partition("[Unit]")[2] == one.partition("[Unit]")[2]


@UNITS
def test_the_systemd_unit_is_told_by_the_bridge_that_it_is_ready_and_lives(name: str) -> None:
    lines = (CONFIG / name).read_text().splitlines()
    for line in ("Type=notify", "NotifyAccess=main", "WatchdogSec=30", "StartLimitIntervalSec=0", "Restart=always"):
        assert line in lines


@UNITS
def test_the_systemd_unit_waits_longer_than_the_bridge_drains(name: str) -> None:
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", (CONFIG / name).read_text(), re.MULTILINE)
    assert int(stop) > Settings.model_fields["shutdown_timeout"].default


def test_the_compose_file_waits_longer_than_the_bridge_drains() -> None:
    (stop,) = re.findall(r"^(\d+)s$", COMPOSE["services"]["bridge"]["stop_grace_period"])
    assert int(stop) > Settings.model_fields["shutdown_timeout"].default
