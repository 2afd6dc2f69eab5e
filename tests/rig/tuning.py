"""What a running node is set to, changed for a while without a restart: what it has stored already stays."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.rig.node import Node


@contextmanager
def limited(node: Node, **limits: int) -> Iterator[None]:
    """Have new connections and channels meet other limits, in bytes: ``frame_max`` and ``max_message_size``."""
    before = {name: int(node.eval(f"{{ok, V}} = application:get_env(rabbit, {name}), V")) for name in limits}
    _set(node, limits)
    try:
        yield
    finally:
        _set(node, before)


def _set(node: Node, limits: Mapping[str, int]) -> None:
    for name, size_bytes in limits.items():
        # 3.10 reads the environment; 4.3 reads a copy of some of it.
        node.eval(f"application:set_env(rabbit, {name}, {size_bytes}), persistent_term:put({name}, {size_bytes})")


@contextmanager
def intercepting(node: Node, interceptor: Literal["timestamp", "routing_node"]) -> Iterator[None]:
    """Have a node of 4.3 set the timestamp, or a header with its own name, of whatever is published.

    So do ``message_interceptors.incoming.set_header_timestamp.overwrite = true``, and the same with
    ``set_header_routing_node``, in ``rabbitmq.conf``.
    """
    change = f"[{{rabbit_msg_interceptor_{interceptor}, #{{overwrite => true, incoming => true}}}}]"
    node.eval(f"rabbit_msg_interceptor:add({change})")
    try:
        yield
    finally:
        node.eval(f"rabbit_msg_interceptor:remove({change})")
