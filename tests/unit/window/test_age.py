"""The age of messages: a sample by their own timestamps, and never a guess."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.window.age import SAMPLE_S, Age
from bridge.window.books import AGE_BOUNDS, Books
from tests.support.frames import PERSISTENT, Properties, delivery, table
from tests.support.window_scene import Scene

NOW_S, UNIX_S = 50.0, 1_800_000_000.0
AHEAD_S = UNIX_S - NOW_S


def sampled(properties: Properties) -> Books:
    """The books after a message with these properties was confirmed at `UNIX_S`."""
    books = Books()
    age = Age(books)
    age.wall_clock(AHEAD_S)
    age.sample(delivery(1, properties=properties), NOW_S)
    return books


def seconds(unix_s: float) -> bytes:
    return pack(">Q", int(unix_s))


def in_ms(milliseconds: int) -> bytes:
    return b"l" + pack(">q", milliseconds)


@pytest.mark.parametrize(
    ("properties", "age_s"),
    (
        ({"timestamp": seconds(UNIX_S - 7)}, 7.0),
        ({"headers": table({"timestamp_in_ms": in_ms(int(UNIX_S * 1000) - 1500)})}, 1.5),
        (
            {"timestamp": seconds(UNIX_S - 2), "headers": table({"timestamp_in_ms": in_ms(int(UNIX_S * 1000) - 1500)})},
            1.5,
        ),
        ({"timestamp": seconds(UNIX_S)}, 0.0),
    ),
)
def test_the_header_counts_before_the_property(properties: dict[str, bytes], age_s: float) -> None:
    books = sampled(PERSISTENT | properties)
    assert sum(books.message_age_seconds.counts) == 1
    assert books.message_age_seconds.total == pytest.approx(age_s)
    assert books.message_age_unknown == {}


@pytest.mark.parametrize(
    ("properties", "reason"),
    (
        ({}, "no-timestamp"),
        ({"timestamp": seconds(UNIX_S + 1)}, "clock-ahead"),
        ({"timestamp": seconds(UNIX_S * 1000)}, "clock-ahead"),
    ),
    ids=("none", "from the future", "milliseconds where seconds belong"),
)
def test_what_is_not_known_is_counted_and_not_guessed(properties: dict[str, bytes], reason: str) -> None:
    books = sampled(PERSISTENT | properties)
    assert books.message_age_unknown == {reason: 1}
    assert sum(books.message_age_seconds.counts) == 0


def test_before_the_wall_clock_is_known_nothing_is_sampled() -> None:
    books = Books()
    age = Age(books)
    age.sample(delivery(1), NOW_S)
    assert books.message_age_unknown == {}
    assert age.due_s <= NOW_S, "the next one is"


def test_a_week_has_its_bound() -> None:
    assert AGE_BOUNDS[-1] == 7 * 86_400


def test_at_most_one_message_is_looked_at_in_a_while_however_many_are_confirmed() -> None:
    scene = Scene()
    scene.window.age.wall_clock(AHEAD_S)
    for first in (1, 4, 7):
        scene.receive(first, first + 1, first + 2)
        scene.take()
        scene.confirm(first + 2, multiple=True)
    assert scene.books.message_age_unknown == {"no-timestamp": 1}
    scene.now_s += SAMPLE_S
    scene.receive(10)
    scene.take()
    scene.confirm(10)
    assert scene.books.message_age_unknown == {"no-timestamp": 2}
    assert scene.books.forwarded == 10
