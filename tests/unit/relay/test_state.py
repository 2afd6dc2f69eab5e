"""The state of a bridge: every pair of state and event."""

from __future__ import annotations

import pytest

from bridge.relay.state import ACTIVE, TRANSITIONS, State, StateEvent

PROBING, WIDENING, RUNNING, REQUEUEING, SHEDDING, PAUSING, PAUSED, STOPPING, ABANDONED = State

TABLE = {
    (StateEvent.ACCEPTED, PROBING): WIDENING,
    (StateEvent.WIDENED, WIDENING): RUNNING,
    (StateEvent.REQUEUE, PROBING): REQUEUEING,
    (StateEvent.REQUEUE, WIDENING): REQUEUEING,
    (StateEvent.REQUEUE, RUNNING): REQUEUEING,
    (StateEvent.REQUEUE, SHEDDING): REQUEUEING,
    (StateEvent.REQUEUED, REQUEUEING): PROBING,
    (StateEvent.MEMORY_FULL, PROBING): SHEDDING,
    (StateEvent.MEMORY_FULL, WIDENING): SHEDDING,
    (StateEvent.MEMORY_FULL, RUNNING): SHEDDING,
    (StateEvent.SHED, SHEDDING): RUNNING,
    (StateEvent.LOST_IN_USE, PROBING): PROBING,
    (StateEvent.LOST_IN_USE, WIDENING): RUNNING,
    (StateEvent.LOST_IN_USE, RUNNING): RUNNING,
    (StateEvent.LOST_IN_USE, REQUEUEING): PROBING,
    (StateEvent.LOST_IN_USE, SHEDDING): RUNNING,
    (StateEvent.LOST_IN_USE, STOPPING): STOPPING,
    (StateEvent.LOST_IN_USE, ABANDONED): ABANDONED,
    (StateEvent.LOST_UNUSED, PROBING): PROBING,
    (StateEvent.LOST_UNUSED, WIDENING): PROBING,
    (StateEvent.LOST_UNUSED, RUNNING): PROBING,
    (StateEvent.LOST_UNUSED, REQUEUEING): PROBING,
    (StateEvent.LOST_UNUSED, SHEDDING): PROBING,
    (StateEvent.LOST_UNUSED, STOPPING): STOPPING,
    (StateEvent.LOST_UNUSED, ABANDONED): ABANDONED,
    (StateEvent.STOP, PROBING): STOPPING,
    (StateEvent.STOP, WIDENING): STOPPING,
    (StateEvent.STOP, RUNNING): STOPPING,
    (StateEvent.STOP, REQUEUEING): STOPPING,
    (StateEvent.STOP, SHEDDING): STOPPING,
    (StateEvent.STOP, STOPPING): STOPPING,
    (StateEvent.STOP, ABANDONED): ABANDONED,
    (StateEvent.PAUSE, PROBING): PAUSING,
    (StateEvent.PAUSE, WIDENING): PAUSING,
    (StateEvent.PAUSE, RUNNING): PAUSING,
    (StateEvent.PAUSE, REQUEUEING): PAUSING,
    (StateEvent.PAUSE, SHEDDING): PAUSING,
    (StateEvent.PAUSE, PAUSING): PAUSING,
    (StateEvent.PAUSE, PAUSED): PAUSED,
    (StateEvent.PAUSE, STOPPING): STOPPING,
    (StateEvent.PAUSE, ABANDONED): ABANDONED,
    (StateEvent.AT_REST, PAUSING): PAUSED,
    (StateEvent.RESUME, PAUSED): PROBING,
    (StateEvent.LOST_IN_USE, PAUSING): PAUSING,
    (StateEvent.LOST_IN_USE, PAUSED): PAUSED,
    (StateEvent.LOST_UNUSED, PAUSING): PAUSING,
    (StateEvent.LOST_UNUSED, PAUSED): PAUSED,
    (StateEvent.STOP, PAUSING): STOPPING,
    (StateEvent.STOP, PAUSED): STOPPING,
    (StateEvent.TIME_IS_UP, STOPPING): ABANDONED,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", StateEvent)
def test_every_pair_of_state_and_event(event: StateEvent, state: State) -> None:
    if (event, state) in TABLE:
        assert state.after(event) is TABLE[event, state]
    else:
        with pytest.raises(ValueError, match=f"{event.value} cannot happen to a bridge that is {state.value}"):
            state.after(event)


def test_the_table_is_the_whole_table() -> None:
    assert TRANSITIONS.keys() == set(StateEvent)
    assert sum(map(len, TRANSITIONS.values())) == len(TABLE)


def test_a_bridge_that_probes_widens_or_runs_is_active() -> None:
    assert ACTIVE == (PROBING, WIDENING, RUNNING)
