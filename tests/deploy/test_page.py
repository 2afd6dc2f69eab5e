"""The page in a real browser, through a restart; read without scripts, on a phone, in the dark, by keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.deploy import screens
from tests.deploy.screens import NARROW, QUEUE, WIDE, open_page, publish
from tests.rig.bridge_process import BridgeProcess, bridge_settings
from tests.rig.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

    from tests.deploy.screens import Scheme

pytestmark = pytest.mark.broker

PATIENCE_MS = 30_000
EVIL = "\"><img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
SMALLEST = (320, 640)
"""The width at which nobody should have to scroll sideways (WCAG 2.2, 1.4.10)."""

CONTRASTS = """() => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const background = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = channels(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, script")) continue;
    const [a, b] = [channels(getComputedStyle(element).color), background(element)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = `${element.tagName}.${element.className}`;
    found[name] = Math.min(found[name] ?? 99, ratio);
  }
  return found;
}"""
"""The contrast of each kind of text with what is behind it, as WCAG 2.2 has it."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    with Node("4.3") as source, Node("4.3") as destination:
        for node in (source, destination):
            node.declare(QUEUE, "quorum")
        yield source, destination


@pytest.fixture(scope="module")
def bridge(nodes: tuple[Node, Node]) -> Iterator[BridgeProcess]:
    with BridgeProcess(bridge_settings(*nodes, QUEUE, QUEUE_POLL="1s")) as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with screens.browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser, bridge: BridgeProcess) -> Iterator[Page]:
    opened = open_page(browser, bridge)
    yield opened
    opened.context.close()


def test_it_follows_a_bridge_through_a_restart_of_the_source_without_being_loaded_again(
    page: Page, nodes: tuple[Node, Node]
) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    page.evaluate("window.stillHere = true")
    source, _ = nodes
    expect(page.locator("#word")).to_have_text("Ready", timeout=PATIENCE_MS)
    publish(source, 3000)
    expect(page.locator("#books .total")).to_contain_text("3,000", timeout=PATIENCE_MS)
    expect(page.locator("#books .balance")).to_have_text("The books balance: every message received is accounted for.")
    expect(page.locator("#destination")).to_contain_text("3,000 messages (asked at", timeout=PATIENCE_MS)
    source.stop()
    expect(page.locator("#state")).to_contain_text("Source not connected since", timeout=PATIENCE_MS)
    expect(page.locator("#word")).to_have_text("Not ready")
    assert page.title() == f"Not ready: {QUEUE} to {QUEUE}"
    expect(page.locator("#events")).to_contain_text("source disconnected (generation 1)")
    source.start()
    source.wait_ready()
    expect(page.locator("#word")).to_have_text("Ready", timeout=2 * PATIENCE_MS)
    expect(page.locator("#source")).to_contain_text("connection-closed at")
    assert page.evaluate("window.stillHere") is True
    assert asked == {page.url}
    assert complaints == []


def test_without_scripts_all_of_it_is_there_and_is_loaded_again_by_itself(
    browser: Browser, bridge: BridgeProcess
) -> None:
    page = open_page(browser, bridge, scripts=False)
    expect(page.locator("#state")).to_contain_text("Ready")
    for title in ("Source", "Destination", "Books since the process began", "Pace", "Window", "Last events"):
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    assert page.locator("figure svg").count() == 3
    expect(page.locator("#pause")).to_be_hidden()
    first = page.locator("#version").text_content() or ""
    expect(page.locator("#version")).not_to_have_text(first, timeout=PATIENCE_MS)
    page.context.close()


@pytest.mark.parametrize("size", (SMALLEST, NARROW, WIDE), ids=("smallest", "phone", "wide"))
def test_nobody_has_to_scroll_sideways(browser: Browser, bridge: BridgeProcess, size: tuple[int, int]) -> None:
    page = open_page(browser, bridge, size=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.context.close()


@pytest.mark.parametrize("scheme", ("light", "dark"))
def test_every_text_can_be_told_from_what_is_behind_it(browser: Browser, bridge: BridgeProcess, scheme: Scheme) -> None:
    page = open_page(browser, bridge, scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark is (scheme == "dark")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 10
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}
    page.context.close()


def test_by_keyboard_updates_are_paused_and_the_focus_stays_where_it_is(page: Page) -> None:
    page.keyboard.press("Tab")
    button = page.locator("#pause")
    expect(button).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Space")
    expect(button).to_have_text("Resume updates")
    before = page.locator("#version").text_content()
    page.wait_for_timeout(3000)  # longer than an update takes: that nothing happens can only be seen by waiting
    expect(page.locator("#version")).to_have_text(before or "")
    page.keyboard.press("Space")
    expect(page.locator("#version")).not_to_have_text(before or "", timeout=PATIENCE_MS)
    expect(button).to_be_focused()
    seen = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent"))
    assert seen == ["/status", "/metrics", "/readyz", "/healthz"]


def test_a_screen_reader_hears_of_a_change_of_the_state_and_not_of_each_number(page: Page) -> None:
    live = page.locator("[role=status], [role=alert], [aria-live]")
    assert [part.get_attribute("id") for part in live.all()] == ["offline", "word"]
    for figure in page.locator("svg").all():
        assert figure.get_attribute("role") == "img"
        assert figure.get_attribute("aria-label")
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_bridge_that_has_gone_is_said_to_have_gone(browser: Browser, nodes: tuple[Node, Node]) -> None:
    settings = bridge_settings(*nodes, QUEUE, QUEUE_POLL="1s")
    with BridgeProcess(settings) as bridge:
        page = open_page(browser, bridge.wait_ready())
        bridge.terminate()
    offline = page.locator("#offline")
    expect(offline).to_be_visible(timeout=PATIENCE_MS)
    expect(offline).to_contain_text("The bridge has not answered since")
    page.context.close()


def test_a_name_that_is_markup_and_what_a_broker_says_of_it_are_text(
    browser: Browser, nodes: tuple[Node, Node]
) -> None:
    settings = bridge_settings(*nodes, QUEUE) | {"BRIDGE_SOURCE_QUEUE": EVIL}
    with BridgeProcess(settings) as bridge:
        page = open_page(browser, bridge)
        expect(page.locator("#source")).to_contain_text("no queue '", timeout=PATIENCE_MS)
        expect(page.locator("#source")).to_contain_text(EVIL)
        assert page.locator("img").count() == 0
        assert page.evaluate("window.hacked") is None
        page.context.close()
