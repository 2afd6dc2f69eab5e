"""Calls that block, each on a thread of its own: a look-up of a name, a file that is read.

A name server that is down, or a network file system that is away, keeps such a call for a minute or for ever. The event
loop's own executor is no place for it. It has a few threads for everybody, so that what hangs for one side keeps the
other from connecting; and the process joins them at its end, which then takes as long as the call does.

1. No call waits for another one's thread, and the process ends without waiting for any (the threads are daemons).
2. At most `MAX_THREADS` threads ask the same question. As the settings limit the questions, they limit the threads.
3. Whoever asks gets the first answer that any of them finds. A name server that takes longer than an attempt to connect
   may last therefore helps the next attempt.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 3
"""One question's: a second and a third try find out that a name server has been repaired while the first still waits
for it (the resolver of glibc waits for up to half a minute), and more would say no more."""

T = TypeVar("T")

_asking: dict[str, list[Future[Any]]] = {}
"""The calls of each question that may not have ended. The process's, since what hangs outlives the attempt that asked;
for the event loop's thread alone."""


async def off_loop(question: str, call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise what it raises. Calls of the same `question` are taken for the same."""
    asking: list[Future[T]] = [future for future in _asking.get(question, ()) if not future.done()]
    _asking[question] = asking
    if len(asking) < MAX_THREADS:
        asking.append(_begin(question, call))
    waiting = [asyncio.wrap_future(future) for future in asking]
    try:
        pending = set(waiting)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                # What an older call could not find, the latest may.
                if future.exception() is None or future is waiting[-1]:
                    return future.result()
    finally:
        for future in waiting:
            future.cancel()  # the thread goes on, and reports to nobody: the loop may be closed by then


def _begin(question: str, call: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        threading.Thread(target=run, name=question, daemon=True).start()
    except RuntimeError as error:  # CPython's words for no memory, and for too many
        message = "no further thread can be started"
        raise MemoryError(message) from error
    return future
