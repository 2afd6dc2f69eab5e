"""What a queue or an exchange is: asked of its broker, which names a difference in each refusal to declare it again.

Only a user who may *configure* it is told, and policies never are. No question can create one: a queue's type and its
delivery limit are never both valid, nor is an exchange's argument (3.10.8, 4.3.6).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.errors import ConnectError
from bridge.settings.parsers import MAX_CODEC_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from aiormq.abc import AbstractChannel
    from pamqp.common import FieldTable

MAX_QUESTIONS = 20
"""About one queue: more arguments than a queue can have."""
UNKNOWN = "unknown"
"""No type of queue, no number."""

_DIFFERS = re.compile(
    r"inequivalent arg '([^']+)' for queue .*received .* but current is (?:none|(?:the value )?'([^']*)')"
)
"""The broker's refusal to declare a queue that exists with other properties: an argument, and its value there."""

_EXCHANGE_DIFFERS = re.compile(r"inequivalent arg '([^']+)' for exchange .* but current is (?:'([^']*)')?")

MOST_REPEATED_BYTES = 100
"""Of names that are not all ASCII, so many fit into any refusal beside what it says."""

DELAYED = "x-delayed-message"
"""The exchange type of RabbitMQ's plugin for delayed messages."""
UNSERVED = (
    f"is of type {DELAYED}, which returns a message that it delays (no queue is bound) and delivers it all the "
    "same: the bridge would publish such messages again and again; publish to another exchange, or to a queue"
)
"""What to report of an exchange of that type."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What a queue is, as far as the broker said."""

    queue_type: str = ""
    """Empty where it is not known."""
    delivery_limit: int | None = None
    durable: bool = True
    consumers: int = 0
    auto_delete: bool = False
    expires: bool = False
    single_active: bool = False
    priorities: bool = False


async def kind_of(question: Callable[[], AbstractAsyncContextManager[AbstractChannel]], name: str) -> Queue:
    """Return what the queue is; `question` opens a channel that a refusal may close."""
    arguments: FieldTable = {"x-queue-type": UNKNOWN, "x-delivery-limit": UNKNOWN}
    flags = {"durable": True, "auto_delete": False}
    queue_type, delivery_limit = "", None
    for _ in range(MAX_QUESTIONS):
        difference = await _difference(question, name, flags, arguments)
        if difference is None:
            break
        argument, value = difference
        if argument == "x-queue-type":
            queue_type = arguments[argument] = value or "classic"
        elif argument == "x-delivery-limit":
            delivery_limit = int(value) if value else None
            break
        elif argument in flags:
            flags[argument] = value == "true"
        else:
            arguments[argument] = _argument(value)
    return Queue(
        queue_type=queue_type,
        delivery_limit=delivery_limit,
        durable=flags["durable"],
        auto_delete=flags["auto_delete"],
        expires="x-expires" in arguments,
        single_active=arguments.get("x-single-active-consumer") is True,
        priorities="x-max-priority" in arguments,
    )


def can_be_asked_for(exchange: str, vhost: str) -> bool:
    """Whether a question about an exchange can be put, and answered.

    A refusal repeats both names, see `queue_fault`; here neither is known before a message comes.
    """
    names = vhost + exchange
    answered = names.isascii() or len(names.encode()) <= MOST_REPEATED_BYTES
    return answered and len(exchange) <= MAX_CODEC_CHARACTERS


async def exchange_type_of(question: Callable[[], AbstractAsyncContextManager[AbstractChannel]], name: str) -> str:
    """Return the type of an exchange, empty where the broker does not say."""
    try:
        async with question() as channel:
            # The type is compared first, and an alternate exchange that is a number is never valid.
            await channel.exchange_declare(
                name, exchange_type="direct", durable=True, arguments={"alternate-exchange": 0}
            )
    except ConnectError as error:
        if (found := _EXCHANGE_DIFFERS.search(str(error))) is not None:
            return found[2] or "" if found[1] == "type" else "direct"
    return ""


async def try_publishing(
    question: Callable[[], AbstractAsyncContextManager[AbstractChannel]], exchange: str, routing_key: str = ""
) -> None:
    """Ask whether the user may publish to an exchange, and publish nothing. Raises `ConnectError`: missing, forbidden.

    RabbitMQ looks at the exchange and the permissions before it keeps a publish for the end of a transaction, and
    forgets it when that is rolled back (3.10.8, 4.3.6).
    """
    async with question() as channel:
        await channel.tx_select()
        await channel.basic_publish(b"", exchange=exchange, routing_key=routing_key)
        await channel.tx_rollback()


async def _difference(
    question: Callable[[], AbstractAsyncContextManager[AbstractChannel]],
    name: str,
    flags: dict[str, bool],
    arguments: FieldTable,
) -> tuple[str, str] | None:
    """Return the first argument in which the queue is another, and its value there, empty for none."""
    try:
        async with question() as channel:
            await channel.queue_declare(
                name, durable=flags["durable"], auto_delete=flags["auto_delete"], arguments=arguments
            )
    except ConnectError as error:
        if (found := _DIFFERS.search(str(error))) is not None:
            return found[1], found[2] or ""
    return None


def _argument(value: str) -> int | bool | str:
    """Return a queue's argument as it has to be written to be the same."""
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if re.fullmatch(r"-?\d+", value) else value
