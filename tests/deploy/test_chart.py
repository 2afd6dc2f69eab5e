"""The Helm chart, rendered by helm 3 and 4."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

from bridge.settings.environment import load_settings
from bridge.settings.settings import options
from tests.deploy import chart, tools

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.deploy.conftest import Manifest, Render

EXAMPLES = sorted((tools.CHART / "ci").glob("*-values.yaml"))
KUBERNETES = ("1.27", "1.30", "1.34", "1.37")
CUSTOM = {
    "PodMonitor": PodMonitor,
    "PrometheusRule": PrometheusRule,
    "ScaledObject": ScaledObject,
    "TriggerAuthentication": TriggerAuthentication,
}
CONFIG = tools.ROOT / "config"

example = pytest.mark.parametrize("values", EXAMPLES, ids=lambda path: path.stem)


def bridge(settings: Manifest | None = None, **values: object) -> Manifest:
    """Values of one bridge named a that has what every bridge needs, and these."""
    needed = {"sourceUrl": "amqp://rabbit", "sourceQueue": "a", "destinationQueue": "b"}
    return {"bridges": {"a": {"settings": {**needed, **(settings or {})}, **values}}}


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """The spec of every pod: the bridges' and the checks'."""
    return [
        manifest["spec"]["template"]["spec"] if manifest["kind"] == "Deployment" else manifest["spec"]
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "Pod")
    ]


def environment(manifests: list[Manifest]) -> dict[str, str]:
    """What the bridge's container finds in its environment, references to Secrets of the chart's resolved."""
    container = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    found: dict[str, str] = dict(only(manifests, "ConfigMap")["data"])
    for entry in container.get("env", []):
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        else:
            secret = only(manifests, "Secret")["stringData"]
            found[entry["name"]] = secret[entry["valueFrom"]["secretKeyRef"]["key"]]
    return found


@example
def test_lints_strictly(helm: Path, values: Path) -> None:
    tools.run(helm, "lint", "--strict", tools.CHART, "--values", values)


def test_lints_without_values(helm: Path) -> None:
    tools.run(helm, "lint", "--strict", tools.CHART)


@example
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(render: Render, values: Path, version: str) -> None:
    for manifest in render(values, "--kube-version", version):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_operators_know_every_field_of_their_resources(render: Render) -> None:
    """A field that the model does not know would be lost on the way through it."""
    seen = set()
    for values in EXAMPLES:
        for manifest in render(values):
            if model := CUSTOM.get(manifest["kind"]):
                through = model.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json")
                assert through == manifest
                seen.add(manifest["kind"])
    assert seen == set(CUSTOM)


@example
def test_pods_are_at_the_restricted_security_level(render: Render, values: Path) -> None:
    found = pods(render(values))
    assert found
    for pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_each_setting_is_a_value(render: Render) -> None:
    given: Manifest = {
        chart.value_name(setting.variable): "1" for setting in options() if setting.variable not in chart.SECRETS
    }
    given["httpPort"] = 1
    data = only(render(bridge(settings=given)), "ConfigMap")["data"]
    assert set(data) == {setting.variable for setting in options()} - set(chart.SECRETS)
    for variable, value in chart.SECRETS.items():
        side, key = value.split(".")
        manifests = render(bridge(**{side: {key: "hidden"}}))
        assert f"{variable}_FILE" in environment(manifests)
        assert only(manifests, "Secret")["stringData"] == {f"{side}-{key}": "hidden"}
        assert "hidden" not in json.dumps([only(manifests, "ConfigMap"), only(manifests, "Deployment")])


def test_the_service_reads_values_of_every_shape(render: Render) -> None:
    """Lists, mappings, large numbers, booleans and the empty text arrive as the service expects them."""
    given = {
        "sourceUrl": ["amqp://one", "amqp://two:5673"],
        "sourceConsumerArguments": {"x-stream-offset": "first"},
        "sourceDeclare": True,
        "maxInFlightBytes": 134217728,
        "shutdownTimeout": "1m",
        "reconnectMin": 0.5,
        "quarantineQueue": "",
    }
    found = environment(render(bridge(settings=given)))
    settings = load_settings(found)
    assert [url.host for url in settings.source.urls] == ["one", "two"]
    assert settings.max_in_flight_bytes == 134217728
    assert settings.shutdown_timeout == 60
    assert settings.reconnect_min == 0.5
    assert json.loads(found["BRIDGE_SOURCE_CONSUMER_ARGUMENTS"]) == {"x-stream-offset": "first"}
    assert found["BRIDGE_SOURCE_DECLARE"] == "true"
    assert found["BRIDGE_QUARANTINE_QUEUE"] == ""


def test_a_bridge_overrides_the_defaults_and_nothing_else(render: Render) -> None:
    values = bridge(settings={"logLevel": "debug", "httpPort": 9000}, replicas=0)
    values["defaults"] = {"settings": {"logLevel": "warning", "sourcePrefetch": 10}, "replicas": 3}
    values["bridges"]["b"] = {"settings": {"sourceUrl": "amqp://x", "sourceQueue": "x", "destinationQueue": "y"}}
    manifests = render(values)
    deployments = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "Deployment"}
    data = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    assert [deployments[f"release-amqp-bridge-{name}"]["spec"]["replicas"] for name in "ab"] == [0, 3]
    assert [data[f"release-amqp-bridge-{name}"]["BRIDGE_LOG_LEVEL"] for name in "ab"] == ["debug", "warning"]
    assert [data[f"release-amqp-bridge-{name}"]["BRIDGE_SOURCE_PREFETCH"] for name in "ab"] == ["10", "10"]
    assert "BRIDGE_HTTP_PORT" not in data["release-amqp-bridge-b"]


def test_selectors_tell_bridges_and_checks_apart(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "full-values.yaml")
    labels = [
        (manifest["spec"]["template"] if manifest["kind"] == "Deployment" else manifest)["metadata"]["labels"]
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "Pod")
    ]
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "PodDisruptionBudget"):
            selector = manifest["spec"]["selector"]["matchLabels"].items()
            assert sum(selector <= found.items() for found in labels) == 1


@pytest.mark.parametrize(
    ("change", "resets"),
    (({"settings": {"logLevel": "debug"}}, True), ({"source": {"password": "other"}}, True), ({"replicas": 2}, False)),
)
def test_pods_are_replaced_when_configuration_or_secret_changes(
    render: Render, change: Manifest, *, resets: bool
) -> None:
    """By the checksums in the pod's annotations."""
    before, after = (
        only(render(values), "Deployment")["spec"]["template"]
        for values in (bridge(source={"password": "one"}), bridge(**{"source": {"password": "one"}, **change}))
    )
    assert (before != after) is resets


@pytest.mark.parametrize(
    ("shutdown", "given", "seconds"),
    ((None, 0, 30), (45, 0, 55), ("1m", 0, 70), ("1500ms", 0, 12), ("0.5m", 0, 40), ("20s", 21, 21)),
)
def test_kubernetes_waits_longer_than_the_bridge_drains(
    render: Render, shutdown: object, given: int, seconds: int
) -> None:
    settings = {} if shutdown is None else {"shutdownTimeout": shutdown}
    manifest = only(render(bridge(settings=settings, terminationGracePeriodSeconds=given)), "Deployment")
    assert manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds


def test_the_network_policy_opens_the_ports_in_use(render: Render) -> None:
    settings = {
        "sourceUrl": "amqp://u@one:15672/v,amqp://[::1]:15673",
        "destinationUrl": ["amqps://two"],
        "httpPort": 9,
    }
    spec = only(render(bridge(settings=settings)), "NetworkPolicy")["spec"]
    assert [port["port"] for port in spec["egress"][1]["ports"]] == [5671, 5672, 15672, 15673]
    assert [port["port"] for port in spec["ingress"][0]["ports"]] == [9]


def test_prometheus_gets_the_rules_of_the_configuration_folder(render: Render) -> None:
    spec = only(render({"monitoring": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")["spec"]
    assert spec == yaml.safe_load((CONFIG / "prometheus-rules.yml").read_text())


def test_grafana_gets_the_dashboard_of_the_configuration_folder(render: Render) -> None:
    data = only(render({"monitoring": {"dashboard": {"enabled": True}}}), "ConfigMap")["data"]
    assert json.loads(data["amqp-bridge.json"]) == json.loads((CONFIG / "grafana-dashboard.json").read_text())


def test_the_package_holds_files_where_the_tree_has_links(helm: Path, render: Render, tmp_path: Path) -> None:
    values = tools.CHART / "ci" / "full-values.yaml"
    tools.run(helm, "package", tools.CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    text = tools.run(helm, "template", "release", package, "--values", values)
    assert list(filter(None, yaml.safe_load_all(text))) == render(values)


def test_the_notes_name_each_bridge(helm: Path, tmp_path: Path) -> None:
    """Helm prints notes only with a cluster at hand; here a template repeats them."""
    copy = shutil.copytree(tools.CHART, tmp_path / "amqp-bridge")
    shutil.copy(copy / "templates" / "NOTES.txt", copy / "notes.txt")
    (copy / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes.txt") . | quote }}')
    command = (helm, "template", "release", copy, "--show-only", "templates/notes.yaml")
    notes = yaml.safe_load(tools.run(*command, "--values", tools.CHART / "ci" / "full-values.yaml"))["notes"]
    assert "orders: orders -> orders (deployment/release-amqp-bridge-orders)" in notes
    assert "invoices: invoices -> invoices" in notes
    assert "Nothing scrapes" not in notes
    assert "No bridge yet" in yaml.safe_load(tools.run(*command))["notes"]


@pytest.mark.parametrize(
    ("values", "message"),
    (
        (bridge(bogus=1), "bogus"),
        (bridge(settings={"sourceQeue": "x"}), "sourceQeue"),
        ({"bridges": {"Upper": {}}}, "Upper"),
        ({"bridges": {"a": {}}}, "settings.sourceQueue is missing: the queue to take messages from"),
        ({"bridges": {"a": {}}}, "settings.destinationQueue or settings.destinationExchange is missing"),
        ({"bridges": {"a": {}}}, "the source's URL is missing: set settings.sourceUrl"),
        (bridge(settings={"sourceUrl": "amqp://u:p@h"}), "settings.sourceUrl holds a password"),
        (
            bridge(source={"existingSecret": "s", "password": "p"}),
            "source: existingSecret and url, username or password",
        ),
        (bridge(source={"tls": {"clientCertificate": True}}), "source.tls.clientCertificate needs source.tls.secret"),
        (bridge(keda={"enabled": True}), "keda needs the management API's URL"),
        (bridge(keda={"enabled": True, "host": "h", "minReplicas": 9}), "keda.minReplicas is above keda.maxReplicas"),
        (bridge(terminationGracePeriodSeconds=20), "20 is not above the shutdown timeout of 20 seconds"),
        (bridge(replicas="two"), "replicas"),
        ({**bridge(), "monitoring": {"scrapeAnnotations": True, "podMonitor": {"enabled": True}}}, "scraped twice"),
        ({**bridge(), "fullnameOverride": "x" * 62}, "has more than 63 characters"),
    ),
)
def test_wrong_values_are_refused_by_name(
    helm: Path, values_file: Callable[[Manifest], Path], values: Manifest, message: str
) -> None:
    result = tools.attempt(helm, "template", "release", tools.CHART, "--values", values_file(values))
    assert result.returncode != 0
    assert message in result.stderr


def test_the_schema_rejects_unknown_keys_everywhere() -> None:
    """Except in what Kubernetes itself checks: each object is closed, or holds free keys of one type."""
    schema = json.loads(chart.SCHEMA.read_text())
    open_objects = []

    def walk(node: object, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
                open_objects.append(path)
            for key, value in node.items():
                walk(value, f"{path}/{key}")

    walk(schema, "")
    own = "/definitions/bridge/properties"
    assert open_objects == [
        "/properties/global",
        f"{own}/resources/properties/claims/items",
        f"{own}/topologySpreadConstraints/items",
        f"{own}/networkPolicy/properties/ingressFrom/items",
        f"{own}/networkPolicy/properties/egressTo/items",
        f"{own}/extraEnv/items",
        f"{own}/extraVolumes/items",
        f"{own}/extraVolumeMounts/items",
        f"{own}/tolerations/items",
        f"{own}/affinity",
    ]


def test_the_readme_and_the_schema_are_up_to_date() -> None:
    """`python -m tests.deploy.chart` writes them."""
    assert chart.README.read_text() == chart.readme()
    assert chart.SCHEMA.read_text() == chart.schema()


def test_every_value_is_described() -> None:
    assert [key for key, _, said in chart.value_rows(chart.VALUES.read_text()) if not said] == []


def test_the_chart_is_of_the_version_of_the_service() -> None:
    project = (tools.ROOT / "pyproject.toml").read_text()
    described = yaml.safe_load((tools.CHART / "Chart.yaml").read_text())
    assert f'version = "{described["appVersion"]}"' in project
    assert described["version"] == described["appVersion"]
