"""The status in a terminal: plain lines, JSON, live with rich, and nothing in it that the terminal obeys."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from bridge.observe.document import About, document
from bridge.observe.remote import fetch
from bridge.observe.terminal import SPARKS, drawing, sparkline, status, unreachable
from bridge.relay.queue import QueueState
from bridge.window.books import Books
from tests.support.answering import answering
from tests.support.seen import NOON_S, ready, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge.observe.document import Document

    Serve = Callable[[object], str]

EVIL = "\x1b]0;owned\x07\x1b[2J[red]\u202e\r\n"


def made(*, evil: bool = False) -> Document:
    """The document of a bridge that is ready and has something of everything."""
    state = ready()
    state.source.backlog.answered(QueueState(12_300, 2), NOON_S)
    state.destination.backlog.answered(QueueState(500, 0), NOON_S, stream=True)
    state.source.ended("channel-closed", "went away", NOON_S)
    state.source.opened("amqp://reader@h", NOON_S)
    found = document(seen(Books(received=3, forwarded=2, held=1), state), About(source_queue="orders"))
    found["events"] = [{"at": "2027-01-15T11:59:00.000Z", "level": "warning", "text": EVIL if evil else "it happened"}]
    if evil:
        found["source"]["queue"] = found["sentence"] = EVIL
    return found


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer every request with what is given, as JSON or as it is; return the address."""
    with ExitStack() as stack:

        def start(body: object) -> str:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            return stack.enter_context(answering(lambda path: (200 if path == "/status" else 404, raw)))

        yield start


def shown(url: str, *, in_json: bool = False) -> tuple[int, str]:
    """The exit code and what is written."""
    written: list[str] = []
    code = status(url, watch=False, in_json=in_json, write=written.append, live=False)
    return code, "".join(written)


def test_a_ready_bridge_exits_with_0_and_says_everything(serve: Serve) -> None:
    code, text = shown(serve(made()))
    assert code == 0
    assert text.startswith("ready: forwarding nothing, 12,300 waiting\n\nsource ")
    assert "orders, connected since 12:00 UTC; 12,300 waiting; generation 2, the last ended by channel-closed" in text
    assert "500 kept" in text
    assert "= " in text
    assert "forwarded 2 + suppressed 0 + quarantined 0 + requeued 0 + stale 0 + in flight 1\n" in text
    assert text.endswith("  11:59:00 warning  it happened\n")


def test_a_bridge_that_is_not_ready_exits_with_1(serve: Serve) -> None:
    found = document(seen(), About())
    code, text = shown(serve(found))
    assert code == 1
    assert text.startswith("not ready: source not connected: not connected yet\n")


def test_degraded_is_ready(serve: Serve) -> None:
    found = made()
    found["readiness"]["degraded"] = ["destination: has no route for 1 message; trying again"]
    code, text = shown(serve(found))
    assert (code, text.partition(":")[0]) == (0, "degraded")


def test_books_that_do_not_balance_say_so(serve: Serve) -> None:
    found = made()
    found["books"]["imbalance"] = 7
    assert "(unaccounted for: 7)" in shown(serve(found))[1]


def test_json_is_the_document_itself(serve: Serve) -> None:
    found = made()
    assert json.loads(shown(serve(found), in_json=True)[1]) == found


def test_a_url_may_name_the_document_or_the_bridge(serve: Serve) -> None:
    url = serve(made())
    for address in (url, f"{url}/", f"{url}/status"):
        assert fetch(address)["version"] == 1


@pytest.mark.parametrize(
    ("body", "words"),
    (
        (b"<html>", "does the bridge run there?"),
        ({"up": True}, "another service answers there"),
        ([], "another service answers there"),
        ({"version": 2, "sentence": ""}, "has a status of version 2, and this program reads 1"),
    ),
    ids=("no JSON", "another object", "no object", "a later version"),
)
def test_what_is_no_status_is_unreachable(
    serve: Serve, body: object, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(serve(body)) == (69, "")
    said = capsys.readouterr().err
    assert said.startswith("amqp-bridge: ")
    assert words in said


def test_where_nothing_listens_it_exits_with_69_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown("http://127.0.0.1:1") == (69, "")
    assert "no status from http://127.0.0.1:1: " in capsys.readouterr().err


def test_nothing_that_is_sent_is_obeyed_by_the_terminal(serve: Serve) -> None:
    url = serve(made(evil=True))
    for text in (shown(url)[1], rich_of(fetch(url))):
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "[red]" in text, "markup is text"


def rich_of(found: Document) -> str:
    """What rich would write, without colours."""
    console = Console(width=120, no_color=True, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(drawing(found))
    return capture.get()


def test_live_it_is_the_same_in_a_frame() -> None:
    text = rich_of(made())
    for part in ("ready: orders, 12:00:00 UTC", "forwarding nothing, 12,300 waiting", "it happened", "500 kept"):
        assert part in text


def test_without_an_answer_the_live_view_says_so() -> None:
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(unreachable("nothing [red]there"))
    assert "nothing [red]there" in capture.get()


def test_a_line_of_blocks_has_a_gap_where_nothing_is_known() -> None:
    assert sparkline([0.0, 50.0, None, 100.0]) == "▁▅ █"
    assert sparkline([]) == ""
    assert len(sparkline([1.0] * 500)) == SPARKS


class Enough(Exception):  # noqa: N818 - it is no error
    """Ends a watch."""


def watched(url: str, *, in_json: bool = False, live: bool = False) -> list[str]:
    """What a watch writes in three rounds."""
    written: list[str] = []
    rounds = 0

    def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise Enough

    with pytest.raises(Enough):
        status(url, watch=True, in_json=in_json, write=written.append, live=live, sleep=sleep)
    return written


def test_watched_off_a_terminal_it_is_a_line_each_time(serve: Serve) -> None:
    line = "12:00:00 ready: forwarding nothing, 12,300 waiting\n"
    assert watched(serve(made())) == [line] * 3


def test_watched_as_json_it_is_an_object_a_line(serve: Serve) -> None:
    written = watched(serve(made()), in_json=True, live=True)
    assert [json.loads(text)["version"] for text in written] == [1, 1, 1]
    assert all(text.count("\n") == 1 for text in written)


def test_a_watch_outlives_an_outage_of_the_bridge(capsys: pytest.CaptureFixture[str]) -> None:
    assert watched("http://127.0.0.1:1") == []
    assert capsys.readouterr().err.count("no status from") == 3


class WithoutRich:
    """As where it is not installed."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Refuse it, and leave everything else to others."""
        if name.partition(".")[0] == "rich":
            raise ModuleNotFoundError("No module named 'rich'", name="rich")


def test_without_rich_a_watch_says_which_extra_to_install_and_goes_on_in_plain_lines(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [WithoutRich, *sys.meta_path])
    assert len(watched(serve(made()), live=True)) == 3
    assert "pip install 'amqp-bridge[terminal]'" in capsys.readouterr().err


def test_live_it_redraws(serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert watched(serve(made()), live=True) == []
    assert "12,300 waiting" in capsys.readouterr().out
