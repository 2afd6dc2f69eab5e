"""The page at `/`: the status document drawn for a person, in one self-contained HTML document.

It is whole without scripts. With them it fetches itself again and replaces what has changed, so that everything is
drawn here and once. It asks nobody else for anything, and its content security policy keeps it so.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bridge.observe.markup import Markup, element, join
from bridge.observe.plots import Line, Part, bars, plot
from bridge.observe.sentence import clock, duration, number, where

if TYPE_CHECKING:
    from bridge.observe.document import Document

STYLE = Markup(files("bridge.observe").joinpath("page.css").read_text("utf-8"))
SCRIPT = Markup(files("bridge.observe").joinpath("page.js").read_text("utf-8"))
REFRESH = Markup('<noscript><meta http-equiv="refresh" content="5"></noscript>')


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
PAGE_HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
UNKNOWN = "\N{EN DASH}"
WORDS = {"ok": "Ready", "paused": "Paused", "degraded": "Ready, degraded", "down": "Not ready"}


def page(document: Document) -> str:
    """Return the page."""
    state = _state(document)
    what = f"{document['source']['queue']} to {_target(document)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{WORDS[state]}: {what}"),
        element("link", rel="icon", href="data:,"),
        REFRESH,
        element("style", STYLE),
    )
    body = element(
        "body",
        element(
            "header",
            element("h1", f"amqp-bridge: {what}"),
            element("button", "Pause updates", id="pause", type="button", hidden="", aria_pressed="false"),
        ),
        element("p", id="offline", class_="offline", role="alert", hidden=""),
        # What is told to a screen reader by itself changes with the state, not with each number.
        element("p", WORDS[state], id="word", class_="unseen", role="status", data_live=""),
        element("main", *_main(document, state)),
        _footer(document),
        element("script", SCRIPT),
    )
    return f"<!doctype html>{element('html', head, body, lang='en')}"


def _main(document: Document, state: str) -> list[Markup]:
    return [
        _sentence(document, state),
        element("div", _side(document, "source"), _side(document, "destination"), class_="grid"),
        element("div", *_plots(document), id="plots", class_="grid", data_live=""),
        _books(document),
        element("div", _pace(document), _window(document), class_="grid"),
        _events(document),
    ]


def _state(document: Document) -> str:
    readiness = document["readiness"]
    if not readiness["ready"]:
        return "down"
    if readiness["paused"]:
        return "paused"
    return "degraded" if readiness["degraded"] else "ok"


def _target(document: Document) -> str:
    destination = document["destination"]
    return where(destination)


# --- Sections --------------------------------------------------------------------------------------------


def _sentence(document: Document, state: str) -> Markup:
    readiness = document["readiness"]
    told = [*readiness["reasons"], *(f"degraded: {text}" for text in readiness["degraded"])]
    # A single one stands in the sentence.
    reasons = element("ul", *(element("li", text) for text in told)) if len(told) > 1 else None
    said = document["sentence"]
    shown = said[:1].upper() + said[1:]
    return element(
        "div", element("b", WORDS[state]), shown, reasons, id="state", class_=f"{state} sentence", data_live=""
    )


def _side(document: Document, name: str) -> Markup:
    side, backlog, now = document[name], document["backlog"][name], document["bridge"]["now"]
    since = f" since {clock(side['since'], now)}" if side["since"] else ""
    blocked = side.get("blocked")
    state = element("span", f"{side['state']}{since}", class_="up" if side["state"] == "connected" else "not")
    there = where(side)
    if side.get("routing_key"):
        there = f"{there}, key {side['routing_key']}"
    end = side["last_end"]
    rows: dict[str, str | Markup | None] = {
        "queue" if side["queue"] else "to": there,
        "state": state,
        "blocked": f"since {clock(side['blocked_since'], now)}: {side['blocked_reason']}" if blocked else None,
        "reason": side["reason"] or None,
        "broker": side["url"] or None,
        "warning": side["warning"] or None,
        "generation": f"{side['generation']:,}" if side["generation"] else None,
        "last end": f"{end['reason']} at {clock(end['at'], now)}: {end['text']}" if end else None,
        **_backlog(backlog, now),
    }
    return element("section", element("h2", name.capitalize()), _list(rows), id=name, data_live="")


def _backlog(backlog: Document, now: str) -> dict[str, str | Markup | None]:
    if backlog["unknown"]:
        return {"waiting": f"unknown: {backlog['unknown']}"}
    asked = f" (asked at {clock(backlog['asked'], now)})" if backlog["asked"] else ""
    if "messages_kept" in backlog:
        return {"keeps": f"{number(backlog['messages_kept'])} messages, read or not{asked}"}
    return {
        "waiting": f"{number(backlog['messages_ready'])} messages{asked}",
        "consumers": number(backlog["consumers"]),
    }


def _plots(document: Document) -> list[Markup]:
    now = _unix(document["bridge"]["now"])
    history = [(now - _unix(point["at"]), point) for point in document["history"]]

    def line(name: str, key: str, kind: str) -> Line:
        return Line(name, [(ago_s, point[key]) for ago_s, point in history], kind)

    return [
        plot(
            "Messages per second",
            [line("received", "received", "in"), line("forwarded", "forwarded", "out")],
            lambda value: f"{number(value)}/s",
        ),
        plot("Waiting in the source queue", [line("messages", "waiting", "waiting")], number),
        plot("Publish to confirm", [line("p99", "confirm_p99_s", "latency")], _seconds),
    ]


def _books(document: Document) -> Markup:
    books = document["books"]
    parts = [
        Part("forwarded", books["forwarded"], "forwarded"),
        Part("suppressed (redelivered, and forwarded before)", books["suppressed"], "suppressed"),
        Part("quarantined", sum(books["quarantined"].values()), "quarantined"),
        Part("requeued", sum(books["requeued"].values()), "requeued"),
        Part("stale (the source's connection ended)", sum(books["stale"].values()), "stale"),
        Part("held", books["in_flight"]["held"], "held"),
        Part("published, not confirmed", books["in_flight"]["published"], "published"),
    ]
    missing = books["imbalance"]
    balance = (
        element("p", f"The books do not balance. Unaccounted for: {missing:,}.", class_="balance not")
        if missing
        else element("p", "The books balance: every message received is accounted for.", class_="balance")
    )
    rows = [
        element(
            "tr",
            element("th", element("span", class_=f"swatch {part.kind}"), part.name, scope="row"),
            element("td", f"{part.messages:,}", class_="number"),
        )
        for part in parts
    ]
    total = element(
        "tr",
        element("th", element("span", class_="swatch received"), "received", scope="row"),
        element("td", f"{books['received']:,}", class_="number"),
        class_="total",
    )
    more = {
        "possible duplicates": f"{books['duplicates_possible']:,}",
        "publishes repeated": _by_reason(books["publish_retries"]),
        "quarantined": _by_reason(books["quarantined"]),
        "requeued": _by_reason(books["requeued"]),
    }
    return element(
        "section",
        element("h2", "Books since the process began"),
        bars(books["received"], parts) if books["received"] else element("p", "Nothing has been received yet."),
        balance,
        element("table", element("tbody", *rows, total)),
        _list({name: text for name, text in more.items() if text}),
        id="books",
        data_live="",
    )


def _by_reason(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {times:,}" for reason, times in sorted(counts.items()))


def _pace(document: Document) -> Markup:
    spans = list(document["rates"])
    latency = document["latency"]
    rates: dict[str, list[str]] = {
        "received /s": [_or_dash(document["rates"][span]["received"]) for span in spans],
        "forwarded /s": [_or_dash(document["rates"][span]["forwarded"]) for span in spans],
    }
    for quantity, shown in (("confirm_s", "confirm"), ("residence_s", "receive to ack")):
        for quantile in ("p50", "p99"):
            values = [latency[span][quantity][quantile] for span in spans]
            rates[f"{shown} {quantile}"] = [UNKNOWN if value is None else _seconds(value) for value in values]
    head = element("tr", element("td"), *(element("th", span, scope="col", class_="number") for span in spans))
    rows = [
        element("tr", element("th", name, scope="row"), *(element("td", text, class_="number") for text in texts))
        for name, texts in rates.items()
    ]
    table = element("table", element("thead", head), element("tbody", *rows))
    return element("section", element("h2", "Pace"), table, id="pace", data_live="")


def _window(document: Document) -> Markup:
    window, consumer = document["window"], document["consumer"]
    using = f"{consumer['prefetch_in_use']:,} of {consumer['prefetch']:,}"
    rows: dict[str, str | Markup | None] = {
        "consumer": f"{'consuming' if consumer['consuming'] else 'not consuming'}, {consumer['state']}",
        "prefetch": using,
        "in flight": f"{window['held']:,} held, {window['published']:,} published",
        "publish window": f"{window['publish_window']:,}",
        "memory": f"{_bytes(window['bytes'])} of {_bytes(window['max_bytes'])}",
        "oldest": duration(window["oldest_s"]) if window["oldest_s"] is not None else None,
        "quarantine": consumer["quarantine_queue"] or "none",
    }
    return element("section", element("h2", "Window"), _list(rows), id="window", data_live="")


def _events(document: Document) -> Markup:
    now = document["bridge"]["now"]
    rows = [
        element(
            "tr",
            element("td", element("time", clock(event["at"], now, seconds=True, zone=""), datetime=event["at"])),
            element("td", event["level"]),
            element("td", event["text"]),
            class_=f"level-{event['level']}",
        )
        for event in document["events"]
    ]
    head = element("tr", *(element("th", name, scope="col") for name in ("UTC", "level", "what")))
    table = element("table", element("thead", head), element("tbody", *rows), class_="events")
    shown = table if rows else element("p", "Nothing has happened yet.")
    return element("section", element("h2", "Last events"), shown, id="events", data_live="")


def _footer(document: Document) -> Markup:
    bridge = document["bridge"]
    links = [element("a", path, href=path) for path in ("/status", "/metrics", "/readyz", "/healthz")]
    said = f"amqp-bridge {bridge['version']}, Python {bridge['python']}, up {duration(bridge['uptime_s'])}"
    text = element("p", f"{said}, as of {bridge['now'][11:19]} UTC", id="version", data_live="")
    return element("footer", text, element("p", *links))


# --- Small parts -----------------------------------------------------------------------------------------


def _list(rows: dict[str, str | Markup | None]) -> Markup:
    pairs = [join([element("dt", name), element("dd", value)]) for name, value in rows.items() if value is not None]
    return element("dl", *pairs)


def _or_dash(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)


def _seconds(value: float) -> str:
    """Return a short time with the unit that fits."""
    if value < 1:
        return f"{value * 1000:.2g} ms" if value < 0.01 else f"{value * 1000:.0f} ms"  # noqa: PLR2004
    return f"{value:.1f} s"


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:  # noqa: PLR2004
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def _unix(timestamp: Any) -> float:  # noqa: ANN401 - of the document
    return datetime.fromisoformat(timestamp).timestamp()
