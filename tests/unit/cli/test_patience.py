"""Patience at the start: told once for each change, and limited."""

from __future__ import annotations

import pytest

from bridge.cli.patience import Patience
from bridge.errors import NotYetError


def test_what_is_in_the_way_is_told_once_for_each_change_until_the_time_is_up() -> None:
    now_s = 100.0
    patience = Patience(lambda: now_s)
    port, file = NotYetError(["the port is taken"]), NotYetError(["the file is missing"])
    assert [patience.endure(error, 60) for error in (file, file, port, port, file)] == [True, False, True, False, True]
    now_s = 159.9
    assert not patience.endure(file, 60)
    now_s = 160.0
    with pytest.raises(NotYetError, match="the file is missing"):
        patience.endure(file, 60)


def test_without_a_time_nothing_is_waited_for() -> None:
    with pytest.raises(NotYetError):
        Patience(lambda: 0.0).endure(NotYetError(["the port is taken"]), 0)
