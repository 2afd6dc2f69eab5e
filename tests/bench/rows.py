"""What is measured: each row of the bench, its cells, who competes in it, and how one round of it is done.

Source and destination are queues of one broker on loopback unless a row says otherwise: bridge, broker and bench share
the machine, as those contestants do that are a part of the broker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.bench import alone, flow, load, many, wire
from tests.bench.busy import busy_percent
from tests.bench.contestants import (
    AIO_PIKA_LOOP,
    BRIDGE,
    BRIDGE_ADDING_HEADERS,
    BRIDGE_BESIDE_FEW,
    BRIDGE_BESIDE_MANY,
    BRIDGE_OVER_TLS,
    BRIDGE_SCRAPED,
    BRIDGE_WITHOUT_DEDUPLICATION,
    BRIDGES_WITH_A_RATE,
    DRAIN,
    LOCAL_SHOVEL,
    SHOVEL,
    SHOVEL_THAT_MOVES,
    TWO_BRIDGES,
    TWO_BRIDGES_OVER_TLS,
    Contestant,
    Route,
)
from tests.rig.node import Node
from tests.rig.ports import is_listening
from tests.rig.proxy import Proxy
from tests.rig.raw import RawClient
from tests.rig.usage import resident_bytes
from tests.rig.waiting import wait_until

ALL = (BRIDGE, SHOVEL, AIO_PIKA_LOOP)
DIRECT = Contestant("none: direct", lambda _: contextlib.nullcontext(()))
"""Without anybody between, as the measure of what the broker itself takes."""
PUBLISHER = Contestant("none: a publisher alone", lambda _: contextlib.nullcontext(()))
CONSUMER = Contestant("none: a consumer alone", lambda _: contextlib.nullcontext(()))
"""Half of what forwarding asks of a broker each."""

DATA_PLANE = Contestant("the data plane", lambda _: contextlib.nullcontext(()))
COPYING = Contestant("only read and written", lambda _: contextlib.nullcontext(()))
"""Between two scripted peers."""
FORWARDING = {contestant.name for contestant in (BRIDGE, TWO_BRIDGES, SHOVEL)}
"""Whose most is what the broker allows. Its local shovel is none: it does without connections and channels."""
FLOW_SHARES = (50, 80, 95)
"""Percent of the highest rate at which latency is measured."""
FLEETS = {
    Contestant(name, lambda _: contextlib.nullcontext(())): fleet
    for name, fleet in (("1 idle", (1, False)), ("20 idle", (20, False)), ("10 at 100/s each", (10, True)))
}
"""How many bridges, and whether they have something to forward."""

_ROUND_TIMEOUT_S = 300
_OUTAGE_S = 1.0
_STOPPED_S = 20.0
"""Who moves nothing for so long has stopped."""
_MANY_PER_S = 1000


@dataclass(frozen=True)
class Cell:
    """The circumstances of a measurement."""

    queue_type: str = "classic"
    size: int = 256
    """Bytes of a message's body."""
    headers: int = 0
    prefetch: int = 1000
    round_trip_ms: int = 0
    """How far away the destination is; 0: on loopback, without a proxy."""
    outage: str = ""


@dataclass(frozen=True)
class Plan:
    """How much of everything: the long form's values are the defaults."""

    sizes: tuple[int, ...] = (10, 256, 4096, 100_000, 1_000_000, 10_000_000)
    header_counts: tuple[int, ...] = (0, 3)
    queue_types: tuple[str, ...] = ("classic", "quorum")
    prefetches: tuple[int, ...] = (1, 10, 30, 100, 300, 1000, 2000)
    far_prefetches: tuple[int, ...] = (100, 1000)
    outages: tuple[str, ...] = ("connection", "broker")
    messages: int = 80_000
    megabytes: int = 800
    """Half of it is not enough for large messages: a quorum queue writes its log anew every 512 MB."""
    seconds: float = 10
    memory_messages: int = 10_000_000
    fleet: int = 20
    """How many bridges at most are started beside each other."""
    flow_steps: int = 6
    flow_step_seconds: float = 5
    flow_seconds: float = 60
    """How long the highest rate has to be held."""


SHORT = Plan(
    sizes=(4096,),
    header_counts=(3,),
    queue_types=("quorum",),
    prefetches=(100,),
    far_prefetches=(100,),
    outages=("connection",),
    messages=3000,
    megabytes=20,
    seconds=0.3,
    memory_messages=6000,
    flow_steps=1,
    flow_step_seconds=0.5,
    flow_seconds=0.5,
    fleet=2,
)
"""Enough to see that every part works, and nothing to compare."""

Measured = dict[str, float]
"""Values by quantity; a row's first is the one that contestants are compared by."""

Measure = Callable[[Node, Cell, Contestant, Plan], Measured]


@dataclass(frozen=True)
class Row:
    """A row of the bench: each contestant in each cell is measured once a round."""

    title: str
    cells: Callable[[Plan], Iterable[Cell]]
    contestants: Callable[[Node], tuple[Contestant, ...]]
    measure: Measure
    rounds: int = 0
    """0: as many as asked for."""


@contextlib.contextmanager
def _proxy(port: int) -> Iterator[Proxy]:
    with Proxy(port) as proxy:
        try:
            yield proxy
        finally:
            proxy.refuse()
            proxy.cut(reset=False)  # a link whose client was just killed cannot be reset any more


@contextlib.contextmanager
def _between_queues(node: Node, cell: Cell) -> Iterator[Route]:
    node.delete_all_queues()
    for queue in ("in", "out"):
        node.declare(queue, cell.queue_type)
    with contextlib.ExitStack() as stack:
        destination_url = node.url
        if cell.round_trip_ms:
            proxy = stack.enter_context(_proxy(node.amqp_port))
            proxy.upstream.delay_s = proxy.downstream.delay_s = cell.round_trip_ms / 2000
            destination_url = proxy.url
        yield Route(node, node.url, destination_url, prefetch=cell.prefetch)


def _message_count(cell: Cell, contestant: Contestant, plan: Plan) -> int:
    # Large messages are as many for all: who is slow with small ones is not with them.
    count = min(int(plan.messages * contestant.share), plan.megabytes * 1_000_000 // cell.size)
    count = min(count, 4000 + 400 * cell.prefetch)
    return max(10, min(count, 100 * cell.prefetch) if cell.round_trip_ms else count)


def _throughput(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """Fill the source, begin to forward, and see how fast the destination fills."""
    count = _message_count(cell, contestant, plan)
    with _between_queues(node, cell) as route:
        load.fill(route.source_url, route.source_queue, count, cell.size, cell.headers)
        return _forwarding(route, cell, contestant, count)


def _limit(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """As `_throughput`; who does not forward only publishes to the destination, or only consumes from the source."""
    if contestant not in (PUBLISHER, CONSUMER):
        return _throughput(node, cell, contestant, plan)
    count = _message_count(cell, contestant, plan)
    with _between_queues(node, cell) as route:
        if contestant is PUBLISHER:
            return _cost(alone.publish(route, count, cell.size, cell.prefetch), cell, count)
        load.fill(route.source_url, route.source_queue, count, cell.size, cell.headers)
        return _cost(alone.consume(route, count, cell.prefetch), cell, count)


def _unroutable(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """How fast messages are forwarded that have a route, beside others that have none: those are not counted."""
    count = _message_count(cell, contestant, plan) // 2
    few = min(200, count)
    keys = [f"good.{number}" for number in range(count)]
    if contestant is BRIDGE_BESIDE_FEW:
        keys = [f"bad.{number}" for number in range(few)] + keys
    elif contestant is BRIDGE_BESIDE_MANY:
        keys = [key for number, good in enumerate(keys) for key in (f"bad.{number}", good)]
    with _between_queues(node, cell) as route:
        with node.channel() as channel:
            for exchange, queue, pattern in (("to", "in", "#"), ("from", "out", "good.#")):
                channel.exchange_declare(exchange, "topic", durable=True)
                channel.queue_bind(queue, exchange, pattern)
        load.fill_by_keys(route.source_url, "to", keys, cell.size)
        return _forwarding(dataclasses.replace(route, exchange="from"), cell, contestant, count)


def _forwarding(route: Route, cell: Cell, contestant: Contestant, count: int) -> Measured:
    """Begin to forward, and see how fast ``count`` messages arrive at the destination."""
    node = route.node
    with RawClient(node.url) as client:
        samples = [load.Sample(time.monotonic(), 0, 0, node.cpu_seconds())]
        with contestant.run(route) as pids:
            samples += load.watch_arrivals(client, route, count, pids, _ROUND_TIMEOUT_S)
    return _cost(samples, cell, count)


def _cost(samples: list[load.Sample], cell: Cell, count: int) -> Measured:
    begin, end = load.steady_part(samples, count)
    elapsed_s, messages = end.at - begin.at, end.arrived - begin.arrived
    own_cpu_s = end.contestant_cpu_s - begin.contestant_cpu_s
    broker_cpu_s = end.broker_cpu_s - begin.broker_cpu_s
    return {
        "CPU µs/msg": (own_cpu_s + broker_cpu_s) / messages * 1e6,
        "msg/s": messages / elapsed_s,
        "MB/s": messages / elapsed_s * cell.size / 1e6,
        "own CPU µs/msg": own_cpu_s / messages * 1e6,
        "broker CPU µs/msg": broker_cpu_s / messages * 1e6,
        "own cores": own_cpu_s / elapsed_s,
        "broker cores": broker_cpu_s / elapsed_s,
    }


def _move(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """Move what is there, once: from the start of who moves it to the last arrival, and how many never came."""
    count = _message_count(cell, contestant, plan)
    with _between_queues(node, cell) as route, RawClient(node.url) as client:
        load.fill(route.source_url, route.source_queue, count, cell.size, cell.headers)
        begin = time.monotonic()
        with contestant.run(route):
            arrived, took_s = load.watch_to_the_end(client, route, count, begin, _STOPPED_S)
    return {"msg/s": arrived / took_s, "s": took_s, "messages": count, "never came": count - arrived}


def _rate(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """Count what arrives in some seconds after the first message, and how far that is from what was asked for.

    Where they are few, each is taken as it comes; where they are many, to take them costs more than to forward them.
    """
    rate = BRIDGES_WITH_A_RATE[contestant]
    count = max(2, int(rate * plan.seconds))
    with _between_queues(node, cell) as route, RawClient(node.url) as client:
        load.fill(route.source_url, route.source_queue, count + 1, cell.size)
        if rate >= _MANY_PER_S:
            with contestant.run(route) as pids:
                samples = [*load.watch_arrivals(client, route, count, pids, _ROUND_TIMEOUT_S)]
            begin, end = load.steady_part(samples, count)
            count, elapsed_s = end.arrived - begin.arrived, end.at - begin.at
        else:
            client.consume(route.destination_queue)
            with contestant.run(route):
                arrived_s = load.arrivals(client, count + 1)
            elapsed_s = arrived_s[-1] - arrived_s[0]
    return {
        "of what is asked": count / elapsed_s / rate,
        "messages off": count - rate * elapsed_s,
        "msg/s": count / elapsed_s,
        "s": elapsed_s,
    }


def _distance(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """The throughput as a share of what a window of `prefetch` messages each round trip comes to."""
    with _between_queues(node, cell) as route:
        url, queue = route.destination_url, route.destination_queue
        round_trip_s = load.round_trip_s(url, queue)
        if contestant is DIRECT:
            rate = load.windowed_rate(url, queue, _message_count(cell, contestant, plan), cell.size, cell.prefetch)
    if contestant is not DIRECT:
        rate = _throughput(node, cell, contestant, plan)["msg/s"]
    return {
        "of window ÷ round trip": rate * round_trip_s / cell.prefetch,
        "msg/s": rate,
        "round trip ms": round_trip_s * 1000,
    }


def _apart(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """As `_throughput`, with the broker on one core and the rest on the others, as if on a machine of its own."""
    cores = os.sched_getaffinity(0)
    first, others = {min(cores)}, cores - {min(cores)} or cores
    load.confine(node.pid, first)
    load.confine(os.getpid(), others)  # a contestant that is a process of its own inherits it
    try:
        return _throughput(node, cell, contestant, plan)
    finally:
        load.confine(node.pid, cores)
        load.confine(os.getpid(), cores)


def _bottleneck(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """Look at the broker's processes while it is forwarded between its queues."""
    count = min(3 * plan.messages, 3 * plan.megabytes * 1_000_000 // cell.size)
    with _between_queues(node, cell) as route, RawClient(node.url) as client:
        load.fill(route.source_url, route.source_queue, count, cell.size, cell.headers)
        with contestant.run(route):
            wait_until(lambda: client.ready(route.destination_queue) > count // 10, "forwarding to begin")
            busy = busy_percent(node, route.source_queue, route.destination_queue)
    return {"busiest %": max(busy.values()), **busy}


def _latency(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """Publish 500 messages a second to the source, take them from the destination; the first second warms up."""
    rate_per_s = 500
    count = int(rate_per_s * (plan.seconds + 1))
    with _between_queues(node, cell) as route, RawClient(node.url) as client, contestant.run(route):
        queue = route.destination_queue if contestant is DIRECT else route.source_queue
        client.consume(route.destination_queue)
        load.fill(node.url, queue, 1, cell.size)
        load.first_arrival(client)
        sender = load.send_stamped(node.url, queue, count, rate_per_s, cell.size)
        ways_ms = [way_s * 1000 for way_s in load.receive_stamped(client, count)[rate_per_s:]]
        sender.join()
    percentiles = statistics.quantiles(ways_ms, n=1000, method="inclusive")
    return {
        "p50 ms": percentiles[499],
        "p99 ms": percentiles[989],
        "p99.9 ms": percentiles[998],
        "max ms": max(ways_ms),
    }


def _flow(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """Look for the highest rate that is held, and how long messages are on their way at shares of it."""

    def at(rate_per_s: float, seconds: float) -> flow.Flow:
        with _between_queues(node, cell) as route, contestant.run(route):
            source = route.destination_queue if contestant is DIRECT else route.source_queue
            return flow.flow(node.url, source, route.destination_queue, flow.Stream(rate_per_s, seconds, cell.size))

    guess_per_s = 10_000 * contestant.share
    highest_per_s = flow.highest_rate(
        lambda rate_per_s: at(rate_per_s, plan.flow_step_seconds).held, guess_per_s, plan.flow_steps
    )
    while not at(highest_per_s, plan.flow_seconds).held:
        highest_per_s *= 0.95
    found = {"msg/s": highest_per_s}
    for share in FLOW_SHARES:
        ways_ms = at(highest_per_s * share / 100, 2 * plan.flow_step_seconds).ways_ms
        percentiles = statistics.quantiles(ways_ms, n=1000, method="inclusive")
        for name, place in (("p50", 499), ("p99", 989), ("p99.9", 998)):
            found[f"{name} ms at {share} %"] = percentiles[place]
    return found


def _many(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """What each of many bridges costs."""
    number, busy = FLEETS[contestant]
    number = min(number, plan.fleet)
    node.delete_all_queues()
    with contextlib.ExitStack() as stack:
        before = node.connection_count()
        running = stack.enter_context(many.bridges(node, number, cell.queue_type))
        connections = (node.connection_count() - before) / number
        if busy:
            stack.enter_context(many.publishing(node, number, cell.size))
        return many.cost(running, plan.seconds * 3) | {"connections each": connections}


def _wire(_: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """The data plane alone, beside a program that only reads and writes: no broker takes part."""
    count = max(20, min(2 * plan.messages, 3 * plan.megabytes * 1_000_000 // cell.size))
    return wire.measure(cell.size, count, floor=contestant is COPYING)


def _memory(node: Node, cell: Cell, contestant: Contestant, plan: Plan) -> Measured:
    """Resident memory early and late in a long life. The source is filled by portions, the destination drops them."""
    total = int(plan.memory_messages * contestant.share)
    portion = min(100_000, max(1, total // 4))
    resident_mb: list[float] = []

    def is_empty() -> bool:
        return node.queue_depth(Route.source_queue) == 0

    with _between_queues(node, cell) as route:
        node.delete(route.destination_queue)
        node.declare(route.destination_queue, cell.queue_type, {"x-max-length": 1000})
        with contestant.run(route) as (pid,):
            for _ in range(0, total, portion):
                load.fill(route.source_url, route.source_queue, portion, cell.size, cell.headers)
                wait_until(is_empty, f"{contestant.name} to empty the source", _ROUND_TIMEOUT_S, interval_s=0.2)
                resident_mb.append(resident_bytes(pid) / 1e6)
    return {
        "late MB": resident_mb[-1],
        "early MB": resident_mb[0],
        "growth MB": resident_mb[-1] - resident_mb[0],
        "most MB": max(resident_mb),
        "messages": portion * len(resident_mb),
    }


def _start(node: Node, cell: Cell, contestant: Contestant, _: Plan) -> Measured:
    """From the start of the process to the arrival of a message that waits."""
    with _between_queues(node, cell) as route, RawClient(node.url) as client:
        load.fill(route.source_url, route.source_queue, 1, cell.size)
        client.consume(route.destination_queue)
        begin = time.monotonic()
        with contestant.run(route):
            return {"s": load.first_arrival(client) - begin}


def _reconnect(node: Node, cell: Cell, contestant: Contestant, _: Plan) -> Measured:
    """From the moment that the source can be reached again to the arrival of the next message.

    The source is behind a proxy that cuts and refuses for a second, or is a second broker that is killed and started.
    """
    with contextlib.ExitStack() as stack:
        route = stack.enter_context(_between_queues(node, cell))
        client = stack.enter_context(RawClient(node.url))
        client.consume(route.destination_queue)
        source = node if cell.outage == "connection" else stack.enter_context(Node(node.version))
        source.declare(route.source_queue, cell.queue_type)
        proxy = stack.enter_context(_proxy(source.amqp_port))
        stack.enter_context(contestant.run(Route(node, proxy.url, node.url)))
        load.fill(source.url, route.source_queue, 1, cell.size)
        load.first_arrival(client)
        if cell.outage == "connection":
            proxy.refuse()
            proxy.cut()
            time.sleep(_OUTAGE_S)
            proxy.accept()
        else:
            source.kill()
            source.start()
            wait_until(lambda: is_listening(source.amqp_port), "the source to listen", interval_s=0.005)
        begin = time.monotonic()
        load.fill(source.url, route.source_queue, 1, cell.size)
        return {"s": load.first_arrival(client) - begin}


def _sizes_and_headers(plan: Plan) -> Iterator[Cell]:
    for queue_type in plan.queue_types:
        for size in plan.sizes:
            for headers in plan.header_counts:
                if headers == plan.header_counts[0] or size <= 4096:  # three headers are nothing beside 100 kB
                    yield Cell(queue_type, size, headers)


def _queue_types(plan: Plan) -> Iterator[Cell]:
    return (Cell(queue_type) for queue_type in plan.queue_types)


def _all_sizes(plan: Plan) -> Iterator[Cell]:
    return (Cell(queue_type, size) for queue_type in plan.queue_types for size in plan.sizes)


def _small_sizes(plan: Plan) -> Iterator[Cell]:
    return (Cell(queue_type, size) for queue_type in plan.queue_types for size in plan.sizes if 256 <= size <= 4096)


def _sizes_up_to_100_kb(plan: Plan) -> Iterator[Cell]:
    sizes = [size for size in plan.sizes if 256 <= size <= 100_000]
    return (Cell(queue_type, size) for queue_type in plan.queue_types for size in sizes)


def _limit_contestants(node: Node) -> tuple[Contestant, ...]:
    forwarding = (BRIDGE, TWO_BRIDGES, SHOVEL, *((LOCAL_SHOVEL,) if node.version != "3.10" else ()))
    return (*forwarding, PUBLISHER, CONSUMER)


ROWS = {
    "throughput": Row("Throughput by size, headers and queue", _sizes_and_headers, lambda _: ALL, _throughput),
    "prefetch": Row(
        "Throughput by prefetch", lambda plan: (Cell(prefetch=n) for n in plan.prefetches), lambda _: ALL, _throughput
    ),
    "limit": Row("What the broker allows", _all_sizes, _limit_contestants, _limit),
    "apart": Row("The broker on a core of its own", _small_sizes, lambda _: ALL, _apart),
    "bottleneck": Row("What in the broker is busy", _sizes_up_to_100_kb, lambda _: (BRIDGE, SHOVEL), _bottleneck),
    "distance": Row(
        "A destination 50 ms away",
        lambda plan: (Cell(q, prefetch=n, round_trip_ms=50) for q in plan.queue_types for n in plan.far_prefetches),
        lambda _: (*ALL, DIRECT),
        _distance,
    ),
    "tls": Row("TLS on both sides", _all_sizes, lambda _: (BRIDGE, BRIDGE_OVER_TLS, TWO_BRIDGES_OVER_TLS), _throughput),
    "scrape": Row("A scrape each second", _queue_types, lambda _: (BRIDGE, BRIDGE_SCRAPED), _throughput),
    "unroutable": Row(
        "Beside messages without a route",
        _queue_types,
        lambda _: (BRIDGE, BRIDGE_BESIDE_FEW, BRIDGE_BESIDE_MANY),
        _unroutable,
    ),
    "suppression": Row(
        "Duplicate suppression", _queue_types, lambda _: (BRIDGE, BRIDGE_WITHOUT_DEDUPLICATION), _throughput
    ),
    "added": Row("Three headers added", _queue_types, lambda _: (BRIDGE, BRIDGE_ADDING_HEADERS), _throughput),
    "drain": Row(
        "Moving what a queue has, once",
        _queue_types,
        lambda _: (DRAIN, SHOVEL_THAT_MOVES, AIO_PIKA_LOOP),
        _move,
    ),
    "rate": Row("Held to a rate", _queue_types, lambda _: tuple(BRIDGES_WITH_A_RATE), _rate),
    "latency": Row("Latency at 500 msg/s", _queue_types, lambda _: (*ALL, DIRECT), _latency),
    "flow": Row("Live, without a backlog", _queue_types, lambda _: (*ALL, DIRECT), _flow, rounds=1),
    "many": Row("Many bridges on one machine", lambda _: (Cell(),), lambda _: tuple(FLEETS), _many, rounds=1),
    "wire": Row(
        "The data plane, and what of it is the kernel's",
        lambda plan: (Cell(size=size) for size in plan.sizes),
        lambda _: (DATA_PLANE, COPYING),
        _wire,
    ),
    "start": Row("Start to first message", _queue_types, lambda _: ALL, _start),
    "reconnect": Row(
        "The source is back: to the next message",
        lambda plan: (Cell(q, outage=outage) for q in plan.queue_types for outage in plan.outages),
        lambda _: ALL,
        _reconnect,
    ),
    "memory": Row("Resident memory", lambda _: (Cell(),), lambda _: (BRIDGE, AIO_PIKA_LOOP), _memory, rounds=1),
}
