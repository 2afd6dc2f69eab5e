"""The chart's pod, run for real by podman."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.deploy import tools
from tests.deploy.containers import ready
from tests.rig.node import Node
from tests.rig.ports import free_port
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.conftest import Render

pytestmark = pytest.mark.broker

PASSWORD = "password"  # noqa: S105 - of a broker that lives as long as the test


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A broker with a source queue and a destination queue."""
    with Node("3.10") as running:
        for queue in ("source", "destination"):
            running.declare(queue)
        users = "rabbit_auth_backend_internal"
        running.eval(f'{users}:add_user(<<"pod">>, <<"{PASSWORD}">>, <<"test">>)')
        running.eval(f'{users}:set_permissions(<<"pod">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>)')
        yield running


def for_podman(manifests: list[dict[str, Any]], port: int) -> str:
    """Say it as podman 4.3 needs it: ports by number, and what `_adapted` does."""
    of_kind = {manifest["kind"]: manifest for manifest in manifests}
    spec = of_kind["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    del container["ports"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        container[probe]["httpGet"]["port"] = port
    return _adapted(of_kind, spec, of_kind["Deployment"])


def drain_for_podman(manifests: list[dict[str, Any]]) -> str:
    """The pod of a drain's Job: podman 4.3 plays no Jobs, but their pods."""
    of_kind = {manifest["kind"]: manifest for manifest in manifests}
    template = of_kind["Job"]["spec"]["template"]
    metadata = {"name": of_kind["Job"]["metadata"]["name"], "labels": template["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    return _adapted(of_kind, template["spec"], pod)


def _adapted(of_kind: dict[str, dict[str, Any]], spec: dict[str, Any], workload: dict[str, Any]) -> str:
    """Give it no network of its own, and Secrets as the API server keeps them.

    A Secret's `items` and `stringData` mean nothing to it, `optional` must be spelt out, and a file gets what is in
    `data` without its being decoded, so the password here is one that may stand there as it is.
    """
    spec["hostNetwork"] = True
    (volume,) = spec["volumes"]
    volume["secret"]["optional"] = False
    (item,) = volume["secret"].pop("items")
    of_kind["Secret"]["data"] = {item["path"]: of_kind["Secret"].pop("stringData")[item["key"]]}
    return str(yaml.safe_dump_all((of_kind["ConfigMap"], of_kind["Secret"], workload)))


def values_for(image: str, node: Node, **settings: object) -> dict[str, Any]:
    """Values of the chart for one bridge from `source` to `destination`."""
    repository, tag = image.split(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "bridges": {
            "a": {
                "settings": {
                    "sourceUrl": f"amqp://pod@127.0.0.1:{node.amqp_port}",
                    "sourceQueue": "source",
                    "destinationQueue": "destination",
                    "httpHost": "127.0.0.1",
                    **settings,
                },
                "source": {"password": PASSWORD},
            }
        },
    }


def test_the_rendered_pod_forwards(image: str, node: Node, render: Render, tmp_path: Path) -> None:
    """With its ConfigMap as environment, its password from a mounted Secret, and the chart's security contexts."""
    port = free_port()
    values = values_for(image, node, httpPort=port)
    play = tmp_path / "pod.yaml"
    play.write_text(for_podman(render(values), port))
    name = "release-amqp-bridge-a"
    before = node.queue_ready("destination")
    try:
        tools.podman("play", "kube", play)
        wait_until(lambda: ready(port), "the pod to be ready", 30, interval_s=0.1)
        with node.channel() as channel:
            channel.basic_publish("", "source", b"through the pod")
        wait_until(lambda: node.queue_ready("destination") == before + 1, "the message to arrive")
        container = yaml.safe_load(tools.podman("inspect", f"{name}-pod-0-bridge"))[0]
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert container["EffectiveCaps"] in (None, [])
        assert container["Config"]["User"] in ("65532", "65532:65532")
    finally:
        environment = tools.podman_environment()
        print(tools.attempt("podman", "logs", f"{name}-pod-0-bridge", env=environment).stdout)
        for command in (("play", "kube", "--down", play), ("secret", "rm", name), ("volume", "rm", name)):
            tools.attempt("podman", *command, env=environment)


def test_the_rendered_drain_moves_what_there_is_and_ends(
    image: str, node: Node, render: Render, tmp_path: Path
) -> None:
    """With the settings, the password and the security contexts of its bridge."""
    values = values_for(image, node) | {"drains": {"a": {"args": ["--limit", "3"]}}}
    play = tmp_path / "drain.yaml"
    play.write_text(drain_for_podman(render(values)))
    secret, pod = "release-amqp-bridge-a", "release-amqp-bridge-a-drain"
    before = node.queue_ready("destination")
    try:
        with node.channel() as channel:
            channel.confirm_delivery()
            for number in range(5):
                channel.basic_publish("", "source", b"%d" % number)
        tools.podman("play", "kube", play)
        assert tools.podman("wait", f"{pod}-bridge", timeout_s=120).strip() == "0"
        assert (node.queue_ready("source"), node.queue_ready("destination")) == (2, before + 3)
        logs = tools.attempt("podman", "logs", f"{pod}-bridge", env=tools.podman_environment())
        assert "done: all that was asked for is moved" in logs.stdout
        container = yaml.safe_load(tools.podman("inspect", f"{pod}-bridge"))[0]
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert container["Config"]["User"] in ("65532", "65532:65532")
        assert container["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
    finally:
        with node.channel() as channel:
            channel.queue_purge("source")
        environment = tools.podman_environment()
        print(tools.attempt("podman", "logs", f"{pod}-bridge", env=environment).stdout)
        for command in (("play", "kube", "--down", play), ("secret", "rm", secret), ("volume", "rm", secret)):
            tools.attempt("podman", *command, env=environment)
