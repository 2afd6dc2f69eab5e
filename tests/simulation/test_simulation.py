"""Some thousand schedules of the simulation, other ones each time; `make simulate` plays a million."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.content import body_payloads, message_id
from bridge.amqp.events import Confirm, Return
from bridge.drain.finish import Finish
from bridge.drain.selection import Moved
from bridge.relay.course import Course
from bridge.relay.quarantine import Quarantine
from bridge.relay.steering import Steering
from bridge.window.exchanges import Exchanges
from bridge.window.generations import SourceGeneration
from bridge.window.memory import Memory
from bridge.window.offsets import Offsets
from bridge.window.publishes import Publishes
from bridge.window.quota import Quota
from bridge.window.settlement import Settlement
from bridge.window.window import Window
from tests.simulation import process
from tests.simulation.faults import QUARANTINE_FAULTS
from tests.simulation.report import Report, ScheduleError
from tests.simulation.schedule import ALL_FAULTS, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.amqp.events import Delivery

PLAY_S = 30.0
CAUGHT_WITHIN = 2000


def test_nothing_is_lost_doubled_or_stuck_whatever_the_brokers_do() -> None:
    """A failing seed is named, and `python -m tests.simulation --seed` plays it again, event by event."""
    first_seed = random.SystemRandom().randrange(1 << 32)
    report = Report()
    until_s = time.monotonic() + PLAY_S
    while time.monotonic() < until_s:
        report.add(Schedule(first_seed + report.schedules).run())
    print(f"{report.schedules} schedules from seed {first_seed} on: {dict(report.faults)}")
    missing = set(ALL_FAULTS) - report.faults.keys()
    assert report.schedules < 1000 or not missing, f"not injected: {missing}"
    assert report.schedules < 1000 or report.drains > 100


def test_a_seed_plays_the_same_schedule_each_time() -> None:
    told: tuple[list[str], list[str]] = [], []
    reports = [Schedule(11, trace=lines.append).run() for lines in told]
    assert reports[0] == reports[1]
    assert told[0] == told[1]
    assert len(told[0]) > 100


def believe_nacks(patch: pytest.MonkeyPatch) -> None:
    confirm = Window.confirm

    def believing(self: Window, publish_seqno: int, now_s: float, *, multiple: bool, accepted: bool) -> None:
        confirm(self, publish_seqno, now_s, multiple=multiple, accepted=accepted or True)

    patch.setattr(Window, "confirm", believing)


def ignore_returns(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Publishes, "resolve", lambda *_, **__: "accepted")


def doubt_nothing(patch: pytest.MonkeyPatch) -> None:
    """As if a return were about no more than one."""
    fate = Publishes.resolve

    def sure(self: Publishes, delivery: Delivery, *, accepted: bool) -> str:
        found = fate(self, delivery, accepted=accepted)
        return "accepted" if found == "doubtful" else found

    patch.setattr(Publishes, "resolve", sure)


def ignore_returns_of_the_quarantine(patch: pytest.MonkeyPatch) -> None:
    answered = Quarantine.answered

    def ignoring(self: Quarantine, event: Confirm | Return, now_s: float) -> None:
        if isinstance(event, Confirm):
            answered(self, event, now_s)

    patch.setattr(Quarantine, "answered", ignoring)


def number_on_with_each_channel(patch: pytest.MonkeyPatch) -> None:
    opened = Quarantine.opened

    def going_on(self: Quarantine) -> None:
        number = self._next_seqno
        opened(self)
        self._next_seqno = number

    patch.setattr(Quarantine, "opened", going_on)


def blame_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Quarantine, "closed", lambda self, _, now_s: self._fails(now_s))


def leave_nothing_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bridge.window.window.fit_content", lambda content, _: (content, 0))


def keep_stale(patch: pytest.MonkeyPatch) -> None:
    source_lost = Window.source_lost

    def keeping(self: Window) -> None:
        held = self._source.held
        source_lost(self)
        self._source.held = held

    patch.setattr(Window, "source_lost", keeping)


def hold_in_any_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SourceGeneration, "hold_again", SourceGeneration.hold)


def wait_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Window, "confirm_overdue", lambda *_: False)


def count_no_duplicates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Memory, "vouches_for", lambda *_: True)


def remember_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Memory, "recall", lambda *_: False)


def identify_by_id_and_body(patch: pytest.MonkeyPatch) -> None:
    """As if headers and routing key did not matter: a retry is taken for what it retries."""

    def identity(_: bytes, content: bytes) -> bytes | None:
        return b"".join((message_id(content).encode(), *body_payloads(content))) if message_id(content) else None

    patch.setattr(process, "Memory", partial(Memory, identify=identity))


def pause_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Steering, "paused", property(lambda self: self.window.full))


def publish_uncounted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Quota, "took", lambda *_: None)


def never_go_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Steering, "_go_on", lambda _: None)


def let_in_what_comes(patch: pytest.MonkeyPatch) -> None:
    """As if an ack made room for nothing."""
    patch.setattr(Settlement, "meter", lambda *_: None)


def keep_acks_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Settlement, "consumer_gone", lambda _: None)


def move_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Moved, "admits", lambda *_: True)


def count_anew_with_each_consumer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Moved, "consuming", lambda self, _: setattr(self, "_admitted", 0))


def return_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SourceGeneration, "take_withheld", lambda _: [])


def end_while_some_is_under_way(patch: pytest.MonkeyPatch) -> None:
    look = Finish.look
    patch.setattr(Finish, "look", lambda self, seen: look(self, seen._replace(room=0, underway=0)))


def never_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Finish, "look", lambda *_: None)


def replace_every_consumer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Course, "_keeps_its_consumer", property(lambda _: False))


def publish_without_asking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Exchanges, "accept_all", lambda *_: True)


def ask_for_no_exchange(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Exchanges, "take_question", lambda *_: None)


def read_on_behind_what_is_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Offsets, "read_at", property(lambda self: self._next))


def store_what_was_received(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Offsets, "settled", property(lambda self: self._next and self._next - 1))


def miss_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Offsets, "begins_at", lambda self, _: self.gaps.answered(0))


SEEN_WHERE: dict[Callable[[pytest.MonkeyPatch], None], Callable[[Schedule], bool]] = {
    doubt_nothing: lambda schedule: schedule.changes.mangles,
    blame_nobody: lambda schedule: not {*QUARANTINE_FAULTS}.isdisjoint(schedule.names),
    replace_every_consumer: lambda schedule: schedule.source.auto_delete,
    identify_by_id_and_body: lambda schedule: schedule.setup.deduplication and schedule.retry_rate > 0,
    ignore_returns: lambda schedule: "routeless" in schedule.names,
    wait_for_ever: lambda schedule: "confirms-swallowed" in schedule.names,
    let_in_what_comes: lambda schedule: schedule.errand is not None,
    publish_uncounted: lambda schedule: schedule.setup.limits.destination_counted,
    read_on_behind_what_is_held: lambda schedule: schedule.ledger.stream,
    store_what_was_received: lambda schedule: schedule.ledger.stream,
    miss_nothing: lambda schedule: schedule.ledger.stream and "retention" in schedule.names,
}
"""Where a schedule must have something rare to show what is broken: the others are not played."""


@pytest.mark.parametrize(
    ("broken", "caught"),
    (
        (publish_without_asking, "without having asked"),
        (ask_for_no_exchange, "stuck"),
        (believe_nacks, "invariant 1"),
        (ignore_returns, "invariant 1"),
        (ignore_returns_of_the_quarantine, "invariant 1"),
        (number_on_with_each_channel, "stuck"),
        (blame_nobody, "stuck"),
        (leave_nothing_out, "frame_max"),
        (doubt_nothing, "invariant 1"),
        (keep_stale, "invariant 2"),
        (hold_in_any_order, "invariant 5"),
        (wait_for_ever, "stuck"),
        (pause_for_ever, "stuck"),
        (never_go_on, "stuck"),
        (publish_uncounted, "allowed"),
        (count_no_duplicates, "held possible"),
        (remember_nothing, "duplicates"),
        (identify_by_id_and_body, "invariant 1"),
        (let_in_what_comes, "cut-off"),
        (keep_acks_for_ever, "requeued by closing"),
        (move_everything, "filter"),
        (count_anew_with_each_consumer, "than the limit"),
        (return_nothing, "requeued by closing"),
        (end_while_some_is_under_way, "cut-off"),
        (never_end, "stuck"),
        (replace_every_consumer, "a cancel deletes the queue"),
        (read_on_behind_what_is_held, "reads from offset"),
        (store_what_was_received, "stores offset"),
        (miss_nothing, "stuck"),
    ),
)
def test_a_bridge_that_is_broken_is_caught(
    broken: Callable[[pytest.MonkeyPatch], None], caught: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulation that finds nothing in a broken bridge would be no use."""
    broken(monkeypatch)
    may_show = SEEN_WHERE.get(broken, lambda _: True)
    for schedule in filter(may_show, map(Schedule, range(CAUGHT_WITHIN))):
        try:
            schedule.run()
        except ScheduleError as error:
            if caught in str(error):
                return
    pytest.fail(f"not caught within {CAUGHT_WITHIN} schedules")
