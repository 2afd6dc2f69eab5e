"""The consumer: every pair of state and event."""

from __future__ import annotations

import pytest

from bridge.errors import MalformedFrameError
from bridge.relay.consumer import TRANSITIONS, Consumer, ConsumerEvent

OFF, STARTING, ON, CANCELLING, LOST = Consumer

TABLE = {
    (ConsumerEvent.START, OFF): STARTING,
    (ConsumerEvent.STARTED, STARTING): ON,
    (ConsumerEvent.STARTED, CANCELLING): CANCELLING,
    (ConsumerEvent.STARTED, LOST): LOST,
    (ConsumerEvent.CANCEL, ON): CANCELLING,
    (ConsumerEvent.CANCEL_OK, CANCELLING): OFF,
    (ConsumerEvent.CANCEL_OK, LOST): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, STARTING): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, ON): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, CANCELLING): LOST,
    (ConsumerEvent.CANCELLED_BY_BROKER, LOST): LOST,
}


@pytest.mark.parametrize("state", Consumer)
@pytest.mark.parametrize("event", ConsumerEvent)
def test_every_pair_of_state_and_event(event: ConsumerEvent, state: Consumer) -> None:
    if (event, state) in TABLE:
        assert state.after(event) is TABLE[event, state]
    else:
        with pytest.raises(
            MalformedFrameError, match=f"{event.value} cannot happen to a consumer that is {state.value}"
        ):
            state.after(event)


def test_the_table_is_the_whole_table() -> None:
    assert TRANSITIONS.keys() == set(ConsumerEvent)
    assert sum(map(len, TRANSITIONS.values())) == len(TABLE)
