"""A bridge that ends by itself settles what is left when its consumer is gone, and gives that time."""

from __future__ import annotations

from bridge.relay.action import Stop
from bridge.window.limits import WindowLimits
from bridge.window.terms import Terms
from tests.support.frames import CANCEL_OK, confirm, deliver, method, short
from tests.support.relay_scene import CANCEL, Bridge, M, ack, requeue

LIMITS = WindowLimits(prefetch=10)


class Nothing:
    """Admits no message."""

    def began(self) -> None:
        """Forget nothing."""

    def consuming(self, admitted: int) -> None:
        """Count nothing."""

    def admits(self, _: object) -> bool:
        """Decide: no."""
        return False


def test_the_last_acks_follow_the_answer_to_the_cancel() -> None:
    bridge = Bridge(LIMITS, terms=Terms(most=2))
    bridge.source(deliver(1, M) + deliver(2, M))
    bridge.to_destination()
    bridge.destination(confirm(2, multiple=True))
    assert bridge.to_source() == b""
    assert not bridge.steering.expects_deliveries, "the broker may not send more, and is not to be blamed for it"
    bridge.stop()
    for _ in range(3):
        bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(CANCEL_OK)
    assert bridge.to_source() == ack(2, multiple=True)


def test_what_is_withheld_is_returned_in_one_go_after_the_last_acks() -> None:
    bridge = Bridge(LIMITS, terms=Terms(selection=Nothing()))
    bridge.source(deliver(1, M) + deliver(2, M))
    assert bridge.to_destination() == b""
    bridge.stop()
    for _ in range(3):
        bridge.wait(0.05)
    assert bridge.to_source() == CANCEL
    bridge.source(CANCEL_OK)
    assert bridge.to_source() == requeue(2, multiple=True)


def test_many_settlements_at_the_end_are_given_time_before_the_channel_is_closed() -> None:
    """A quorum queue forgets what its channel's process has not passed on when that is closed."""
    bridge = Bridge(WindowLimits(prefetch=100), terms=Terms(selection=Nothing()))
    bridge.source(*(deliver(tag, M) for tag in range(1, 41)))
    bridge.stop()
    for _ in range(3):
        bridge.wait(0.05)
    bridge.source(CANCEL_OK)
    assert bridge.to_source() == CANCEL + requeue(40, multiple=True)
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.wait(0.5)
    assert bridge.relay.decide(bridge.now_s) == Stop()


def test_when_the_broker_cancels_the_consumer_the_last_acks_are_written() -> None:
    """Nothing follows them; and without them the broker would have to be told of these messages again."""
    bridge = Bridge(LIMITS, terms=Terms(most=2))
    bridge.source(deliver(1, M) + deliver(2, M))
    bridge.to_destination()
    bridge.destination(confirm(2, multiple=True))
    assert bridge.to_source() == b""
    bridge.source(method(1, 60, 30, short("ct") + b"\0"))
    assert bridge.to_source() == ack(2, multiple=True)


def test_when_time_is_up_the_last_acks_follow_the_cancel() -> None:
    bridge = Bridge(LIMITS, terms=Terms(most=2))
    bridge.source(deliver(1, M) + deliver(2, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.stop()
    bridge.wait(30.0)
    assert bridge.relay.decide(bridge.now_s) == Stop()
    assert bridge.to_source().startswith(CANCEL + ack(1, multiple=True))
