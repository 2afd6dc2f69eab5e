"""The quarantine's channel, sans-I/O: where messages go that the destination can never take.

It is a channel of the source's connection, beside the one that consumes. Messages are published as soon as they are
condemned, many before the first is confirmed, each with the reason in its headers; none expires there. A message is
acked only when a confirm names it beyond doubt. A message that the quarantine does not accept goes back to the window.

Whether its channel is open is one state. Every pair that is not in the table is a bug and raises:

| event       | CLOSED  | OPENING | OPEN   |
|-------------|---------|---------|--------|
| open        | OPENING |         |        |
| opened      | CLOSED  | OPEN    |        |
| unavailable | CLOSED  | CLOSED  |        |
| closed      | CLOSED  | CLOSED  | CLOSED |
| source lost | CLOSED  | CLOSED  | CLOSED |

A channel that is closed while it is being opened stays so, whatever the answer to its opening is then.

A *return* carries no number: with several messages on their way nobody can tell which of them it is about, nor whose
confirm follows. It means that the queue is gone, so the channel counts as closed. Whatever was on its way is published
again, to a queue that was declared again: it may be there twice, and is never lost.

A *close* stands for one of those on their way, as it does at the destination (see `blame`): they are published again
one by one, until the guilty one closes the channel alone. That one is parked, tried again rarely, and alone each time.

What it does not do: condemn messages, and account for them, which is `window`'s.
"""

from __future__ import annotations

from enum import Enum
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from bridge.amqp.content import header_frame, header_frame_size, long_string, reframe, without_expiration
from bridge.amqp.events import Close, Confirm, Delivery, Return
from bridge.amqp.fitting import Fitted, clipped, fit
from bridge.amqp.frames import QUARANTINE_CHANNEL, publish_frame, split_route
from bridge.amqp.pieces import LARGE_BYTES, Pieces
from bridge.amqp.preparer import ContentPreparer, HeaderPolicy
from bridge.amqp.target import Target
from bridge.errors import MalformedFrameError
from bridge.window.blame import Blame, SizeLimit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.relay.backoff import Backoff
    from bridge.window.blame import Verdict
    from bridge.window.window import Window

MOST_MESSAGES = 256
MOST_BYTES = 4 << 20
"""What may be on its way at once: so many messages, and contents of so many bytes together (one more at the most)."""
REFUSED_AGAIN_S = 60.0
"""How long a message that closed the channel alone is left alone: each try costs a channel."""
UNANSWERED_AGAIN_S = (30.0, 300.0)
"""How long a quarantine that did not answer is left alone: twice as long each time, within these bounds. A publish to a
broker with an alarm stops the whole connection, and each try then costs a generation; but it may have been the broker
that froze, which says nothing of the quarantine."""
REPLY_TEXT_BYTES = 255
"""Of a reply text this much is kept: what a broker's own can have at the most."""
MOST_COUNTED = (1 << 63) - 1
"""Highest delivery count that a header of type `l` holds: anybody may have written one."""

PREPARER = ContentPreparer(HeaderPolicy())
"""Whatever the settings let cross: the source, too, would refuse another's `user_id` and route copies by `CC`, and a
message that is moved back would be condemned for the delivery count that it has from before."""


class Quarantined(NamedTuple):
    """A message that the quarantine has confirmed, for the log."""

    delivery: Delivery
    verdict: Verdict


class Channel(Enum):
    """Whether the quarantine's channel is open."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"

    def after(self, event: ChannelEvent) -> Channel:
        """Return the state that follows. Raises `ValueError` for an event that cannot happen now."""
        state = TRANSITIONS[event].get(self)
        if state is None:
            message = f"{event.value} cannot happen to a quarantine that is {self.value}"
            raise ValueError(message)
        return state


class ChannelEvent(Enum):
    """What happens to the quarantine's channel."""

    OPEN = "open"
    OPENED = "opened"
    UNAVAILABLE = "unavailable"
    CLOSED = "closed"
    SOURCE_LOST = "source lost"


TRANSITIONS: dict[ChannelEvent, dict[Channel, Channel]] = {
    ChannelEvent.OPEN: {Channel.CLOSED: Channel.OPENING},
    ChannelEvent.OPENED: {Channel.CLOSED: Channel.CLOSED, Channel.OPENING: Channel.OPEN},
    ChannelEvent.UNAVAILABLE: {Channel.CLOSED: Channel.CLOSED, Channel.OPENING: Channel.CLOSED},
    ChannelEvent.CLOSED: dict.fromkeys(Channel, Channel.CLOSED),
    ChannelEvent.SOURCE_LOST: dict.fromkeys(Channel, Channel.CLOSED),
}


class Quarantine:
    """The quarantine of one window; it is closed at first, and with every end of the source's generation."""

    def __init__(
        self, window: Window, queue: str, backoff: Backoff, source_queue: str = "", added: Iterable[bytes] = ()
    ) -> None:
        """`backoff` says when to open a channel again that keeps failing.

        `added` are headers that messages have on request (see `additions`): a message that is too large only by them is
        quarantined without.
        """
        self._added = sorted(added)
        self._window = window
        self._source_queue = source_queue.encode()
        self._target = Target.queue(queue)
        self._publish = publish_frame(QUARANTINE_CHANNEL, self._target.route)
        self._backoff = backoff
        self._unix_ahead_s = 0.0
        """How far the wall clock is ahead of the monotonic one, as of the last tick."""
        self._open_at_s = -inf
        """Before then the channel is not to be opened."""
        self._unanswered = 0
        """How often in a row it did not answer in time."""
        self._confirmed: list[Quarantined] = []
        """What it has confirmed, until that is taken to be logged."""

        self._channel = Channel.CLOSED
        self._next_seqno = 1
        """Publish sequence numbers start at 1 with each opening."""
        self._published: dict[int, Delivery] = {}
        """What is on its way, by publish_seqno, in that order."""
        self._published_bytes = 0
        self._unwritten: Pieces | None = None
        """A large content of which the channel has been given a part."""
        self._of_use = False
        """Whether it has confirmed anything since it was opened, or told which message it does not accept."""

        # What a close said of deliveries of this source generation.
        self._blame = self._new_blame()
        self._guilty: set[int] = set()
        """Delivery tags of those that closed the channel alone: each is published with no other beside it."""

    def _new_blame(self) -> Blame:
        """What the quarantine refuses is held: it has no quarantine of its own."""
        return Blame(SizeLimit(), self._target, quarantine=False)

    # --- The channel -------------------------------------------------------------------------------------

    @property
    def opening(self) -> bool:
        """Whether the channel is being opened just now: the broker's answers are waited for."""
        return self._channel is Channel.OPENING

    def rests(self, now_s: float) -> bool:
        """Whether the channel is left alone for now."""
        return self._channel is Channel.CLOSED and now_s < self._open_at_s

    def wanted(self, now_s: float) -> bool:
        """Whether messages wait for the channel, and it should be opened now."""
        wanted = self._channel is Channel.CLOSED and bool(self._window.condemned) and not self.rests(now_s)
        return wanted and self._unwritten is None  # the broker takes a close in the middle of a message for an error

    def open(self) -> None:
        """The channel is being opened."""
        self._channel = self._channel.after(ChannelEvent.OPEN)

    def opened(self) -> None:
        """The queue exists, and the channel is open with confirms."""
        self._channel = self._channel.after(ChannelEvent.OPENED)
        self._next_seqno = 1
        self._of_use = False

    def unavailable(self, now_s: float) -> None:
        """The channel could not be opened: hold all that it was for."""
        self._channel = self._channel.after(ChannelEvent.UNAVAILABLE)
        self._open_at_s = now_s + self._backoff.begin_delay_s(now_s)
        self._window.quarantine_unavailable(now_s)

    def unanswered(self, now_s: float) -> None:
        """No answer has come in time, and the source's generation ends for it: leave the quarantine alone."""
        shortest_s, longest_s = UNANSWERED_AGAIN_S
        self._open_at_s = now_s + min(longest_s, shortest_s * 2.0 ** min(self._unanswered, 8))
        self._unanswered += 1

    def source_lost(self) -> None:
        """The connection is gone; the window forgets what was bound for the quarantine by itself."""
        self._channel = self._channel.after(ChannelEvent.SOURCE_LOST)
        self._unwritten = None
        self._forget_published()
        self._blame = self._new_blame()
        self._guilty.clear()

    def closed(self, close: Close, now_s: float) -> None:
        """The broker closed the channel: find out which message it did so for, if any."""
        self._unwritten = None
        if self._channel is not Channel.OPEN:
            self._closes(now_s)
            return
        ruling = self._blame.convict([*self._published.values()], close, now_s)
        for delivery in ruling.guilty:
            self._guilty.add(delivery.delivery_tag)
            self._of_use = True  # it has told which message it does not accept
            text = f"the quarantine refuses it too: {close.reply_code} {close.reply_text}"
            self._window.quarantine_refused(delivery.delivery_tag, now_s, text, REFUSED_AGAIN_S)
        if Blame.names_a_message(close):
            self._closes(now_s)
            self._window.quarantine_interrupted()
        else:
            self._fails(now_s)

    def _fails(self, now_s: float) -> None:
        """It is the quarantine that accepts nothing: declare its queue again at once; hold all if that did not help."""
        of_use = self._of_use
        self._closes(now_s)
        if of_use:
            self._window.quarantine_interrupted()
        else:
            self._window.quarantine_unavailable(now_s)

    def _closes(self, now_s: float) -> None:
        self._channel = self._channel.after(ChannelEvent.CLOSED)
        if self._of_use:
            self._backoff.reset()
            self._open_at_s = now_s
        else:
            self._open_at_s = max(self._open_at_s, now_s + self._backoff.begin_delay_s(now_s))
        self._of_use = False
        self._forget_published()

    def _forget_published(self) -> None:
        self._published.clear()
        self._published_bytes = 0

    # --- Out ---------------------------------------------------------------------------------------------

    def tick(self, now_s: float, unix_s: float) -> None:
        """Let time pass: `unix_s` is what the wall clock shows."""
        self._unix_ahead_s = unix_s - now_s

    def take_publishes(self, frame_max: int, now_s: float) -> list[bytes]:
        """Hand over the next frames for the source, as many as may be on their way; `frame_max` is the source's."""
        output: list[bytes] = []
        if self._channel is not Channel.OPEN:
            return output
        window = self._window
        while window.condemned and self._has_room_for(window.condemned[0][0].delivery_tag):
            delivery, verdict = window.quarantine_asked()
            try:
                fitted = self._header_with_reasons(delivery, verdict, frame_max, now_s + self._unix_ahead_s)
                size = header_frame_size(delivery.content)
                text = f"its headers ({size} bytes) are larger than the source's frame_max ({frame_max})"
            except MalformedFrameError as error:
                fitted, text = None, f"its headers cannot be read: {error}"
            if fitted is None:
                # Parked for good: nothing will change that for as long as this connection lasts.
                window.quarantine_refused(delivery.delivery_tag, now_s, text, inf)
                continue
            window.books.headers_left_out += fitted.left_out
            self._published[self._next_seqno] = delivery
            self._published_bytes += len(delivery.content)
            self._next_seqno += 1
            output.append(self._publish)
            if len(delivery.content) >= LARGE_BYTES:
                self._unwritten = Pieces(delivery.content, QUARANTINE_CHANNEL, frame_max, header=fitted.header)
            else:
                content = fitted.header + delivery.content[header_frame_size(delivery.content) :]
                output.append(reframe(content, QUARANTINE_CHANNEL, frame_max))
        return output

    def take_piece(self) -> list[bytes | memoryview]:
        """Hand over the next piece of a large message, if any, to be written after what `take_publishes` returned."""
        if self._unwritten is None:
            return []
        if piece := self._unwritten.take():
            return [piece]
        self._unwritten = None
        return []

    def _has_room_for(self, delivery_tag: int) -> bool:
        if self._unwritten is not None:
            return False
        if not self._published:
            return True
        if self._blame.suspects or delivery_tag in self._guilty:
            return False
        first = next(iter(self._published.values()))
        full = len(self._published) >= MOST_MESSAGES or self._published_bytes >= MOST_BYTES
        return not full and first.delivery_tag not in self._guilty

    # --- In ----------------------------------------------------------------------------------------------

    def answered(self, event: Confirm | Return, now_s: float) -> None:
        """Take an answer: a confirm, or a return. Raises `MalformedFrameError` for a number that was never used.

        It raises for 0, too, which in AMQP stands for all that is unconfirmed: the broker cannot mean publishes that
        have not reached it yet, and it is unknown which those are. RabbitMQ confirms by number.
        """
        if self._channel is not Channel.OPEN:
            return  # of a channel that has been given up: what it was about is published again
        if isinstance(event, Return):
            self._fails(now_s)
            return
        number = event.publish_seqno
        if not 0 < number < self._next_seqno:
            message = f"a confirm of publish {number} to the quarantine, and only {self._next_seqno - 1} were made"
            raise MalformedFrameError(message)
        if event.multiple:
            answered = [*takewhile(lambda seqno: seqno <= number, self._published)]
        else:
            answered = [number] if number in self._published else []
        for seqno in answered:
            self._answered(self._published.pop(seqno), now_s, accepted=event.accepted)

    def _answered(self, delivery: Delivery, now_s: float, *, accepted: bool) -> None:
        tag = delivery.delivery_tag
        self._published_bytes -= len(delivery.content)
        self._blame.judged(tag)
        if not accepted:
            self._window.quarantine_refused(tag, now_s)
            return
        self._of_use = True
        self._unanswered = 0
        self._guilty.discard(tag)
        if (quarantined := self._window.quarantined(tag)) is not None:
            self._confirmed.append(Quarantined(*quarantined))

    def take_confirmed(self) -> list[Quarantined]:
        """Hand over what it has confirmed."""
        confirmed, self._confirmed = self._confirmed, []
        return confirmed

    def _header_with_reasons(
        self, delivery: Delivery, verdict: Verdict, frame_max: int, unix_s: float
    ) -> Fitted | None:
        """Return the header frame to publish; None when it is too large."""
        header = header_frame(delivery.content)
        delivery_count = delivery.delivery_count
        if (prepared := PREPARER.prepare(header)) is not None:
            header = prepared.header
            delivery_count = delivery_count or prepared.delivery_count  # which may be none of this queue's
        header, expiration = without_expiration(header)
        exchange, routing_key = split_route(delivery.route)
        # From the most to the least useful: the last gives way first where not all fit.
        additions = {b"x-bridge-reason": long_string(verdict.reason.encode())}
        if expiration:
            additions[b"x-bridge-expiration"] = long_string(expiration)
        if self._source_queue:
            additions[b"x-bridge-queue"] = long_string(self._source_queue)
        additions |= {b"x-bridge-routing-key": long_string(routing_key), b"x-bridge-exchange": long_string(exchange)}
        additions[b"x-bridge-reply-code"] = b"I" + verdict.reply_code.to_bytes(4, "big")
        if delivery_count:
            count = min(delivery_count, MOST_COUNTED)
            additions[b"x-bridge-delivery-count"] = b"l" + count.to_bytes(8, "big", signed=True)
        additions[b"x-bridge-time"] = b"T" + int(unix_s).to_bytes(8, "big")
        additions[b"x-bridge-reply-text"] = long_string(clipped(verdict.reply_text.encode(), REPLY_TEXT_BYTES))
        return fit(header, frame_max, additions, shortened=b"x-bridge-reply-text", dispensable=self._added)
