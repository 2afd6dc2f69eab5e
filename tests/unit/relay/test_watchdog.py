"""The watchdog: what must not last, for how long it may, and what is no reason to bark."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from struct import pack

import pytest

from bridge.relay.queue import QueueFacts, QueueState
from bridge.relay.watchdog import ASK_EVERY_S, PATIENCE_BESIDE_OTHERS_S, Watchdog
from bridge.window.limits import WindowLimits
from tests.support import frames
from tests.support.frames import PERSISTENT, confirm, content, deliver, table, with_offset
from tests.support.relay_scene import EMPTY_QUEUE, QUORUM, STREAM, UNKNOWN, Bridge, M

RETURNED_OFTEN = dict.fromkeys(("x-acquired-count", "x-delivery-count"), b"l" + pack(">q", 17))

TIMEOUT_S = WindowLimits().confirm_timeout_s
STUCK_QUEUE = QueueState(ready=7, consumers=1)


class Scene(Bridge):
    """A bridge that is watched twenty times a second."""

    def __init__(
        self, limits: WindowLimits | None = None, *, probing: bool = False, facts: QueueFacts = QUORUM
    ) -> None:
        super().__init__(limits, probing=probing, facts=facts)
        self.watchdog = Watchdog(self.steering)
        self.endings: list[str] = []

    def watch(self, seconds: float) -> None:
        """Let time pass; what is ended begins anew."""
        for _ in range(round(seconds * 20)):
            self.wait(0.05)
            self.watchdog.question_due(self.now_s)
            if (ending := self.watchdog.watch_destination(self.now_s)) is not None:
                self.endings.append(ending.reason)
                self.relay.destination.lost(self.now_s)
                self.open_destination()
                self.to_destination()
            if (ending := self.watchdog.watch_source(self.now_s)) is not None:
                self.endings.append(ending.reason)
                self.begin_source_anew()

    def begin_source_anew(self) -> None:
        """Another source generation."""
        self.relay.source.lost(self.now_s)
        self.open_source()

    def consume_anew(self, before: QueueState = EMPTY_QUEUE) -> None:
        """Another source generation, that consumes."""
        self.begin_source_anew()
        self.consume()
        self.watchdog.consuming(before, self.books.received)

    def look_until_stalled(self, found: QueueState) -> float:
        """Let the queue answer the same until the generation must end; return how many seconds that took."""
        begin_s = self.now_s
        for _ in range(100):
            if self.look(found) == "stalled":
                return self.now_s - begin_s
            self.watch(ASK_EVERY_S + 0.1)
        raise AssertionError("the generation may last")

    def look(self, found: QueueState | None) -> str:
        """Ask the queue where that is due; the reason to end the generation, or none."""
        if not self.watchdog.question_due(self.now_s):
            return "not due"
        ending = self.watchdog.answered(found, self.now_s)
        return ending.reason if ending else ""


# --- The destination -----------------------------------------------------------------------------------------


def test_a_confirm_that_does_not_come_ends_the_destination_and_three_in_a_row_are_stuck() -> None:
    scene = Scene(WindowLimits(hold_timeout_s=10_000))
    scene.source(deliver(1, M))
    scene.to_destination()
    scene.watch(TIMEOUT_S - 1)
    assert scene.endings == []
    scene.watch(2)
    assert scene.endings == ["confirm-timeout"]
    scene.watch(TIMEOUT_S)
    assert scene.watchdog.stuck == ""
    scene.watch(TIMEOUT_S)
    assert scene.endings == ["confirm-timeout"] * 3
    assert scene.watchdog.stuck == "destination: no confirm for 30 s; reconnected 3 times without success"
    scene.destination(confirm(1))
    scene.watch(0.05)
    assert scene.watchdog.stuck == ""


def test_a_destination_that_has_nothing_to_do_is_not_stuck() -> None:
    scene = Scene(WindowLimits(hold_timeout_s=10_000))
    scene.source(deliver(1, M))
    scene.to_destination()
    scene.watch(3 * TIMEOUT_S + 1)
    assert scene.watchdog.stuck
    scene.begin_source_anew()
    scene.relay.destination.lost(scene.now_s)
    scene.watch(0.05)
    assert scene.watchdog.stuck == ""


def test_a_socket_that_takes_nothing_ends_the_destination() -> None:
    scene = Scene()
    scene.source(deliver(1, M))
    scene.watch(TIMEOUT_S - 1)
    assert scene.endings == []
    scene.watch(2)
    assert scene.endings == ["stalled"]


def test_a_blocked_destination_is_waited_for() -> None:
    scene = Scene()
    scene.source(deliver(1, M), deliver(2, M))
    scene.to_destination()
    scene.destination(frames.BLOCKED)
    scene.watch(2 * TIMEOUT_S)
    assert scene.endings == []


def test_a_large_message_on_a_slow_way_is_waited_for_while_its_bytes_move() -> None:
    scene = Scene()
    scene.source(deliver(1, M))
    scene.to_destination()
    for unsent_bytes in range(9_000_000, 0, -1_000_000):
        scene.now_s += TIMEOUT_S - 1
        assert scene.watchdog.watch_destination(scene.now_s, unsent_bytes) is None
    scene.now_s += 1
    assert scene.watchdog.watch_destination(scene.now_s, 0) is None, "all is sent; now the confirm may take its time"
    scene.now_s += TIMEOUT_S
    ending = scene.watchdog.watch_destination(scene.now_s, 0)
    assert ending is not None
    assert ending.reason == "confirm-timeout"


def test_bytes_of_other_messages_do_not_hide_a_confirm_that_never_comes() -> None:
    """One published later is confirmed: whatever moves in the socket is not the one that is waited for."""
    scene = Scene()
    scene.source(deliver(1, M), deliver(2, M))
    scene.to_destination()
    scene.destination(confirm(2))
    for unsent_bytes in (8192, 4096, 12288):
        scene.now_s += 0.4 * TIMEOUT_S
        ending = scene.watchdog.watch_destination(scene.now_s, unsent_bytes)
    assert ending is not None
    assert ending.reason == "confirm-timeout"


def test_bytes_that_do_not_move_are_not_waited_for() -> None:
    scene = Scene()
    scene.source(deliver(1, M))
    scene.to_destination()
    assert scene.watchdog.watch_destination(scene.now_s, 1000) is None
    scene.now_s += TIMEOUT_S
    assert scene.watchdog.watch_destination(scene.now_s, 1000) is not None


# --- The source: answers that do not come --------------------------------------------------------------------


def test_a_cancel_that_is_not_answered_ends_the_source() -> None:
    scene = Scene()
    scene.stop()
    scene.watch(TIMEOUT_S - 1)
    assert scene.endings == []
    scene.watch(2)
    assert scene.endings == ["cancel-timeout"]
    scene.watch(2 * TIMEOUT_S)
    assert len(scene.endings) == 1


def test_a_cancel_of_a_consumer_that_is_replaced_and_is_not_answered_ends_the_source() -> None:
    scene = Scene(probing=True)
    scene.source(deliver(1, M))
    scene.to_destination()
    scene.destination(confirm(1))
    scene.consume("ct-2")
    scene.watch(TIMEOUT_S - 1)
    assert scene.endings == []
    scene.watch(2)
    assert scene.endings == ["cancel-timeout"]


def test_a_cancel_is_not_waited_for_while_its_answer_cannot_be_read() -> None:
    scene = Scene(WindowLimits(max_in_flight_bytes=100, hold_timeout_s=10_000))
    scene.source(deliver(1, content(b"x" * 100)))
    scene.to_destination()
    scene.destination(frames.BLOCKED)
    scene.stop()
    scene.wait(10.0)
    assert scene.steering.cancelling
    assert scene.relay.paused
    scene.watch(TIMEOUT_S + 1)
    assert scene.endings == []


def test_deliveries_that_come_before_the_cancels_answer_are_a_sign_of_life() -> None:
    scene = Scene()
    scene.stop()
    for tag in range(1, 5):
        scene.watch(TIMEOUT_S / 2)
        scene.source(deliver(tag, M))
        scene.to_destination()
        scene.destination(confirm(tag))
    assert scene.endings == []


def test_a_quarantine_that_does_not_answer_ends_the_source() -> None:
    scene = Scene()
    often = content(
        b"m",
        PERSISTENT | {"headers": table(RETURNED_OFTEN)},
    )
    scene.source(deliver(1, often, redelivered=1), deliver(2, often, redelivered=1))
    scene.relay.quarantine.open()
    scene.relay.quarantine.opened()
    scene.watch(TIMEOUT_S - 1)
    scene.source(confirm(1, channel=2))
    scene.watch(TIMEOUT_S - 1)
    assert scene.endings == [], "one after the other, and each has its own time"
    scene.watch(2)
    assert scene.endings == ["quarantine-timeout"]


# --- The source: a queue that does not deliver ---------------------------------------------------------------


def test_a_queue_that_is_empty_is_asked_again_and_again() -> None:
    scene = Scene()
    for _ in range(5):
        scene.watch(ASK_EVERY_S + 0.1)
        assert scene.look(QueueState(0, 1)) == ""


def test_a_queue_that_is_not_empty_and_delivers_nothing_ends_the_source_and_three_in_a_row_are_stuck() -> None:
    scene = Scene()
    for number in range(1, 4):
        scene.watch(ASK_EVERY_S + 0.1)
        assert scene.look(STUCK_QUEUE) == "", "a message may be on its way"
        scene.watch(ASK_EVERY_S + 0.1)
        assert scene.watchdog.stuck == ""
        assert scene.look(STUCK_QUEUE) == "stalled"
        assert bool(scene.watchdog.stuck) is (number == 3)
        scene.consume_anew()
    assert "the queue delivers nothing, and has 7 messages ready and 1 consumers" in scene.watchdog.stuck
    scene.source(deliver(1, M))
    scene.watch(0.05)
    assert scene.watchdog.stuck == ""


def test_a_queue_that_is_empty_at_last_is_not_stuck() -> None:
    scene = Scene()
    for _ in range(3):
        scene.watch(ASK_EVERY_S + 0.1)
        scene.look(STUCK_QUEUE)
        scene.watch(ASK_EVERY_S + 0.1)
        assert scene.look(STUCK_QUEUE) == "stalled"
        scene.consume_anew()
    assert scene.watchdog.stuck
    scene.watch(ASK_EVERY_S + 0.1)
    assert scene.look(QueueState(0, 1)) == ""
    assert scene.watchdog.stuck == ""


def test_a_queue_that_does_not_answer_ends_the_source() -> None:
    scene = Scene()
    scene.watch(ASK_EVERY_S + 0.1)
    assert scene.look(None) == ""
    scene.watch(ASK_EVERY_S + 0.1)
    assert scene.look(None) == "stalled"


def test_a_large_message_on_its_slow_way_is_a_sign_of_life() -> None:
    scene = Scene()
    whole = deliver(1, content(b"x" * 1000))
    for start in range(0, len(whole), 200):
        scene.source(whole[start : start + 200])
        scene.watch(ASK_EVERY_S + 0.1)
        assert scene.look(STUCK_QUEUE) in {"", "not due"}


def test_a_source_that_shows_itself_as_a_stream_is_not_asked() -> None:
    """It keeps what it has delivered: at its end it delivers nothing and is not empty."""
    scene = Scene(facts=UNKNOWN)
    scene.source(deliver(1, content(b"m", with_offset(7))))
    scene.watch(3 * ASK_EVERY_S)
    assert scene.look(STUCK_QUEUE) == "not due"


def test_a_delivery_between_two_looks_is_a_sign_of_life() -> None:
    scene = Scene()
    for tag in range(1, 5):
        scene.watch(ASK_EVERY_S + 0.1)
        assert scene.look(STUCK_QUEUE) == ""
        scene.source(deliver(tag, M))


def test_a_standby_is_reconnected_rarely_and_is_not_stuck() -> None:
    """With a single active consumer, or a priority, the queue delivers to another one."""
    scene = Scene()
    for _ in range(4):
        scene.consume_anew(QueueState(7, 1))
        assert scene.look_until_stalled(QueueState(7, 2)) >= PATIENCE_BESIDE_OTHERS_S
    assert scene.watchdog.stuck == ""


def test_a_standby_that_the_queue_does_not_count_is_told_by_who_was_there_before() -> None:
    """A quorum queue with a single active consumer counts that one alone; once active, it is no standby."""
    scene = Scene()
    for _ in range(4):
        scene.consume_anew(STUCK_QUEUE)
        assert scene.look_until_stalled(STUCK_QUEUE) >= PATIENCE_BESIDE_OTHERS_S
    assert scene.watchdog.stuck == ""
    scene.consume_anew(STUCK_QUEUE)
    scene.source(deliver(1, M))
    scene.to_destination()
    scene.destination(confirm(1))
    scene.widen()
    assert scene.look_until_stalled(STUCK_QUEUE) < PATIENCE_BESIDE_OTHERS_S


def test_a_new_consumer_has_its_own_time() -> None:
    scene = Scene()
    scene.watch(ASK_EVERY_S + 0.1)
    assert scene.look(STUCK_QUEUE) == ""
    scene.consume_anew()
    scene.watch(ASK_EVERY_S - 0.1)
    assert scene.look(STUCK_QUEUE) == "not due"
    scene.watch(0.2)
    assert scene.look(STUCK_QUEUE) == ""


def test_a_consumer_that_the_queue_no_longer_counts_ends_the_source() -> None:
    scene = Scene()
    for tag in range(1, 4):
        scene.consume_anew()
        scene.source(deliver(1, M))
        scene.to_destination()
        scene.destination(confirm(tag))
        assert scene.look_until_stalled(QueueState(7, 0)) < PATIENCE_BESIDE_OTHERS_S
    assert scene.watchdog.stuck == ""


def test_a_stream_at_its_end_is_not_asked() -> None:
    """It says how many it keeps, and counts no consumer."""
    scene = Scene(facts=STREAM)
    scene.watch(10 * ASK_EVERY_S)
    assert scene.look(QueueState(7, 0)) == "not due"


def test_a_stream_that_is_not_known_as_one_is_reconnected_rarely_and_is_not_stuck() -> None:
    scene = Scene()
    scene.consume_anew()
    assert scene.look_until_stalled(QueueState(7, 0)) < PATIENCE_BESIDE_OTHERS_S
    for _ in range(3):
        scene.consume_anew()
        assert scene.look_until_stalled(QueueState(7, 0)) >= PATIENCE_BESIDE_OTHERS_S
    assert scene.watchdog.stuck == ""


def test_a_queue_that_may_not_deliver_is_not_asked() -> None:
    limits = WindowLimits(prefetch=2, max_in_flight_bytes=1 << 20, hold_timeout_s=10_000)
    scene = Scene(replace(limits, confirm_timeout_s=10_000))
    scene.relay.destination.lost(scene.now_s)
    scene.source(deliver(1, M))
    scene.watch(ASK_EVERY_S + 0.1)
    assert scene.look(STUCK_QUEUE) == "", "there is room for one more"
    scene.source(deliver(2, M))
    scene.watch(10 * ASK_EVERY_S)
    assert scene.look(STUCK_QUEUE) == "not due", "the prefetch is used up"


def test_it_says_when_a_queue_that_delivers_nothing_is_to_be_asked() -> None:
    scene = Scene()
    assert scene.watchdog.question_due_s == inf, "it has not begun to look"
    scene.watch(0.05)
    due_s = scene.watchdog.question_due_s
    assert due_s == pytest.approx(scene.now_s + ASK_EVERY_S)
    assert not scene.watchdog.question_due(due_s - 0.001)
    assert scene.watchdog.question_due(due_s)
    scene.watchdog.answered(EMPTY_QUEUE, due_s)
    assert scene.watchdog.question_due_s == due_s + ASK_EVERY_S
    assert Scene(facts=STREAM).watchdog.question_due_s == inf


def test_a_rate_that_lets_nothing_be_published_for_long_is_no_stall() -> None:
    """A large message is being paid back; the destination is as it should be."""
    scene = Scene(WindowLimits(max_bytes_per_s=1000.0))
    scene.source(deliver(1, content(b"x" * 100_000)), deliver(2, M))
    assert scene.to_destination()
    scene.destination(confirm(1))
    scene.watch(99.0)
    assert scene.to_destination() == b""
    assert scene.endings == []
    scene.watch(2.0)
    assert scene.to_destination().endswith(M)


def test_a_destination_that_nothing_can_be_written_to_is_a_stall_under_a_rate_too() -> None:
    scene = Scene(WindowLimits(max_rate=1.0))
    scene.source(deliver(1, M))
    scene.watch(TIMEOUT_S + 0.1)
    assert scene.endings == ["stalled"]
