"""Logging: one line for each event that an operator acts on, as JSON or for a terminal; never a password."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.settings import Settings

HIDDEN = "***"
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every record has; anything else was given as `extra`."""


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _OWN_FIELDS}


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Formatter(logging.Formatter):
    """Hides what is known to be secret, whatever it stands in: messages, fields, tracebacks."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        # The longest first: one secret may be a part of another. As in a URL, too.
        found = {form for secret in secrets for form in (secret, quote(secret, safe="")) if secret}
        self._secrets = sorted(found, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = self._render(record)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def _render(self, record: logging.LogRecord) -> str:
        raise NotImplementedError


class JsonFormatter(_Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `event` and the event's own fields."""

    def _render(self, record: logging.LogRecord) -> str:
        line = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class ConsoleFormatter(_Formatter):
    """For a terminal: the time of day, the level, the event, its fields."""

    def _render(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in _fields(record).items() if value is not None)
        line = f"{_timestamp(record)[11:23]} {record.levelname.lower():8} {record.getMessage()}"
        line += f"  ({fields})" if fields else ""
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(settings: Settings) -> None:
    """Send every logger to standard error in the configured form."""
    secrets = {*settings.source.secrets, *settings.destination.secrets}
    wanted = settings.log_format or ("console" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter(secrets) if wanted == "console" else JsonFormatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # What the libraries say of a broken connection the bridge says itself, once and with what to do. asyncio
    # warns of aiormq's futures that nobody waits for any more once a connection has been dropped.
    for name in ("aiormq", "aio_pika", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log_level == "debug" else logging.CRITICAL)
