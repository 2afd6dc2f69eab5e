"""Options of `drain` and `peek` that are wrong are told as such, with what is expected."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TYPE_CHECKING

import pytest

from bridge.drain.options import PEEKED_MOST, add_options, add_peek_options, spelt_out

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("add", "arguments", "told"),
    (
        (add_options, ("--limit", "0"), "argument --limit: '0' is not a whole number above zero; expected 1 or"),
        (add_options, ("--rate", "ten"), "argument --rate: 'ten' is not a whole number above zero; expected 1 or"),
        (add_options, ("--rate", "1e3"), "argument --rate: '1e3' is not a whole number above zero"),
        (add_options, ("--limit", "٣"), "argument --limit: '٣' is not a whole number above zero"),
        (add_options, ("--match", "tenant"), "argument --match: 'tenant' has no name and value; expected HEADER="),
        (add_options, ("--match", "=acme"), "argument --match: '=acme' has no name and value"),
        (add_options, ("--ramp", "soon"), "argument --ramp: 'soon' is not a time; expected a number and a unit"),
        (add_options, ("--older-than", "-1h"), "argument --older-than: expected one argument"),
        (add_options, ("--older-than", "1 week"), "argument --older-than: '1 week' is not a time"),
        (
            add_peek_options,
            ("--limit", "0"),
            f"argument --limit: '0' is not a whole number above zero; expected 1 to {PEEKED_MOST}",
        ),
        (
            add_peek_options,
            ("--limit", str(PEEKED_MOST + 1)),
            f"is too many to hold at once; expected 1 to {PEEKED_MOST}",
        ),
        (add_peek_options, ("--limit", "9" * 5000), "is not a whole number above zero"),
    ),
)
def test_a_wrong_option_is_told_with_what_is_expected(
    add: Callable[[ArgumentParser], None],
    arguments: tuple[str, str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = ArgumentParser()
    add(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    assert told in capsys.readouterr().err


def test_the_most_that_is_looked_at_is_allowed() -> None:
    parser = ArgumentParser()
    add_peek_options(parser)
    assert parser.parse_args(["--limit", str(PEEKED_MOST)]).limit == PEEKED_MOST


@pytest.mark.parametrize(
    ("written", "queue", "back_by"),
    (
        ("--to-original", None, "queue"),
        ("--to-original dead", "dead", "queue"),
        ("dead --to-original", "dead", "queue"),
        ("dead --to-original exchange", "dead", "exchange"),
        ("--to-original=exchange dead", "dead", "exchange"),
        ("--to-original queue dead", "dead", "queue"),
        ("dead", "dead", None),
    ),
)
def test_where_to_go_back_to_may_be_said_or_not(written: str, queue: str | None, back_by: str | None) -> None:
    parser = ArgumentParser()
    add_options(parser)
    found = parser.parse_args(spelt_out(written.split()))
    assert (found.queue, found.to_original) == (queue, back_by)
