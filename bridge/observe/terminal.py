"""The status document in a terminal: `amqp-bridge status`, plain lines or, on a terminal, live with rich.

It asks a running bridge by `remote`, which has made what others wrote fit to be shown, and needs none of its settings.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from bridge.observe.address import NoStatusError
from bridge.observe.remote import fetch
from bridge.observe.sentence import clock, duration, number, where
from bridge.observe.text import as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import RenderableType

    from bridge.observe.document import Document

EVERY_S = 1.0
"""How often `--watch` asks."""
SHOWN_EVENTS = 10
READY, NOT_READY, UNREACHABLE = 0, 1, 69
"""Exit codes; 69 is EX_UNAVAILABLE."""
UNKNOWN = "unknown"


def status(  # noqa: PLR0913 - each a choice of the command line, but for `sleep`
    url: str,
    *,
    watch: bool,
    in_json: bool,
    write: Callable[[str], object],
    live: bool,
    ask: Callable[[str], Document] = fetch,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Show the status; return the exit code of the last answer. `live` redraws, which needs rich.

    `ask` returns the document from a URL, and raises `NoStatusError`.
    """
    asked = partial(ask, url)
    show = _json if in_json else _plain
    if not watch:
        return _once(asked, show, write)
    if live and not in_json:
        try:
            return _live(asked, sleep)
        except ModuleNotFoundError as error:
            if error.name != "rich":
                raise
            sys.stderr.write(
                "amqp-bridge: a live view needs rich (pip install 'amqp-bridge[terminal]'); plain lines:\n"
            )
    while True:
        _once(asked, _json_line if in_json else _line, write)
        sleep(EVERY_S)


def _once(ask: Callable[[], Document], show: Callable[[Document], str], write: Callable[[str], object]) -> int:
    try:
        document = ask()
    except NoStatusError as error:
        sys.stderr.write(f"amqp-bridge: {error}\n")
        return UNREACHABLE
    write(f"{show(document)}\n")
    return READY if document["readiness"]["ready"] else NOT_READY


# --- Text ------------------------------------------------------------------------------------------------


def _json(document: Document) -> str:
    return as_json(document, indent=2)


def _json_line(document: Document) -> str:
    return as_json(document)


def _line(document: Document) -> str:
    return f"{document['bridge']['now'][11:19]} {word(document)}: {document['sentence']}"


def _plain(document: Document) -> str:
    rows = list(facts(document))
    width = max(len(name) for name, _ in rows)
    lines = [f"{word(document)}: {document['sentence']}", ""]
    lines += [f"{name:{width}}  {text}" for name, text in rows]
    events = document["events"][:SHOWN_EVENTS]
    lines += [
        "",
        "last events (UTC)",
        *(f"  {_when(event, document)} {event['level']:8} {event['text']}" for event in events),
    ]
    return "\n".join(lines)


def word(document: Document) -> str:
    """Return the state in a word."""
    readiness = document["readiness"]
    if not readiness["ready"]:
        return "not ready"
    if readiness["paused"]:
        return "paused"
    return "degraded" if readiness["degraded"] else "ready"


def _when(event: Mapping[str, str], document: Document) -> str:
    return clock(event["at"], document["bridge"]["now"], seconds=True, zone="")


def facts(document: Document) -> Iterator[tuple[str, str]]:
    """Yield what there is to know, by name."""
    now, books = document["bridge"]["now"], document["books"]
    window, consumer = document["window"], document["consumer"]
    for name in ("source", "destination"):
        yield name, _side(document[name], document["backlog"][name], now)
    pace = ", ".join(f"{_rate(rate['forwarded'])} over {span}" for span, rate in document["rates"].items())
    yield "forwarded/s", pace
    confirm = document["latency"]["1m"]["confirm_s"]
    yield "confirm, 1m", ", ".join(f"{name} {_seconds(value)}" for name, value in confirm.items())
    yield "received", f"{books['received']:,}"
    yield (
        "  =",
        f"forwarded {books['forwarded']:,} + suppressed {books['suppressed']:,} + quarantined "
        f"{sum(books['quarantined'].values()):,} + requeued {sum(books['requeued'].values()):,} + stale "
        f"{sum(books['stale'].values()):,} + in flight {sum(books['in_flight'].values()):,}"
        + (f" (unaccounted for: {books['imbalance']:,})" if books["imbalance"] else ""),
    )
    yield "duplicates", f"{books['duplicates_possible']:,} possible"
    yield "in flight", f"{window['held']:,} held, {window['published']:,} published, {window['bytes']:,} bytes"
    consuming = "consuming" if consumer["consuming"] else "not consuming"
    yield "consumer", f"{consuming}, {consumer['state']}, {consumer['prefetch_in_use']:,} of {consumer['prefetch']:,}"
    yield "up", f"{duration(document['bridge']['uptime_s'])}, version {document['bridge']['version']}"


def _side(side: Document, backlog: Document, now: str) -> str:
    since = f" since {clock(side['since'], now)}" if side["since"] else ""
    parts = [f"{where(side)}, {side['state']}{since}"]
    if side["reason"]:
        parts.append(side["reason"])
    if side.get("blocked"):
        parts.append(f"blocked since {clock(side['blocked_since'], now)}: {side['blocked_reason']}")
    for key, what in (("messages_ready", "waiting"), ("messages_kept", "kept")):
        if backlog.get(key) is not None:
            parts.append(f"{number(backlog[key])} {what}")
    if side["last_end"] is not None:
        parts.append(f"generation {side['generation']}, the last ended by {side['last_end']['reason']}")
    return "; ".join(parts)


def _rate(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value * 1000:.3g} ms"


# --- With rich -------------------------------------------------------------------------------------------


def _live(ask: Callable[[], Document], sleep: Callable[[float], None]) -> int:
    """Redraw until the signal that ends it."""
    from rich.live import Live  # noqa: PLC0415 - an extra of the package

    with Live(auto_refresh=False, screen=True) as view:
        while True:
            try:
                drawn = drawing(ask())
            except NoStatusError as error:
                drawn = unreachable(str(error))
            view.update(drawn, refresh=True)
            sleep(EVERY_S)


COLOURS = {
    "ready": "green",
    "paused": "yellow",
    "degraded": "yellow",
    "not ready": "red",
    "warning": "yellow",
    "error": "red",
}


def drawing(document: Document) -> RenderableType:
    """Return what rich draws of a document; its text is text and no markup."""
    from rich.console import Group  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    state = word(document)
    table = Table.grid(padding=(0, 2))
    for name, text in facts(document):
        table.add_row(Text(name, style="dim"), Text(text))
    waiting = [point["waiting"] for point in document["history"]]
    table.add_row(Text("waiting, 15m", style="dim"), Text(sparkline(waiting)))
    forwarded = [point["forwarded"] for point in document["history"]]
    table.add_row(Text("forwarded/s, 15m", style="dim"), Text(sparkline(forwarded)))
    events = Table.grid(padding=(0, 2))
    for event in document["events"][:SHOWN_EVENTS]:
        level = event["level"]
        events.add_row(
            Text(_when(event, document), style="dim"), Text(level, style=COLOURS.get(level, "")), Text(event["text"])
        )
    title = f"{document['source']['queue']}, {document['bridge']['now'][11:19]} UTC"
    return Group(
        Panel(Text(document["sentence"], style="bold"), title=Text(f"{state}: {title}"), border_style=COLOURS[state]),
        table,
        Text("\nlast events (UTC)", style="bold"),
        events,
    )


def unreachable(text: str) -> RenderableType:
    """Return what rich draws while no status is available."""
    from rich.panel import Panel  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    return Panel(Text(text), title="unreachable", border_style="red")


BLOCKS = "▁▂▃▄▅▆▇█"
SPARKS = 60


def sparkline(values: list[float | None]) -> str:
    """Return the last values as a line of blocks, a space where one is not known."""
    shown = values[-SPARKS:]
    top = max((value for value in shown if value is not None), default=0.0) or 1.0
    return "".join(" " if v is None else BLOCKS[min(len(BLOCKS) - 1, int(v / top * len(BLOCKS)))] for v in shown)
