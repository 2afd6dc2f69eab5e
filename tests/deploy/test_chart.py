"""The Helm chart, rendered by helm 3 and 4."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor

from bridge.errors import ConfigurationError
from bridge.settings.environment import load_settings
from bridge.settings.options import options
from tests.deploy import chart, tools

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.deploy.conftest import Manifest, Render

EXAMPLES = sorted([*(tools.CHART / "ci").glob("*-values.yaml"), *(tools.CHART / "examples").glob("*.yaml")])
KUBERNETES = ("1.27", "1.30", "1.34", "1.37")
CUSTOM = {
    "PodMonitor": PodMonitor,
    "PrometheusRule": PrometheusRule,
    "ScaledObject": ScaledObject,
    "ServiceMonitor": ServiceMonitor,
    "TriggerAuthentication": TriggerAuthentication,
}
FOREIGN = {"ExternalSecret"}
"""Kinds of an example whose operator publishes no model."""
CONFIG = tools.ROOT / "config"

example = pytest.mark.parametrize("values", EXAMPLES, ids=lambda path: path.stem)


SETTINGS = json.loads(chart.SCHEMA.read_text())["definitions"]["settings"]["properties"]
NO_QUEUE = {"destinationQueue": None, "destinationDeclare": None, "destinationQueueType": None}
NO_QUEUE |= {"destinationQueueArguments": None}


ORDERS = "release-amqp-bridge-orders"


def an_accepted_value(accepted: Manifest) -> object:
    """A value that the schema of a setting accepts."""
    if "enum" in accepted:
        return accepted["enum"][0]
    if "boolean" in accepted["type"]:
        return False
    if "minimum" in accepted:
        return max(accepted["minimum"], 4)
    if "object" in accepted["type"]:
        return {}
    if "array" in accepted["type"]:
        return "amqps://a" if "items" in accepted else [{"exchange": "a", "routing_key": "k"}]
    return "text"


def bridge(settings: Manifest | None = None, **values: object) -> Manifest:
    """Values of one bridge named a that has what every bridge needs, and these."""
    needed = {"sourceUrl": "amqp://rabbit", "sourceQueue": "a", "destinationQueue": "b"}
    return {"bridges": {"a": {"settings": {**needed, **(settings or {})}, **values}}}


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """The spec of every pod: the bridges', the checks' and the drains'."""
    return [
        pod_template(manifest)["spec"]
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "Pod", "Job", "CronJob")
    ]


def pod_template(manifest: Manifest) -> Manifest:
    """What a manifest makes pods of, or the pod."""
    spec: Manifest = manifest["spec"]
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return manifest if manifest["kind"] == "Pod" else spec["template"]


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
def test_kubernetes_knows_every_field(render: Render, values: Path) -> None:
    for manifest in render(values):
        for version in KUBERNETES if manifest["kind"] not in {*CUSTOM, *FOREIGN} else ():
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_it_installs_on_each_of_these_versions(render: Render, version: str) -> None:
    assert render(bridge(), "--kube-version", version)


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
        assert pod["automountServiceAccountToken"] is (values.stem in ("service-values", "vault-agent"))
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_each_setting_is_a_value(render: Render) -> None:
    given: Manifest = {name: an_accepted_value(accepted) for name, accepted in SETTINGS.items()}
    given |= {"sourceDeclare": True, "destinationDeclare": True, "quarantineQueue": "q", "provenance": True}
    for side in ("source", "destination"):
        given |= {f"{side}Url": "amqps://a", f"{side}TlsVerify": True, f"{side}TlsServerName": "b"}
        given[f"{side}OauthTokenUrl"] = "https://tokens/"
    given["sourceStreamUrl"] = "rabbitmq-stream+tls://a"
    others = {key: given.pop(key) for key in ("destinationExchange", "destinationRoutingKey")}
    route = {"destinationRoute": given.pop("destinationRoute")}
    queue, exchange, own = (
        set(only(render(bridge(settings=given | more)), "ConfigMap")["data"])
        for more in ({}, NO_QUEUE | others, NO_QUEUE | route)
    )
    assert queue | exchange | own == {setting.variable for setting in options()} - set(chart.SECRETS)
    for variable, value in chart.SECRETS.items():
        side, key = value.split(".")
        manifests = render(bridge({"destinationUrl": "amqp://b"}, **{side: {key: "hidden"}}))
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
    values["bridges"]["b"] = {"settings": {"sourceUrl": "amqp://x", "sourceQueue": "x", "destinationQueue": "z"}}
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
        pod_template(manifest)["metadata"]["labels"]
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "Pod", "Job", "CronJob")
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


MONITORS = {"podMonitor": "podMetricsEndpoints", "serviceMonitor": "endpoints"}


@pytest.mark.parametrize("monitor", MONITORS)
def test_probes_and_prometheus_know_tls_and_token(render: Render, monitor: str) -> None:
    """A probe shows nothing, and goes over TLS where the bridge does."""
    verified = {"ca": {"secret": {"name": "tls", "key": "ca.crt"}}, "serverName": "b"}
    values = bridge(http={"tls": {"secret": "tls", "clientCa": "ca.crt"}, "token": {"secret": "t", "key": "k"}})
    values["monitoring"] = {monitor: {"enabled": True, "tlsConfig": verified}}
    manifests = render(values)
    (container,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
        assert "httpHeaders" not in container[probe]["httpGet"]
    assert {e["name"]: e["value"] for e in container["env"] if "HTTP" in e["name"]} == {
        "BRIDGE_HTTP_CERT_FILE": "/etc/amqp-bridge/http-tls/tls.crt",
        "BRIDGE_HTTP_KEY_FILE": "/etc/amqp-bridge/http-tls/tls.key",
        "BRIDGE_HTTP_CLIENT_CA_FILE": "/etc/amqp-bridge/http-tls/ca.crt",
        "BRIDGE_HTTP_TOKEN_FILE": "/etc/amqp-bridge/http-token/token",
    }
    (scraped,) = only(manifests, monitor[0].upper() + monitor[1:])["spec"][MONITORS[monitor]]
    assert (scraped["scheme"], scraped["tlsConfig"]) == ("https", verified)
    assert scraped["authorization"] == {"credentials": {"name": "t", "key": "k"}}
    values["monitoring"] = {monitor: {"enabled": True}}
    (plain,) = only(render({**values, **bridge()}), monitor[0].upper() + monitor[1:])["spec"][MONITORS[monitor]]
    assert plain.keys().isdisjoint({"scheme", "tlsConfig", "authorization"})


def test_the_network_policy_opens_the_ports_in_use(render: Render) -> None:
    settings = {
        "sourceUrl": "amqp://u@one:15672/v,amqp://[::1]:15673",
        "destinationUrl": ["amqps://two"],
        "httpPort": 9,
    }
    spec = only(render(bridge(settings=settings)), "NetworkPolicy")["spec"]
    assert [port["port"] for port in spec["egress"][1]["ports"]] == [5671, 5672, 15672, 15673]
    assert [port["port"] for port in spec["ingress"][0]["ports"]] == [9]
    for url, ports in (("", [5552, 5551]), ("rabbitmq-stream://a:1,rabbitmq-stream+tls://b", [1, 5551])):
        streams = {"sourceOffsetName": "bridge"} | ({"sourceStreamUrl": url} if url else {})
        spec = only(render(bridge(settings=settings | streams)), "NetworkPolicy")["spec"]
        assert [port["port"] for port in spec["egress"][1]["ports"]][4:] == ports
    more = {"dnsPorts": [5353], "extraIngress": [{"ports": [{"port": 1}]}], "extraEgress": [{"ports": [{"port": 2}]}]}
    spec = only(render(bridge(networkPolicy=more)), "NetworkPolicy")["spec"]
    assert [port["port"] for port in spec["egress"][0]["ports"]] == [5353, 5353]
    assert [spec["ingress"][-1], spec["egress"][-1]] == [{"ports": [{"port": 1}]}, {"ports": [{"port": 2}]}]


def test_the_network_policy_is_that_of_the_bridges_check_and_drains_too(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "full-values.yaml")
    selector = only(manifests, "NetworkPolicy")["spec"]["podSelector"]
    (chosen,) = (expression["values"] for expression in selector["matchExpressions"])
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "Pod", "Job", "CronJob"):
            labels = pod_template(manifest)["metadata"]["labels"]
            assert selector["matchLabels"].items() <= labels.items()
            component = labels["app.kubernetes.io/component"]
            assert (component in chosen) is not component.startswith("invoices"), "which has none"


def test_prometheus_gets_the_rules_of_the_configuration_folder(render: Render) -> None:
    spec = only(render({"monitoring": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")["spec"]
    assert spec == yaml.safe_load((CONFIG / "prometheus-rules.yml").read_text())


def test_alerts_are_switched_off_and_changed_one_by_one(render: Render, tmp_path: Path) -> None:
    spec = only(render(tools.CHART / "ci" / "full-values.yaml"), "PrometheusRule")["spec"]
    found = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule}
    assert set(found) == {rule["alert"] for rule in chart.alerts()} - {"BridgeDuplicatesPossible"}
    changed = found["BridgeMessageTooOld"]
    asked = "bridge_oldest_in_flight_seconds unless bridge_paused == 1 unless ignoring (reason) bridge_braked == 1"
    assert changed["expr"] == f"({asked}) > 1200"
    assert (changed["for"], changed["labels"]) == ("5m", {"severity": "critical", "team": "messaging"})
    assert found["BridgeDown"]["labels"] == {"severity": "critical", "team": "messaging"}
    base = "https://runbooks.example/amqp-bridge"
    assert all(rule["annotations"]["runbook_url"] == f"{base}#{name.lower()}" for name, rule in found.items())
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))
    tools.run("promtool", "check", "rules", tmp_path / "rules.yml")


def test_each_of_twenty_bridges_is_missed_by_its_name(render: Render, tmp_path: Path) -> None:
    """Nineteen are there, and the alert names the twentieth alone."""
    names = [f"site-{number}" for number in range(20)]
    values: Manifest = {"monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}
    values["bridges"] = {name: bridge()["bridges"]["a"] for name in names}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(only(render(values), "PrometheusRule")["spec"]))
    up = 'up{job="amqp-bridge", namespace="default", bridge="%s"}'
    test = {
        "interval": "1m",
        "input_series": [{"series": up % name, "values": "1x20"} for name in names[:-1]],
        "promql_expr_test": [
            {
                "expr": 'count by (bridge) (ALERTS{alertname="BridgeAbsent", alertstate="firing"})',
                "eval_time": "10m",
                "exp_samples": [{"labels": f'{{bridge="{names[-1]}"}}', "value": 1}],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [test]}))
    tools.run("promtool", "test", "rules", tmp_path / "test.yml")


def test_one_missing_bridge_of_several_is_noticed(render: Render, tmp_path: Path) -> None:
    """By its name; one that KEDA may scale to none is not asked for."""
    wanted = 'absent(up{job="amqp-bridge", namespace="%s", bridge="%s"})'
    values = tools.CHART / "ci" / "service-values.yaml"
    spec = only(render(values, "--namespace", "shop"), "PrometheusRule")["spec"]
    (rule,) = (rule for group in spec["groups"] for rule in group["rules"] if rule.get("alert") == "BridgeAbsent")
    assert rule["expr"] == wanted % ("shop", "orders")
    spec = only(render(tools.CHART / "ci" / "full-values.yaml"), "PrometheusRule")["spec"]
    (rule,) = (rule for group in spec["groups"] for rule in group["rules"] if rule.get("alert") == "BridgeAbsent")
    assert rule["expr"] == " or ".join(wanted % ("default", name) for name in ("invoices", "orders"))
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(spec))
    up = 'up{job="amqp-bridge", namespace="default", bridge="%s"}'
    labels = {"severity": "critical", "team": "messaging", "namespace": "default", "job": "amqp-bridge"}
    test = {
        "interval": "1m",
        "input_series": [{"series": up % "orders", "values": "1x20"}],
        "promql_expr_test": [
            {
                "expr": 'ALERTS{alertname="BridgeAbsent"}',
                "eval_time": "10m",
                "exp_samples": [
                    {
                        "labels": 'ALERTS{alertname="BridgeAbsent", alertstate="firing", bridge="invoices", '
                        + ", ".join(f'{name}="{value}"' for name, value in labels.items())
                        + "}",
                        "value": 1,
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [test]}))
    tools.run("promtool", "test", "rules", tmp_path / "test.yml")


def test_grafana_gets_the_dashboard_of_the_configuration_folder(render: Render) -> None:
    data = only(render({"monitoring": {"dashboard": {"enabled": True}}}), "ConfigMap")["data"]
    assert json.loads(data["amqp-bridge.json"]) == json.loads((CONFIG / "grafana-dashboard.json").read_text())


def test_the_chart_is_whole_without_the_repository(helm: Path, render: Render, tmp_path: Path) -> None:
    """Copied or packaged, it renders the same, and helm has nothing to complain about."""
    values = tools.CHART / "ci" / "full-values.yaml"
    copy = shutil.copytree(tools.CHART, tmp_path / "elsewhere" / "amqp-bridge", symlinks=True)
    tools.run(helm, "package", tools.CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    for alone in (copy, package):
        result = tools.attempt(helm, "template", "release", alone, "--values", values)
        assert (result.returncode, result.stderr) == (0, "")
        assert list(filter(None, yaml.safe_load_all(result.stdout))) == render(values)


def test_every_object_has_the_annotations_for_every_object(render: Render) -> None:
    manifests = [m for m in render(tools.CHART / "ci" / "full-values.yaml") if "extra" not in m["metadata"]["name"]]
    for manifest in manifests:
        if manifest["metadata"]["name"] != "release-text":
            found = manifest["metadata"]["annotations"]
            assert found["owner"] == "messaging", manifest["kind"]
            if manifest["metadata"]["name"].startswith("release-amqp-bridge-orders"):
                assert found["contact"] == "shop", manifest["kind"]


def test_annotations_and_relabelings_of_monitors_and_services(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "full-values.yaml")
    (endpoint,) = only(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]
    manifests_too = render(tools.CHART / "ci" / "service-values.yaml")
    (endpoint_too,) = only(manifests_too, "ServiceMonitor")["spec"]["endpoints"]
    for each in (endpoint, endpoint_too):
        assert each["relabelings"][-1] == {"targetLabel": "cluster", "replacement": "north"}
        assert each["metricRelabelings"] == [{"sourceLabels": ["__name__"], "regex": "python_gc_.*", "action": "drop"}]
    for kind in ("PodMonitor", "PrometheusRule", "ServiceAccount"):
        assert only(manifests, kind)["metadata"]["annotations"] == {"owner": "messaging", "contact": "messaging"}
    assert only(manifests_too, "ServiceMonitor")["metadata"]["annotations"] == {"contact": "messaging"}
    service = only(manifests, "Service")
    assert service["metadata"]["annotations"] == {"owner": "messaging", "contact": "shop", "mesh": "off"}
    assert (service["spec"]["type"], service["spec"]["ports"][0]["port"]) == ("NodePort", 80)


def test_a_rollout_is_as_the_values_want_it(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "full-values.yaml")
    found = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "Deployment"}
    chosen, other = found[ORDERS], found["release-amqp-bridge-invoices"]
    assert [(spec["revisionHistoryLimit"], spec["minReadySeconds"]) for spec in (chosen, other)] == [(3, 10), (10, 0)]
    assert other["strategy"] == {"type": "Recreate"}


def test_more_objects_are_rendered_with_their_templates(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "full-values.yaml")
    (mapping,) = (m for m in manifests if m["metadata"]["name"] == "release-amqp-bridge-extra")
    (text,) = (m for m in manifests if m["metadata"]["name"] == "release-text")
    assert (mapping["data"], text["data"]) == ({"release": "release"}, {})


def test_the_pod_has_what_a_mesh_or_a_secret_store_needs(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "full-values.yaml")
    found = [pod for pod in pods(manifests) if "initContainers" in pod]
    (running,) = (pod for pod in found if pod["containers"][0]["args"] == ["run"])
    (checking,) = (pod for pod in found if pod["containers"][0]["args"] == ["check"])
    assert [container["name"] for container in running["containers"]] == ["bridge", "proxy"]
    assert [container["name"] for container in checking["containers"]] == ["bridge"]
    assert running["containers"][0]["lifecycle"] == {"preStop": {"exec": {"command": ["true"]}}}
    assert "lifecycle" not in checking["containers"][0]
    for pod in (running, checking):
        container = pod["containers"][0]
        assert container["image"].startswith("mirror.example/amqp-bridge@sha256:")
        assert [next(iter(source)) for source in container["envFrom"]] == ["secretRef", "configMapRef", "configMapRef"]
        assert pod["imagePullSecrets"] == [{"name": "mirror"}, {"name": "registry"}]
        assert pod["hostAliases"][0]["hostnames"] == ["a-0.example"]
        assert (pod["dnsPolicy"], pod["dnsConfig"]["nameservers"]) == ("None", ["10.0.0.53"])
    (check,) = (m for m in manifests if m["metadata"]["name"] == "release-amqp-bridge-orders-check")
    assert check["metadata"]["annotations"]["vault.hashicorp.com/agent-pre-populate-only"] == "true"


def test_a_drain_is_a_job_with_the_settings_of_its_bridge(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "full-values.yaml")
    once, nightly = only(manifests, "Job"), only(manifests, "CronJob")
    (running,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("Deployment", ORDERS))
    (bridge_container, *_) = pod_template(running)["spec"]["containers"]
    for manifest in (once, nightly):
        spec = manifest["spec"] if manifest is once else manifest["spec"]["jobTemplate"]["spec"]
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        (failed, ignored) = spec["podFailurePolicy"]["rules"]
        assert failed["onExitCodes"]["values"] == [1, 64, 78], "the breaker stopped it: another pod would begin again"
        assert ignored["action"] == "Ignore"
        (container,) = pod["containers"]
        assert container["envFrom"] == bridge_container["envFrom"]
        assert not {"ports", "livenessProbe", "lifecycle"} & container.keys()
    assert once["spec"]["template"]["spec"]["containers"][0]["args"] == [
        *("drain", "orders.dead", "--to-original", "--rate", "100")
    ]
    assert (once["spec"]["backoffLimit"], once["spec"]["ttlSecondsAfterFinished"]) == (0, 86400)
    assert (nightly["spec"]["schedule"], nightly["spec"]["concurrencyPolicy"]) == ("15 3 * * *", "Forbid")
    assert "release-amqp-bridge-off-drain" not in json.dumps(manifests)


def test_a_disabled_bridge_leaves_nothing(render: Render) -> None:
    values = bridge()
    values["bridges"]["b"] = {"enabled": False}
    assert "release-amqp-bridge-b" not in json.dumps(render(values))


def test_the_service_monitor_comes_with_services_for_every_bridge(render: Render) -> None:
    manifests = render(tools.CHART / "ci" / "service-values.yaml")
    services = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "Service"}
    assert set(services) == {"release-amqp-bridge-orders", "release-amqp-bridge-invoices"}
    labels = only(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    assert all(labels <= m["metadata"]["labels"].items() for m in manifests if m["kind"] == "Service")
    for name, service in services.items():
        (deployment,) = (m for m in manifests if m["kind"] == "Deployment" and m["metadata"]["name"] == name)
        assert service["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


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
    assert "No bridge runs yet" in yaml.safe_load(tools.run(*command))["notes"]


@pytest.mark.parametrize(
    ("values", "message"),
    (
        (bridge(bogus=1), "bogus"),
        (bridge(settings={"sourceQeue": "x"}), "sourceQeue"),
        ({"bridges": {"Upper": {}}}, "Upper"),
        (bridge(replicas="two"), "replicas"),
        ({**bridge(), "monitoring": {"prometheusRule": {"alerts": {"BridgeDwon": {}}}}}, "BridgeDwon"),
        ({**bridge(), "monitoring": {"prometheusRule": {"alerts": {"BridgeDown": {"threshold": 1}}}}}, "threshold"),
        ({**bridge(), "fullnameOverride": "x" * 62}, "has more than 63 characters"),
        ({**bridge(), "drains": {"a": {"sechdule": "@daily"}}}, "sechdule"),
        (
            {**bridge(http={"tls": {"secret": "s"}}), "monitoring": {"podMonitor": {"enabled": True}}},
            "monitoring.podMonitor.tlsConfig is missing: by which CA",
        ),
        (
            {
                "bridges": {**bridge()["bridges"], "b": bridge(http={"token": {"secret": "s"}})["bridges"]["a"]},
                "monitoring": {"serviceMonitor": {"enabled": True}},
            },
            "monitoring.serviceMonitor asks all bridges alike, and they serve by different http.tls or http.token",
        ),
        (
            {**bridge(http={"token": {"secret": "s"}}), "monitoring": {"scrapeAnnotations": True}},
            "monitoring.scrapeAnnotations cannot show a token",
        ),
        ({**bridge(), "drains": {"x": {}}}, 'drains.x: there is no bridge "x" that is enabled'),
        ({**bridge(), "drains": {"a" * 40: {"bridge": "a"}}}, "has more than 52 characters"),
    ),
)
def test_wrong_values_are_refused_by_name(
    helm: Path, values_file: Callable[[Manifest], Path], values: Manifest, message: str
) -> None:
    result = tools.attempt(helm, "template", "release", tools.CHART, "--values", values_file(values))
    assert result.returncode != 0
    assert message in result.stderr


MISTAKES = (
    (bridge({"sourceQueue": None}), "settings.sourceQueue is missing: the queue to take messages from"),
    (bridge({"destinationQueue": None}), "settings.destinationQueue or settings.destinationExchange is missing"),
    (bridge({"sourceUrl": None}), "the source's URL is missing: set settings.sourceUrl"),
    (bridge({"sourceUrl": "amqp://u:p@h"}), "settings.sourceUrl holds a password"),
    (bridge({"sourceUrl": "amqp://u:1/p@h"}), 'settings.sourceUrl has an "@" behind a "/"'),
    (bridge({"sourceUrl": ["amqp://a", "amqps://b"]}), "settings.sourceUrl mixes amqp:// and amqps://"),
    (bridge(source={"existingSecret": "s", "password": "p"}), "source: existingSecret and url, username or password"),
    (bridge(source={"url": "amqp://u:p@h"}), "source.url and settings.sourceUrl are both set"),
    (bridge(source={"tls": {"clientCertificate": True}}), "source.tls.clientCertificate needs source.tls.secret"),
    (bridge(source={"tls": {"secret": "ca"}}), "source.tls.secret has no effect on amqp://"),
    (bridge(destination={"existingSecret": "s"}), "the destination has a Secret, a login or TLS files and no URL"),
    (bridge(destination={"password": "p"}), "the destination has a Secret, a login or TLS files and no URL"),
    (bridge(destination={"tls": {"secret": "s"}}), "the destination has a Secret, a login or TLS files and no URL"),
    (bridge({"destinationExchange": "x"}), "settings.destinationQueue and settings.destinationExchange are both set"),
    (bridge({"destinationRoutingKey": "x"}), "settings.destinationRoutingKey is set with settings.destinationQueue"),
    (bridge({**NO_QUEUE, "destinationExchange": "x", "destinationDeclare": True}), "settings.destinationDeclare"),
    (bridge({"sourceBindings": [{"exchange": "a"}]}), "settings.sourceBindings is set without settings.sourceDeclare"),
    (bridge({"maxHops": 3}), "settings.maxHops is set without settings.provenance"),
    (bridge({"sourceOffsetName": "b"}, replicas=2), "settings.sourceOffsetName is for one bridge"),
    (
        bridge({"sourceOffsetName": "b"}, keda={"enabled": True, "host": "http://h"}),
        "settings.sourceOffsetName is for one bridge",
    ),
    (bridge({"sourceStreamUrl": "rabbitmq-stream://h"}), "settings.sourceStreamUrl is set without"),
    (
        bridge({"sourceOffsetName": "b", "sourceStreamUrl": "rabbitmq-stream://h,rabbitmq-stream://u:p@h"}),
        "settings.sourceStreamUrl holds a password",
    ),
    (
        bridge({"sourceOffsetName": "b", "sourceStreamUrl": "amqp://h"}),
        'settings.sourceStreamUrl: "amqp://h" is no URL',
    ),
    (bridge({"destinationRoute": "original"}), "settings.destinationRoute and settings.destinationQueue are both set"),
    (bridge({"destinationQueueType": "classic"}), "settings.destinationQueueType has no effect"),
    (bridge({"sourceQueueArguments": {"x-expires": 1}}), "settings.sourceQueueArguments has no effect"),
    (
        bridge({"sourceConsumerPriority": 1, "sourceConsumerArguments": {"x-priority": 2}}),
        "settings.sourceConsumerPriority and x-priority",
    ),
    (bridge({"sourceTlsVerify": False}), "settings.sourceTlsVerify has no effect on amqp://"),
    (
        bridge({"sourceTlsServerName": "h", "sourceTlsVerify": False}),
        "settings.sourceTlsServerName has no effect with settings.sourceTlsVerify=false",
    ),
    (
        bridge({"sourceOauthTokenUrl": "https://t/", "sourceOauthClientId": "c"}),
        "settings.sourceOauthClientSecretFile is not set; expected it with settings.sourceOauthTokenUrl",
    ),
    (bridge({"reconnectMin": "1m"}), "settings.reconnectMin (60 s) is above settings.reconnectMax (30 s)"),
    (bridge({"quarantineQueue": "a"}), "settings.quarantineQueue is the source queue itself"),
    (
        bridge({"maxInFlightBytes": "200MiB"}),
        "settings.maxInFlightBytes (200MiB) and the 60 MiB of the process do not fit into resources.limits.memory (256",
    ),
    (
        bridge({"maxInFlightBytes": "1GiB"}, resources={"limits": {"memory": "1Gi"}}),
        "settings.maxInFlightBytes (1GiB) and",
    ),
    (bridge(resources={"limits": {"memory": "100M"}}), "settings.maxInFlightBytes (64MiB) and the 60 MiB"),
    (bridge(keda={"enabled": True}), "keda needs the management API's URL"),
    (bridge(keda={"enabled": True, "host": "h", "minReplicas": 9}), "keda.minReplicas is above keda.maxReplicas"),
    (bridge(terminationGracePeriodSeconds=20), "terminationGracePeriodSeconds: 20 is not above the shutdown"),
    (bridge(dnsPolicy="None"), "dnsPolicy None needs dnsConfig"),
    (bridge(http={"tls": {"clientCa": "ca.crt"}}), "http.tls.clientCa needs http.tls.secret"),
    (
        bridge({"httpCertFile": "/a"}, http={"tls": {"secret": "s"}}),
        "http.tls.secret and settings.httpCertFile are both",
    ),
    (bridge({"httpTokenFile": "/a"}, http={"token": {"secret": "s"}}), "http.token.secret and settings.httpTokenFile"),
    (bridge({"httpKeyFile": "/a"}), "settings.httpKeyFile is set without settings.httpCertFile"),
    (bridge({"httpAllowedHosts": "orders:80"}), 'settings.httpAllowedHosts: "orders:80" is not a host name'),
)


def test_every_mistake_is_named_at_once(helm: Path, values_file: Callable[[Manifest], Path]) -> None:
    """In one go for all bridges, as the service does it; a bridge without a mistake is not mentioned."""
    bridges = {f"m{number}": values["bridges"]["a"] for number, (values, _) in enumerate(MISTAKES)}
    values = {"bridges": {**bridges, **bridge()["bridges"]}}
    values["monitoring"] = {"scrapeAnnotations": True, "podMonitor": {"enabled": True}}
    result = tools.attempt(helm, "template", "release", tools.CHART, "--values", values_file(values))
    lines = [line.removeprefix("  - ") for line in result.stderr.splitlines() if line.startswith("  - ")]
    assert result.returncode != 0
    assert lines[0].startswith("monitoring.podMonitor.enabled and monitoring.scrapeAnnotations are both set")
    found = [line for line in lines if line.startswith("bridges.")]
    assert all(line.startswith("monitoring.") for line in set(lines) - set(found)), result.stderr
    found = sorted(found, key=lambda line: int(line[len("bridges.m") :].split(":")[0]))
    assert len(found) == len(MISTAKES), result.stderr
    for number, (line, (_, message)) in enumerate(zip(found, MISTAKES, strict=True)):
        assert line.startswith(f"bridges.m{number}: {message}")


BINDINGS = [{"exchange": "e", "routing_key": "k"}]
TEXTS: dict[str, list[object]] = {
    "TokenUrl": ["https://a/token", "http://a:8080", "https://u:p@a/", "ftp://a", "a", "https://a/#x", "https://a b/"],
    "Scope": ["rabbitmq.read:*/* rabbitmq.write:*/*", "größer", 'a"b'],
    "Url": ["amqp://a", "amqps://u@a:5671/v,amqps://b", "http://a", "a", "amqp://a,b", "amqp://", "amqp://a/s@b"],
    "AllowedHosts": ["bridge.example", "a.example., B.example", "10.0.0.7,::1", "a b", "a.example:80", "a.example,*.b"],
    "HttpHost": ["127.0.0.1", "::1", "bridge.internal", "x" * 255],
    "TlsServerName": ["rabbit.internal", "rabbit.internal.", "10.0.0.7", "2001:db8::7", "a b", "rabbit:5671", "*.x"],
    "Bindings": [BINDINGS, json.dumps(BINDINGS), "[]", [1], "[1]", [{"routing_key": "k"}], "{}", "[broken", "words"],
}
"""Values of settings that have a form of their own, by how their names end."""


def candidates(name: str, accepted: Manifest) -> list[object]:
    """Values on both sides of every limit of a setting."""
    if "enum" in accepted:
        return [*filter(None, accepted["enum"]), "other"]
    if "boolean" in accepted["type"]:
        return [True, False, "maybe"]
    if "object" in accepted["type"]:
        return [{"x": 1}, "{}", "[1]", "{broken", "words"]
    for ending, texts in TEXTS.items():
        if name.lower().endswith(ending.lower()):
            return texts
    if "maxLength" in accepted:
        return ["x" * 127, "x" * 128, "x" * 255, "x" * 256, "é" * 60, "é" * 61, "é" * 127, "é" * 128]
    bounds = (accepted["minimum"], accepted["maximum"])
    numbers: list[object] = [bound + step for bound in bounds for step in (-1, 0, 1)]
    if "number" in accepted["type"]:
        numbers += [f"{bound:g}s" for bound in bounds] + ["0s", "100h", "30x", "1.5m", "soon"]
    if accepted["type"] == ["integer", "string", "null"]:
        numbers += ["64MiB", "64 mb", "0B", "1TiB", "2TiB", "64XB", "much"]
    return [0, 3, 4, *numbers, "many"]


def test_the_chart_rejects_what_the_settings_reject_and_accepts_what_they_accept(
    helm: Path, values_file: Callable[[Manifest], Path]
) -> None:
    """But for the port 0 of a pod, and for files, which only the pod sees."""
    rejected: set[tuple[str, str]] = set()
    left: dict[str, tuple[str, object]] = {}
    by_settings: set[tuple[str, str]] = set()
    for name, accepted in SETTINGS.items():
        variable = next(o.variable for o in options() if chart.value_name(o.variable) == name)
        if variable.endswith("_FILE"):
            continue
        for value in candidates(name, accepted):
            validator = jsonschema.Draft7Validator(accepted)
            if validator.is_valid(value):
                left[f"c{len(left)}"] = (name, value)
            else:
                rejected.add((name, str(value)))
            text = json.dumps(value) if isinstance(value, (dict, list, bool)) else str(value)
            try:
                load_settings({variable: text})
            except ConfigurationError as error:
                if any(problem.startswith(f"{variable}: ") for problem in error.problems):
                    by_settings.add((name, str(value)))
    bridges = {bridge_name: {"settings": {name: value}} for bridge_name, (name, value) in left.items()}
    result = tools.attempt(helm, "template", "release", tools.CHART, "--values", values_file({"bridges": bridges}))
    said = r"bridges\.(c\d+): settings\.(\w+)(?:: | is \d+ bytes| has an )"
    for bridge_name, name in re.findall(said, result.stderr):
        assert left[bridge_name][0] == name
        rejected.add((name, str(left[bridge_name][1])))
    assert by_settings == rejected - {("httpPort", "0")}


def test_the_schema_rejects_unknown_keys_everywhere() -> None:
    """Except in what Kubernetes or an operator checks: each object is closed, or holds free keys of one type."""
    schema = json.loads(chart.SCHEMA.read_text())
    open_objects = set()

    def walk(node: object, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
                open_objects.add(path.split("/")[-2] if path.endswith("/items") else path.rsplit("/", maxsplit=1)[-1])
            for key, value in node.items():
                walk(value, f"{path}/{key}")

    walk(schema, "")
    assert open_objects == {
        *(
            "global",
            "relabelings",
            "metricRelabelings",
            "tlsConfig",
            "claims",
            "topologySpreadConstraints",
            "tolerations",
        ),
        *("ingressFrom", "egressTo", "extraIngress", "extraEgress", "extraEnv", "extraVolumes", "extraVolumeMounts"),
        *("initContainers", "sidecars", "postStart", "preStop", "affinity"),
    }


@pytest.mark.parametrize("path", chart.written(), ids=lambda path: path.name)
def test_what_a_program_writes_is_up_to_date(path: Path) -> None:
    """`python -m tests.deploy.chart` writes it."""
    assert path.read_text() == chart.written()[path]


def test_every_value_is_described() -> None:
    assert [key for key, _, said in chart.value_rows(chart.VALUES.read_text()) if not said] == []
