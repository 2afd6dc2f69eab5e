"""Logs: one line an event, fit for machines or for people, and never a password."""

# ruff: noqa: S105 - the passwords are made up

from __future__ import annotations

import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from bridge.errors import BridgeError
from bridge.observe.events import EventLog
from bridge.observe.log import ConsoleFormatter, JsonFormatter, configure_logging
from bridge.observe.text import HIDDEN
from bridge.settings.environment import load_settings

if TYPE_CHECKING:
    from pathlib import Path

SECRET = 'p%40"\\ß/s+&='
"""Each of its characters is written otherwise somewhere: in a URL, in JSON, in a repr."""
LIBRARIES = ("aiormq", "aio_pika", "asyncio")

log = logging.getLogger("bridge.test")


def configure(*more: logging.Handler, **settings: str) -> None:
    configure_logging(
        load_settings(
            {
                "BRIDGE_SOURCE_URL": f"amqp://reader:{quote(SECRET, safe='')}@h",
                "BRIDGE_SOURCE_QUEUE": "from",
                "BRIDGE_DESTINATION_QUEUE": "to",
            }
            | {f"BRIDGE_{name}": text for name, text in settings.items()}
        ),
        *more,
    )


def record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "bridge.x", "levelno": 30, "levelname": "WARNING", "created": 1700000000.5})
    made.msg, made.args = message, arguments
    vars(made).update(fields)
    return made


def render_json(made: logging.LogRecord, *secrets: str) -> dict[str, Any]:
    text = JsonFormatter(lambda: secrets).format(made)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_line_of_json_has_time_level_logger_event_and_fields() -> None:
    assert render_json(record("lost %d of %s", 3, "many", generation=7, reason=None, where=("a", "b"))) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "warning",
        "logger": "bridge.x",
        "event": "lost 3 of many",
        "generation": 7,
        "reason": None,
        "where": ["a", "b"],
    }


def test_a_field_cannot_hide_the_event() -> None:
    found = render_json(record("event", time="noon", event="other", level=5))
    assert (found["event"], found["level"]) == ("event", "warning")
    assert found["time"].startswith("2023")


def test_what_json_does_not_know_is_written_as_text(tmp_path: Path) -> None:
    found = render_json(record("event", path=tmp_path, nested={"error": ValueError("x"), 5: {1}}))
    assert found["path"] == str(tmp_path)
    assert found["nested"] == {"error": "x", "5": [1]}


def test_a_line_for_people() -> None:
    text = ConsoleFormatter(lambda: ()).format(record("lost %d", 3, generation=7, reason=None))
    assert text == "22:13:20.500Z warning  lost 3  (generation=7)"


def test_what_a_broker_says_stays_on_its_line() -> None:
    """Or a reply text could pass for an event of its own."""
    text = ConsoleFormatter(lambda: ()).format(record("closed: %s", "x\r\n12:00:00 error fake", field="y\nz"))
    assert "\n" not in text
    assert "x\\n12:00:00" in text


def fail(message: str) -> None:
    raise BridgeError(message)


def failed(message: str) -> logging.LogRecord:
    try:
        fail(message)
    except BridgeError:
        return record("failed", exc_info=sys.exc_info())
    raise AssertionError


def test_an_exception_comes_with_its_traceback() -> None:
    assert "BridgeError: oh" in render_json(failed("oh"))["exception"]
    assert re.search(r"failed\n  Traceback [\s\S]*BridgeError: oh$", ConsoleFormatter(lambda: ()).format(failed("oh")))


@pytest.mark.parametrize("formatter", (JsonFormatter, ConsoleFormatter))
@pytest.mark.parametrize(
    "shown",
    (
        SECRET,
        f"\0reader\0{SECRET}",
        quote(SECRET, safe=""),
        f"amqp://reader:{quote(SECRET, safe='')}@h",
        repr(SECRET),
        repr([SECRET]),
    ),
)
def test_a_secret_is_hidden_wherever_and_however_it_is_written(
    formatter: type[JsonFormatter | ConsoleFormatter], shown: str
) -> None:
    records = (
        record(shown),
        record("event: %s", shown),
        record("event", field=shown, nested={"url": [shown]}, error=ValueError(shown)),
        record("event", field={shown: 1}),
        failed(shown),
    )
    for made in records:
        text = formatter(lambda: (SECRET,)).format(made)
        assert HIDDEN in text
        for form in (SECRET, quote(SECRET, safe=""), json.dumps(SECRET)[1:-1], repr(SECRET)[1:-1]):
            assert form not in text


def test_a_secret_that_is_part_of_another_does_not_uncover_it() -> None:
    assert render_json(record("x hunter2hunter y"), "hunter", "hunter2hunter")["event"] == f"x {HIDDEN} y"


def test_a_user_that_is_named_like_a_password_is_shown() -> None:
    """In its own place, where no password can stand: the example of all examples is guest, guest."""
    shown = "amqp://guest@h refused for user 'guest'"
    assert render_json(record(shown, url="amqp://guest:guest@h", plain="\0guest\0guest"), "guest") | {"time": ""} == {
        "time": "",
        "level": "warning",
        "logger": "bridge.x",
        "event": shown,
        "url": f"amqp://guest:{HIDDEN}@h",
        "plain": f"\0{HIDDEN}\0{HIDDEN}",
    }


def test_a_short_secret_does_not_break_the_line() -> None:
    found = render_json(record("level 1 of e", number=1), "e", "1", '"')
    assert found["level"] == "warning"
    assert found["event"] == f"level {HIDDEN} of {HIDDEN}"


@pytest.mark.parametrize(
    ("text", "shown"),
    (
        ("the queue is queried by queen", "the queue is queried by queen"),
        ("amqp://user:que@host, 'que' and que.", f"amqp://user:{HIDDEN}@host, '{HIDDEN}' and {HIDDEN}."),
    ),
)
def test_a_short_secret_inside_of_a_word_is_not_shown_by_being_hidden(text: str, shown: str) -> None:
    assert render_json(record(text), "que")["event"] == shown


def test_the_settings_secrets_are_hidden_also_from_files_read_later(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("before-rotation")
    settings = load_settings(
        {
            "BRIDGE_SOURCE_URL": "amqp://reader:in-the-url@h",
            "BRIDGE_SOURCE_QUEUE": "from",
            "BRIDGE_DESTINATION_URL": "amqp://elsewhere",
            "BRIDGE_DESTINATION_QUEUE": "to",
            "BRIDGE_DESTINATION_USERNAME": "writer",
            "BRIDGE_DESTINATION_PASSWORD_FILE": str(file),
        }
    )
    configure_logging(settings)
    urls = [settings.source.url(0), settings.destination.url(0)]
    file.write_text("after-rotation")
    urls.append(settings.destination.url(0))
    log.warning("%s", urls)
    said = capsys.readouterr().err
    assert said.count(HIDDEN) == 3
    for secret in ("in-the-url", "before-rotation", "after-rotation"):
        assert secret not in said


def test_off_a_terminal_it_is_json_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    log.info("event", extra={"generation": 1})
    said = capsys.readouterr()
    assert said.out == ""
    assert json.loads(said.err)["generation"] == 1


def test_on_a_terminal_it_is_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure()
    log.info("event", extra={"generation": 1})
    assert capsys.readouterr().err.endswith("info     event  (generation=1)\n")


def test_the_format_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LOG_FORMAT="console")
    log.info("event")
    assert capsys.readouterr().err.endswith("info     event\n")


def test_what_is_below_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LOG_LEVEL="warning")
    log.info("too little")
    log.warning("enough")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["enough"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_libraries_are_silent_but_in_debug(capsys: pytest.CaptureFixture[str], library: str) -> None:
    """The bridge says itself what happened, once and with what to do."""
    configure()
    logging.getLogger(f"{library}.connection").error("connection lost")
    assert capsys.readouterr().err == ""
    configure(LOG_LEVEL="debug")
    logging.getLogger(f"{library}.connection").debug("to amqp://reader:%s@h", SECRET)
    said = json.loads(capsys.readouterr().err)
    assert said["event"] == f"to amqp://reader:{HIDDEN}@h"


def test_the_last_events_are_kept_whatever_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    events = EventLog()
    configure(events, LOG_LEVEL="error")
    log.debug("not kept")
    log.info("kept and not logged")
    logging.getLogger("another.library").error("not the bridge's")
    assert [(event.level, event.text) for event in events.events()] == [("info", "kept and not logged")]
    assert "kept" not in capsys.readouterr().err


def test_configuring_again_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    configure()
    log.info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1
