"""Text of others: no secret, nothing of a message, nothing that a terminal obeys."""

from __future__ import annotations

import json

import pytest

from bridge.observe.text import (
    HIDDEN,
    SHOWN_CHARACTERS,
    as_json,
    hide,
    printable,
    spelt_out,
    visible,
    visible_lines,
    without_message,
)


def test_a_secret_is_hidden_and_a_user_of_that_name_is_not() -> None:
    assert hide("amqp://guest:guest@h: user 'guest'", ["guest"]) == f"amqp://guest:{HIDDEN}@h: user 'guest'"


@pytest.mark.parametrize("obeyed", ("\x1b[2J", "\r\n", "\x9b1m", "\u202eabc", "\u2028", "\x00", "\ud800"))
def test_what_a_terminal_obeys_is_replaced(obeyed: str) -> None:
    shown = printable(f"before {obeyed} after")
    assert shown.isprintable()
    assert shown.startswith("before \N{REPLACEMENT CHARACTER}")


def test_text_of_any_language_stays() -> None:
    assert printable("Schlange „Aufträge“ 注文 🐇") == "Schlange „Aufträge“ 注文 🐇"


def test_what_is_very_long_is_cut() -> None:
    assert printable("x" * SHOWN_CHARACTERS) == "x" * SHOWN_CHARACTERS
    assert printable("x" * (SHOWN_CHARACTERS + 1)) == "x" * (SHOWN_CHARACTERS - 1) + "…"


@pytest.mark.parametrize(
    ("said", "shown"),
    (
        (
            "PRECONDITION_FAILED - user_id property set to 'alice' but authenticated user was 'bridge'",
            f"PRECONDITION_FAILED - user_id property set to {HIDDEN} but authenticated user was 'bridge'",
        ),
        (
            "PRECONDITION_FAILED - invalid expiration 'secret plan': {leftover_string,\"secret plan\"}",
            f"PRECONDITION_FAILED - invalid expiration {HIDDEN}",
        ),
        ("NOT_FOUND - no queue 'orders' in vhost '/'", "NOT_FOUND - no queue 'orders' in vhost '/'"),
    ),
)
def test_what_a_broker_repeats_of_a_message_is_left_out(said: str, shown: str) -> None:
    assert without_message(said) == shown


def test_for_a_log_what_is_obeyed_is_spelt_out() -> None:
    assert spelt_out("a\x1b[2J\nb\u202e\x9b") == r"a\x1b[2J\nb\u202e\x9b"
    assert spelt_out("注文 🐇\xa0x") == "注文 🐇\xa0x"


def test_lines_of_ours_stay_lines() -> None:
    assert visible_lines("a\nb\x1bc\u2028d\n") == "a\nb\ufffdc\ufffdd\n"
    assert visible("a\nb") == "a\ufffdb"


def test_json_is_the_same_value_and_nothing_in_it_is_obeyed() -> None:
    value = {"a\x9b": ["\u202ex\x1b\n", "注文 🐇", "\U000e0041", 1.5, None]}
    for indent in (None, 2):
        text = as_json(value, indent=indent)
        assert json.loads(text) == value
        assert "注文 🐇" in text
        assert text.replace("\n", "").isprintable()
