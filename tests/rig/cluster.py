"""Three RabbitMQ nodes joined to a cluster, and which of them leads a quorum queue."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Self

from tests.rig.node import Node
from tests.rig.waiting import wait_until


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
        return all(int(node.eval("length(rabbit_nodes:list_running())")) == len(self.nodes) for node in self.nodes)

    @property
    def urls(self) -> list[str]:
        """The nodes' URLs."""
        return [node.url for node in self.nodes]

    def leader(self, queue: str) -> Node:
        """The running node that leads a quorum queue. Raises RuntimeError while there is none."""
        witness = next(node for node in self.nodes if node.is_running)
        question = f"""
            {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
            {{Name, _}} = amqqueue:get_pid(Q),
            {{ok, _, {{_, Leader}}}} = ra:members({{Name, node()}}),
            Leader"""
        name = witness.eval(question).strip("'")
        return next(node for node in self.nodes if node.name == name)
