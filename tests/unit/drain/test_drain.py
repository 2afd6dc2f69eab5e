"""A drain ends whatever happens to those who watch it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bridge.assembly import assemble
from bridge.drain.drain import Drain
from bridge.drain.finish import Conclusion
from bridge.settings.environment import load_settings
from tests.unit.drain.test_command import SETTINGS
from tests.unit.drain.test_plan import plan

if TYPE_CHECKING:
    import pytest

    from bridge.connection.supervisor import Supervisor
    from bridge.drain.progress import Standing
    from bridge.settings.settings import Settings
    from bridge.window.terms import Terms


class Display:
    """Fails when it is to show something for the second time."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.shown = 0
        self.on_third: asyncio.Event = asyncio.Event()

    def show(self, _: Standing, __: float) -> None:
        """Show it."""
        self.shown += 1
        if self.shown > 2:
            self.on_third.set()
        if self.shown > 1:
            raise self._error

    def close(self) -> None:
        """Fail, too."""
        raise OSError(28, "No space left on device")


def bridge(settings: Settings, terms: Terms) -> Supervisor:
    """One that reaches no broker."""
    return assemble(settings, terms=terms)


async def test_a_bug_in_what_watches_it_ends_a_drain(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else would."""
    display = Display(RuntimeError("mistake"))
    drain = Drain(load_settings(SETTINGS), plan(), bridge, display)
    receipt = await drain.run()
    assert receipt.ending is Conclusion.FAILED
    assert "a bug in the bridge ended the drain" in caplog.messages


async def test_a_display_that_cannot_be_written_to_ends_no_drain() -> None:
    display = Display(OSError(28, "No space left on device"))
    drain = Drain(load_settings(SETTINGS), plan(), bridge, display)
    running = asyncio.ensure_future(drain.run())
    await display.on_third.wait()
    assert not running.done()
    drain.interrupt(15)
    assert (await running).ending is Conclusion.SIGNAL
