"""The terms of a bridge that ends by itself: how many messages it takes, which, and who hears of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Delivery
    from bridge.amqp.target import Target


class Selection(Protocol):
    """Which messages are forwarded; the others are withheld, and returned at the end."""

    def began(self) -> None:
        """A source generation begins: what was withheld comes again."""

    def consuming(self, admitted: int) -> None:
        """A consumer begins; so many messages are forwarded already, or are under way."""

    def admits(self, delivery: Delivery) -> bool:
        """Decide whether it is forwarded."""


class Proof(Protocol):
    """What is kept of the messages that the destination has confirmed."""

    def confirmed(self, deliveries: Iterable[Delivery]) -> None:
        """The destination has confirmed a copy of each."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the window is held to besides its limits. Without any, it takes all that comes for as long as it runs."""

    most: float = inf
    """How many deliveries are taken in all; inf for as many as there are."""
    metered: bool = True
    """Whether no delivery beyond them is to come: the last acks are kept until the consumer is gone."""
    most_published: float = inf
    """At most so many are published at once, however many are held."""
    selection: Selection | None = None
    """None for all."""
    proof: Proof | None = None
    target: Target | None = None
    """What is published to; None for the settings' destination."""
    ramp_s: float = 0.0
    """For so long the rate grows to what the settings say."""

    @property
    def numbered(self) -> bool:
        """Whether there is an end to what is taken."""
        return self.most is not inf

    @property
    def choose(self) -> bool:
        """Whether not everything that comes is to be forwarded."""
        return self.selection is not None or self.numbered


UNLIMITED = Terms()
