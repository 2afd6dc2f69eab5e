"""Logging: one line for each event that an operator acts on, as JSON or for a terminal; never a password."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bridge.observe.text import as_json, hide, spelt_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.settings.settings import Settings

log = logging.getLogger(__name__)

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has; anything else was given as `extra`."""


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Formatter(logging.Formatter):
    """Hides what is known to be secret, whatever it stands in: messages, fields, tracebacks."""

    def __init__(self, secrets: Callable[[], Iterable[str]]) -> None:
        """`secrets` is asked for each line: a password file may have been read since the last."""
        super().__init__()
        self._secrets = secrets

    def _hide(self, text: str) -> str:
        return hide(text, self._secrets())

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields = {key: value for key, value in vars(record).items() if key not in _OWN_FIELDS}
        return {key: self._hidden(value) for key, value in fields.items()}

    def _hidden(self, value: object) -> object:
        match value:
            case None | bool() | int() | float():
                return value
            case dict():
                return {self._hide(str(key)): self._hidden(entry) for key, entry in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._hidden(entry) for entry in value]
            case _:
                return self._hide(str(value))

    def _event(self, record: logging.LogRecord) -> str:
        return self._hide(record.getMessage())

    def _exception(self, record: logging.LogRecord) -> str:
        return self._hide(self.formatException(record.exc_info)) if record.exc_info else ""


class JsonFormatter(_Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `event` and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": self._event(record),
        }
        line = line | self._fields(record) | line  # a field of that name must not hide the event
        if exception := self._exception(record):
            line["exception"] = exception
        return as_json(line)


class ConsoleFormatter(_Formatter):
    """For a terminal: the time of day in UTC, the level, the event, its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, and a traceback where there is one."""
        fields = " ".join(f"{key}={value}" for key, value in self._fields(record).items() if value is not None)
        line = f"{_timestamp(record)[11:]} {record.levelname.lower():8} {self._event(record)}"
        line += f"  ({fields})" if fields else ""
        # What a broker says may have several lines; an event is one, and those of a traceback do not look like one.
        traceback = (f"  {spelt_out(each)}" for each in self._exception(record).splitlines())
        return "\n".join([spelt_out(line.replace("\r", "")), *traceback])


def log_bug(ended: str, error: BaseException) -> None:
    """Log what nobody has caught, and what it ended: a thread or the process."""
    log.critical("a bug in the bridge ended the %s", ended, exc_info=error)


def configure_logging(settings: Settings, *more: logging.Handler) -> None:
    """Send every logger to standard error in the configured form; the bridge's own to `more` handlers, too."""
    wanted = settings.log_format or ("console" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter(settings.secrets) if wanted == "console" else JsonFormatter(settings.secrets))
    root, own = logging.getLogger(), logging.getLogger("bridge")
    handler.setLevel(settings.log_level.upper())
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for before in [*own.handlers]:
        own.removeHandler(before)
    for each in more:
        own.addHandler(each)
    own.setLevel(min([root.level, *(each.level for each in more)]))
    # What the libraries say of a broken connection the bridge says itself, once and with what to do. asyncio
    # warns of aiormq's futures that nobody waits for any more once a connection has been dropped.
    for name in ("aiormq", "aio_pika", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log_level == "debug" else logging.CRITICAL)
