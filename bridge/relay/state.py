"""The state of a bridge, sans-I/O: whether and how it consumes.

Every pair that is not in the table is a bug and raises:

|event       |PROBING    |WIDENING   |RUNNING    |REQUEUEING |SHEDDING   |PAUSING |PAUSED  |STOPPING |ABANDONED|
|------------|-----------|-----------|-----------|-----------|-----------|--------|--------|---------|---------|
|accepted    |WIDENING   |           |           |           |           |        |        |         |         |
|widened     |           |RUNNING    |           |           |           |        |        |         |         |
|requeue     |REQUEUEING |REQUEUEING |REQUEUEING |           |REQUEUEING |        |        |         |         |
|requeued    |           |           |           |PROBING    |           |        |        |         |         |
|memory full |SHEDDING   |SHEDDING   |SHEDDING   |           |           |        |        |         |         |
|shed        |           |           |           |           |RUNNING    |        |        |         |         |
|pause       |PAUSING    |PAUSING    |PAUSING    |PAUSING    |PAUSING    |PAUSING |PAUSED  |STOPPING |ABANDONED|
|at rest     |           |           |           |           |           |PAUSED  |        |         |         |
|resume      |           |           |           |           |           |        |PROBING |         |         |
|lost in use |PROBING    |RUNNING    |RUNNING    |PROBING    |RUNNING    |PAUSING |PAUSED  |STOPPING |ABANDONED|
|lost unused |PROBING    |PROBING    |PROBING    |PROBING    |PROBING    |PAUSING |PAUSED  |STOPPING |ABANDONED|
|stop        |STOPPING   |STOPPING   |STOPPING   |STOPPING   |STOPPING   |STOPPING|STOPPING|STOPPING |ABANDONED|
|time is up  |           |           |           |           |           |        |        |ABANDONED|         |

*Probing*: the bridge consumes with a prefetch of 1, since it has not yet seen a message through. On a quorum queue each
lost connection, and each crash, counts for all that the broker had set out, read or not; with one message it falls on
the guilty alone. A new process begins so, and a source generation after one that was lost *unused*: without an ack, or
with messages that had returned `RETURNED_OFTEN` times or more, as they do where every connection is lost. The broker's
own count is the memory across restarts: while such messages come, the bridge stays with one. *Widening*: a second
consumer with the whole prefetch has been asked for, and the first is being cancelled; the acks wait, so that the first
is sent nothing more. The queue never is without a consumer, since that would delete an auto-delete queue; but see
`QueueFacts.replaced_by_cancel_first`. *Running*: it consumes with the whole prefetch. *Requeueing*: the destination
accepts nothing; the consumer is being cancelled and what is held requeued. *Shedding*: memory has been full for
`MEMORY_FULL_S`; the consumer is being cancelled, and what still comes is read without its bodies and requeued, since a
broker that cannot write for 30 s drops the connection. *Pausing*: an operator wants a pause, or the brake a rest; as in
a shutdown, what a healthy destination accepts is still forwarded, and what is left requeued. *Paused*: nothing is
consumed, and nothing held, but for a queue that a cancel may delete: there the consumer stays, and what it delivers is
held. An operator who resumes meanwhile has the pause end as soon as it is complete, so that what is held is never
requeued for it. *Stopping*: what a healthy destination accepts is still forwarded, the rest requeued. *Abandoned*: time
was up, and what is published was requeued too; what the destination still answers has nobody to hear it.

What it does not do: decide what happens, which is `steering`'s.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Whether and how the bridge consumes."""

    PROBING = "probing"
    WIDENING = "widening"
    RUNNING = "running"
    REQUEUEING = "requeueing"
    SHEDDING = "shedding"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    ABANDONED = "abandoned"

    def after(self, event: StateEvent) -> State:
        """Return the state that follows. Raises `ValueError` for an event that cannot happen now."""
        state = TRANSITIONS[event].get(self)
        if state is None:
            message = f"{event.value} cannot happen to a bridge that is {self.value}"
            raise ValueError(message)
        return state


class StateEvent(Enum):
    """What changes the state."""

    ACCEPTED = "accepted"
    WIDENED = "widened"
    REQUEUE = "requeue"
    REQUEUED = "requeued"
    MEMORY_FULL = "memory full"
    SHED = "shed"
    PAUSE = "pause"
    AT_REST = "at rest"
    RESUME = "resume"
    LOST_IN_USE = "lost in use"
    LOST_UNUSED = "lost unused"
    STOP = "stop"
    TIME_IS_UP = "time is up"


ACTIVE = (State.PROBING, State.WIDENING, State.RUNNING)
"""In these it consumes, or will."""
_TOLD = {state: state for state in (State.PAUSING, State.PAUSED, State.STOPPING, State.ABANDONED)}
"""What an operator or an orchestrator has told the bridge outlives a connection."""

TRANSITIONS: dict[StateEvent, dict[State, State]] = {
    StateEvent.ACCEPTED: {State.PROBING: State.WIDENING},
    StateEvent.WIDENED: {State.WIDENING: State.RUNNING},
    StateEvent.REQUEUE: dict.fromkeys((*ACTIVE, State.SHEDDING), State.REQUEUEING),
    StateEvent.REQUEUED: {State.REQUEUEING: State.PROBING},
    StateEvent.MEMORY_FULL: dict.fromkeys(ACTIVE, State.SHEDDING),
    StateEvent.SHED: {State.SHEDDING: State.RUNNING},
    StateEvent.PAUSE: {**dict.fromkeys((*ACTIVE, State.REQUEUEING, State.SHEDDING), State.PAUSING), **_TOLD},
    StateEvent.AT_REST: {State.PAUSING: State.PAUSED},
    StateEvent.RESUME: {State.PAUSED: State.PROBING},
    StateEvent.LOST_IN_USE: {
        State.PROBING: State.PROBING,
        State.REQUEUEING: State.PROBING,
        **dict.fromkeys((State.WIDENING, State.RUNNING, State.SHEDDING), State.RUNNING),
        **_TOLD,
    },
    StateEvent.LOST_UNUSED: {**dict.fromkeys((*ACTIVE, State.REQUEUEING, State.SHEDDING), State.PROBING), **_TOLD},
    StateEvent.STOP: {**dict.fromkeys(State, State.STOPPING), State.ABANDONED: State.ABANDONED},
    StateEvent.TIME_IS_UP: {State.STOPPING: State.ABANDONED},
}
