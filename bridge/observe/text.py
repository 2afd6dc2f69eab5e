"""Text that others wrote, made fit to be shown: no secret, nothing of a message, nothing that a terminal obeys.

What a broker says may repeat what a publisher wrote, and a log line, a page or a terminal must not obey it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "***"
SHOWN_CHARACTERS = 500
"""What is longer is cut: a short string of AMQP has 255 bytes at most, and the bridge adds a sentence."""
LONG_SECRET = 8
"""From so many characters on a secret is hidden inside of words, too."""
_NOT_AFTER_THESE = r"(?<!://)(?<!user ')"
"""A user stands there, in a URL or in what RabbitMQ says, and may be named like the password: `guest`."""
_OF_A_MESSAGE = re.compile(
    r"(?P<said>user_id property set to )'[^']*'|(?P<rest>invalid expiration |invalid message: ).*", re.DOTALL
)
"""What RabbitMQ (3.10.8, 4.3.6) repeats of a message's properties when it refuses the message."""
_OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of Unicode that steer a terminal or turn the direction of writing, or that nobody can read."""


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return the text without these secrets, in whichever way they are written."""
    # The longest first: one secret may be a part of another.
    forms = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = re.sub(_NOT_AFTER_THESE + _standing(form), HIDDEN, text)
    return text


def _standing(form: str) -> str:
    """Return a pattern of a secret in a text.

    A short one counts only where it stands apart: to hide it inside of words would show what it is.
    """
    pattern = re.escape(form)
    return pattern if len(form) >= LONG_SECRET else rf"(?<!\w){pattern}(?!\w)"


def _forms(secret: str) -> set[str]:
    """Return how a secret may be written: as it is, in a URL by this library or that, in a `repr`."""
    in_url = URL.build(scheme="amqp", host="h", user="u", password=secret).raw_password or secret
    return {secret, quote(secret, safe=""), in_url, repr(secret)[1:-1]}


def _obeyed(character: str) -> bool:
    return unicodedata.category(character) in _OBEYED


def visible(text: str) -> str:
    """Return the text as one line that no terminal obeys."""
    if text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _obeyed(character) else character for character in text)


def visible_lines(text: str) -> str:
    """Return lines of ours, in which others may have a word: no terminal obeys them. See that each part is one line."""
    return "\n".join(map(visible, text.split("\n")))


def spelt_out(text: str) -> str:
    """Return the text as one line in which whatever a terminal would obey is written as Python writes it."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _obeyed(character) else character for character in text
    )


def as_json(value: Any, *, indent: int | None = None) -> str:  # noqa: ANN401 - what JSON holds
    """Return JSON that no terminal obeys and whose strings are what they were; text of all languages stays as it is."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    # Outside of its strings JSON has nothing that could be obeyed but the ends of its lines.
    return "".join(
        json.dumps(character)[1:-1] if _obeyed(character) and character != "\n" else character for character in text
    )


def printable(text: str) -> str:
    """Return the text as one line that no terminal obeys, cut where it is very long."""
    shown = visible(text)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[: SHOWN_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def without_message(text: str) -> str:
    """Return what a broker said of a message without the values that are the message's."""
    return _OF_A_MESSAGE.sub(lambda found: f"{found['said'] or found['rest']}{HIDDEN}", text)
