"""What one bridge has heard and said, read apart from it: it may settle and publish only what this allows."""

from __future__ import annotations

from collections import Counter
from struct import unpack_from
from typing import TYPE_CHECKING

from pamqp.header import ContentHeader

from bridge.amqp.content import message_id
from bridge.amqp.events import Close, Confirm, Deliveries, Delivery, Dropped, Event, Return
from bridge.amqp.frames import QUARANTINE_CHANNEL, split_route
from tests.simulation.link import Frame, FrameReader
from tests.simulation.messages import kept

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from bridge.window.window import Window
    from tests.simulation.draining import Errand
    from tests.simulation.ledger import Ledger
    from tests.simulation.messages import Keeps, Key, Message

ACK, NACK = b"\0\x3c\0\x50", b"\0\x3c\0\x78"


class Witness:
    """Deliveries and publishes of the present generations."""

    def __init__(self, window: Window, ledger: Ledger, keeps: Keeps, errand: Errand | None = None) -> None:
        self._window = window
        self._keeps = keeps
        self._ledger = ledger
        self._errand = errand
        self._reader = FrameReader()
        self.unsettled: dict[int, Delivery] = {}
        self.published: dict[int, tuple[int, Delivery]] = {}
        """By publish_seqno: the delivery and its tag; tag 0 for one that was given up: an orphan, or requeued."""
        self._dropped: set[int] = set()
        """Delivery tags of what was not read when memory was full: each must be requeued."""
        self.left_over = 0
        """What was in the window when the consumer began: not requeued, since it was published."""
        self._returned: Counter[Message] = Counter()
        """Returns of which the confirm is still to come."""
        self._in_doubt: set[int] = set()
        """Publish_seqnos that a return may have been about, as far as the bridge can know: their confirms may count."""
        self._may_ack: set[int] = set()
        """Delivery tags of those that were confirmed."""
        self._confirmed: set[int] = set()
        """Delivery tags of which the destination has a copy: each must be acked at once."""
        self._next_seqno = 1
        self._to_quarantine: dict[int, Key] = {}
        """What is on its way to the quarantine, by publish_seqno."""
        self._quarantine_seqno = 0
        self._assembly: list[Frame] = []
        self._quarantined: Counter[Key] = Counter()
        """What the quarantine has confirmed beyond doubt and is not acked yet."""

    # --- The source --------------------------------------------------------------------------------------

    def hears_source(self, events: Iterable[Event]) -> None:
        """Deliveries have come, or answers of the quarantine."""
        for event in events:
            if isinstance(event, Deliveries):
                self.unsettled |= {d.delivery_tag: d for d in event.items}
            elif isinstance(event, Dropped):
                self._dropped.add(event.delivery_tag)
            elif isinstance(event, Confirm) and event.channel == QUARANTINE_CHANNEL:
                number, many = event.publish_seqno, event.multiple
                for seqno in [n for n in self._to_quarantine if n == number or (many and n < number)]:
                    self._quarantined[self._to_quarantine.pop(seqno)] += event.accepted
            elif isinstance(event, Return | Close) and event.channel == QUARANTINE_CHANNEL:
                self._to_quarantine.clear()  # which of them it is about nobody can tell

    def opens_quarantine(self) -> None:
        """Its channel is being opened: numbers start at 1, and nothing that was on its way is confirmed any more."""
        self._to_quarantine.clear()
        self._quarantine_seqno = 0

    def _says_to_quarantine(self, frame: Frame) -> None:
        self._assembly = [frame] if frame.kind == 1 else [*self._assembly, frame]
        if len(self._assembly) == 1:
            return
        _, header, *body_frames = self._assembly
        body = b"".join(part.payload for part in body_frames)
        properties = ContentHeader()
        properties.unmarshal(header.payload)
        if len(body) == properties.body_size:
            self._quarantine_seqno += 1
            message_id, headers = properties.properties.message_id or "", properties.properties.headers or {}
            key = self._ledger.quarantined(message_id, body, headers).key
            waiting = [self._message(d).key for d in self.unsettled.values()]
            assert key in waiting, "invariant 2: quarantines what is stale or settled"
            self._to_quarantine[self._quarantine_seqno] = key

    def says_to_source(self, raw: bytes) -> None:
        """Check acks and nacks (invariants 1, 2 and 6)."""
        for frame in self._reader.feed(raw):
            called = frame.payload[:4]
            if frame.kind == 1 and frame.channel == 1 and called in {ACK, NACK}:
                tag, bits = unpack_from(">QB", frame.payload, 4)
                if tag in self._dropped:
                    assert called == NACK, f"invariant 1: acks {tag}, which was not read"
                    self._dropped.discard(tag)
                    continue
                assert tag in self.unsettled, f"invariant 2: settles {tag}, which is not in the window"
                for settled in [t for t in self.unsettled if t == tag or (bits & 1 and t < tag)]:
                    self._settles(settled, acks=called == ACK)
            elif frame.channel == QUARANTINE_CHANNEL:
                self._says_to_quarantine(frame)
        not_acked = self._confirmed & self._in_window().keys()
        assert not not_acked, f"{not_acked} confirmed, and not acked"

    def _in_window(self) -> dict[int, Delivery]:
        """What is not settled, without that of which the ack or the requeue is withheld for a moment."""
        settlement = self._window.settlement
        return {
            t: d
            for t, d in self.unsettled.items()
            if t not in settlement.requeues
            and t not in settlement.kept
            and not any(t == tag or (many and t < tag) for tag, many in settlement.acks)
        }

    def _settles(self, tag: int, *, acks: bool) -> None:
        delivery = self.unsettled.pop(tag)
        assert tag not in {t for t, _ in self.published.values()}, f"settles {tag}, which is published"
        assert not (acks and self._unwanted(delivery)), f"filter: acks {tag}, which does not match"
        if tag in self._confirmed:
            assert acks, f"requeues {tag}, of which there is a copy"
            self._confirmed.discard(tag)
            self._may_ack.discard(tag)
        elif tag in self._may_ack:
            self._may_ack.discard(tag)
        elif acks:
            key = self._message(delivery).key
            if self._quarantined[key]:
                self._quarantined[key] -= 1
            else:
                # A redelivery may have been suppressed: the ledger knows whether there is a copy.
                again = delivery.redelivered or (self._ledger.stream and self._is_here_or_there(key))
                assert again, f"invariant 1: acks {tag}, which nobody has confirmed"

    def _is_here_or_there(self, key: Key) -> bool:
        """Whether there is a copy of a stream's message, or another delivery of it that is not settled."""
        return self._ledger.stored[key] > 0 or any(self._message(d).key == key for d in self.unsettled.values())

    def _unwanted(self, delivery: Delivery) -> bool:
        """Whether it is not to be moved."""
        key = split_route(delivery.route)[1].decode()
        return self._errand is not None and not self._errand.wants(key)

    def source_lost(self) -> None:
        """All deliveries are stale."""
        self.unsettled.clear()
        self._dropped.clear()
        self._confirmed.clear()
        self._may_ack.clear()
        self._quarantined.clear()
        self._to_quarantine.clear()
        self.give_up_published()

    def give_up_published(self) -> None:
        """What is published is an orphan, or is requeued nevertheless: its confirm allows no ack."""
        self.published = {n: (0, d) for n, (_, d) in self.published.items()}

    # --- The destination ---------------------------------------------------------------------------------

    def says_to_destination(self, deliveries: list[Delivery]) -> None:
        """Check what is published, and in which order (invariants 2 and 5)."""
        live = {tag for tag, _ in self.published.values()}
        assert 0 not in live, "invariant 2: publishes while orphans are out"
        for delivery in deliveries:
            tag = delivery.delivery_tag
            received = self.unsettled.get(tag)
            assert received is not None, f"invariant 2: publishes {tag}, which is stale or settled"
            # What the bridge moved may be left out where it does not fit; the destination looks at what is published.
            narrow = self._message(received).narrow
            assert received == (delivery._replace(content=received.content) if narrow else delivery), "invariant 7"
            assert tag not in live, f"publishes {tag} twice at once"
            assert not self._unwanted(received), f"filter: publishes {tag}, which does not match"
            live.add(tag)
            self.published[self._next_seqno] = tag, received
            self._next_seqno += 1
        window = self._window
        before = {t: d for t, d in self._in_window().items() if t < deliveries[-1].delivery_tag and t not in live}
        overtaken = [t for t, d in before.items() if not (window.passed(d) or self._unwanted(d))]
        assert not overtaken, f"invariant 5: {overtaken} overtaken"

    def hears_destination(self, events: Iterable[Event], returned: deque[int]) -> None:
        """Confirms and returns have come; `returned` says what the returns are about."""
        for event in events:
            if isinstance(event, Return):
                self._hears_return(event, returned.popleft())
            elif isinstance(event, Confirm):
                number, multiple = event.publish_seqno, event.multiple
                for covered in [n for n in self.published if n == number or (multiple and n < number)]:
                    self._hears_confirm(covered, accepted=event.accepted)

    def _hears_return(self, event: Return, publish_seqno: int) -> None:
        it = self._message(self.published[publish_seqno][1])
        self._returned[it] += 1
        mangled = message_id(event.content) != it.properties.get("message_id", b"").decode()
        others = {n: self._message(d) for n, (_, d) in self.published.items()}
        like = {n: m for n, m in others.items() if mangled or (m.key[:2], m.route) == (it.key[:2], it.route)}
        if any(message is not it for message in like.values()):
            self._in_doubt |= like.keys()

    def _hears_confirm(self, publish_seqno: int, *, accepted: bool) -> None:
        tag, delivery = self.published.pop(publish_seqno)
        in_doubt = publish_seqno in self._in_doubt
        self._in_doubt.discard(publish_seqno)
        if not accepted:
            return
        # Of several that are alike, the first confirm is taken for that of the returned one.
        message = self._message(delivery)
        if self._returned[message]:
            self._returned[message] -= 1
        elif tag and in_doubt:
            self._may_ack.add(tag)
        elif tag:
            self._confirmed.add(tag)

    def _message(self, of: Delivery | Return) -> Message:
        exchange, key = (part.decode() for part in split_route(of.route))
        return self._ledger.message(of.content, kept(self._keeps, exchange, key))

    def destination_lost(self) -> None:
        """What was published is held again."""
        self.published.clear()
        self._returned.clear()
        self._in_doubt.clear()
        self._next_seqno = 1

    # --- The books ---------------------------------------------------------------------------------------

    def audit(self) -> None:
        """Hold the window's numbers to what is truly in it (invariants 3 and 4)."""
        window, books = self._window, self._window.books
        assert books.imbalance == 0, f"invariant 3: {books.imbalance}"
        published = sum(tag > 0 for tag, _ in self.published.values())
        assert books.published == published, f"{books.published} published in the books, and truly {published}"
        in_window = self._in_window()
        assert window.in_flight == len(in_window), f"{window.in_flight} in flight, truly {len(in_window)}"
        most = window.limits.prefetch + self.left_over + 1  # a consumer that is being replaced may be sent one more
        assert window.in_flight <= most, f"invariant 4: {window.in_flight} in flight, at most {most} allowed"
        unwanted = sum(map(self._unwanted, in_window.values()))
        assert window.withheld >= unwanted, f"{window.withheld} withheld, of {unwanted} that do not match"
        size_bytes = sum(len(d.content) for d in in_window.values() if not self._unwanted(d))
        exactly = window.withheld == unwanted  # of what is beyond the number nobody here knows which it is
        assert books.bytes_in_flight == size_bytes or (books.bytes_in_flight < size_bytes and not exactly), (
            f"{books.bytes_in_flight} bytes in flight, truly {size_bytes}"
        )
        foreign = [d.delivery_tag for d, v in window.condemned if v.reason == "delivery-limit" and not d.redelivered]
        assert not foreign, f"{foreign} bound for the quarantine by a delivery count that is not the queue's"
        orphans = len(self.published) - published
        assert window.orphans == orphans, f"{window.orphans} orphans, truly {orphans}"
