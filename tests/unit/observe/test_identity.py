"""Which process a bridge is: its number alone does not say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.observe import identity
from bridge.observe.identity import identity_of, own_identity

if TYPE_CHECKING:
    import pytest


def test_a_process_is_known_by_its_start_and_namespace_besides_its_number() -> None:
    own = own_identity()
    assert own.pid == os.getpid()
    assert own == identity_of(os.getpid())
    assert str(own.namespace).startswith("pid:[")
    code = "import sys; from bridge.observe.identity import own_identity; print(*own_identity(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        told = other.stdout.readline().split()
        assert told == [str(field) for field in identity_of(other.pid)]
        assert identity_of(other.pid).started_ticks != own.started_ticks or other.pid != own.pid
        other.stdin.close()


def test_of_a_process_that_has_ended_nothing_is_known() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        assert identity_of(ended.pid)[1:] == (None, None)


def test_where_the_kernel_does_not_say_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "Path", lambda _: Path("/nowhere"))
    assert own_identity() == (os.getpid(), None, None)
    assert identity.own_namespace() is None
