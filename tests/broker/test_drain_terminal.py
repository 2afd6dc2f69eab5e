"""A drain on a terminal: it asks first, shows a bar, and Ctrl-C ends it in good order."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from threading import Thread
from typing import TYPE_CHECKING, Self

from tests.broker.scene import settings
from tests.rig import guardian
from tests.rig.client import drain, number_of, publish_numbered
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.rig.node import Node

QUESTION = "move them? [y/N]"
CTRL_C = "\x03"


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, variables: Mapping[str, object], *arguments: str) -> None:
        self._keyboard, screen = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        self._process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "bridge", *arguments],
            env={**environment, "TERM": "xterm", **{name: str(value) for name, value in variables.items()}},
            stdin=screen,
            stdout=screen,
            stderr=screen,
        )
        guardian.guard_group(self._process.pid)
        os.close(screen)
        self.text = ""
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                seen = os.read(self._keyboard, 1 << 16)
            except OSError:  # so Linux says that nobody has the terminal any more
                return
            self.text += seen.decode(errors="replace")

    def wait_for(self, text: str) -> Self:
        """Wait until this is shown."""
        wait_until(lambda: text in self.text, f"{text!r} to be shown", 60)
        return self

    def type(self, text: str) -> Self:
        """Type this."""
        os.write(self._keyboard, text.encode())
        return self

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def wait(self) -> int:
        """Wait for its end; return the exit status. Raises subprocess.TimeoutExpired."""
        try:
            status = self._process.wait(60)
        finally:
            self._process.kill()
        self._reader.join()
        os.close(self._keyboard)
        guardian.release_group(self._process.pid)
        return status


def test_it_asks_shows_a_bar_and_is_interrupted_in_good_order(source: Node, destination: Node, queue_name: str) -> None:
    queue_in, queue_out = f"{queue_name}.in", f"{queue_name}.out"
    for node, queue in ((source, queue_in), (destination, queue_out)):
        node.declare(queue)
    count = 3000
    publish_numbered(source.url, queue_in, count)
    variables = {**settings(source, destination, queue_in, queue_out), "BRIDGE_SOURCE_PREFETCH": 100}

    declined = Terminal(variables, "drain").wait_for(QUESTION).type("n\n")
    assert (declined.wait(), "nothing was moved" in declined.text) == (1, True), declined.text
    assert f"drain {count:,} messages" in declined.text, "the plan comes first"
    left = Terminal(variables, "drain").wait_for(QUESTION).type(CTRL_C)
    assert left.wait() == 130, left.text
    ended = Terminal(variables, "drain").wait_for(QUESTION)
    ended.terminate()
    assert ended.wait() == 143, ended.text
    assert source.queue_ready(queue_in) == count

    interrupted = Terminal(variables, "drain", "--rate", "300").wait_for(QUESTION).type("yes\n")
    wait_until(lambda: destination.queue_ready(queue_out) > 200, "messages to arrive", 60)
    assert interrupted.type(CTRL_C).wait() == 130, interrupted.text
    moved = destination.queue_ready(queue_out)
    assert 0 < moved < count
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in interrupted.text, "a bar"
    assert f"left       {count - moved:,}" in interrupted.text

    asked_nothing = Terminal(variables, "drain", "--yes")
    assert asked_nothing.wait() == 0, asked_nothing.text
    assert QUESTION not in asked_nothing.text
    assert [number_of(message) for message in drain(destination.url, queue_out)] == [*range(count)]
