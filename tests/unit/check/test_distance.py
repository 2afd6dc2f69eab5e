"""What the distance of the brokers means for the prefetch."""

from __future__ import annotations

import pytest

from bridge.check.distance import distance
from bridge.settings.environment import load_settings


@pytest.mark.parametrize(
    ("settings", "away_ms", "level", "words"),
    (
        ({}, (0.2, 0.3), "ok", "0.2 ms to the source, 0.3 ms to the destination: a prefetch of 1000 holds back"),
        ({}, (0, 0), "ok", "holds back nothing"),
        ({}, (0.5, 49.5), "ok", "a prefetch of 1000 lets at most some 20,000 messages/s pass"),
        (
            {"SOURCE_PREFETCH": "10"},
            (1, 49),
            "warning",
            "some 200 messages/s pass; for 1,000 set BRIDGE_SOURCE_PREFETCH",
        ),
        ({"MAX_RATE": "50000"}, (1, 49), "warning", "for 50,000 set BRIDGE_SOURCE_PREFETCH to 2500 or more"),
        ({"MAX_RATE": "100", "SOURCE_PREFETCH": "10"}, (1, 49), "ok", "some 200 messages/s pass"),
    ),
)
def test_what_a_prefetch_lets_pass_over_a_distance(
    settings: dict[str, str], away_ms: tuple[float, float], level: str, words: str
) -> None:
    needed = {"SOURCE_URL": "amqp://h", "SOURCE_QUEUE": "from", "DESTINATION_QUEUE": "to"}
    loaded = load_settings({f"BRIDGE_{name}": text for name, text in (needed | settings).items()})
    found = distance(loaded, *(each / 1000 for each in away_ms))
    assert (found.level, found.side, found.subject) == (level, "bridge", "round trip")
    assert words in found.text
