"""Settings: an environment of any values, JSON and URLs among them.

Input: an octet of options, then for each variable an octet that says which, and its value up to a line end. Each value
is read by itself, or, which takes pydantic-settings 7 ms, all of them as an environment. They are read, or refused by
lines of one line each; and no password of a URL or a variable is shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

from pydantic import TypeAdapter, ValidationError

from bridge.errors import ConfigurationError, NotYetError
from bridge.observe.text import visible_lines
from bridge.settings import shown
from bridge.settings.environment import load_settings
from bridge.settings.parsers import is_utf8
from bridge.settings.settings import Settings, variable

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 200
"""Of an input."""
BASE = {
    "BRIDGE_SOURCE_URL": "amqp://user:password@host",
    "BRIDGE_SOURCE_QUEUE": "from",
    "BRIDGE_DESTINATION_QUEUE": "to",
}
READERS: dict[str, TypeAdapter[object]] = {
    variable(name): TypeAdapter(Annotated[(field.annotation, *field.metadata)])  # type: ignore[arg-type] # made here
    for name, field in Settings.model_fields.items()
}
NAMES = [*READERS]
TOGETHER = 1
"""Option, in its lower half: the values are an environment."""
MOST = 6
"""Variables in an environment."""
SECRET = "S3cret"  # noqa: S105 - it opens nothing
"""What the corpus has in its passwords."""
PASSWORD = re.compile(rf"^\s*amqps?://[^:/?#@,\s]*:[^/?#@,\s]*{SECRET}[^/?#@,\s]*@[^@,]*$")
"""A URL with it where a password is and nowhere else."""
HARD_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def run(data: bytes) -> None:
    """Read some variables."""
    given = {}
    for line in data[1:].split(b"\n", MOST)[:MOST]:
        if line:
            given[NAMES[line[0] % len(NAMES)]] = line[1:].decode("utf-8", "surrogateescape")
    if any("/dev/" in text or "/proc/" in text or "\0" in text for text in given.values()):
        return  # no environment holds a null; devices are not to be opened
    if data[:1] and data[0] & 15 == TOGETHER:
        check(given, *together(given))
    else:
        for name, text in given.items():
            check({name: text}, *alone(name, text))


def alone(name: str, text: str) -> tuple[str, list[str]]:
    """Return what is shown of a value, and the lines that it is refused with."""
    if not is_utf8(text):
        return "", []  # such a one is refused before it is read
    try:
        return repr(READERS[name].validate_python(text)), []
    except ValidationError as error:
        return refused([detail["msg"] for detail in error.errors(include_input=False, include_url=False)])


def refused(problems: Sequence[str]) -> tuple[str, list[str]]:
    """Return what an operator is told."""
    assert problems, "refused without a line"
    assert all(problems), "refused without a word"
    return "\n".join(problems), [visible_lines(line) for line in problems]


def together(given: dict[str, str]) -> tuple[str, list[str]]:
    """As `alone`, of an environment; the lines of what `config` shows, where it is not refused."""
    try:
        settings = load_settings(BASE | given)
    except (ConfigurationError, NotYetError) as error:
        return refused(error.problems)
    table = shown.as_table(settings, ())
    said = [table, shown.as_json(settings, ()), repr(settings)]
    for side in (settings.source, settings.destination):
        said += [repr(side), *side.safe_urls, side.login_variables(), side.login_blemish(0), side.username]
    return "\n".join(said), table.splitlines()


def check(given: dict[str, str], said: str, lines: list[str]) -> None:
    """Complain of a line that is more than one, and of a password that is shown."""
    for line in lines:
        assert not HARD_LINES.search(line), f"more than one line: {line!r}"
    if SECRET not in said:
        return
    for name, text in given.items():
        elsewhere = "".join(other for each, other in given.items() if each != name)
        if name in {"BRIDGE_SOURCE_URL", "BRIDGE_DESTINATION_URL"} and PASSWORD.match(text):
            plain = unquote(text)
            elsewhere += plain.rpartition("@")[2] + plain.partition("://")[2].partition(":")[0]
        elif name not in {"BRIDGE_SOURCE_PASSWORD", "BRIDGE_DESTINATION_PASSWORD"}:
            continue
        assert SECRET in elsewhere or SECRET not in text, "a password is shown"
