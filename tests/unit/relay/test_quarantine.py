"""The quarantine: one message at a time, with its reasons, and what its answers do."""

from __future__ import annotations

from struct import pack

import pytest

from bridge.amqp.content import HeaderPolicy
from tests.support import frames
from tests.support.frames import PERSISTENT, confirm, content, deliver, returned, table, text
from tests.support.relay_scene import Bridge, M, ack, condemned, publish, quarantining, reasons

RETURNED_OFTEN = dict.fromkeys(("x-acquired-count", "x-delivery-count"), b"l" + pack(">q", 17))


def test_a_condemned_message_is_acked_when_the_quarantine_has_confirmed_it() -> None:
    bridge = Bridge()
    expected = condemned(bridge, 1, 2)
    assert bridge.relay.quarantine.wanted
    bridge.wait(0.1)
    assert bridge.to_source() == b""
    bridge.open_quarantine()
    assert not bridge.relay.quarantine.wanted
    bridge.wait(0.1)
    assert bridge.to_source() == expected
    bridge.wait(0.1)
    assert bridge.to_source() == b"", "one at a time"
    bridge.source(confirm(1, channel=2))
    assert bridge.to_source() == ack(1, multiple=False)
    bridge.wait(0.1)
    assert bridge.to_source() == expected
    bridge.source(confirm(2, channel=2))
    assert bridge.to_source() == ack(2, multiple=False)
    assert [q.delivery.delivery_tag for q in bridge.relay.quarantine.take_confirmed()] == [1, 2]
    assert bridge.books.quarantined == {"delivery-limit": 2}


def test_the_reply_of_the_destination_goes_along() -> None:
    bridge = Bridge()
    bridge.source(deliver(1, M, routing_key="a.key"))
    bridge.to_destination()
    bridge.destination(frames.close(1, 406, "PRECONDITION_FAILED - why"))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.open_quarantine()
    bridge.wait(0.1)
    headers = table(reasons("poison", 406, "PRECONDITION_FAILED - why", "a.key"))
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + content(
        b"m", PERSISTENT | {"headers": headers}, channel=2
    )


def test_what_must_not_be_published_as_it_is_does_not_go_to_the_quarantine_as_it_is() -> None:
    """Kept for the destination, a foreign `user_id` and `CC` would be refused and routed by the source just as well."""
    bridge = Bridge()
    bridge.relay.policy = HeaderPolicy(user_id="keep", cc="keep")
    bridge.relay.source_lost(bridge.now_s)
    bridge.open_source()
    bridge.consume()
    copies = b"A" + pack(">I", 6) + text("c")
    message = content(b"m", PERSISTENT | {"headers": table({"CC": copies}), "user_id": b"alice"})
    bridge.source(deliver(1, message))
    assert bridge.to_destination() == publish() + message
    bridge.destination(frames.close(1, 406, "PRECONDITION_FAILED - user_id"))
    bridge.relay.destination_lost(bridge.now_s)
    bridge.open_quarantine()
    bridge.wait(0.1)
    moved = {"x-bridge-cc": copies, "x-bridge-user-id": text("alice")}
    headers = table(moved | reasons("poison", 406, "PRECONDITION_FAILED - user_id"))
    expected = content(b"m", PERSISTENT | {"headers": headers}, channel=2)
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + expected


@pytest.mark.parametrize(
    "answer",
    (
        (confirm(1, channel=2, accepted=False),),
        (returned(content(b"m", channel=2), channel=2), confirm(1, channel=2)),
        (frames.close(2, 404, "no queue"),),
    ),
    ids=("nack", "return", "close"),
)
def test_what_the_quarantine_refuses_is_held(answer: tuple[bytes, ...]) -> None:
    """It came back too often: its best chance is to be forwarded."""
    bridge = quarantining(1)
    bridge.source(*answer)
    assert bridge.to_source() == b"", "invariant 1"
    assert bridge.to_destination() == publish() + content(b"m", PERSISTENT | {"headers": table({"k": b"V"})})


def test_a_confirm_from_the_quarantine_that_nobody_waits_for_is_nothing() -> None:
    bridge = quarantining(1)
    bridge.source(confirm(1, channel=2))
    bridge.to_source()
    bridge.source(confirm(1, channel=2))
    bridge.relay.quarantine.closed(bridge.now_s)
    assert bridge.to_source() == b""
    assert bridge.books.quarantined == {"delivery-limit": 1}


def test_a_header_that_leaves_no_room_for_the_reasons_is_not_published_to_the_quarantine() -> None:
    """The source would close the connection for a frame larger than agreed."""
    bridge = Bridge(frame_max=(150, 150))
    condemned(bridge, 1)
    bridge.open_quarantine()
    bridge.wait(0.1)
    assert bridge.to_source() == b""
    assert bridge.to_destination() != b""


def test_a_quarantine_that_cannot_be_opened_gives_back_all_that_it_was_for() -> None:
    """They have a hold timeout of their own, and do not wait for as many tries as there are messages."""
    bridge = Bridge()
    condemned(bridge, 1, 2, 3)
    bridge.relay.quarantine.opening = True
    bridge.relay.quarantine.closed(bridge.now_s)
    assert not bridge.relay.quarantine.opening
    assert not bridge.relay.quarantine.wanted
    assert len(bridge.to_destination()) > 3 * len(M), "they came back too often: to be forwarded is their best chance"


def test_a_return_means_that_the_queue_is_gone_and_the_channel_is_opened_anew() -> None:
    bridge = quarantining(1)
    bridge.source(returned(content(b"m", channel=2), channel=2), confirm(1, channel=2))
    condemned(bridge, 2)
    assert bridge.relay.quarantine.wanted


def test_nothing_expires_in_the_quarantine() -> None:
    bridge = Bridge()
    often = PERSISTENT | {
        "headers": table(RETURNED_OFTEN),
        "expiration": b"60000",
    }
    bridge.source(deliver(1, content(b"m", often), redelivered=1))
    bridge.open_quarantine()
    bridge.wait(0.1)
    headers = table(reasons() | {"x-bridge-expiration": text("60000")})
    expected = content(b"m", PERSISTENT | {"headers": headers}, channel=2)
    assert bridge.to_source() == publish("sq.quarantine", channel=2) + expected
