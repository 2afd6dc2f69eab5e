"""What a queue is, asked of a broker that names one difference in each refusal."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest

from bridge.connection.kind import Queue, kind_of
from bridge.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiormq.abc import AbstractChannel

REFUSED = "PRECONDITION_FAILED - inequivalent arg '{}' for queue 'q' in vhost '/': received '{}' but current is {}"


class Broker:
    """Refuses to declare the one queue that it has as another, as RabbitMQ does."""

    def __init__(self, queue: Mapping[str, str]) -> None:
        """`queue` has its flags and arguments, each as RabbitMQ writes it."""
        self._queue = queue

    @asynccontextmanager
    async def question(self) -> AsyncIterator[AbstractChannel]:
        """A channel that a refusal may close."""
        yield cast("AbstractChannel", self)

    async def queue_declare(
        self, _: str, *, durable: bool, auto_delete: bool, arguments: Mapping[str, int | bool | str]
    ) -> None:
        """Raise for the first difference."""
        asked = {"durable": durable, "auto_delete": auto_delete, **arguments}
        for name in sorted({*asked, *self._queue}, key=lambda name: (name == "x-delivery-limit", name)):
            received = str(asked[name]).lower() if name in asked else ""
            current = self._queue.get(name, "")
            if received != current:
                raise ConnectError("refused", REFUSED.format(name, received, f"'{current}'" if current else "none"))


PLAIN = {"durable": "true", "auto_delete": "false", "x-queue-type": "classic"}


@pytest.mark.parametrize(
    ("queue", "found"),
    (
        ({}, Queue("classic")),
        ({"auto_delete": "true"}, Queue("classic", auto_delete=True)),
        ({"durable": "false"}, Queue("classic", durable=False)),
        ({"x-expires": "60000"}, Queue("classic", expires=True)),
        ({"x-single-active-consumer": "true"}, Queue("classic", single_active=True)),
        ({"x-queue-type": "quorum", "x-delivery-limit": "7"}, Queue("quorum", delivery_limit=7)),
    ),
)
async def test_what_a_queue_is_is_read_from_the_refusals(queue: Mapping[str, str], found: Queue) -> None:
    told = await kind_of(Broker(PLAIN | {**queue}).question, "q")
    assert told == found
