"""What one would write with aio-pika: take from one queue, publish to another, ack when that is confirmed.

``python -m tests.bench.aio_pika_loop SOURCE_URL SOURCE_QUEUE DESTINATION_URL DESTINATION_QUEUE PREFETCH`` runs until it
is killed. It is a contestant, so it is given what makes it fast: uvloop, publisher confirms that are waited for side by
side (a task for each message), and messages passed on as they are.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import aio_pika
import uvloop

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage


async def run(source_url: str, source_queue: str, destination_url: str, destination_queue: str, prefetch: int) -> None:
    """Forward for ever."""
    source = await aio_pika.connect_robust(source_url)
    source_channel = await source.channel()
    await source_channel.set_qos(prefetch_count=prefetch)
    queue = await source_channel.get_queue(source_queue)
    destination = await aio_pika.connect_robust(destination_url)
    destination_channel = await destination.channel(publisher_confirms=True)
    exchange = destination_channel.default_exchange
    tasks: set[asyncio.Task[None]] = set()

    async def forward(message: AbstractIncomingMessage) -> None:
        await exchange.publish(message, destination_queue)
        await message.ack()

    async with queue.iterator() as messages:
        async for message in messages:
            task = asyncio.create_task(forward(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    _source_url, _source_queue, _destination_url, _destination_queue, _prefetch = sys.argv[1:]
    uvloop.run(run(_source_url, _source_queue, _destination_url, _destination_queue, int(_prefetch)))
