"""The state of a bridge: every pair of state and event."""

from __future__ import annotations

import pytest

from bridge.relay.state import ACTIVE, TRANSITIONS, State, StateEvent

PROBING, WIDENING, RUNNING, GIVING_BACK, SHEDDING, PAUSING, PAUSED, STOPPING, ABANDONED = State

TABLE = {
    (StateEvent.ACCEPTED, PROBING): WIDENING,
    (StateEvent.WIDENED, WIDENING): RUNNING,
    (StateEvent.GIVE_BACK, PROBING): GIVING_BACK,
    (StateEvent.GIVE_BACK, WIDENING): GIVING_BACK,
    (StateEvent.GIVE_BACK, RUNNING): GIVING_BACK,
    (StateEvent.GIVE_BACK, SHEDDING): GIVING_BACK,
    (StateEvent.GIVEN_BACK, GIVING_BACK): PROBING,
    (StateEvent.MEMORY_FULL, PROBING): SHEDDING,
    (StateEvent.MEMORY_FULL, WIDENING): SHEDDING,
    (StateEvent.MEMORY_FULL, RUNNING): SHEDDING,
    (StateEvent.SHED, SHEDDING): RUNNING,
    (StateEvent.LOST_IN_USE, PROBING): PROBING,
    (StateEvent.LOST_IN_USE, WIDENING): RUNNING,
    (StateEvent.LOST_IN_USE, RUNNING): RUNNING,
    (StateEvent.LOST_IN_USE, GIVING_BACK): PROBING,
    (StateEvent.LOST_IN_USE, SHEDDING): RUNNING,
    (StateEvent.LOST_IN_USE, STOPPING): STOPPING,
    (StateEvent.LOST_IN_USE, ABANDONED): ABANDONED,
    (StateEvent.LOST_IN_VAIN, PROBING): PROBING,
    (StateEvent.LOST_IN_VAIN, WIDENING): PROBING,
    (StateEvent.LOST_IN_VAIN, RUNNING): PROBING,
    (StateEvent.LOST_IN_VAIN, GIVING_BACK): PROBING,
    (StateEvent.LOST_IN_VAIN, SHEDDING): PROBING,
    (StateEvent.LOST_IN_VAIN, STOPPING): STOPPING,
    (StateEvent.LOST_IN_VAIN, ABANDONED): ABANDONED,
    (StateEvent.STOP, PROBING): STOPPING,
    (StateEvent.STOP, WIDENING): STOPPING,
    (StateEvent.STOP, RUNNING): STOPPING,
    (StateEvent.STOP, GIVING_BACK): STOPPING,
    (StateEvent.STOP, SHEDDING): STOPPING,
    (StateEvent.STOP, STOPPING): STOPPING,
    (StateEvent.STOP, ABANDONED): ABANDONED,
    (StateEvent.PAUSE, PROBING): PAUSING,
    (StateEvent.PAUSE, WIDENING): PAUSING,
    (StateEvent.PAUSE, RUNNING): PAUSING,
    (StateEvent.PAUSE, GIVING_BACK): PAUSING,
    (StateEvent.PAUSE, SHEDDING): PAUSING,
    (StateEvent.PAUSE, PAUSING): PAUSING,
    (StateEvent.PAUSE, PAUSED): PAUSED,
    (StateEvent.PAUSE, STOPPING): STOPPING,
    (StateEvent.PAUSE, ABANDONED): ABANDONED,
    (StateEvent.AT_REST, PAUSING): PAUSED,
    (StateEvent.RESUME, PAUSED): PROBING,
    (StateEvent.LOST_IN_USE, PAUSING): PAUSING,
    (StateEvent.LOST_IN_USE, PAUSED): PAUSED,
    (StateEvent.LOST_IN_VAIN, PAUSING): PAUSING,
    (StateEvent.LOST_IN_VAIN, PAUSED): PAUSED,
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
