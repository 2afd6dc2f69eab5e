"""A connection by the stream protocol: what is said on it, what is understood, and what goes wrong in words."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rstream import schema

from bridge.connection.dial import Dialer
from bridge.connection.limits import TimeLimits
from bridge.connection.stream import MAX_FRAME_BYTES, StreamConnection, decoded, stored_offset
from bridge.errors import ConnectError
from bridge.settings.environment import load_settings
from tests.support.stream_broker import (
    ANSWER,
    AUTHENTICATE,
    CLOSE,
    HANDSHAKE,
    HEARTBEAT,
    METADATA,
    NO_OFFSET,
    OPEN,
    PEER_PROPERTIES,
    QUERY,
    StreamBroker,
    frame,
    text,
)

if TYPE_CHECKING:
    from bridge.settings.tracking import TrackingSettings

NAME, STREAM = "brücke", "straße"
PATIENCE_S, IMPATIENCE_S = 30.0, 0.05


def settings(url: str) -> TrackingSettings:
    found = load_settings(
        {
            "BRIDGE_SOURCE_URL": "amqp://h/vhöst",
            "BRIDGE_SOURCE_QUEUE": STREAM,
            "BRIDGE_SOURCE_OFFSET_NAME": NAME,
            "BRIDGE_SOURCE_STREAM_URL": url,
            "BRIDGE_DESTINATION_QUEUE": "out",
        }
    ).tracking
    assert found is not None
    return found


async def opened(broker: StreamBroker, within_s: float = PATIENCE_S) -> StreamConnection:
    connection = StreamConnection(settings(broker.url), 0, within_s)
    await connection.open(Dialer())
    return connection


async def test_it_logs_in_and_stores_what_it_then_finds_whatever_the_characters_of_the_names() -> None:
    async with StreamBroker() as broker:
        connection = await opened(broker)
        assert broker.logins == [("PLAIN", b"\0me\0secret")]
        assert broker.virtual_hosts == ["vhöst"]
        assert await connection.stored() is None
        await connection.store(2**63)
        assert broker.offsets == {(STREAM, NAME): 2**63}
        assert await connection.stored() == 2**63
        await connection.close()
        assert await stored_offset(settings(broker.url), 0, TimeLimits()) == 2**63
        assert broker.connections == 2


async def test_what_nobody_asked_for_is_read_over() -> None:
    """Heartbeats, news of a stream, and the answer to a question whose asker did not wait."""
    async with StreamBroker() as broker:
        connection = await opened(broker)
        late = frame(QUERY | ANSWER, struct.pack(">IHQ", 999, 1, 5))
        news = frame(16, struct.pack(">H", 6) + text("another"))
        broker.before.append(frame(HEARTBEAT) + news + late)
        broker.offsets[STREAM, NAME] = 7
        assert await connection.stored() == 7
        connection.abort()


@pytest.mark.parametrize("key", (PEER_PROPERTIES | ANSWER, HANDSHAKE | ANSWER, METADATA | ANSWER))
async def test_a_list_that_says_it_is_endless_is_not_read(key: int) -> None:
    """Of an answer that comes too late, and of one to what was never asked: either would be decoded for minutes."""
    async with StreamBroker() as broker:
        broker.before.append(frame(key, struct.pack(">IHI", 999, 1, 2**32 - 1)))
        connection = await opened(broker)
        assert await connection.stored() is None
        connection.abort()


@given(key=st.sampled_from((PEER_PROPERTIES, HANDSHAKE, OPEN, QUERY, CLOSE)), data=st.binary(max_size=40))
def test_any_bytes_are_a_frame_or_are_refused(key: int, data: bytes) -> None:
    kinds = (schema.PeerPropertiesResponse, schema.SaslHandshakeResponse, schema.OpenResponse, schema.Close)
    for mark in (0, ANSWER):
        with suppress(ValueError, LookupError):
            found = decoded(frame(key | mark, data)[4:], (*kinds, schema.QueryOffsetResponse))
            assert found is None or found.key.value == key


async def test_a_broker_that_keeps_another_offset_is_believed() -> None:
    async with StreamBroker() as broker:
        connection = await opened(broker)
        broker.keeps = False
        with pytest.raises(ConnectError, match="offset 3 was not stored; the broker has None"):
            await connection.store(3)
        connection.abort()


@pytest.mark.parametrize(
    ("request_key", "code", "result", "advice"),
    (
        (AUTHENTICATE, 8, "login-refused", "check user and password in BRIDGE_SOURCE_STREAM_URL"),
        (AUTHENTICATE, 7, "login-refused", "see BRIDGE_SOURCE_AUTH"),
        (OPEN, 12, "vhost", "give the user permissions in it"),
        (QUERY, 16, "forbidden", "the user may not read the stream"),
        (QUERY, 2, "mismatch", "there is no stream of that name"),
        (QUERY, 6, "refused", "has no leader"),
        (QUERY, 15, "refused", "it refused QueryOffset (code 15)"),
    ),
)
async def test_a_refusal_says_what_to_do_and_ends_the_connection(
    request_key: int, code: int, result: str, advice: str
) -> None:
    async with StreamBroker({request_key: code}) as broker:
        with pytest.raises(ConnectError) as raised:
            await (await opened(broker)).stored()
        assert raised.value.result == result
        assert advice in str(raised.value)
        assert str(raised.value).startswith(f"rabbitmq-stream://me@127.0.0.1:{broker.port}: ")


@pytest.mark.parametrize(
    ("said", "result", "advice"),
    (
        (b"AMQP\0\0\x09\x01", "protocol", "it does not speak the stream protocol; is the plugin rabbitmq_stream"),
        (struct.pack(">I", MAX_FRAME_BYTES + 1), "protocol", "it does not speak the stream protocol"),
        (frame(999), "protocol", "what it answers is not understood"),
        (frame(QUERY | ANSWER, b"longer than it is"), "protocol", "what it answers is not understood"),
        (frame(CLOSE, struct.pack(">IH", 1, 1) + text("bye")), "connection-lost", "it closed the connection (bye)"),
    ),
)
async def test_what_is_no_answer_ends_the_connection(said: bytes, result: str, advice: str) -> None:
    async with StreamBroker() as broker:
        connection = await opened(broker)
        broker.before.append(said)
        with pytest.raises(ConnectError) as raised:
            await connection.stored()
        assert raised.value.result == result
        assert advice in str(raised.value)
        with pytest.raises(ConnectError, match="the connection is closed"):
            await connection.stored()
        await connection.close()


async def test_a_broker_that_is_silent_or_gone_is_given_up() -> None:
    async with StreamBroker() as broker:
        connection = await opened(broker, IMPATIENCE_S * 100)
        broker.drop()
        with pytest.raises(ConnectError) as raised:
            await connection.stored()
        assert raised.value.result in {"connection-lost", "unreachable"}
        broker.silent = True
        with pytest.raises(ConnectError, match=r"did not answer within 0\.05 s") as raised:
            await opened(broker, IMPATIENCE_S)
        assert raised.value.result == "timeout"
    with pytest.raises(ConnectError, match=r"nothing listens there; .*is the plugin rabbitmq_stream enabled") as raised:
        await opened(broker)
    assert raised.value.result == "unreachable"


def test_the_code_for_nothing_stored_is_the_protocols() -> None:
    from rstream.exceptions import OffsetNotFound  # noqa: PLC0415 - beside what it is compared with

    assert OffsetNotFound.code == NO_OFFSET
