"""The quarantine: what is published to it, how much at once, and what its answers do."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.amqp.additions import Additions
from bridge.amqp.events import Confirm
from bridge.amqp.pieces import LARGE_BYTES, PIECE_BYTES
from bridge.amqp.preparer import HeaderPolicy
from bridge.errors import MalformedFrameError
from bridge.relay.quarantine import MOST_BYTES, MOST_MESSAGES, TRANSITIONS, Channel, ChannelEvent
from bridge.window.pace import RETRY_MAX_S
from tests.support import frames
from tests.support.frames import PERSISTENT, confirm, content, deliver, returned, table, text
from tests.support.relay_scene import Bridge, M, ack, condemned, publish, quarantining, reasons

RETURNED_OFTEN = dict.fromkeys(("x-acquired-count", "x-delivery-count"), b"l" + pack(">q", 17))
FORWARDED = publish() + content(b"m", PERSISTENT | {"headers": table({"k": b"V"})})
POISON = "PRECONDITION_FAILED - why"


def answer(publish_seqno: int, *, multiple: bool = False, accepted: bool = True) -> bytes:
    """A confirm of the quarantine."""
    return confirm(publish_seqno, multiple=multiple, accepted=accepted, channel=2)


def published(bridge: Bridge) -> list[str]:
    """Bodies of what has been published to the quarantine since last asked."""
    raw, found = bridge.to_source(), []
    start = publish("sq.quarantine", channel=2)
    while (at := raw.find(start)) >= 0:
        raw = raw[at + len(start) :]
        header_size = 8 + int.from_bytes(raw[3:7], "big")
        size = int.from_bytes(raw[header_size + 3 : header_size + 7], "big")
        found.append(raw[header_size + 7 : header_size + 7 + size].decode())
    return found


def poisoned(*bodies: str) -> Bridge:
    """A bridge whose destination refuses these messages by closing its channel; the quarantine is not open."""
    bridge = Bridge()
    condemn(bridge, *bodies)
    return bridge


def condemn(bridge: Bridge, *bodies: str) -> None:
    """The destination closes its channel for each of these messages."""
    for body in bodies:
        tag = bridge.books.received + 1
        bridge.source(deliver(tag, content(body.encode())))
        bridge.to_destination()
        bridge.destination(frames.close(1, 406, POISON))
        bridge.lose_destination()


def open_quarantine(bridge: Bridge) -> list[str]:
    """Its channel is opened; return what is published to it then."""
    bridge.open_quarantine()
    bridge.wait(0.0)
    return published(bridge)


def close(bridge: Bridge, code: int = 406, why: str = "poison") -> None:
    """The source's broker closes the quarantine's channel."""
    bridge.source(frames.close(2, code, why))


def confirmed(bridge: Bridge) -> list[int]:
    """Delivery tags of what the quarantine has confirmed since last asked."""
    return [delivery.delivery_tag for delivery, _ in bridge.relay.quarantine.take_confirmed()]


# --- The channel ---------------------------------------------------------------------------------------------

CLOSED, OPENING, OPEN = Channel
TABLE = {
    (ChannelEvent.OPEN, CLOSED): OPENING,
    (ChannelEvent.OPENED, CLOSED): CLOSED,
    (ChannelEvent.OPENED, OPENING): OPEN,
    (ChannelEvent.UNAVAILABLE, CLOSED): CLOSED,
    (ChannelEvent.UNAVAILABLE, OPENING): CLOSED,
    **{(ChannelEvent.CLOSED, state): CLOSED for state in Channel},
    **{(ChannelEvent.SOURCE_LOST, state): CLOSED for state in Channel},
}


@pytest.mark.parametrize("state", Channel)
@pytest.mark.parametrize("event", ChannelEvent)
def test_every_pair_of_state_and_event(event: ChannelEvent, state: Channel) -> None:
    if (event, state) in TABLE:
        assert state.after(event) is TABLE[event, state]
    else:
        with pytest.raises(ValueError, match=f"{event.value} cannot happen to a quarantine that is {state.value}"):
            state.after(event)


def test_the_table_is_the_whole_table() -> None:
    assert TRANSITIONS.keys() == set(ChannelEvent)
    assert sum(map(len, TRANSITIONS.values())) == len(TABLE)


def test_the_channel_is_opened_when_there_is_something_for_it() -> None:
    bridge = Bridge()
    quarantine = bridge.relay.quarantine
    assert not quarantine.wanted(bridge.now_s)
    condemned(bridge, 1)
    assert quarantine.wanted(bridge.now_s)
    quarantine.open()
    assert quarantine.opening
    assert not quarantine.wanted(bridge.now_s)
    quarantine.opened()
    assert not quarantine.opening
    assert not quarantine.wanted(bridge.now_s)


def test_a_channel_that_is_closed_while_it_is_being_opened_is_not_open() -> None:
    bridge = poisoned("a")
    bridge.relay.quarantine.open()
    close(bridge)
    bridge.relay.quarantine.opened()
    bridge.wait(0.0)
    assert published(bridge) == []
    assert not bridge.relay.quarantine.wanted(bridge.now_s), "it failed just now"
    assert bridge.relay.quarantine.wanted(bridge.now_s + 0.2)


def test_a_quarantine_that_cannot_be_opened_requeues_all_that_it_was_for() -> None:
    """They have a hold timeout of their own, and do not wait for as many tries as there are messages."""
    bridge = Bridge()
    condemned(bridge, 1, 2, 3)
    condemn(bridge, "a")
    bridge.relay.quarantine.open()
    bridge.relay.quarantine.unavailable(bridge.now_s)
    assert not bridge.relay.quarantine.opening
    assert not bridge.window.condemned
    assert bridge.to_destination() == publish().join([b"", *[FORWARDED[len(publish()) :]] * 3]), (
        "they came back too often: to be forwarded is their best chance"
    )
    bridge.wait(RETRY_MAX_S)
    assert bridge.relay.quarantine.wanted(bridge.now_s)


def test_opening_backs_off_while_it_fails_and_not_after_a_channel_that_has_worked() -> None:
    bridge = Bridge()
    quarantine = bridge.relay.quarantine
    delays: list[float] = []
    for tag in range(1, 101):
        condemned(bridge, tag)
        began_s = bridge.now_s
        while not quarantine.wanted(bridge.now_s):
            bridge.now_s += 0.05
        delays.append(bridge.now_s - began_s)
        quarantine.open()
        quarantine.unavailable(bridge.now_s)
    assert delays[0] == 0.0
    assert 0.0 < delays[1] <= 0.2
    assert delays[-1] > 1.0
    bridge.now_s += 30.0
    condemned(bridge, 101, 102)
    open_quarantine(bridge)
    bridge.source(answer(1))
    close(bridge, 404)
    assert quarantine.wanted(bridge.now_s)


def test_a_quarantine_that_does_not_answer_is_left_alone_for_longer_each_time_until_it_does() -> None:
    bridge = quarantining(1)
    quarantine = bridge.relay.quarantine

    def rest_s() -> float:
        """Have it not answer, and return for how long it is then left alone."""
        quarantine.unanswered(bridge.now_s)
        bridge.relay.source.lost(bridge.now_s)
        bridge.open_source()
        bridge.consume()
        condemned(bridge, 1)
        return next(s for s in range(1000) if quarantine.wanted(bridge.now_s + s))

    assert [rest_s() for _ in range(6)] == [30, 60, 120, 240, 300, 300]
    bridge.now_s += 300.0
    open_quarantine(bridge)
    bridge.source(answer(1))
    assert rest_s() == 30


# --- What is published ---------------------------------------------------------------------------------------


def test_a_condemned_message_is_acked_when_the_quarantine_has_confirmed_it() -> None:
    bridge = Bridge()
    expected = condemned(bridge, 1, 2)
    bridge.wait(0.1)
    assert bridge.to_source() == b""
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert bridge.to_source() == expected * 2, "the second does not wait for the answer to the first"
    bridge.source(answer(1))
    assert bridge.to_source() == ack(1, multiple=False)
    bridge.source(answer(2))
    assert bridge.to_source() == ack(2, multiple=False)
    assert confirmed(bridge) == [1, 2]
    assert confirmed(bridge) == []
    assert bridge.books.quarantined == {"delivery-limit": 2}


def test_what_is_condemned_while_the_channel_is_open_is_published_at_once() -> None:
    bridge = quarantining(1)
    expected = condemned(bridge, 2)
    assert bridge.to_source() == expected, "by the source's delivery"
    bridge.source(deliver(3, M))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, POISON))
    bridge.relay.destination.lost(bridge.now_s)
    assert published(bridge) == ["m"], "by the destination's close"


def test_so_many_messages_are_on_their_way_and_each_answer_makes_room_for_the_next() -> None:
    bridge = Bridge()
    expected = condemned(bridge, *range(1, MOST_MESSAGES + 11))
    bridge.open_quarantine()
    bridge.wait(0.0)
    assert bridge.to_source() == expected * MOST_MESSAGES
    bridge.source(answer(7))
    assert bridge.to_source() == expected + ack(7, multiple=False)
    bridge.source(answer(MOST_MESSAGES, multiple=True))
    assert bridge.to_source().startswith(expected * 9 + ack(1, multiple=False))
    assert bridge.window.quarantining == 10


def test_so_many_bytes_are_on_their_way() -> None:
    bridge = Bridge()
    large = content(bytes(MOST_BYTES // 2), PERSISTENT | {"headers": table(RETURNED_OFTEN)})
    bridge.source(*(deliver(tag, large, redelivered=1) for tag in (1, 2, 3, 4)))
    bridge.open_quarantine()
    bridge.wait(0.0)
    assert bridge.window.quarantining == 2
    bridge.source(answer(1))
    assert bridge.window.quarantining == 2
    bridge.source(answer(2), answer(3))
    assert bridge.window.quarantining == 1


def test_the_reply_of_the_destination_goes_along() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M, routing_key="a.key"))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, POISON))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.open_quarantine()
    bridge.wait(0.1)
    headers = table(reasons("poison", 406, POISON, "a.key"))
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + content(
        b"m", PERSISTENT | {"headers": headers}, channel=2
    )


def test_what_must_not_be_published_as_it_is_does_not_go_to_the_quarantine_as_it_is() -> None:
    """Kept for the destination, a foreign `user_id` and `CC` would be refused and routed by the source just as well."""
    bridge = Bridge(policy=HeaderPolicy(user_id="keep", cc="keep"))
    copies = b"A" + pack(">I", 6) + text("c")
    message = content(b"m", PERSISTENT | {"headers": table({"CC": copies}), "user_id": b"alice"})
    bridge.source(deliver(1, message))
    assert bridge.to_destination() == publish() + message
    bridge.destination(frames.close(1, 406, "PRECONDITION_FAILED - user_id"))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.open_quarantine()
    bridge.wait(0.1)
    moved = {"x-bridge-cc": copies, "x-bridge-user-id": text("alice")}
    headers = table(moved | reasons("poison", 406, "PRECONDITION_FAILED - user_id"))
    expected = content(b"m", PERSISTENT | {"headers": headers}, channel=2)
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + expected


@pytest.mark.parametrize("policy", (HeaderPolicy(), HeaderPolicy(delivery_count="keep")), ids=("drop", "keep"))
@pytest.mark.parametrize(("kind", "count"), ((b"l", 18), (b"L", (1 << 64) - 1)))
def test_a_delivery_count_is_kept_under_another_name(policy: HeaderPolicy, kind: bytes, count: int) -> None:
    """A message that is moved back would be condemned for it again."""
    bridge = Bridge(policy=policy)
    counts = dict.fromkeys(("x-delivery-count", "x-acquired-count"), kind + pack(">Q", count))
    bridge.source(deliver(1, content(b"m", PERSISTENT | {"headers": table(counts)}), redelivered=1))
    bridge.open_quarantine()
    bridge.wait(0.0)
    headers = table(reasons(count=min(count, (1 << 63) - 1)))
    expected = content(b"m", PERSISTENT | {"headers": headers}, channel=2)
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + expected


def test_a_foreign_delivery_count_that_crosses_is_kept_under_another_name_too() -> None:
    """Of a message that was not delivered before, it says nothing of this queue."""
    bridge = Bridge(policy=HeaderPolicy(delivery_count="keep"))
    bridge.source(deliver(1, content(b"m", PERSISTENT | {"headers": table({"x-delivery-count": b"b\x63"})})))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, POISON))
    bridge.relay.destination.lost(bridge.now_s)
    bridge.open_quarantine()
    bridge.wait(0.0)
    counted = {"x-bridge-delivery-count": b"l" + pack(">q", 99)}
    *first, time, why = reasons("poison", 406, POISON).items()
    expected = content(b"m", PERSISTENT | {"headers": table(dict(first) | counted | dict((time, why)))}, channel=2)
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + expected


def test_nothing_expires_in_the_quarantine() -> None:
    bridge = Bridge()
    often = PERSISTENT | {
        "headers": table(RETURNED_OFTEN),
        "expiration": b"60000",
    }
    bridge.source(deliver(1, content(b"m", often), redelivered=1))
    bridge.open_quarantine()
    bridge.wait(0.1)
    (reason, why), *others = reasons().items()
    headers = table({reason: why, "x-bridge-expiration": text("60000"), **dict(others)})
    expected = content(b"m", PERSISTENT | {"headers": headers}, channel=2)
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + expected


# --- What fits -----------------------------------------------------------------------------------------------


def reasons_in(frame_max: int, why: str = POISON) -> tuple[dict[str, bytes] | None, int]:
    """What a message that has one header of 100 bytes gets in a frame of so many bytes, and how many are left out."""
    own = {"own": text("o" * 91)}
    bridge = Bridge(frame_max=(frame_max, 0))
    bridge.source(deliver(1, content(b"m", PERSISTENT | {"headers": table(own)})))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, why))
    bridge.lose_destination()
    bridge.open_quarantine()
    bridge.wait(0.0)
    raw = bridge.to_source()
    if not raw:
        return None, bridge.books.headers_left_out
    header = raw[len(publish("sq.quarantine", channel=2)) :][: -len(frames.frame(3, 2, b"m"))]
    assert len(header) <= frame_max
    assert header.startswith(frames.header(1, PERSISTENT | {"headers": table(own)}, 2)[7:19], 7)
    present: dict[str, bytes] = {}
    for name in reasons("poison"):
        at = header.find(bytes([len(name)]) + name.encode() + b"S")
        size = 0 if at < 0 else int.from_bytes(header[at + len(name) + 2 :][:4], "big")
        present |= {} if at < 0 else {name: header[at + len(name) + 6 :][:size]}
        present |= {name: b""} if at < 0 and name.encode() in header else {}
    return present, bridge.books.headers_left_out


WHOLE = len(frames.header(1, PERSISTENT | {"headers": table({"own": text("o" * 91)} | reasons("poison", 406, POISON))}))
BARE = len(frames.header(1, PERSISTENT | {"headers": table({"own": text("o" * 91)})}))


def test_what_fits_goes_along_whole() -> None:
    present, left_out = reasons_in(WHOLE)
    assert present is not None
    assert list(present) == list(reasons("poison"))
    assert present["x-bridge-reply-text"] == POISON.encode()
    assert left_out == 0


@pytest.mark.parametrize("less", (1, 24))
def test_the_reply_text_is_cut_first(less: int) -> None:
    present, left_out = reasons_in(WHOLE - less)
    assert present is not None
    assert present["x-bridge-reply-text"] == POISON.encode()[: len(POISON) - less]
    assert list(present) == list(reasons("poison"))
    assert left_out == 0


def test_then_the_least_useful_headers_are_left_out_and_the_reason_last() -> None:
    found: list[list[str]] = []
    for frame_max in range(WHOLE - len(POISON), BARE - 1, -1):
        present, left_out = reasons_in(frame_max)
        assert present is not None
        assert len(present) + left_out == len(reasons("poison"))
        if not found or found[-1] != list(present):
            found.append(list(present))
    names = list(reasons("poison"))
    assert found == [names[:number] for number in range(len(names) - 1, -1, -1)]


def test_a_long_reply_text_is_bounded_and_not_cut_within_a_character() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M))
    bridge.to_destination()
    bridge.destination(frames.method(1, 20, 40, pack(">HB", 406, 255) + b"\xff" * 255 + pack(">HH", 60, 40)))
    bridge.lose_destination()
    bridge.open_quarantine()
    bridge.wait(0.0)
    headers = table(reasons("poison", 406, "\N{REPLACEMENT CHARACTER}" * 85))
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + content(
        b"m", PERSISTENT | {"headers": headers}, channel=2
    )


def test_what_cannot_be_published_at_all_is_parked_alone_and_shown() -> None:
    """The source would close the connection for a frame larger than agreed."""
    bridge = Bridge()
    wide = content(b"a", PERSISTENT | {"headers": table({"o": text("o" * 240)})})
    bridge.source(deliver(1, wide))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, POISON))
    bridge.lose_destination()
    condemn(bridge, "b")
    bridge.relay.source._frame_max = 270
    assert open_quarantine(bridge) == ["b"], "it keeps out no other"
    size = len(wide) - len(frames.frame(3, 1, b"a"))
    assert f"its headers ({size} bytes) are larger than the source's frame_max (270)" in bridge.window.degraded[0]
    bridge.source(answer(1))
    bridge.wait(200.0)
    assert published(bridge) == [], "nothing will change that on this connection"
    assert bridge.window.in_flight == 1


def test_a_header_that_cannot_be_read_is_parked_alone_and_shown() -> None:
    bridge = Bridge()
    strange = content(b"a", PERSISTENT | {"headers": table({"o": b"?"})})
    bridge.source(deliver(1, strange))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, POISON))
    bridge.lose_destination()
    condemn(bridge, "b")
    assert open_quarantine(bridge) == ["b"]
    assert "its headers cannot be read" in bridge.window.degraded[0]


# --- Answers -------------------------------------------------------------------------------------------------


def test_answers_come_in_any_order_and_for_several_at_once() -> None:
    bridge = quarantining(*range(1, 8))
    bridge.source(answer(5))
    bridge.source(answer(3, multiple=True))
    bridge.source(answer(5, multiple=True))
    assert bridge.to_source() == b"".join(ack(tag, multiple=False) for tag in (5, 1, 2, 3, 4))
    bridge.source(answer(7, multiple=True))
    assert confirmed(bridge) == [5, 1, 2, 3, 4, 6, 7]
    assert bridge.window.in_flight == 0


def test_a_confirm_of_what_is_confirmed_already_is_nothing() -> None:
    bridge = quarantining(1)
    bridge.source(answer(1))
    bridge.to_source()
    bridge.source(answer(1), answer(1, multiple=True))
    assert bridge.to_source() == b""
    assert bridge.books.quarantined == {"delivery-limit": 1}


@pytest.mark.parametrize("number", (0, 2))
def test_a_confirm_of_what_was_never_published_cannot_be(number: int) -> None:
    """0 would confirm what the broker has not read yet."""
    bridge = quarantining(1)
    why = f"confirm of publish {number} to the quarantine, and only 1 were made"
    with pytest.raises(MalformedFrameError, match=why):
        bridge.relay.quarantine.answered(Confirm(2, number, multiple=True, accepted=True), bridge.now_s)


@pytest.mark.parametrize(
    "raw",
    (
        (answer(1, accepted=False),),
        (returned(content(b"m", channel=2), channel=2), answer(1)),
        (frames.close(2, 404, "no queue"),),
    ),
    ids=("nack", "return", "close"),
)
def test_what_the_quarantine_refuses_is_held(raw: tuple[bytes, ...]) -> None:
    """It came back too often: its best chance is to be forwarded."""
    bridge = quarantining(1)
    bridge.source(*raw)
    assert bridge.to_source() == b"", "invariant 1"
    assert bridge.to_destination() == FORWARDED


def test_several_that_are_refused_at_once_are_tried_again_later() -> None:
    bridge = poisoned("a", "b", "c")
    assert open_quarantine(bridge) == ["a", "b", "c"]
    bridge.source(answer(2, multiple=True, accepted=False))
    assert published(bridge) == []
    assert "no quarantine accepts them" in bridge.window.degraded[0]
    bridge.wait(RETRY_MAX_S)
    assert published(bridge) == ["a", "b"]


def test_after_a_return_nobody_knows_whose_confirm_follows_and_all_are_published_again() -> None:
    bridge = poisoned("a", "b", "c", "d")
    assert open_quarantine(bridge) == ["a", "b", "c", "d"]
    doubled = bridge.books.duplicates_possible
    bridge.source(answer(2))
    bridge.source(returned(content(b"c", channel=2), channel=2), answer(4, multiple=True))
    assert confirmed(bridge) == [2], "invariant 1"
    assert bridge.books.duplicates_possible == doubled + 3
    assert open_quarantine(bridge) == ["a", "c", "d"], "its queue is declared again at once, since it was of use"
    bridge.source(answer(3, multiple=True))
    assert confirmed(bridge) == [1, 3, 4], "numbers begin at 1 with each channel"


def test_a_return_where_nothing_was_confirmed_before_holds_all() -> None:
    bridge = poisoned("a", "b")
    open_quarantine(bridge)
    bridge.source(returned(content(b"b", channel=2), channel=2))
    assert not bridge.window.condemned
    assert not bridge.relay.quarantine.wanted(bridge.now_s)
    bridge.wait(RETRY_MAX_S)
    assert open_quarantine(bridge) == ["a", "b"]


def test_answers_of_a_channel_that_has_been_given_up_are_nothing() -> None:
    bridge = poisoned("a", "b", "c")
    open_quarantine(bridge)
    bridge.source(answer(1))
    bridge.source(returned(content(b"b", channel=2), channel=2))
    bridge.source(answer(7), returned(content(b"c", channel=2), channel=2))
    bridge.relay.quarantine.open()
    bridge.source(answer(2))
    assert confirmed(bridge) == [1]


def test_what_was_requeued_meanwhile_is_not_acked() -> None:
    bridge = quarantining(1)
    bridge.window.release_published("shutdown")
    bridge.window.release("shutdown")
    bridge.source(answer(1))
    assert bridge.books.quarantined == {}
    assert confirmed(bridge) == []


# --- Whom a close is about -----------------------------------------------------------------------------------


def test_the_one_that_closes_the_channel_is_found_one_by_one_and_parked_alone() -> None:
    bridge = poisoned("a", "b", "guilty", "c", "d")
    assert open_quarantine(bridge) == ["a", "b", "guilty", "c", "d"]
    bridge.source(answer(1))
    doubled = bridge.books.duplicates_possible
    close(bridge)
    assert bridge.books.duplicates_possible == doubled + 4
    assert open_quarantine(bridge) == ["b"], "one at a time while there are suspects"
    condemn(bridge, "young")
    assert published(bridge) == []
    bridge.source(answer(1))
    assert published(bridge) == ["guilty"]
    close(bridge)
    assert open_quarantine(bridge) == ["c"]
    bridge.source(answer(1))
    assert published(bridge) == ["d"]
    bridge.source(answer(2))
    assert published(bridge) == ["young"]
    bridge.source(answer(3))
    assert confirmed(bridge) == [1, 2, 4, 5, 6]
    assert bridge.books.quarantined == {"poison": 5}
    assert "the quarantine refuses it too: 406 poison" in bridge.window.degraded[0]


def test_the_guilty_one_is_tried_again_rarely_and_takes_no_other_with_it() -> None:
    bridge = poisoned("guilty")
    open_quarantine(bridge)
    close(bridge)
    bridge.wait(59.0)
    assert not bridge.window.condemned
    bridge.wait(1.0)
    condemn(bridge, "a", "b")
    assert open_quarantine(bridge) == ["guilty"], "alone"
    close(bridge)
    assert open_quarantine(bridge) == ["a", "b"], "at once"
    bridge.wait(60.0)
    assert published(bridge) == [], "not beside others"
    bridge.source(answer(2, multiple=True))
    assert published(bridge) == ["guilty"]
    condemn(bridge, "c")
    assert published(bridge) == []
    bridge.source(answer(3))
    assert published(bridge) == ["c"]
    assert bridge.books.quarantined == {"poison": 3}, "its queue may have been given another limit"
    bridge.source(answer(4))
    assert bridge.window.degraded == []


def test_an_internal_error_must_be_caused_three_times_alone() -> None:
    bridge = poisoned("guilty")
    for _ in range(3):
        assert not any("the quarantine refuses it too" in text for text in bridge.window.degraded)
        assert open_quarantine(bridge) == ["guilty"]
        close(bridge, 541, "INTERNAL_ERROR")
        bridge.now_s += 1.0
    assert "the quarantine refuses it too: 541" in bridge.window.degraded[0]


def test_a_close_that_is_about_no_message_holds_all_that_was_on_its_way() -> None:
    bridge = poisoned("a", "b")
    open_quarantine(bridge)
    close(bridge, 403, "ACCESS_REFUSED")
    assert not bridge.window.condemned
    bridge.wait(RETRY_MAX_S)
    assert open_quarantine(bridge) == ["a", "b"], "no suspects"


def test_what_the_last_generation_knew_of_its_deliveries_is_forgotten_with_it() -> None:
    bridge = poisoned("guilty")
    open_quarantine(bridge)
    close(bridge)
    bridge.relay.source.lost(bridge.now_s)
    bridge.open_source()
    bridge.consume()
    bridge.source(deliver(1, content(b"a")))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, POISON))
    bridge.lose_destination()
    bridge.source(deliver(2, content(b"b", PERSISTENT | {"headers": table(RETURNED_OFTEN)}), redelivered=1))
    bridge.wait(1.0)
    assert open_quarantine(bridge) == ["a", "b"]


# --- Large messages ------------------------------------------------------------------------------------------

LARGE = content(b"x" * LARGE_BYTES, PERSISTENT | {"headers": table(RETURNED_OFTEN | {"k": b"V"})}, step=130_000)


def quarantining_a_large_one() -> Bridge:
    """One has been begun, and a small one waits behind it."""
    bridge = Bridge()
    bridge.source(deliver(1, LARGE, redelivered=1))
    condemned(bridge, 2)
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert bridge.to_source() == publish("sq.quarantine", channel=2)
    return bridge


def pieces(bridge: Bridge) -> bytes:
    """What follows of it, socket by socket."""
    return b"".join(iter(lambda: b"".join(bridge.relay.source.take_piece()), b""))


def test_a_large_message_goes_there_piece_by_piece_with_the_reasons() -> None:
    bridge = quarantining_a_large_one()
    first = bridge.relay.source.take_piece()
    assert sum(map(len, first)) < 2 * PIECE_BYTES
    properties = PERSISTENT | {"headers": table({"k": b"V"} | reasons())}
    assert b"".join(first) + pieces(bridge) == content(b"x" * LARGE_BYTES, properties, channel=2, step=130_000)
    bridge.wait(0.1)
    assert bridge.to_source() == b"", "as much is on its way as may be"
    bridge.source(answer(1))
    assert bridge.to_source().startswith(publish("sq.quarantine", channel=2))


def test_the_rest_of_a_large_message_is_not_written_to_a_channel_that_is_closed() -> None:
    bridge = quarantining_a_large_one()
    bridge.relay.source.take_piece()
    close(bridge)
    assert pieces(bridge) == b""
    bridge.lose_source()
    assert pieces(bridge) == b""


def test_a_channel_is_not_opened_again_in_the_middle_of_a_message() -> None:
    """Closing it there would be an error for the broker, which closes the connection."""
    bridge = quarantining(1)
    bridge.source(answer(1), deliver(2, LARGE, redelivered=1))
    bridge.to_source()
    bridge.relay.source.take_piece()
    bridge.source(returned(content(b"m", channel=2), channel=2))
    assert not bridge.relay.quarantine.wanted(bridge.now_s)
    pieces(bridge)
    assert bridge.relay.quarantine.wanted(bridge.now_s)


def test_a_message_says_from_which_queue_it_was_taken_where_that_is_known() -> None:
    bridge = Bridge(source_queue="orders")
    condemned(bridge, 1)
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert b"x-bridge-queueS" + (6).to_bytes(4, "big") + b"orders" in bridge.to_source()


def test_a_message_that_added_headers_make_too_large_is_quarantined_without_them_and_never_forwarded() -> None:
    added = Additions.of({"site": "b" * 200})
    bridge = Bridge(frame_max=(220, 220), policy=HeaderPolicy(additions=added))
    bridge.source(deliver(1, content(b"m")))
    assert bridge.to_destination() == b""
    assert [verdict.reason for _, verdict in bridge.window.condemned] == ["too-large"]
    bridge.open_quarantine()
    bridge.wait(0.0)
    raw = bridge.to_source()
    assert b"too-large" in raw
    assert b"bbb" not in raw
