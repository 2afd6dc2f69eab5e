"""The check of a stream whose offset the broker keeps: what is stored, and what the bridge would do."""

from __future__ import annotations

import pytest

from tests.support.stream_broker import QUERY, StreamBroker
from tests.unit.check.test_check import about, brokers, findings_of, rabbitmq

KEY = ("in", "bridge")


@pytest.mark.parametrize(
    ("stored", "settings", "says"),
    (
        (41, {}, "41 is stored as bridge; the bridge would read on after it"),
        (None, {}, 'none is stored as bridge; the bridge would begin at "first"'),
        (None, {"source_consumer_arguments": '{"x-stream-offset": "next"}'}, 'the bridge would begin at "next"'),
    ),
)
async def test_where_the_bridge_would_begin_is_said(stored: int | None, settings: dict[str, str], says: str) -> None:
    async with StreamBroker() as streams, brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "stream")
        if stored is not None:
            streams.offsets[KEY] = stored
        own = {"source_offset_name": "bridge", "source_stream_url": streams.url}
        finding = about(await findings_of(source, destination, **own, **settings), "offset")
        assert (finding.level, finding.text) == ("ok", finding.text)
        assert finding.text.endswith(says)
        assert streams.offsets == ({} if stored is None else {KEY: stored}), "nothing is stored"


async def test_each_url_of_the_stream_protocol_is_asked_and_what_is_wrong_there_is_an_error() -> None:
    async with StreamBroker({QUERY: 16}) as streams, brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "stream")
        urls = f"rabbitmq-stream://a:b@127.0.0.1:1,{streams.url}"
        findings = await findings_of(source, destination, source_offset_name="bridge", source_stream_url=urls)
        found = [(finding.level, finding.text) for finding in findings if finding.subject == "offset"]
        assert [level for level, _ in found] == ["error", "error"]
        assert "nothing listens there" in found[0][1]
        assert "the user may not read the stream" in found[1][1]


async def test_a_queue_that_is_no_stream_is_an_error() -> None:
    async with brokers() as (source, destination):
        rabbitmq(source, "4.3.6", "quorum")
        finding = about(await findings_of(source, destination, source_offset_name="bridge"), "offset")
        assert finding.level == "error"
        assert "the queue is a quorum queue; unset it" in finding.text
