"""A short form of `make fuzz`."""

from __future__ import annotations

from tests.fuzz.__main__ import schedule


def test_damaged_streams_are_cut_or_refused_and_nothing_else() -> None:
    """Two thousand fixed seeds, among them both outcomes."""
    assert {schedule(seed) for seed in range(2000)} == {"cut", "malformed"}
