"""Text from strangers in every output: nothing of it is obeyed, and it makes no line and no markup of its own.

Message ids, reply texts, header values, names of clusters and queues come from publishers and brokers. Whatever shows
one of them is in `OUTPUTS`; it is called with each text of `CORPUS`, and once with a harmless one for comparison.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import sys
import unicodedata
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from bridge.check.check import as_json as check_json
from bridge.check.check import as_table
from bridge.check.finding import Finding
from bridge.check.inquiry import Glimpse
from bridge.cli.grammar import main
from bridge.connection.kind import Queue
from bridge.drain import sample, verification
from bridge.drain.command import status_of
from bridge.drain.finish import Conclusion
from bridge.drain.plan import DrainPlan, Outlook
from bridge.drain.receipt import Counts, End, Receipt
from bridge.drain.request import Request, WrongUseError
from bridge.drain.survey import Side
from bridge.observe.answers import Answers
from bridge.observe.document import About, document
from bridge.observe.log import ConsoleFormatter, JsonFormatter
from bridge.observe.notify import Notifier
from bridge.observe.terminal import drawing, status
from bridge.relay.queue import QueueState
from bridge.settings import shown
from bridge.settings.environment import load_settings
from bridge.window.books import Books
from tests.support.seen import ready, seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.observe.document import Document
    from bridge.observe.status import Status

CORPUS = {
    "a harmless text": "no queue 'orders'",
    "a line of its own": 'x\n{"time": "2026-01-01", "level": "info", "event": "all is well"}',
    "a carriage return": "x\rok       source  queue  all is well",
    "all line ends of Unicode": "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i",
    "a cleared screen": "\x1b[2J\x1b[H",
    "a title": "\x1b]0;owned\x07",
    "a link": "\x1b]8;;https://a.example\x1b\\click\x1b]8;;\x1b\\",
    "a clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "eight-bit controls": "\x9b2J\x9d0;owned\x9c\x90q\x9c",
    "a bell, a backspace, a null": "\x07\x08\x08\x00\x7f",
    "reversed writing": "\u202eevil\u202c \u2066x\u2069\u200f",
    "what nobody sees": "a\u200bb\ufeffc\U000e0041d\u00ade",
    "half a pair": "\ud800",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><b>&lt;</b>",
    "rich's markup": "[red]x[/red][link=https://a.example]y[/link]",
    "formats": "%s %d {} {0} %(x)s $HOME `id` ${jndi:ldap://a.example}",
    "systemd": "x\nMAINPID=1\nREADY=1",
    "a metric": 'x"} 1\nbridge_books_imbalance 7\n',
    "without end": "\x1b" * 3000,
}
HARMLESS = CORPUS["a harmless text"]
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def troubled(text: str) -> Status:
    """A status that has the text wherever a broker may have put it."""
    found = ready()
    for side in (found.source, found.destination):
        side.failed("refused", text, 0.0)
        side.ended("channel-closed", text, 0.0)
        side.block(text, 0.0)
    found.destination.up = True
    found.degraded, found.trouble, found.stuck = [text, text], text, text
    return found


def shown_document(text: str) -> Document:
    about = About(source_queue=text, destination_exchange=text, destination_routing_key=text, quarantine_queue=text)
    found = document(seen(Books(received=1, held=1), troubled(text)), about)
    found["events"] = document(seen(), About())["events"]
    return found


def answers(text: str) -> Answers:
    """What HTTP answers, from a loop that does not turn: the last copy, with the text in it."""
    loop = asyncio.new_event_loop()
    about = About(source_queue=text, destination_queue=text)
    made = Answers(lambda: (Books(), troubled(text)), loop, about, loop_timeout_s=0.0)
    loop.close()
    return made


def body_of(name: str) -> Callable[[str], str]:
    def ask(text: str) -> str:
        made = answers(text)
        answer = made.metrics("") if name == "metrics" else getattr(made, name)()
        found: str = answer.body.decode()
        return found

    return ask


def record(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)  # noqa: TRY301 - a traceback is wanted
    except ValueError:
        made = logging.makeLogRecord({"msg": f"source disconnected: {text}", "levelname": "INFO", "created": 0.0})
        made.exc_info = sys.exc_info()
    vars(made).update({"reason": text, "message_id": text, "many": [text, {text: text}]})
    return made


def receipt(text: str) -> Receipt:
    return Receipt(
        bridge="1",
        started="",
        ended="",
        seconds=2.0,
        source=End(text, text, 1, 2),
        destination=End(text, text, 1, 2),
        counts=Counts(asked=3, taken=3, moved=1, refused=1, returned=1, left=2, duplicates_possible=1),
        ending=Conclusion.REFUSED,
        doubts=(text,),
        reasons=(text, text),
        kept={text: 1},
        targets={text: 1},
    )


def plan(text: str) -> str:
    side = Side(text, text, QueueState(3, 2), Queue("quorum"))
    return DrainPlan(side, side, Request(allowed=(text,)), outlook=Outlook(3, {text: 2}, 1)).text


def peeked(text: str, *, in_json: bool = False) -> str:
    death = {"queue": text, "exchange": text, "routing-keys": [text], "reason": text, "time": 1}
    body = text.encode("utf-8", "surrogatepass")
    found = [Glimpse(headers, text, text, text, None, body) for headers in ({"x-death": [death]}, {})]
    return (sample.as_json if in_json else sample.as_text)(sample.groups(found, 0.0), 2, 2)


def verified(text: str) -> str:
    end = {"name": text}
    first, second = (
        {"source": end, "destination": {"name": text + other}, "moved": text, "bytes": text, "digest": text + other}
        | dict.fromkeys(("returned", "refused", "suppressed", "left"), text)
        for other in ("", "x")
    )
    return verification.as_text(verification.compare(first, second), verification.remarks(second))


def status_text(*, in_json: bool) -> Callable[[str], str]:
    def ask(text: str) -> str:
        written: list[str] = []
        status("", watch=False, in_json=in_json, live=False, write=written.append, ask=lambda _: shown_document(text))
        return "".join(written)

    return ask


def live_status(text: str) -> str:
    console = Console(width=200, color_system=None, force_terminal=False, highlight=False, file=io.StringIO())
    with console.capture() as capture:
        console.print(drawing(shown_document(text)))
    return capture.get()


def told_systemd(text: str) -> str:
    """The datagrams that arrive."""
    name = f"\0strangers-{id(text)}-{hash(text)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name[1:]}"}, lambda: shown_document(text))
        notifier.beat()
        return receiver.recv(1 << 20).decode()


OUTPUTS: dict[str, Callable[[str], str]] = {
    "the log as JSON": lambda text: JsonFormatter(lambda: ()).format(record(text)),
    "the log for people": lambda text: ConsoleFormatter(lambda: ()).format(record(text)),
    "check": lambda text: as_table([Finding("ok", "source", text, text), Finding("error", "source", "login", text)]),
    "check --json": lambda text: check_json([Finding("ok", "source", text, text)]),
    "the plan of a drain": plan,
    "the receipt of a drain": lambda text: receipt(text).text,
    "the receipt as JSON": lambda text: receipt(text).as_json,
    "peek": peeked,
    "peek --json": lambda text: peeked(text, in_json=True),
    "verify": verified,
    "status": status_text(in_json=False),
    "status --json": status_text(in_json=True),
    "status --watch": live_status,
    "/status": body_of("status"),
    "/readyz": body_of("readyz"),
    "/metrics": body_of("metrics"),
    "the page": body_of("page"),
    "systemd": told_systemd,
}


def obeyed(text: str) -> set[str]:
    """Whatever in it may be obeyed but the ends of lines, and what surrogates would be in UTF-8."""
    return {character for character in text if unicodedata.category(character) in OBEYED and character != "\n"}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", CORPUS)
def test_nothing_is_obeyed_and_no_line_is_forged(output: str, name: str) -> None:
    found, harmless = OUTPUTS[output](CORPUS[name]), OUTPUTS[output](HARMLESS)
    assert obeyed(found) == set()
    if output == "status --watch":
        return  # a longer text is wrapped there
    if output == "the log for people":
        assert all(line.startswith("  ") for line in found.split("\n")[1:]), "a traceback looks like no event"
        return
    assert found.count("\n") == harmless.count("\n"), "a line of its own"
    for line, expected in zip(found.split("\n"), harmless.split("\n"), strict=True):
        assert line[:2] == expected[:2], "a line begins as no other does"


class Shape(HTMLParser):
    """The elements of a page, with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.found.append((tag, *(name for name, _ in attributes)))


@pytest.mark.parametrize("name", CORPUS)
def test_nothing_becomes_markup(name: str) -> None:
    assert Shape(body_of("page")(CORPUS[name])).found == Shape(body_of("page")(HARMLESS)).found


@pytest.mark.parametrize("output", ("the log as JSON", "the receipt as JSON", "check --json"))
@pytest.mark.parametrize("name", CORPUS)
def test_for_machines_the_text_is_what_it_was(output: str, name: str) -> None:
    values = json.dumps(json.loads(OUTPUTS[output](CORPUS[name])))
    assert json.dumps(CORPUS[name])[1:-1] in values


@pytest.mark.parametrize("name", CORPUS)
def test_settings_on_a_terminal(name: str) -> None:
    """What `config` shows: the environment is the operator's, and may have been copied from anywhere."""
    text = CORPUS[name].replace("\0", "")[:200]
    if "\ud800" in text:
        return  # refused: no UTF-8
    least = {"BRIDGE_SOURCE_URL": "amqp://u:p@h", "BRIDGE_DESTINATION_EXCHANGE": "to"}
    settings = load_settings(least | {"BRIDGE_SOURCE_QUEUE": text, "BRIDGE_DESTINATION_ROUTING_KEY": text})
    table = shown.as_table(settings, ())
    assert obeyed(table) == set()
    assert all(line.startswith("BRIDGE_") for line in table.splitlines())
    assert obeyed(shown.as_json(settings, ())) == set()


@pytest.mark.parametrize("name", CORPUS)
def test_an_error_of_a_drain_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from bridge.drain.command import _complain  # noqa: PLC0415 - what every error goes through

    error = WrongUseError(CORPUS[name])
    assert _complain(error, status_of(error)) == 64
    said = capsys.readouterr().err
    assert obeyed(said) == set()
    assert said.count("\n") == 1


@pytest.mark.parametrize("arguments", ("{}", "peek --limit {}", "peek q --{}", "status http://{}", "drain {} x"))
@pytest.mark.parametrize("name", CORPUS)
def test_a_wrong_argument_is_told_on_one_line(name: str, arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It may have been copied from anywhere."""
    with pytest.raises(SystemExit) as ended:
        main([word.replace("{}", CORPUS[name]) for word in arguments.split(" ")])
    assert ended.value.code == 64
    said = capsys.readouterr().err
    assert obeyed(said) == set()
    assert said.rstrip("\n").rpartition("\n")[2].startswith("amqp-bridge")
    assert CORPUS[name] not in said or CORPUS[name].isprintable()


def test_the_corpus_is_seen_where_nothing_is_done_about_it() -> None:
    """So that the tests above can fail."""
    assert all(obeyed(text) or "\n" in text or text.isprintable() for text in CORPUS.values())
    assert sum(bool(obeyed(text)) for text in CORPUS.values()) >= 10
