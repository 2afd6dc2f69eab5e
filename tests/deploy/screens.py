"""The page in a real browser: `python -m tests.deploy.screens` takes the screenshot that the README shows.

With a folder as argument it takes all of them into that: empty, busy and broken, wide and narrow, light and dark.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pika
from playwright.sync_api import Browser, Page, sync_playwright

from tests.deploy.tools import ROOT
from tests.rig.bridge_process import BridgeProcess, bridge_settings
from tests.rig.node import Node
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREENSHOT = ROOT / "tests" / "measured" / "page.png"
QUEUE = "orders"
WIDE, NARROW = (1100, 900), (360, 780)
Scheme = Literal["light", "dark"]
BUSY_S = 45.0
"""For so long messages flow before the picture of a busy bridge is taken: the plots have something to show."""

BACKLOG = 120_000


@contextmanager
def browser() -> Iterator[Browser]:
    """The distribution's Chromium, without a window."""
    program = shutil.which("chromium")
    assert program is not None, "python -m tests.deploy.tools installs it"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=quiet)
        try:
            yield running
        finally:
            running.close()


def open_page(
    running: Browser,
    bridge: BridgeProcess,
    *,
    size: tuple[int, int] = WIDE,
    scheme: Scheme = "light",
    scripts: bool = True,
) -> Page:
    """Open the bridge's page in a browser of its own state."""
    viewport = {"width": size[0], "height": size[1]}
    context = running.new_context(viewport=viewport, color_scheme=scheme, java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{bridge.http_port}/")
    return page


def publish(node: Node, count: int, size_bytes: int = 200) -> None:
    """Put messages into the source queue."""
    properties = pika.BasicProperties(delivery_mode=2)
    with node.channel() as channel:
        for _ in range(count):
            channel.basic_publish("", QUEUE, b"x" * size_bytes, properties)


def photograph(running: Browser, bridge: BridgeProcess, folder: Path, name: str) -> None:
    """Take the page as it is now in each size and scheme."""
    schemes: tuple[Scheme, ...] = ("light", "dark")
    for label, size in (("wide", WIDE), ("narrow", NARROW)):
        for scheme in schemes:
            page = open_page(running, bridge, size=size, scheme=scheme)
            page.screenshot(path=folder / f"{name}-{label}-{scheme}.png", full_page=True)
            page.context.close()


def main(folder: Path | None) -> None:
    """Take the screenshots."""
    with Node("4.3") as source, Node("4.3") as destination, browser() as running:
        for node in (source, destination):
            node.declare(QUEUE, "quorum")
        settings = bridge_settings(source, destination, QUEUE, QUEUE_POLL="1s")
        with BridgeProcess(settings) as bridge:
            bridge.wait_ready()
            if folder is not None:
                photograph(running, bridge, folder, "empty")
            publish(source, 40_000)
            source.restart()
            bridge.wait_ready()

            def has_shown_enough() -> bool:
                publish(source, 3000)
                uptime_s = bridge.status()["bridge"]["uptime_s"]
                return bool(uptime_s > BUSY_S)

            wait_until(has_shown_enough, "a while of traffic", 5 * BUSY_S)
            destination.alarm(on=True)
            publish(source, BACKLOG)
            destination.alarm(on=False)
            wait_until(lambda: "empty in about" in bridge.status()["sentence"], "a time to drain", interval_s=0.1)
            page = open_page(running, bridge)
            page.screenshot(path=SCREENSHOT if folder is None else folder / "page.png")
            page.context.close()
            if folder is None:
                return
            photograph(running, bridge, folder, "busy")
            destination.alarm(on=True)
            publish(source, 5000)
            wait_until(lambda: "blocked" in bridge.get("/readyz")[1], "the destination to block")
            photograph(running, bridge, folder, "blocked")
            destination.alarm(on=False)
            source.kill()
            wait_until(lambda: not bridge.is_ready(), "the source to be missed")
            photograph(running, bridge, folder, "broken")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
