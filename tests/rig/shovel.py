"""RabbitMQ's own Shovel (AMQP 0-9-1, dynamic, on-confirm). The node needs the plugin rabbitmq_shovel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from tests.rig.node import Node


class Shovel:
    """A shovel on ``node``, running from entry into the context until its end. URLs as the node sees them."""

    def __init__(  # noqa: PLR0913 - a source and a destination, by name
        self,
        node: Node,
        *,
        source_url: str,
        source_queue: str,
        destination_url: str,
        destination_queue: str,
        prefetch: int = 1000,
    ) -> None:
        self._node = node
        self._name = f"to-{destination_queue}"
        self._definition = {
            "src-protocol": "amqp091",
            "src-uri": _as_uri(source_url),
            "src-queue": source_queue,
            "src-prefetch-count": prefetch,
            "dest-protocol": "amqp091",
            "dest-uri": _as_uri(destination_url),
            "dest-queue": destination_queue,
            "ack-mode": "on-confirm",
            "reconnect-delay": 1,
        }

    def __enter__(self) -> Self:
        self._node.ctl("set_parameter", "shovel", self._name, json.dumps(self._definition))
        wait_until(self.is_running, f"shovel {self._name} to run")
        return self

    def __exit__(self, *_: object) -> None:
        self._node.ctl("clear_parameter", "shovel", self._name)

    def is_running(self) -> bool:
        """Whether the shovel says that it runs."""
        status = self._node.eval('lists:flatten(io_lib:format("~p", [rabbit_shovel_status:status()]))')
        return f'<<"{self._name}">>' in status and "{running," in status


def _as_uri(url: str) -> str:
    """Without the path: Shovel takes an empty vhost's name for the vhost with an empty name."""
    return url.rstrip("/")
