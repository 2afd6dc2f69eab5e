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
    """Say it as podman 4.3 needs it: no network of its own, ports by number, and Secrets as the API server keeps them.

    A Secret's `items` and `stringData` mean nothing to it, `optional` must be spelt out, and a file gets what is in
    `data` without its being decoded, so the password here is one that may stand there as it is.
    """
    of_kind = {manifest["kind"]: manifest for manifest in manifests}
    spec = of_kind["Deployment"]["spec"]["template"]["spec"]
    spec["hostNetwork"] = True
    (container,) = spec["containers"]
    del container["ports"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        container[probe]["httpGet"]["port"] = port
    (volume,) = spec["volumes"]
    volume["secret"]["optional"] = False
    (item,) = volume["secret"].pop("items")
    of_kind["Secret"]["data"] = {item["path"]: of_kind["Secret"].pop("stringData")[item["key"]]}
    return str(yaml.safe_dump_all(of_kind[kind] for kind in ("ConfigMap", "Secret", "Deployment")))


def test_the_rendered_pod_forwards(image: str, node: Node, render: Render, tmp_path: Path) -> None:
    """With its ConfigMap as environment, its password from a mounted Secret, and the chart's security contexts."""
    port = free_port()
    repository, tag = image.split(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "bridges": {
            "a": {
                "settings": {
                    "sourceUrl": f"amqp://pod@127.0.0.1:{node.amqp_port}",
                    "sourceQueue": "source",
                    "destinationQueue": "destination",
                    "httpHost": "127.0.0.1",
                    "httpPort": port,
                },
                "source": {"password": PASSWORD},
            }
        },
    }
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
