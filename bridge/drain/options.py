"""The options of `amqp-bridge drain` and `peek`, without what carries them out: `--help` does not wait for that."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

PEEKED = 100
"""So many messages are looked at by default."""
PEEKED_MOST = 2000
"""And so many at most."""
BACK_BY = ("queue", "exchange")
UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `drain`."""
    parser.add_argument("queue", nargs="?", metavar="QUEUE", help="the queue to drain (default: the source queue)")
    parser.add_argument("--quarantine", action="store_true", help="drain the source queue's quarantine")
    amount = parser.add_argument_group("how much (default: the messages that are ready at the start)")
    amount.add_argument("--limit", type=_at_least_one, metavar="N", help="at most so many messages")
    amount.add_argument("--until-empty", action="store_true", help="until the queue is empty, whatever arrives")
    where = parser.add_argument_group("where to (default: the destination of the settings)")
    where.add_argument(
        "--to-original",
        choices=BACK_BY,
        help="on the source's broker, back to the queue that the first x-death or the quarantine's headers name, also "
        "without a value; or to the exchange and key, where every queue that is bound gets a copy",
    )
    where.add_argument(
        "--allow-target", action="append", default=[], metavar="PATTERN", help="only to these, such as 'orders-*'"
    )
    which = parser.add_argument_group(
        "which (every kind that is given must match; what does not is returned at the end)"
    )
    which.add_argument("--match", action="append", default=[], type=_header, metavar="HEADER=VALUE")
    which.add_argument("--reason", action="append", default=[], help="why it was dead-lettered or quarantined")
    which.add_argument("--key", action="append", default=[], metavar="PATTERN", help="a topic pattern: 'orders.*'")
    which.add_argument(
        "--older-than", type=_duration, metavar="TIME", help="dead-lettered or published so long ago: 90s, 1h, 2d"
    )
    pace = parser.add_argument_group("how fast")
    pace.add_argument("--rate", type=_at_least_one, metavar="N", help="at most so many messages a second")
    pace.add_argument("--ramp", type=_duration, metavar="TIME", help="reach that rate after so long")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and move nothing")
    parser.add_argument("--receipt", type=Path, metavar="FILE", help="write the receipt there, as JSON")


def spelt_out(argv: list[str]) -> list[str]:
    """Return the arguments with the value that `--to-original` has without one: the next one may be the queue."""
    return [
        "--to-original=queue" if argument == "--to-original" and after not in BACK_BY else argument
        for argument, after in pairwise([*argv, ""])
    ]


def add_peek_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `peek`."""
    parser.add_argument("queue", nargs="?", metavar="QUEUE", help="the queue to look at (default: the source queue)")
    parser.add_argument("--quarantine", action="store_true", help="look at the source queue's quarantine")
    parser.add_argument("--limit", type=_peeked, default=PEEKED, metavar="N", help="at most so many messages")
    parser.add_argument("--yes", action="store_true", help="look also where that counts or reorders")
    parser.add_argument("--json", action="store_true", help="for machines")


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ArgumentTypeError(f"{text!r} has no name and value; expected HEADER=VALUE, such as tenant=acme")
    return name, value


def _duration(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(s|m|h|d|)", text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is not a time; expected a number and a unit, such as 90s, 1h or 2d")
    return float(found[1]) * UNITS_S[found[2]]


def _at_least_one(text: str) -> int:
    return _whole_number(text, "1 or more")


def _peeked(text: str) -> int:
    expected = f"1 to {PEEKED_MOST}"
    value = _whole_number(text, expected)
    if value > PEEKED_MOST:
        raise ArgumentTypeError(f"{text!r} is too many to hold at once; expected {expected}")
    return value


def _whole_number(text: str, expected: str) -> int:
    if re.fullmatch("0*[1-9][0-9]{0,17}", text) is None:
        raise ArgumentTypeError(f"{text!r} is not a whole number above zero; expected {expected}")
    return int(text)
