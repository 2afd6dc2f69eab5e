"""The consumer, sans-I/O: whether the source delivers, and what may happen next.

Every pair that is not in the table is a bug and raises:

| event              | OFF      | STARTING  | ON         | CANCELLING | LOST |
|--------------------|----------|-----------|------------|------------|------|
| start              | STARTING |           |            |            |      |
| started            |          | ON        |            | CANCELLING | LOST |
| cancel             |          |           | CANCELLING |            |      |
| cancel-ok          |          |           |            | OFF        | LOST |
| cancelled by broker|          | LOST      | LOST       | LOST       | LOST |

A lost consumer (its queue was deleted, or moved) is not started again on the same channel: what is in the
window is forwarded while its acks still count, and then the generation ends.

What it does not do: decide when to consume and when to cancel, which is `steering`'s.
"""

from __future__ import annotations

from enum import Enum

from bridge.errors import MalformedFrameError


class Consumer(Enum):
    """Whether the source delivers."""

    OFF = "off"
    STARTING = "starting"
    ON = "on"
    CANCELLING = "cancelling"
    LOST = "lost"

    def after(self, event: ConsumerEvent) -> Consumer:
        """Return the state that follows. Raises `MalformedFrameError` for an event that cannot happen now."""
        state = TRANSITIONS[event].get(self)
        if state is None:
            message = f"{event.value} cannot happen to a consumer that is {self.value}"
            raise MalformedFrameError(message)
        return state


class ConsumerEvent(Enum):
    """What happens to the consumer."""

    START = "start"
    STARTED = "started"
    CANCEL = "cancel"
    CANCEL_OK = "cancel-ok"
    CANCELLED_BY_BROKER = "cancelled by broker"


TRANSITIONS: dict[ConsumerEvent, dict[Consumer, Consumer]] = {
    ConsumerEvent.START: {Consumer.OFF: Consumer.STARTING},
    ConsumerEvent.STARTED: {
        Consumer.STARTING: Consumer.ON,
        Consumer.CANCELLING: Consumer.CANCELLING,
        Consumer.LOST: Consumer.LOST,
    },
    ConsumerEvent.CANCEL: {Consumer.ON: Consumer.CANCELLING},
    ConsumerEvent.CANCEL_OK: {Consumer.CANCELLING: Consumer.OFF, Consumer.LOST: Consumer.LOST},
    ConsumerEvent.CANCELLED_BY_BROKER: {
        Consumer.STARTING: Consumer.LOST,
        Consumer.ON: Consumer.LOST,
        Consumer.CANCELLING: Consumer.LOST,
        Consumer.LOST: Consumer.LOST,
    },
}
