"""The quarantine's channel, sans-I/O: where messages go that the destination can never take.

It is a channel of the source's connection, beside the one that consumes. Messages are published one at a
time, so that an answer cannot be mistaken for that of another, each with the reason in its headers; none expires
there. A message that the quarantine does not take goes back to the window.

What it does not do: condemn messages, and account for them, which is `window`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.amqp.content import (
    ContentPreparer,
    HeaderPolicy,
    header_frame,
    long_string,
    reframe,
    with_headers,
    without_expiration,
)
from bridge.amqp.events import Confirm, Delivery, Return
from bridge.amqp.frames import QUARANTINE_CHANNEL, publish_frame, route, split_route

if TYPE_CHECKING:
    from bridge.window.blame import Verdict
    from bridge.window.window import Window

PREPARER = ContentPreparer(HeaderPolicy(delivery_count="keep"))
"""Whatever the settings let cross: the source, too, would refuse another's `user_id` and route copies by `CC`."""


class Quarantined(NamedTuple):
    """A message that the quarantine has confirmed, for the log."""

    delivery: Delivery
    verdict: Verdict


class Quarantine:
    """The quarantine of one window; it is closed at first, and with every end of the source's generation."""

    def __init__(self, window: Window, queue: str) -> None:
        self._confirmed: list[Quarantined] = []
        """What it confirmed since somebody last looked."""
        self._window = window
        self._publish = publish_frame(QUARANTINE_CHANNEL, route("", queue))
        self._open = False
        self.opening = False
        """Whether the channel is being opened just now: the broker's answers are waited for."""
        self._returned = False
        """Whether what was published last came back: its confirm, which follows, is none."""

    @property
    def wanted(self) -> bool:
        """Whether messages wait for the channel, which is not open yet."""
        return bool(self._window.condemned) and not self._open

    def open(self) -> None:
        """The channel is being opened."""
        self.opening = True

    def opened(self) -> None:
        """The queue is there, and the channel is open with confirms."""
        self._open, self.opening = True, False

    def take_confirmed(self) -> list[Quarantined]:
        """Hand over what it has confirmed."""
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def source_lost(self) -> None:
        """The connection is gone; the window forgets what was condemned by itself."""
        self._open = self.opening = False

    def closed(self, now_s: float) -> None:
        """The channel was closed, or could not be opened: hold all that it was for."""
        self._open = self.opening = False
        for _ in range(len(self._window.condemned)):
            self._window.quarantine_refused(now_s)

    def publishes(self, frame_max: int, now_s: float, unix_s: float) -> list[bytes]:
        """Return the next frames for the source, none while an answer is awaited; `frame_max` is the source's."""
        window = self._window
        if not self._open or window.quarantining or not window.condemned:
            return []
        content = _with_reasons(*window.condemned[0], frame_max, unix_s)
        if 0 < frame_max < int.from_bytes(content[3:7], "big"):
            window.quarantine_refused(now_s)  # its header leaves no room for the reasons
            return []
        window.quarantine_asked()
        self._returned = False
        return [self._publish, content]

    def answered(self, event: Confirm | Return, now_s: float) -> None:
        """Take an answer of the quarantine: a return, whose confirm follows, or a confirm."""
        if isinstance(event, Return):
            self._returned = True
        elif not self._window.quarantining:
            pass  # time was up, and what it is about was given back
        elif event.accepted and not self._returned:
            self._confirmed.append(Quarantined(*self._window.quarantined()))
        elif self._returned:
            self.closed(now_s)  # its queue is gone: it is declared when the channel is opened anew
        else:
            self._window.quarantine_refused(now_s)


def _with_reasons(delivery: Delivery, verdict: Verdict, frame_max: int, unix_s: float) -> bytes:
    exchange, routing_key = split_route(delivery.route)
    reasons = {
        b"x-bridge-reason": long_string(verdict.reason.encode()),
        b"x-bridge-reply-code": b"I" + verdict.reply_code.to_bytes(4, "big"),
        b"x-bridge-reply-text": long_string(verdict.reply_text.encode()),
        b"x-bridge-exchange": long_string(exchange),
        b"x-bridge-routing-key": long_string(routing_key),
        b"x-bridge-time": b"T" + int(unix_s).to_bytes(8, "big"),
    }
    content = delivery.content
    header = header_frame(content)
    if (prepared := PREPARER.prepare(header)) is not None:
        content = prepared.header + content[len(header) :]
    content, expiration = without_expiration(content)
    if expiration:
        reasons[b"x-bridge-expiration"] = long_string(expiration)
    return reframe(with_headers(content, reasons), QUARANTINE_CHANNEL, frame_max)
