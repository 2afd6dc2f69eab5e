"""Calls that block: what hangs keeps nobody else waiting, and its threads are few."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from bridge.connection.offloop import MAX_THREADS, off_loop
from tests.support.scripted import eventually, on_both_loops

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hanging:
    """Calls that do not return before they are told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.end = threading.Event()
        self.error: Exception | None = None

    def __call__(self) -> str:
        """Hang."""
        self.begun += 1
        self.end.wait()
        if self.error is not None:
            raise self.error
        return "late"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """A call that hangs until the test has ended."""
    call = Hanging()
    yield call
    call.end.set()


async def give_up(question: str, call: Hanging) -> None:
    """Ask, and stop waiting as soon as the call has begun."""
    begun = call.begun
    asking = asyncio.ensure_future(off_loop(question, call))
    await eventually(lambda: call.begun > begun)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


@on_both_loops
async def test_what_a_call_returns_or_raises_comes_back() -> None:
    assert await off_loop("add", lambda: 1 + 1) == 2
    with pytest.raises(OSError, match="away"):
        await off_loop("fail", lambda: open("/nowhere/away"))  # noqa: PTH123, SIM115 - that it blocks is the point


@on_both_loops
async def test_a_call_that_hangs_keeps_no_other_one_waiting(hanging: Hanging) -> None:
    """More of them than any executor has threads."""
    for number in range(40):
        # Not the questions of the run on the other loop, whose threads may just be ending.
        await give_up(f"hang {id(hanging)} {number}", hanging)
    assert await off_loop("other", lambda: "answer") == "answer"


@on_both_loops
async def test_a_question_that_hangs_takes_a_few_threads_however_often_it_is_asked(hanging: Hanging) -> None:
    few = f"few {id(hanging)}"  # not that of the run on the other loop, whose threads may just be ending
    for _ in range(MAX_THREADS):
        await give_up(few, hanging)
    asking = [asyncio.ensure_future(off_loop(few, hanging)) for _ in range(10)]
    await asyncio.sleep(0)
    assert hanging.begun == MAX_THREADS
    hanging.end.set()
    assert set(await asyncio.gather(*asking)) == {"late"}
    assert hanging.begun == MAX_THREADS


@on_both_loops
async def test_a_late_answer_serves_the_next_who_asks(hanging: Hanging) -> None:
    """A name server that takes longer than an attempt may last."""
    await give_up("late", hanging)
    second = Hanging()
    asking = asyncio.ensure_future(off_loop("late", second))
    await eventually(lambda: second.begun)
    hanging.end.set()
    assert await asking == "late"
    second.end.set()


@on_both_loops
async def test_a_late_failure_does_not_end_a_call_that_is_under_way(hanging: Hanging) -> None:
    hanging.error = OSError("the old name server is gone")
    await give_up("fail late", hanging)
    second = Hanging()
    asking = asyncio.ensure_future(off_loop("fail late", second))
    await eventually(lambda: second.begun)
    hanging.end.set()
    await asyncio.wait([asking], timeout=0.05)
    assert not asking.done()
    second.end.set()
    assert await asking == "late"


@on_both_loops
async def test_an_answer_is_not_kept() -> None:
    """A rotated password, a host that has moved."""
    answers = iter(("old", "new"))
    assert await off_loop("rotate", lambda: next(answers)) == "old"
    assert await off_loop("rotate", lambda: next(answers)) == "new"


async def test_a_thread_that_cannot_be_started_is_a_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(MemoryError):
        await off_loop("never asked before", lambda: 1)
