"""What the source queue is, as far as anybody said, and what follows for the bridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from bridge.amqp.preparer import Counts

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
    single_active: bool | None = None
    """Delivers to one consumer at a time, and to the next one when that is gone (`x-single-active-consumer`)."""
    requeues_counted: bool = True
    """Whether `nack(requeue)` counts towards a delivery limit: on quorum queues before RabbitMQ 4.3."""
    answers: bool = True
    """Whether it can be asked for its state: the user may have no channel for that."""

    @property
    def counts(self) -> Counts:
        """Which delivery counts of its deliveries are its own."""
        if self.queue_type in {"classic", "stream"}:
            return "none"
        return "any" if self.requeues_counted else "acquired"

    @property
    def deletes_itself(self) -> bool:
        """Whether it is known to be deleted with its messages some time after its last consumer has gone."""
        return bool(self.auto_delete or self.expires)

    @property
    def replaced_by_cancel_first(self) -> bool:
        """Whether a consumer must be cancelled before the one that replaces it is started.

        A classic queue of 3.10.8 with a single active consumer delivers nothing to the one that a cancel has made the
        active one, until a consumer is added or a message published. Two consumers of a stream deliver the same.
        """
        single_active = self.queue_type == "classic" and bool(self.single_active) and not self.auto_delete
        return single_active or self.queue_type == "stream"

    @property
    def replaceable(self) -> bool:
        """Whether a consumer can be replaced: not where the cancel has to come first, and deletes the queue."""
        return not (self.single_active and self.auto_delete)

    @property
    def advice(self) -> str:
        """Return what an operator should know of it; empty when there is nothing."""
        if self.auto_delete:
            return (
                "is auto-delete: RabbitMQ deletes it with its messages when its last consumer goes, also by a lost "
                "connection; it is not a safe source"
            )
        if self.expires:
            return (
                "has x-expires: RabbitMQ deletes it with its messages when it has had no consumer for that long; it is "
                "not a safe source"
            )
        if self.deleted_by_cancel:
            return (
                "may be one that is deleted when its consumer goes (RabbitMQ reports that only to a user who may "
                "configure it): its messages are held for as long as the destination does not accept them; grant that "
                "permission, or set BRIDGE_SOURCE_QUEUE_TYPE where it is a quorum queue"
            )
        return ""

    @property
    def deleted_by_cancel(self) -> bool:
        """Whether to give up its last consumer may delete the queue; without an answer, it may.

        Quorum queues and streams cannot be auto-delete (3.10.8 and 4.3.6).
        """
        if self.auto_delete is None and self.queue_type not in {"quorum", "stream"}:
            return True
        return self.deletes_itself
