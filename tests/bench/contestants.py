"""Who competes, and how each is started: as its users run it, with the same prefetch and the same promise.

All of them take from the source with manual acks, publish persistently with confirms, and ack after the confirm.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.load import beside
from tests.budget.workload import THREE_ADDED
from tests.rig import guardian
from tests.rig.bridge_process import BridgeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from threading import Event

    from tests.rig.node import Node

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Route:
    """From where to where. ``node`` is the destination's broker, which also runs the shovels."""

    node: Node
    source_url: str
    destination_url: str
    source_queue: str = "in"
    destination_queue: str = "out"
    prefetch: int = 1000
    exchange: str = ""
    """Where to publish with each message's own key, instead of to the destination's queue."""


@dataclass(frozen=True)
class Contestant:
    """``run`` has it forward within a context, and gives its process ids: none where it is a part of the broker."""

    name: str
    run: Callable[[Route], AbstractContextManager[tuple[int, ...]]]
    share: float = 1
    """Of the others' number of messages: who is slow needs fewer to be measured as well."""


@contextmanager
def _bridge(  # noqa: PLR0913 - what rows set, by name
    route: Route,
    *,
    tls: bool = False,
    scraped: bool = False,
    deduplication: str = "message-id",
    max_rate: int = 0,
    add_headers: bool = False,
) -> Iterator[tuple[int, ...]]:
    settings = {
        "BRIDGE_SOURCE_URL": route.node.tls_url if tls else route.source_url,
        "BRIDGE_SOURCE_QUEUE": route.source_queue,
        "BRIDGE_SOURCE_PREFETCH": route.prefetch,
        "BRIDGE_DESTINATION_URL": route.node.tls_url if tls else route.destination_url,
        "BRIDGE_DEDUPLICATION": deduplication,
    }
    if add_headers:
        settings["BRIDGE_ADD_HEADERS"] = json.dumps(dict(THREE_ADDED))
    if max_rate:
        settings["BRIDGE_MAX_RATE"] = max_rate
    if route.exchange:
        settings["BRIDGE_DESTINATION_EXCHANGE"] = route.exchange
    else:
        settings["BRIDGE_DESTINATION_QUEUE"] = route.destination_queue
    if tls:
        settings |= {"BRIDGE_SOURCE_CA_FILE": route.node.tls_ca, "BRIDGE_DESTINATION_CA_FILE": route.node.tls_ca}
    with BridgeProcess(settings) as process, _scraping(process) if scraped else nullcontext():
        try:
            yield (process.pid,)
        except TimeoutError as error:
            if process.is_running:
                raise
            raise RuntimeError(f"the bridge has ended:\n{process.logs}") from error


@contextmanager
def _bridges(route: Route, *, number: int, tls: bool = False) -> Iterator[tuple[int, ...]]:
    """As many bridges between the same queues."""
    with ExitStack() as stack:
        yield sum((stack.enter_context(_bridge(route, tls=tls)) for _ in range(number)), ())


@contextmanager
def _drain(route: Route) -> Iterator[tuple[int, ...]]:
    """`amqp-bridge drain`, which ends by itself."""
    settings = {
        "BRIDGE_SOURCE_URL": route.source_url,
        "BRIDGE_SOURCE_QUEUE": route.source_queue,
        "BRIDGE_SOURCE_PREFETCH": route.prefetch,
        "BRIDGE_DESTINATION_URL": route.destination_url,
        "BRIDGE_DESTINATION_QUEUE": route.destination_queue,
    }
    with BridgeProcess(settings, "drain") as process:
        yield (process.pid,)
        if status := process.wait():
            raise RuntimeError(f"the drain has ended with {status}:\n{process.logs}")


def _scraping(process: BridgeProcess) -> AbstractContextManager[None]:
    """Scrape once a second, as a Prometheus in a hurry does."""

    def scrape(ended: Event) -> None:
        process.get("/metrics")
        while not ended.wait(1):
            process.get("/metrics")

    return beside(scrape)


@contextmanager
def _shovel(route: Route, *, protocol: str = "amqp091", moves: bool = False) -> Iterator[tuple[int, ...]]:
    """Start and stop it by ``eval``: ``rabbitmqctl`` takes a second of CPU, beside what is measured.

    ``moves``: it deletes itself when it has moved what the queue had at its start, as "move messages" does.
    """
    definition: dict[str, object] = {
        "src-protocol": protocol,
        "src-uri": route.source_url.rstrip("/"),  # with the slash, it takes the empty path for a vhost's name
        "src-queue": route.source_queue,
        "dest-protocol": protocol,
        "dest-uri": route.destination_url.rstrip("/"),
        "dest-queue": route.destination_queue,
        "ack-mode": "on-confirm",
        "reconnect-delay": 1,
    }
    if protocol != "local":  # which has link credit instead
        definition["src-prefetch-count"] = route.prefetch
    if moves:
        definition["src-delete-after"] = "queue-length"
    what = '<<"/">>, <<"shovel">>, <<"bench">>'
    text = json.dumps(json.dumps(definition))  # JSON within a string that Erlang reads as Python wrote it
    route.node.eval(f"ok = rabbit_runtime_parameters:parse_set({what}, <<{text}>>, none)")
    try:
        yield ()
    finally:
        # One that has deleted itself is not there any more.
        route.node.eval(f'{"" if moves else "ok = "}rabbit_runtime_parameters:clear({what}, <<"bench">>)')


@contextmanager
def _aio_pika_loop(route: Route) -> Iterator[tuple[int, ...]]:
    queues = [route.source_url, route.source_queue, route.destination_url, route.destination_queue]
    with (route.node.folder / "aio_pika_loop.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.aio_pika_loop", *queues, str(route.prefetch)],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    guardian.guard_group(process.pid)
    try:
        yield (process.pid,)
    finally:
        process.kill()
        process.wait()
        guardian.release_group(process.pid)


BRIDGE = Contestant("bridge", _bridge)
BRIDGE_OVER_TLS = Contestant("bridge, TLS", partial(_bridge, tls=True))
TWO_BRIDGES = Contestant("two bridges", partial(_bridges, number=2))
TWO_BRIDGES_OVER_TLS = Contestant("two bridges, TLS", partial(_bridges, number=2, tls=True))
BRIDGE_SCRAPED = Contestant("bridge, scraped", partial(_bridge, scraped=True))
BRIDGE_WITHOUT_DEDUPLICATION = Contestant("bridge, no suppression", partial(_bridge, deduplication="off"))
BRIDGE_ADDING_HEADERS = Contestant("bridge, adding 3 headers", partial(_bridge, add_headers=True))
BRIDGE_BESIDE_FEW = Contestant("bridge, 200 without a route", _bridge)
BRIDGE_BESIDE_MANY = Contestant("bridge, every second without a route", _bridge)
RATES = (1, 100, 5000, 20_000)
BRIDGES_WITH_A_RATE = {Contestant(f"bridge, {rate:,}/s", partial(_bridge, max_rate=rate)): rate for rate in RATES}
"""Messages per second that each is set to."""
SHOVEL = Contestant("Shovel", _shovel)
LOCAL_SHOVEL = Contestant("local Shovel", partial(_shovel, protocol="local"))
DRAIN = Contestant("bridge, drain", _drain)
SHOVEL_THAT_MOVES = Contestant("Shovel, move messages", partial(_shovel, moves=True))
AIO_PIKA_LOOP = Contestant("aio-pika loop", _aio_pika_loop, share=0.2)
