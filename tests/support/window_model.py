"""A naive model of the window and of the brokers around it: lists and dictionaries, obviously right and slow.

`WindowMachine` lets anything happen in any order that the protocol allows, and after every step holds the
window to its invariants by their numbers. Wherever the schedule ends, both brokers then become healthy and
everything must be settled: nothing is lost and nothing is stuck.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.amqp.events import Close, Delivery, Return
from bridge.amqp.identity import identity
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import ACKED_S, PAUSE_S, REMEMBERED_S, Memory
from bridge.window.window import Window
from tests.support.frames import PERSISTENT, content, delivery, table, text
from tests.support.targets import QUEUE

if TYPE_CHECKING:
    from bridge.amqp.target import Target

LIMITS = WindowLimits(
    prefetch=40, max_in_flight_bytes=2000, confirm_timeout_s=30.0, hold_timeout_s=60.0, delivery_limit=20
)
CLOSES = (
    *(None, Close(0, 320, "CONNECTION_FORCED"), Close(1, 404, "no exchange"), Close(1, 403, "no permission")),
    *(Close(1, 406, "PRECONDITION_FAILED"), Close(1, 541, "INTERNAL_ERROR")),
    Close(1, 406, "message size 3 is larger than configured max size 2"),
)
VARIANTS = (0, 0, 0, 1, 2)
"""Messages that share an id and a body: as it is, with a header, with another routing key."""
Kind = tuple[bytes, bytes, int]
"""Body, id and variant: what tells a message from all others."""
HEALING_S = 1.0
HEALED_WITHIN = 400


@dataclass
class Message:
    """One message at the source, over all its deliveries."""

    number: int
    body: bytes
    message_id: bytes
    variant: int = 0
    redelivered: bool = False

    @property
    def kind(self) -> Kind:
        """What tells it from all others, where it has an id."""
        return self.body, self.message_id, self.variant


@dataclass
class Publish:
    """One publish that the destination has not confirmed."""

    delivery: Delivery
    stale: bool = False
    """Of a source generation that has ended, or requeued: no ack may follow."""
    orphan: bool = False
    returned: bool = False
    doubtful: bool = False
    """A return may be about it: it counts for nothing."""
    back: bool = False
    """The return that left a doubt was about it."""


@dataclass
class Source:
    """What the source's broker knows of the bridge's channel."""

    unsettled: dict[int, tuple[Message, Delivery]] = field(default_factory=dict)
    next_tag: int = 1
    consuming: bool = False
    releasing: str = ""
    passed: set[int] = field(default_factory=set)
    """Delivery tags that others may overtake: refused by the destination alone, or bound for the quarantine."""
    credits: Counter[bytes] = field(default_factory=Counter)
    """Confirmed copies that allow an ack, by content: a return cannot tell equal contents apart."""
    may_ack: set[int] = field(default_factory=set)
    """Delivery tags that may be acked without a copy of this generation: suppressed or quarantined."""
    quarantining: set[int] = field(default_factory=set)
    """Delivery tags that were published to the quarantine and are not answered."""
    in_quarantine: set[int] = field(default_factory=set)
    may_requeue: set[int] = field(default_factory=set)
    retry_tags: set[int] = field(default_factory=set)


class WindowMachine(RuleBasedStateMachine):
    """Both brokers and time, around one window."""

    limits = LIMITS
    target: Target = QUEUE

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.books = Books()
        self.window = Window(self.limits, self.target, self.books, Memory(enabled=True), lambda: 0.5)
        self.queue: list[Message] = []
        self.numbers = count(1)
        self.source: Source | None = None
        self.destination = False
        self.blocked = False
        self.pending: dict[int, Publish] = {}
        self.next_seqno = 1
        self.received = self.forwarded = self.suppressed = self.quarantined = self.requeued = self.stale = 0
        # The memory, naively.
        self.acked: list[tuple[float, bytes]] = []
        self.copies: Counter[bytes] = Counter()
        self.returned_to_queue: Counter[bytes] = Counter()
        # How many messages there have been, and how many copies at the destination or in quarantine.
        self.sent: Counter[Kind] = Counter()
        self.arrived: Counter[Kind] = Counter()
        self.known: dict[tuple[bytes, bytes], Kind] = {}
        self.expires_s: float | None = None
        self.ticked_s = 0.0
        self.heard_s = self.received_s = 0.0

    @initialize(messages=st.integers(0, 60))
    def healthy(self, messages: int) -> None:
        """Both sides are up and there is work."""
        self.messages_are_published([(b"d" * 300 if n % 9 == 0 else b"a", n % 3 > 0) for n in range(messages)])
        self.source_opens()
        self.destination_opens()
        self.consuming_begins()

    @rule(number=st.integers(1, 40))
    def traffic(self, number: int) -> None:
        """As it mostly is: messages come, are delivered and published."""
        self.messages_are_published([(b"a", n % 4 > 0) for n in range(number - len(self.queue))])
        if self.source is None:
            self.source_opens()
        if not self.destination:
            self.destination_opens()
        if self.source and not self.source.consuming and not self.source.releasing:
            self.consuming_begins()
        if self.source and self.source.consuming:
            self.source_delivers(number, 0)
            self.all_invariants_hold()
        self.publishes_are_taken(1 << 20)

    # --- The source ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.source is None)
    @rule()
    def source_opens(self) -> None:
        """A generation begins."""
        self.source = Source()
        self.window.source_opened()

    @precondition(lambda self: self.source and not self.source.consuming and not self.source.releasing)
    @rule()
    def consuming_begins(self) -> None:
        """Only with a destination, and when the orphans are resolved: `relay` sees to it."""
        assert self.source is not None
        if self.window.destination_ready and not self.window.orphans:
            self.source.consuming = True
            self.window.memory.consuming(self.now_s)
            if self.expires_s is None:
                self.expires_s = self.now_s + REMEMBERED_S

    @rule(
        bodies=st.lists(
            st.tuples(st.sampled_from((b"", b"a", b"bb", b"ccc", b"d" * 300)), st.booleans()), min_size=1, max_size=20
        )
    )
    def messages_are_published(self, bodies: list[tuple[bytes, bool]]) -> None:
        """At the source, by whoever uses the bridge; some without an id, many alike."""
        for body, has_id in bodies:
            number = next(self.numbers)
            self._send(Message(number, body, b"m-%d" % number if has_id else b""))

    @precondition(lambda self: self.arrived)
    @rule(data=st.data())
    def a_message_comes_round_again(self, data: st.DataObject) -> None:
        """With its id and its body, to be tried again: as it is, or with a header or key that says so."""
        body, message_id, _ = data.draw(st.sampled_from(sorted(self.arrived)))
        self._send(Message(next(self.numbers), body, message_id, data.draw(st.sampled_from(VARIANTS))))

    @precondition(lambda self: self.source and self.source.consuming and self.queue)
    @rule(number=st.integers(1, 40), counts=st.sampled_from((0, 0, 0, 1, 16, 17)))
    def source_delivers(self, number: int, counts: int) -> None:
        """As much as the prefetch allows; reading is paused when memory is full."""
        source = self.source
        assert source is not None
        run: list[Delivery] = []
        in_memory = sum(len(d.content) for _, d in source.unsettled.values())
        while self.queue and len(run) < number and len(source.unsettled) < self.limits.prefetch:
            if in_memory >= self.limits.max_in_flight_bytes:
                break
            message = self.queue.pop(0)
            properties = PERSISTENT | ({"message_id": message.message_id} if message.message_id else {})
            if message.variant == 1:
                properties |= {"headers": table({"x-retry": text("1")})}
            run.append(
                delivery(
                    source.next_tag,
                    message.body,
                    properties,
                    redelivered=int(message.redelivered),
                    delivery_count=counts if message.redelivered else 0,
                    routing_key="other" if message.variant == 2 else "key",
                    received_s=self.now_s,
                )
            )
            source.unsettled[source.next_tag] = (message, run[-1])
            self.known[run[-1].route, run[-1].content] = message.kind
            in_memory += len(run[-1].content)
            source.next_tag += 1
        self.received += len(run)
        if run:
            self.heard_s += min(self.now_s - self.received_s, PAUSE_S)
            self.received_s = self.now_s
        for d in run:
            key = identity(d.route, d.content)
            if d.redelivered and key is not None and self.copies[key]:
                self.copies[key] -= 1
                source.may_ack.add(d.delivery_tag)
                self.suppressed += 1
            elif source.releasing:
                source.may_requeue.add(d.delivery_tag)
        notable = any(d.redelivered or d.delivery_count for d in run)
        if run:
            self.window.receive(run, self.now_s, notable=notable)
        suppressed = {tag for tag, multiple in self.window.settlement.acks if not multiple}
        assert suppressed == source.may_ack, "exactly the covered redeliveries are acked at once"

    @precondition(lambda self: self.source and self.source.consuming and self.queue)
    @rule()
    def a_delivery_is_dropped(self) -> None:
        """Memory is short: no more than its delivery tag is kept, and it goes back.

        Not one that is in the queue twice: what was dropped is not known to be the other's like.
        """
        source, message = self.source, self.queue[0]
        assert source is not None
        if self.sent[message.kind] > 1 and message.message_id:
            return
        self.received += 1
        self.requeued += 1
        self.window.drop(source.next_tag, redelivered=int(message.redelivered), reason="memory")
        message.redelivered = True
        assert self.window.settlement.take_requeues() == [source.next_tag]
        source.next_tag += 1

    @precondition(lambda self: self.source and self.source.unsettled)
    @rule(killed=st.booleans())
    def source_is_lost(self, *, killed: bool = False) -> None:
        """Its unsettled messages return to the queue's head, redelivered.

        A classic queue that was killed flags all others, too. Byte-for-byte twins among them are one message.
        """
        source = self.source
        assert source is not None
        for message in self.queue if killed else ():
            message.redelivered |= self.sent[message.kind] == 1
        self.stale += len(source.unsettled)
        published = {publish.delivery.delivery_tag for publish in self._live()}
        self._return_to_queue(list(source.unsettled))
        self.source = None
        for publish in self.pending.values():
            publish.orphan = publish.orphan or not publish.stale
            publish.stale = True
        for acked_s, key in self.acked:
            if self.heard_s - acked_s < ACKED_S:
                self.copies[key] += 1
        self.acked.clear()
        held = [d for tag, (_, d) in source.unsettled.items() if tag not in published]
        for unforwarded in (*(identity(d.route, d.content) for d in held), *+self.returned_to_queue):
            del self.copies[unforwarded or b""]
        self.expires_s = None
        self.window.source_lost()

    @precondition(lambda self: self.source and self.source.unsettled and not self.source.releasing)
    @rule()
    def held_messages_are_given_back(self) -> None:
        """The consumer is being cancelled; what is on its way still comes."""
        source = self.source
        assert source is not None
        source.releasing = "hold-timeout"
        waiting = {p.delivery.delivery_tag for p in self._live()}
        waiting |= source.quarantining
        source.may_requeue |= source.unsettled.keys() - waiting
        self.window.release("hold-timeout")
        assert {*self.window.settlement.requeues} == source.unsettled.keys() - waiting

    @precondition(lambda self: self.source and self.source.releasing)
    @rule()
    def the_consumer_is_gone(self) -> None:
        """`cancel-ok` has come."""
        assert self.source is not None
        self.source.releasing = ""
        self.source.consuming = False
        self.window.released()

    @precondition(lambda self: self.source and self.source.releasing and (self.pending or self.source.quarantining))
    @rule()
    def published_messages_are_given_back(self) -> None:
        """Time is up for a shutdown: what the destination still says is not heard."""
        assert self.source is not None
        self.source.may_requeue |= self.source.unsettled.keys()
        self.source.quarantining.clear()
        for publish in self._live():
            publish.stale = True
        self.window.release_published("shutdown")
        self.window.release("shutdown")
        assert {*self.window.settlement.requeues} == self.source.unsettled.keys()
        self.destination_is_lost(None)

    # --- The destination -----------------------------------------------------------------------------------

    @precondition(lambda self: not self.destination)
    @rule()
    def destination_connects(self) -> None:
        """A connection begins, after one that failed, too."""
        self.blocked = False
        self.window.destination_connecting()

    @precondition(lambda self: not self.destination)
    @rule()
    def destination_opens(self) -> None:
        """A generation begins, blocked or not."""
        self.destination, self.next_seqno = True, 1
        self.window.destination_opened()

    @precondition(lambda self: self.destination)
    @rule(close=st.sampled_from(CLOSES))
    def destination_is_lost(self, close: Close | None) -> None:
        """With or without a word; what it blames may be anything that is published."""
        live = self._live()
        if self.source is not None:
            if close is not None and close.reply_code in {403, 406, 541} and len(live) == 1:
                self.source.passed.add(live[0].delivery.delivery_tag)
            if close is not None and "max size" in close.reply_text:
                self.source.passed |= {p.delivery.delivery_tag for p in live if p.delivery.body_size > 2}
        self.destination = self.blocked = False
        for publish in self.pending.values():
            if publish.orphan and (key := identity(publish.delivery.route, publish.delivery.content)) is not None:
                self._uncover(key)
        self.pending.clear()
        self.window.destination_lost(close, self.now_s)

    @precondition(lambda self: not self.blocked)
    @rule()
    def destination_is_blocked(self) -> None:
        """`connection.blocked`, perhaps before the generation begins."""
        self.blocked = True
        self.window.destination_blocked(self.now_s)

    @precondition(lambda self: self.blocked)
    @rule()
    def destination_is_unblocked(self) -> None:
        """`connection.unblocked`."""
        self.blocked = False
        self.window.destination_unblocked(self.now_s)

    @rule(max_bytes=st.sampled_from((1, 100, 1 << 20)))
    def publishes_are_taken(self, max_bytes: int) -> None:
        """What is written to the destination, checked for whose and in which order it is (invariants 2, 5 and 7)."""
        before = len(self.pending)
        taken = self.window.take(max_bytes, self.now_s)
        if not taken:
            return
        assert self.destination
        assert not self.blocked
        assert before + len(taken) <= self.window.publish_window
        source = self.source
        assert source is not None, "invariant 2: published for a source generation that has ended"
        assert not any(publish.orphan for publish in self.pending.values()), "invariant 2: while orphans are out"
        live = {publish.delivery.delivery_tag for publish in self._live()}
        tags = [d.delivery_tag for d in taken]
        assert tags == sorted(set(tags)), "invariant 5"
        assert not live & set(tags), "published twice at once"
        for d in taken:
            assert d.delivery_tag in source.unsettled, "invariant 2: published, but settled"
            assert d is source.unsettled[d.delivery_tag][1], "invariant 7"
            self.pending[self.next_seqno] = Publish(d)
            self.next_seqno += 1
        source.passed |= {d.delivery_tag for d, _ in self.window.condemned}
        overtaken = {tag for tag in source.unsettled if tag < tags[-1]} - live - set(tags) - source.passed
        assert not overtaken, f"invariant 5: {overtaken} overtaken by {tags}"

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), multiple=st.booleans(), accepted=st.sampled_from((True, True, True, False)))
    def destination_confirms(self, data: st.DataObject, *, multiple: bool, accepted: bool) -> None:
        """In any order, one or several, taken or refused; what was returned is always taken."""
        seqno = data.draw(st.sampled_from(sorted(self.pending)))
        covered = [s for s in self.pending if s == seqno or (multiple and s < seqno)]
        if any(self.pending[s].returned or self.pending[s].back for s in covered):
            accepted = True
        self._confirm(seqno, covered, multiple=multiple, accepted=accepted)

    @precondition(lambda self: self.pending)
    @rule()
    def destination_confirms_everything(self) -> None:
        """Sequence number 0 with multiple: all that is out."""
        self._confirm(0, list(self.pending), multiple=True, accepted=True)

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), recognisable=st.sampled_from((True, True, True, False)))
    def destination_returns(self, data: st.DataObject, *, recognisable: bool) -> None:
        """No route; of several that are alike, the window takes the first for it, and any of those that are not."""
        candidates = [seqno for seqno, publish in self.pending.items() if not (publish.returned or publish.back)]
        if not candidates:
            return
        wanted = self.pending[data.draw(st.sampled_from(candidates))]
        d = wanted.delivery
        returned = d.content if recognisable else content(b"beyond recognition")
        self.window.returned(Return(1, 312, "NO_ROUTE", d.route, returned, d.body_size))
        may_be = [p for p in self.pending.values() if not recognisable or self._fits(p.delivery, d)]
        classes = {self._looks(p.delivery) for p in may_be if not p.returned}
        if len(classes) == 1:
            alike = (p for p in self.pending.values() if {self._looks(p.delivery)} == classes)
            next(p for p in alike if not (p.returned or p.back)).returned = True
        else:
            wanted.back = True
            for p in self.pending.values():
                p.doubtful |= self._looks(p.delivery) in classes

    def _fits(self, published: Delivery, returned: Delivery) -> bool:
        """Whether the one may have become the other: a broker adds headers, and takes none."""
        keys = published.route == returned.route or not self.target.keeps_keys
        (body, message_id, variant), other = self._kind(published), self._kind(returned)
        return keys and (body, message_id) == other[:2] and (variant != 1 or other[2] == 1)

    def _looks(self, d: Delivery) -> tuple[bytes, bytes]:
        """What a return cannot tell apart."""
        return d.route if self.target.keeps_keys else b"", d.content

    # --- The quarantine and time ---------------------------------------------------------------------------

    @precondition(lambda self: self.window.condemned)
    @rule(number=st.integers(1, 5))
    def quarantine_is_asked(self, number: int) -> None:
        """The first of the condemned are published to it, whatever else is on its way."""
        assert self.source is not None
        for asked in [*self.window.condemned][:number]:
            assert self.window.quarantine_asked() is asked
            self.source.quarantining.add(asked[0].delivery_tag)
            self.source.passed.add(asked[0].delivery_tag)

    @precondition(lambda self: self.source and self.source.quarantining)
    @rule(data=st.data(), taken=st.booleans())
    def quarantine_answers(self, data: st.DataObject, *, taken: bool) -> None:
        """For any that is on its way."""
        assert self.source is not None
        self._quarantine_answers(data.draw(st.sampled_from(sorted(self.source.quarantining))), taken=taken)

    def _quarantine_answers(self, tag: int, *, taken: bool) -> None:
        source = self.source
        assert source is not None
        source.quarantining.remove(tag)
        if not taken:
            self.window.quarantine_refused(tag, self.now_s)
            return
        source.may_ack.add(tag)
        source.in_quarantine.add(tag)
        self.quarantined += 1
        self.arrived[self._kind(source.unsettled[tag][1])] += 1
        found = self.window.quarantined(tag)
        assert found is not None
        assert found[0].delivery_tag == tag
        assert self.window.quarantined(tag) is None, "an answer counts once"

    @precondition(lambda self: self.source and (self.source.quarantining or self.window.condemned))
    @rule(available=st.booleans())
    def quarantine_is_closed(self, *, available: bool) -> None:
        """What is on its way gets no answer; where it cannot be opened again, what waits for it is held, too."""
        assert self.source is not None
        self.source.quarantining.clear()
        self.source.passed |= {d.delivery_tag for d, _ in self.window.condemned}
        if available:
            self.window.quarantine_interrupted()
        else:
            self.window.quarantine_unavailable(self.now_s)
            assert not self.window.condemned

    @rule(seconds=st.sampled_from((0.1, 0.5, 3.0, 10.0, 61.0, 301.0)))
    def time_passes(self, seconds: float) -> None:
        """What is aside for `hold_timeout` is requeued."""
        self.now_s += seconds
        if self.source is not None:
            self.source.may_requeue |= self.source.passed
        if self.expires_s is not None and self.window.trouble.lasts:
            self.expires_s += self.now_s - self.ticked_s  # nothing was taken, so nothing was redelivered
        self.ticked_s = self.now_s
        if self.expires_s is not None and self.now_s >= self.expires_s:
            self.copies.clear()
            self.expires_s = None
        self.window.tick(self.now_s)

    # --- What must hold ------------------------------------------------------------------------------------

    @invariant()
    def all_invariants_hold(self) -> None:
        """By their numbers, after every step; 7 and the order of 5 where something is published."""
        self.settles_only_what_it_may()
        self.books_balance()
        self.memory_is_bounded()

    def settles_only_what_it_may(self) -> None:
        """Invariants 1, 2 and 6: applies what the window decided, acks with `multiple` tag by tag."""
        window, source = self.window, self.source
        if source is None:
            assert not window.settlement.acks, "invariant 2"
            assert not window.settlement.requeues, "invariant 2"
            return
        for tag, multiple in window.settlement.acks:
            covered = sorted(t for t in source.unsettled if t == tag or (multiple and t < tag))
            assert tag in covered, f"invariant 1: acks {tag}, which is not unsettled"
            for acked in covered:
                self._ack(acked)
        for tag in window.settlement.requeues:
            assert tag in source.unsettled, f"invariant 6: requeues {tag}, which is not unsettled"
            assert tag in source.may_requeue, f"invariant 6: requeues {tag} without need"
        self._requeue(window.settlement.requeues)
        window.settlement.acks.clear()
        window.settlement.requeues.clear()
        assert not source.may_ack, "suppressed or quarantined, and not acked"
        assert not +source.credits, "confirmed, and not acked"

    def books_balance(self) -> None:
        """Invariant 3, and every number in it."""
        books = self.books
        assert books.imbalance == 0
        assert books.received == self.received
        assert books.forwarded == self.forwarded
        assert books.suppressed == self.suppressed
        assert sum(books.quarantined.values()) == self.quarantined
        assert sum(books.requeued.values()) == self.requeued
        assert books.stale_held + books.stale_published == self.stale
        unsettled = {} if self.source is None else self.source.unsettled
        assert self.window.in_flight == len(unsettled)
        assert books.published == len(self._live())
        assert self.window.orphans == sum(publish.orphan for publish in self.pending.values())
        assert sum(books.residence_seconds.counts) == books.forwarded
        assert sum(books.size_bits) == books.received

    def memory_is_bounded(self) -> None:
        """Invariant 4."""
        unsettled = {} if self.source is None else self.source.unsettled
        size_bytes = sum(len(d.content) for _, d in unsettled.values())
        assert self.books.bytes_in_flight == size_bytes
        waits = self.source is not None and bool(self.source.releasing or self.source.quarantining)
        assert self.window.quarantining == (0 if self.source is None else len(self.source.quarantining))
        assert self.window.full == (size_bytes >= self.limits.max_in_flight_bytes and not waits)
        assert len(unsettled) <= self.limits.prefetch
        assert self.window.oldest_received_s == min((d.received_s for _, d in unsettled.values()), default=None)

    def teardown(self) -> None:
        """All becomes healthy: whatever the schedule left behind is settled, and no message is lost."""
        self.settles_only_what_it_may()
        for _ in range(HEALED_WITHIN):
            if not self.queue and not (self.source and self.source.unsettled):
                break
            self._heal()
        assert not self.queue, "messages are stuck at the source"
        assert self.source is None or not self.source.unsettled, "messages are stuck in the window"
        assert not self.sent - self.arrived, "lost: suppressed in the place of another that is like them"

    def _heal(self) -> None:
        self.now_s += HEALING_S
        if not self.destination:
            self.destination_opens()
        if self.blocked:
            self.destination_is_unblocked()
        if self.pending:
            self.destination_confirms_everything()
        if self.source is None:
            self.source_opens()
        assert self.source is not None
        if self.source.releasing:
            self.the_consumer_is_gone()
        if not self.source.consuming:
            self.consuming_begins()
        self.time_passes(0.0)
        self.settles_only_what_it_may()
        if self.source.consuming and self.queue:
            self.source_delivers(40, 0)
        if self.window.condemned:
            self.quarantine_is_asked(len(self.window.condemned))
        for tag in sorted(self.source.quarantining):
            self._quarantine_answers(tag, taken=True)
        self.settles_only_what_it_may()
        self.publishes_are_taken(1 << 20)
        self.all_invariants_hold()

    # --- Within --------------------------------------------------------------------------------------------

    def _live(self) -> list[Publish]:
        return [publish for publish in self.pending.values() if not publish.stale]

    def _kind(self, of: Delivery) -> Kind:
        return self.known[of.route, of.content]

    def _send(self, message: Message) -> None:
        self.sent[message.kind] += 1
        self.queue.append(message)

    def _ack(self, tag: int) -> None:
        assert self.source is not None
        source = self.source
        _, d = source.unsettled.pop(tag)
        key = identity(d.route, d.content)
        if tag in source.may_ack:
            source.may_ack.discard(tag)
        else:
            source.credits[d.content] -= 1
            assert source.credits[d.content] >= 0, f"invariant 1: acks {tag}, of which no copy arrived"
            self.forwarded += 1
            if d.redelivered and key is not None and self.returned_to_queue[key]:
                self.returned_to_queue[key] -= 1
        if key is not None and tag not in source.in_quarantine:
            self.acked.append((self.heard_s, key))

    def _requeue(self, tags: list[int]) -> None:
        assert self.source is not None
        self._return_to_queue(tags)
        self.requeued += len(tags)
        for tag in tags:
            _, d = self.source.unsettled.pop(tag)
            if (key := identity(d.route, d.content)) is not None:
                self._uncover(key)

    def _uncover(self, key: bytes) -> None:
        """One like this comes back and has not been forwarded."""
        self.returned_to_queue[key] += 1
        del self.copies[key]

    def _return_to_queue(self, tags: list[int]) -> None:
        assert self.source is not None
        messages = [self.source.unsettled[tag][0] for tag in tags]
        for message in messages:
            message.redelivered = True
        self.queue = sorted([*messages, *self.queue], key=lambda message: message.number)

    def _confirm(self, seqno: int, covered: list[int], *, multiple: bool, accepted: bool) -> None:
        for s in sorted(covered):
            looks = self._looks(self.pending[s].delivery)
            alike = [p for p in self.pending.values() if self._looks(p.delivery) == looks]
            publish = self.pending.pop(s)
            d = publish.delivery
            if accepted and any(p.returned for p in alike):
                # Which of them was returned cannot be told: the first confirm is taken for its.
                other = next(p for p in alike if p.returned)
                other.returned, other.back = publish.returned, publish.back
                publish.returned, publish.back = True, False
            key = identity(d.route, d.content)
            arrived = accepted and not (publish.returned or publish.back)
            self.arrived[self._kind(d)] += arrived
            taken = arrived and not publish.doubtful
            if publish.orphan:
                if taken and key is not None:
                    self.copies[key] += 1
                elif key is not None:
                    self._uncover(key)
            elif publish.stale:
                continue
            elif taken:
                assert self.source is not None
                self.source.credits[d.content] += 1
            elif publish.returned:
                assert self.source is not None
                self.source.passed.add(d.delivery_tag)
        self.window.confirm(seqno, self.now_s, multiple=multiple, accepted=accepted)
