"""The environment: the settings are read from it, and every mistake in it is named at once.

A file of variables may add to it; `python-dotenv`, which pydantic-settings brings along, reads it.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from io import StringIO
from typing import TYPE_CHECKING

from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource

from bridge.errors import ConfigurationError, NotYetError
from bridge.settings.conflicts import conflicts, unready
from bridge.settings.options import options
from bridge.settings.parsers import NOT_YET, is_utf8
from bridge.settings.settings import PREFIX, Settings, variable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SERVICE_LINK = re.compile(
    r"BRIDGE_(.+_)?(SERVICE_(HOST|PORT(_.+)?)=.*|PORT=(tcp|udp|sctp)://.*|PORT_\d+_(TCP|UDP|SCTP)(_.+)?=.*)"
)
"""What Kubernetes sets in every pod for a Service whose name begins with `bridge`: nobody's typo."""


class _Environment(EnvSettingsSource):
    """pydantic-settings' reader, for a given environment and exact names; an empty variable counts as not set."""

    MAY_BE_EMPTY = f"{PREFIX}QUARANTINE_QUEUE"

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {
            name.lower(): text
            for name, text in self._environ.items()
            if name.isupper() and (text or name == self.MAY_BE_EMPTY)
        }


def read_file(path: Path) -> dict[str, str]:
    """Return the variables of a file in the form of `config/bridge.env`; a `$` in a value is a `$`.

    Raises `ConfigurationError` with every line that is no variable; it is not quoted, since it may hold a password.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError([f"--env-file {path} cannot be read ({reason})"]) from None
    found: dict[str, str] = {}
    problems = []
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            line = binding.original.line + binding.original.string[: -len(binding.original.string.lstrip())].count("\n")
            problems.append(f"--env-file {path}, line {line}: is not a variable; expected NAME=value")
        elif binding.key is not None:
            found[binding.key] = binding.value or ""
    if problems:
        raise ConfigurationError(problems)
    return found


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a line for each `BRIDGE_` variable that is no setting: a typo must not pass silently."""
    known = [option.variable for option in options()]
    lines = []
    for name in sorted(set(environ) - set(known)):
        if name.upper().startswith(PREFIX) and not SERVICE_LINK.fullmatch(f"{name}={environ[name]}"):
            close = get_close_matches(name[len(PREFIX) :].upper(), [other[len(PREFIX) :] for other in known], 1)
            lines.append(
                f"{name} is not a setting and has no effect" + (f"; did you mean {PREFIX}{close[0]}?" if close else "")
            )
    return lines


def load_settings(environ: Mapping[str, str], *, targeted: bool = True) -> Settings:
    """Return the checked settings, with a destination where it is `targeted`.

    Raises `ConfigurationError` with every mistake at once.

    Raises `NotYetError` where files are all that is wrong: mounted or rotated, they are right without a new setting.
    """
    found = _Environment(Settings, environ)()
    given = {field: text for field, text in found.items() if text is not None}
    problems = {
        field: f"{variable(field)}: is not valid UTF-8 text" for field, text in given.items() if not is_utf8(text)
    }
    given = {field: text for field, text in given.items() if field not in problems}
    lasting = bool(problems)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        for detail in error.errors(include_input=False, include_url=False):
            field = str(detail["loc"][0])
            lasting |= detail["type"] != NOT_YET
            problems[field] = f"{variable(field)}: {detail['msg'].removeprefix('Value error, ')}"
        # What is wrong in itself is left out, so that what goes together wrongly is seen in the same run.
        settings = Settings(**{field: text for field, text in given.items() if field not in problems})
    found_conflicts = conflicts(settings, set(problems), targeted=targeted)
    lines = [*problems.values(), *found_conflicts, *unready(settings, set(problems))]
    if lasting or found_conflicts:
        raise ConfigurationError(lines)
    if lines:
        raise NotYetError(lines, settings.start_timeout)
    return settings
