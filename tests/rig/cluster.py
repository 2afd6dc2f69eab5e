"""Three RabbitMQ nodes joined to a cluster, and which of them leads a quorum queue."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Self

from tests.rig.node import Node
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping


class Cluster:
    """``with Cluster("4.3") as cluster:`` starts the nodes side by side and waits until they are one cluster."""

    def __init__(self, version: str = "3.10", size: int = 3, config: Mapping[str, object] | None = None) -> None:
        prefix = secrets.token_hex(2)
        names = [f"c{prefix}{i}@localhost" for i in range(size)]
        self.nodes = [Node(version, name=name, peers=names, config=config) for name in names]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait_ready(120)
            wait_until(self._is_joined, "the nodes to be one cluster", 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()

    def _is_joined(self) -> bool:
        question = {"3.10": "all_running", "4.3": "list_running"}[self.nodes[0].version]
        counts = [int(node.eval(f"length(rabbit_nodes:{question}())")) for node in self.nodes]
        return counts == [len(self.nodes)] * len(self.nodes)

    @property
    def urls(self) -> list[str]:
        """The nodes' URLs."""
        return [node.url for node in self.nodes]

    def leader(self, queue: str) -> Node:
        """The running node that leads a quorum queue; waits while one is being elected."""
        found: list[Node] = []

        def known() -> bool:
            witness = next(node for node in self.nodes if node.is_running)
            question = f"""
                {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
                {{Name, _}} = amqqueue:get_pid(Q),
                ra_leaderboard:lookup_leader(Name)"""
            leader = witness.eval(question)
            found.extend(node for node in self.nodes if node.is_running and node.name in leader)
            return bool(found)

        wait_until(known, f"a leader of {queue}")
        return found[0]
