"""The image, built and run for real: as nobody, read-only, without capabilities."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deploy import tools
from tests.deploy.containers import RESTRICTED, Container
from tests.rig.client import drain, drain_and_audit, number_of, publish_numbered
from tests.rig.node import Node
from tests.rig.ports import free_port
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.broker

MESSAGES = 30_000


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A broker with two queues: the source and the destination."""
    with Node("3.10") as running:
        for queue in ("source", "destination"):
            running.declare(queue)
        yield running


def settings(node: Node) -> dict[str, str]:
    """The environment of a bridge between the two queues."""
    return {
        "BRIDGE_SOURCE_URL": node.url,
        "BRIDGE_SOURCE_QUEUE": "source",
        "BRIDGE_DESTINATION_QUEUE": "destination",
    }


def test_dockerfile_lint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    assert tools.run(hadolint, tools.ROOT / "Dockerfile") == ""


@pytest.mark.usefixtures("image")
def test_forwards_as_nobody_on_a_read_only_root_without_capabilities(node: Node) -> None:
    with Container(settings(node), free_port()) as container:
        container.wait_ready()
        publish_numbered(node.url, "source", MESSAGES)
        wait_until(lambda: node.queue_ready("destination") == MESSAGES, "all messages to arrive")
        status = dict(line.split(":\t", 1) for line in container.exec("cat", "/proc/1/status").stdout.splitlines())
        assert status["Uid"].split() == ["65532"] * 4
        assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
        assert status["Name"] == "amqp-bridge"
        assert "Read-only file system" in container.exec("touch", "/opt/amqp-bridge/x").stderr
        assert container.exec("/bin/sh", "-c", "command -v pip pip3 gcc cc make").stdout == ""
        others = ["find", "/opt/amqp-bridge", "!", "-type", "l", "(", "!", "-user", "0", "-o", "-perm", "/022", ")"]
        assert container.exec(*others).stdout == "", "all of it is root's, and nobody else may write"
        assert container.exec("amqp-bridge", "status").stdout.startswith("ready: ")
        assert container.exec("/opt/amqp-bridge/bin/python3", "-c", "import oauthlib, rich, rstream").stderr == "", (
            "the extras"
        )
    assert drain_and_audit(node.url, "destination", MESSAGES).is_perfect


@pytest.mark.usefixtures("image")
def test_sigterm_drains(node: Node) -> None:
    """In the middle of the work: each message is on one side or the other, none on both, and the exit status is 0."""
    publish_numbered(node.url, "source", MESSAGES)
    with Container(settings(node), free_port()) as container:
        wait_until(lambda: node.queue_ready("destination") > 0, "the first messages to arrive", interval_s=0.005)
        assert container.terminate() == 0, container.logs
    arrived, left = (drain(node.url, queue) for queue in ("destination", "source"))
    print(f"{len(arrived)} of {MESSAGES} had arrived")
    assert sorted(map(number_of, [*arrived, *left])) == list(range(MESSAGES))


def test_a_wrong_configuration_ends_with_78(image: str) -> None:
    result = tools.attempt(
        "podman", "run", "--rm", "--network=host", *RESTRICTED, image, env=tools.podman_environment()
    )
    assert result.returncode == 78
    assert "BRIDGE_SOURCE_QUEUE" in result.stderr


def test_the_health_check_asks_the_bridge(image: str, node: Node) -> None:
    """The command in the image's health check, which no scheduler runs here."""
    with Container(settings(node), free_port()) as container:
        container.wait_ready()
        check = json.loads(tools.podman("inspect", image))[0]["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        healthy = container.exec(*check[1:])
        assert healthy.returncode == 0, healthy.stderr


def test_the_image_says_what_it_is(image: str) -> None:
    config = json.loads(tools.podman("inspect", image))[0]["Config"]
    assert config["Entrypoint"] == ["amqp-bridge"]
    assert config["Cmd"] == ["run"]
    assert config["User"] == "65532:65532"
    names = {"title", "description", "licenses", "version", "revision", "created"}
    assert {f"org.opencontainers.image.{name}" for name in names} <= set(config["Labels"])


def test_the_bridge_adds_less_than_60_mb_to_its_base(image: str) -> None:
    sizes = [int(tools.podman("image", "inspect", "--format={{.Size}}", name)) for name in (tools.BASE_IMAGE, image)]
    print(f"base {sizes[0] / 1e6:.0f} MB, image {sizes[1] / 1e6:.0f} MB")
    assert sizes[1] - sizes[0] < 60e6
