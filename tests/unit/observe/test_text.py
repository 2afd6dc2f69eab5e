"""Text of others: no secret, nothing of a message, nothing that a terminal obeys."""

from __future__ import annotations

import pytest

from bridge.observe.text import HIDDEN, SHOWN_CHARACTERS, hide, printable, without_message


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
