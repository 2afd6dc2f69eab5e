"""Brokers for the tests: of each version two nodes, started when first needed, mended between tests."""

from __future__ import annotations

import itertools
import logging
import os
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.budget import counting
from tests.rig import installation
from tests.rig.bridge_process import BridgeProcess, StartBridge
from tests.rig.certificates import Certificates, make_certificates
from tests.rig.node import Node
from tests.rig.scheduling import GroupScheduling
from tests.rig.tokens import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MISSING = [version for version in installation.VERSIONS if not installation.is_installed(version)]
_PRESENT = [version for version in installation.VERSIONS if version not in _MISSING]
_numbers = itertools.count(1)

# How long an example takes says more of the machine than of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a broker, and let no broker be missing unseen where it must be there."""
    uses_broker = [item for item in items if "broker_version" in getattr(item, "fixturenames", ())]
    for item in uses_broker:
        item.add_marker("broker")
    if uses_broker and not _PRESENT:
        raise pytest.UsageError("no RabbitMQ is installed; 'make brokers' installs it")
    if uses_broker and _MISSING and os.environ.get("CI") == "true":
        raise pytest.UsageError(f"RabbitMQ {', '.join(_MISSING)} is not installed, and in CI it must be")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:  # noqa: ANN401 - xdist's own
    """With `--dist loadscope` as `make` has it, tests are handed out by groups: see `tests/rig/scheduling.py`."""
    if config.option.dist != "loadscope":
        return None
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly which brokers the tests did not run against, and whether no instructions were counted."""
    for version in _MISSING:
        terminalreporter.section(f"NOT TESTED: RabbitMQ {version}", sep="!", red=True, bold=True)
        terminalreporter.line(f"RabbitMQ {version} is not installed; 'make brokers' says what it needs.")
    if not counting.is_installed():
        terminalreporter.section("NOT TESTED: that a count of instructions repeats", sep="!", red=True, bold=True)
        terminalreporter.line("valgrind is not installed; 'make budget' installs it.")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What a command configures within a test ends with it: its stream does."""
    loggers = [logging.getLogger(name) for name in (None, "bridge", "aiormq", "aio_pika", "asyncio")]
    before = [(each, each.level, each.handlers[:]) for each in loggers]
    yield
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers[:] = handlers


@pytest.fixture(scope="session", params=_PRESENT)
def broker_version(request: pytest.FixtureRequest) -> str:
    """Each RabbitMQ version in turn."""
    return str(request.param)


@pytest.fixture(params=["classic", "quorum"])
def queue_type(request: pytest.FixtureRequest) -> str:
    """Each kind of queue in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates that the session's nodes use; the client's names the user guest."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """Whose tokens the session's nodes take for passwords."""
    return Issuer()


@pytest.fixture(scope="session")
def _nodes(broker_version: str, certificates: Certificates, issuer: Issuer) -> Iterator[tuple[Node, Node]]:
    external = {f"auth_mechanisms.{i}": name for i, name in enumerate(("PLAIN", "AMQPLAIN", "EXTERNAL"), 1)}
    plugins = ["rabbitmq_auth_mechanism_ssl", "rabbitmq_auth_backend_oauth2", "rabbitmq_stream"]
    source, destination = (
        Node(broker_version, config=external, plugins=plugins, certificates=certificates, issuer=issuer)
        for _ in range(2)
    )
    try:
        source.start()
        destination.start()
        source.wait_ready()
        destination.wait_ready()
        yield source, destination
    finally:
        source.kill()
        destination.kill()


def _mended(node: Node) -> Iterator[Node]:
    """The node, running, thawed and free of alarms and of other tests' queues, whatever the last test did to it."""
    if node.is_running:
        node.thaw()
    else:
        node.start()
    node.wait_ready()
    yield node
    if node.is_running:
        node.thaw()
        node.alarm(on=False)
        node.delete_all_queues()


@pytest.fixture
def source(_nodes: tuple[Node, Node]) -> Iterator[Node]:
    """A running node to take messages from."""
    yield from _mended(_nodes[0])


@pytest.fixture
def destination(_nodes: tuple[Node, Node]) -> Iterator[Node]:
    """A running node to bring messages to."""
    yield from _mended(_nodes[1])


@pytest.fixture
def queue_name() -> str:
    """A queue name that no test had before."""
    return f"queue-{next(_numbers)}"


@pytest.fixture
def start_bridge() -> Iterator[StartBridge]:
    """Start bridges, as processes, that end with the test."""
    bridges: list[BridgeProcess] = []

    def start(settings: Mapping[str, object]) -> BridgeProcess:
        bridges.append(BridgeProcess(settings).start())
        return bridges[-1]

    yield start
    for bridge in bridges:
        bridge.kill()
