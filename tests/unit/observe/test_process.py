"""Which process a bridge is: its number alone does not say."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from bridge.observe.process import own_namespace, own_process, process_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_process_is_known_by_its_start_and_namespace_besides_its_number() -> None:
    own = own_process()
    assert own.pid == os.getpid()
    assert own == process_of(os.getpid())
    assert str(own.namespace).startswith("pid:[")
    code = "import sys; from bridge.observe.process import own_process; print(*own_process(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        told = other.stdout.readline().split()
        assert told == [str(field) for field in process_of(other.pid)]
        assert process_of(other.pid).started_ticks != own.started_ticks or other.pid != own.pid
        other.stdin.close()


def test_of_a_process_that_has_ended_nothing_is_known() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        assert process_of(ended.pid)[1:] == (None, None)


def test_where_the_kernel_does_not_say_nothing_is_known(tmp_path: Path) -> None:
    assert own_process(tmp_path) == (os.getpid(), None, None)
    assert own_namespace(tmp_path) is None
