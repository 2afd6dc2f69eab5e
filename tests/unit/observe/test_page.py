"""The page: everything the document says, nothing that a broker could smuggle in, whole without scripts."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from bridge.observe.document import About, Seen, document
from bridge.observe.history import sample
from bridge.observe.markup import Markup, element
from bridge.observe.page import POLICY, page
from bridge.observe.plots import BAR_WIDTH, WIDTH, Line, Part, bars, plot
from bridge.observe.sentence import number
from bridge.relay.queue import QueueState
from bridge.window.books import Books
from tests.support.seen import NOON_S, ready, seen

if TYPE_CHECKING:
    from bridge.observe.status import Status

EVIL = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
ABOUT = About(source_queue="orders", destination_queue="orders.copy", prefetch=1000)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """See it end."""
        assert self.open.pop() == tag, "every element ends where it should"

    def handle_data(self, data: str) -> None:
        """Note text, but for that of scripts and styles."""
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text += f"{data}\n"


def drawn(what: Seen, of: About = ABOUT) -> Elements:
    found = Elements(page(document(what, of)))
    assert found.open == []
    return found


def troubled() -> Status:
    """Whatever a broker may say, it has said."""
    status = ready()
    status.source.backlog.failed(EVIL)
    status.source.ended("channel-closed", EVIL, NOON_S)
    status.destination.block(EVIL, NOON_S)
    status.trouble = EVIL
    status.degraded = [EVIL]
    return status


def test_what_a_broker_says_is_text_and_never_markup() -> None:
    found = drawn(seen(status=troubled()), About(source_queue=EVIL, destination_exchange=EVIL, quarantine_queue=EVIL))
    names = [name for name, _ in found.elements]
    assert names.count("script") == 1, "ours"
    assert "img" not in names
    assert not [attributes for _, attributes in found.elements if any(key.startswith("on") for key in attributes)]
    assert EVIL in found.text


def test_the_policy_lets_in_this_style_and_script_and_no_other() -> None:
    text = page(document(seen(), ABOUT))
    for name in ("style", "script"):
        (inside,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in POLICY


def test_nothing_is_fetched_from_elsewhere() -> None:
    found = drawn(seen(status=ready()))
    for _, attributes in found.elements:
        for key in ("src", "href", "action"):
            value = attributes.get(key) or "/"
            assert value.startswith(("/", "data:,")), value
        assert "style" not in attributes, "the policy would refuse it"


def test_the_state_is_a_word_and_a_sentence() -> None:
    assert "Ready\nForwarding nothing" in drawn(seen(status=ready())).text
    degraded = ready()
    degraded.degraded = ["destination: has no route for 1 message; trying again"]
    assert "Ready, degraded" in drawn(seen(status=degraded)).text
    assert "Not ready" in drawn(seen()).text


def test_both_sides_say_what_is_known_and_what_not() -> None:
    status = ready()
    status.source.backlog.answered(QueueState(12_300, 2), NOON_S)
    text = drawn(seen(status=status)).text
    assert "12,300 messages (asked at 12:00 UTC)" in text
    assert "unknown: not asked yet" in text
    status.source.backlog.answered(QueueState(500, 0), NOON_S, stream=True)
    assert "500 messages, read or not" in drawn(seen(status=status)).text


def test_the_books_balance_visibly() -> None:
    books = Books(received=100, forwarded=90, suppressed=2, quarantined={"poison": 3}, requeued={"shutdown": 1})
    books.stale_held, books.held, books.published = 1, 2, 1
    text = drawn(seen(books)).text
    assert "The books balance: every message received is accounted for." in text
    assert "poison 3" in text
    books.received += 1
    assert "The books do not balance. Unaccounted for: 1." in drawn(seen(books)).text


def ends(svg: str) -> dict[str, float]:
    """Where each part of the bars ends."""
    found = re.findall(r'class="part (\w+)" x="([\d.]+)" y="\d+" width="([\d.]+)"', svg)
    return {name: float(x) + float(width) for name, x, width in found}


def test_both_bars_end_together_where_the_books_balance_and_only_there() -> None:
    parts = [Part("forwarded", 90, "forwarded"), Part("held", 10, "held"), Part("stale", 0, "stale")]
    found = ends(bars(100, parts))
    assert found == {"received": BAR_WIDTH, "forwarded": 0.9 * BAR_WIDTH, "held": BAR_WIDTH}
    found = ends(bars(200, parts))
    assert found["held"] == found["received"] / 2


def test_a_plot_has_a_gap_where_nothing_is_known() -> None:
    points = [(900.0, 10.0), (600.0, 5.0), (300.0, None), (0.0, 0.0)]
    figure = plot("Waiting", [Line("messages", points, "waiting")], number)
    assert re.findall(r' d="([^"]*)"', figure) == ["M0.0,4.0 L100.0,38.0", f"M{WIDTH:.1f},72.0 L{WIDTH:.1f},72.0"]
    assert 'aria-label="Waiting, the last 15 min: messages 0; at most 10"' in figure


def test_the_plot_of_a_young_process_shows_the_time_that_there_is() -> None:
    figure = plot("Waiting", [Line("messages", [(120.0, 1.0), (60.0, 1.0), (0.0, 1.0)], "waiting")], number)
    assert re.findall(r' d="([^"]*)"', figure) == ["M0.0,4.0 L150.0,4.0 L300.0,4.0"]
    assert "2 min, at most 1" in figure


def test_a_plot_of_what_is_not_known_says_so() -> None:
    figure = plot("Waiting", [Line("messages", [(5.0, None)], "waiting")], number)
    assert "<path" not in figure
    assert "messages unknown" in figure
    assert "nothing known yet" in plot("Waiting", [Line("messages", [], "waiting")], number)


def test_the_history_is_drawn_from_the_samples() -> None:
    books = Books(received=50, forwarded=50)
    status = ready()
    first = sample(Books(), status.source.backlog, 0.0, NOON_S)
    what = Seen(books, status, [first, sample(books, status.source.backlog, 5.0, NOON_S + 5)])
    assert "received 10/s" in drawn(what).text


def test_the_page_of_a_bridge_whose_loop_hangs_says_so() -> None:
    text = drawn(seen(status=ready())._replace(answers=False)).text
    assert "The event loop does not answer; everything else is as of 12:00 UTC" in text


@pytest.mark.parametrize("child", ("<b>", "&", '"', "'"))
def test_an_element_escapes_text_and_attributes(child: str) -> None:
    made = element("p", child, Markup("<i></i>"), None, title=child, class_="a", aria_label=None)
    (tag, attributes), (inner, _) = Elements(made).elements
    assert (tag, inner, attributes) == ("p", "i", {"title": child, "class": "a"})
    assert f"{child}\n" in Elements(made).text or Elements(made).text.replace("\n", "") == child
