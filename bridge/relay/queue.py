"""What the source queue is, as far as anybody said, and what follows for the bridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

QueueType = Literal["classic", "quorum", "stream"]


class QueueState(NamedTuple):
    """What the source queue says of itself at one moment."""

    ready: int
    """Messages that wait for a consumer; of a stream, all that it keeps (3.10.8 and 4.3.6)."""
    consumers: int
    """A stream counts none, a quorum queue with a single active consumer no standby (3.10.8 and 4.3.6)."""
    exists: bool = True


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What the source queue is for as long as it exists; None stands for what nobody said."""

    queue_type: QueueType | None = None
    auto_delete: bool | None = None
    """Deleted with its messages when its last consumer goes: by cancel, exit or a lost connection."""
    expires: bool | None = None
    """Deleted with its messages when it has had no consumer for a while (`x-expires`)."""
    requeues_counted: bool = True
    """Whether `nack(requeue)` counts towards a delivery limit: on quorum queues before RabbitMQ 4.3."""

    @property
    def deletes_itself(self) -> bool:
        """Whether it is known to be deleted with its messages some time after its last consumer has gone."""
        return bool(self.auto_delete or self.expires)

    @property
    def deleted_by_cancel(self) -> bool:
        """Whether to give up its last consumer may delete the queue; without an answer, it may.

        Quorum queues and streams cannot be auto-delete (3.10.8 and 4.3.6).
        """
        if self.auto_delete is None and self.queue_type not in {"quorum", "stream"}:
            return True
        return self.deletes_itself
