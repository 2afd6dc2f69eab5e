"""The target, pure: what a destination's messages are published to, and what follows from it.

A queue is reached by the default exchange (its name is empty), with the queue's name as the routing key (AMQP 0-9-1,
3.1.3.1). Any other exchange may bring a message to several queues or to none, by its key or by its headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.amqp.frames import own_key, short_string

if TYPE_CHECKING:
    from bridge.amqp.events import Delivery


@dataclass(frozen=True, slots=True)
class Target:
    """An exchange, with one routing key for all messages or with each message's own."""

    exchange: str
    """Empty for the default exchange, which leads to the queue that the key names, and to no other."""
    routing_key: str | None = None
    """None where each message keeps its own."""

    @classmethod
    def queue(cls, name: str) -> Target:
        """Return the target that is one queue."""
        return cls("", name)

    @property
    def keeps_keys(self) -> bool:
        """Whether each message keeps its own routing key."""
        return self.routing_key is None

    @property
    def may_fan_out(self) -> bool:
        """Whether a message may reach several queues: when one of them refuses it, others may have accepted it."""
        return bool(self.exchange)

    @property
    def routes_differ(self) -> bool:
        """Whether having a route is a matter of the message (of its key or headers) and not of the destination."""
        return self.keeps_keys or self.may_fan_out

    @property
    def exchanges_differ(self) -> bool:
        """Whether a missing or forbidden exchange is a matter of the message, and not of the destination."""
        return False

    def exchanges(self, batch: list[Delivery]) -> list[bytes]:
        """Return the exchange that each message goes to, as it stands in a publish."""
        return [self._exchange for _ in batch]

    def addressed(self, batch: list[Delivery]) -> list[Delivery]:
        """Return the deliveries with the routes and the contents to be published."""
        return batch

    @property
    def without_route(self) -> str:
        """What is wrong when no message has a route, for an operator."""
        if not self.exchange:
            return f'there is no queue "{self.routing_key}"'
        which = "their keys" if self.keeps_keys else f'key "{self.routing_key}"'
        return f'no queue is bound to exchange "{self.exchange}" for {which}'

    @property
    def route(self) -> bytes:
        """Exchange and routing key as they stand in a publish; the key is empty where each message keeps its own."""
        return self._exchange + short_string((self.routing_key or "").encode())

    def routes(self, delivered: list[bytes]) -> list[bytes]:
        """Return the route to publish each message to, from the routes that they were delivered with."""
        if not self.keeps_keys:
            return [self.route for _ in delivered]
        exchange = self._exchange
        # As `own_key`, which would be a call per message.
        return [exchange + route[1 + route[0] :] for route in delivered]

    def distinguishing_key(self, route: bytes) -> bytes:
        """Return what of a message's route tells it from others: its own key, or nothing where all have the same."""
        return own_key(route) if self.keeps_keys else b""

    @property
    def _exchange(self) -> bytes:
        return short_string(self.exchange.encode())


@dataclass(frozen=True, slots=True)
class OriginalRoutes(Target):
    """The target that is, for each message, the exchange and the key that it was delivered with."""

    exchange: str = ""

    @property
    def may_fan_out(self) -> bool:
        """Whether a message may reach several queues."""
        return True

    @property
    def exchanges_differ(self) -> bool:
        """Whether a missing or forbidden exchange is a matter of the message."""
        return True

    @property
    def without_route(self) -> str:
        """What is wrong when no message has a route, for an operator."""
        return "no queue is bound to the messages' own exchanges for their keys"

    def exchanges(self, batch: list[Delivery]) -> list[bytes]:
        """Return the exchange that each message goes to."""
        return [delivery.route[: 1 + delivery.route[0]] for delivery in batch]

    def routes(self, delivered: list[bytes]) -> list[bytes]:
        """Return the routes, which are the messages' own."""
        return delivered

    def distinguishing_key(self, route: bytes) -> bytes:
        """Return the route: no broker changes it."""
        return route
