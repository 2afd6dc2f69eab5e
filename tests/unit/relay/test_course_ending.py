"""A bridge that ends by itself takes so many messages and no more: its prefetch, its cancels and its acks say so."""

from __future__ import annotations

from bridge.relay.consumer import Consumer
from bridge.relay.queue import QueueState
from bridge.relay.state import State
from bridge.window.limits import WindowLimits
from bridge.window.terms import Terms
from tests.support.frames import CANCEL_OK, PERSISTENT, confirm, content, deliver
from tests.support.relay_scene import AUTO_DELETE, CANCEL, Bridge, M, ack, cancel_ok

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


def test_no_more_is_prefetched_than_is_to_be_taken() -> None:
    assert Bridge(LIMITS, terms=Terms(most=3), consuming=False).wanted_prefetch == 3
    assert Bridge(LIMITS, terms=Terms(most=30), consuming=False).wanted_prefetch == 10


def test_a_bridge_that_has_taken_all_consumes_no_more() -> None:
    bridge = Bridge(LIMITS, terms=Terms(most=1), consuming=False, probing=True)
    bridge.consume()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.state() is State.WIDENING
    assert bridge.wanted_prefetch == 0
    assert bridge.relay.decide(bridge.now_s) is None


def test_a_consumer_is_cancelled_before_the_one_that_replaces_it_begins() -> None:
    """With two at a time nobody could tell how many may still come."""
    bridge = Bridge(LIMITS, terms=Terms(most=5), probing=True)
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.steering.consumer is Consumer.CANCELLING
    assert bridge.to_source() == CANCEL + ack(1, multiple=True), "the cancel comes first: the ack lets nothing in"
    bridge.source(CANCEL_OK)
    assert bridge.state() is State.RUNNING
    assert bridge.consume("ct-2") == 4


def test_behind_what_is_withheld_as_many_again_are_looked_at() -> None:
    """A process that has seen nothing through consumes few; none of these will be seen through."""
    bridge = Bridge(LIMITS, terms=Terms(most=100, metered=False, selection=Nothing()), probing=True)
    bridge.source(deliver(1, M))
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.to_source() == CANCEL
    bridge.source(CANCEL_OK)
    assert bridge.wanted_prefetch == 1
    bridge.consume("ct-2", ready=100)
    bridge.source(deliver(2, M))
    assert bridge.relay.decide(bridge.now_s) is None
    bridge.to_source()
    bridge.source(cancel_ok("ct-2"))
    assert bridge.wanted_prefetch == 2


def test_when_all_is_taken_one_message_at_a_time_shows_what_comes_again() -> None:
    message = content(b"m", PERSISTENT | {"message_id": b"id"})
    bridge = Bridge(LIMITS, terms=Terms(most=1))
    bridge.source(deliver(1, message))
    bridge.to_destination()
    bridge.destination(confirm(1))
    bridge.lose_source()
    assert bridge.consume("ct-2", ready=5) == 1
    bridge.source(deliver(1, message, redelivered=1))
    assert bridge.to_source() == ack(1, multiple=False), "it is at the destination"


def test_a_consumer_that_may_be_sent_something_is_not_cancelled_for_another_one() -> None:
    """The ack was written before it was known that consuming had begun: what it let in may be on its way."""
    bridge = Bridge(LIMITS, terms=Terms(most=5), consuming=False, probing=True)
    bridge.start()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.to_source() == ack(1, multiple=True)
    bridge.relay.started(QueueState(4, 0), bridge.now_s)
    assert bridge.state() is State.WIDENING
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.steering.consumer is Consumer.ON
    bridge.source(deliver(2, M))
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.to_source() == CANCEL


def test_a_queue_that_a_cancel_deletes_is_taken_from_with_one_consumer() -> None:
    """Otherwise the cancel that comes before the next consumer would delete all that is left."""
    bridge = Bridge(LIMITS, terms=Terms(most=30), consuming=False, probing=True, facts=AUTO_DELETE)
    assert bridge.consume() == 10
    bridge.source(*(deliver(tag, M) for tag in range(1, 11)))
    bridge.to_destination()
    bridge.destination(confirm(1))
    assert bridge.state() is State.RUNNING
    assert bridge.relay.decide(bridge.now_s) is None
    assert bridge.to_source() == ack(1, multiple=True)
    few = Bridge(LIMITS, terms=Terms(most=2), consuming=False, probing=True, facts=AUTO_DELETE)
    assert few.consume() == 2
    few.source(deliver(1, M))
    few.to_destination()
    few.destination(confirm(1))
    assert few.state() is State.RUNNING, "it will not be replaced by one with a larger prefetch"
