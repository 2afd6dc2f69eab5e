"""The offset that the broker keeps: asked for once, stored when it is due; what goes wrong holds up nothing."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.target import Target
from bridge.connection.limits import TimeLimits
from bridge.connection.tracking import STORE_EVERY_S, Tracking
from bridge.errors import ConnectError
from bridge.observe.status import TrackingStatus
from bridge.relay.backoff import Backoff
from bridge.settings.environment import load_settings
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import Memory
from bridge.window.window import Window
from tests.support.scripted import eventually
from tests.support.stream_broker import QUERY, StreamBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

KEY = ("log", "bridge")
PREFETCH = 100


class Generation:
    """A generation of the source as far as the tracking knows one."""

    end: tuple[str, str] | None = None
    index = 0


class Scene:
    """A tracking, its window, and the broker that it asks."""

    def __init__(self, broker: StreamBroker, urls: str = "") -> None:
        self.broker = broker
        self.window = Window(
            WindowLimits(prefetch=PREFETCH), Target.queue("out"), Books(), Memory(enabled=True), lambda: 0.5
        )
        self.status = TrackingStatus("bridge")
        self.may_store: Callable[[], bool] = lambda: True
        settings = load_settings(
            {
                "BRIDGE_SOURCE_URL": "amqp://h",
                "BRIDGE_SOURCE_QUEUE": "log",
                "BRIDGE_SOURCE_OFFSET_NAME": "bridge",
                "BRIDGE_SOURCE_STREAM_URL": urls or broker.url,
                "BRIDGE_DESTINATION_QUEUE": "out",
            }
        ).tracking
        assert settings is not None
        self.tracking = Tracking(
            settings,
            self.window,
            self.status,
            Backoff(0.001, 0.001, lambda: 1.0),
            may_store=self._may_store,
            limits=TimeLimits(close_s=0.2),
        )

    def _may_store(self) -> bool:
        return self.may_store()

    @property
    def resume_at(self) -> int | None:
        """Where the window would read on."""
        return None if self.window.offsets is None else self.window.offsets.resume_at

    def forward(self, *numbers: int) -> None:
        """The destination has accepted these offsets."""
        offsets = self.window.offsets
        assert offsets is not None
        for number in numbers:
            offsets.received(number)
            offsets.forwarded(number)

    def tick(self, now_s: float | None = None) -> None:
        """Let time pass; by default for as long as it takes."""
        self.tracking.tick(asyncio.get_running_loop().time() + STORE_EVERY_S if now_s is None else now_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Generation]:
        """A generation begins, and ends."""
        await self.tracking.look_up(0)
        generation = Generation()
        task = asyncio.ensure_future(self.tracking.run(generation))
        try:
            yield generation
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_where_to_read_on_is_asked_once_and_then_known() -> None:
    async with StreamBroker() as broker:
        broker.offsets[KEY] = 41
        scene = Scene(broker)
        await scene.tracking.look_up(0)
        assert scene.resume_at == 42
        assert scene.status.stored == 41
        broker.offsets[KEY] = 7
        await scene.tracking.look_up(0)
        assert scene.resume_at == 42
        await scene.tracking.finish(0)


async def test_where_nothing_is_stored_that_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with StreamBroker() as broker:
        scene = Scene(broker)
        await scene.tracking.look_up(0)
        assert scene.resume_at is None
        assert caplog.messages == ["no offset of stream log is stored as bridge: reading it from first on"]
        await scene.tracking.finish(0)


async def test_without_an_answer_there_is_no_generation() -> None:
    async with StreamBroker({QUERY: 16}) as broker:
        scene = Scene(broker)
        with pytest.raises(
            ConnectError, match=r"the offset stored as bridge cannot be asked for: .*may not read"
        ) as raised:
            await scene.tracking.look_up(0)
        assert raised.value.result == "forbidden"
        assert scene.window.offsets is None
        broker.codes.clear()
        await scene.tracking.look_up(0)
        assert scene.window.offsets is not None
        await scene.tracking.finish(0)


async def test_what_changes_is_stored_each_second_and_each_window_and_at_the_end() -> None:
    async with StreamBroker() as broker:
        scene = Scene(broker)
        async with scene.running():
            scene.forward(1)
            scene.tick()
            await eventually(lambda: broker.offsets.get(KEY) == 1 and scene.status.stored == 1, "it is stored")
            scene.forward(2)
            stored_s = asyncio.get_running_loop().time()
            scene.tick(stored_s - 1000.0)
            assert not scene.tracking._due.is_set(), "not within the second"
            scene.forward(1 + PREFETCH)
            scene.tick(stored_s - 1000.0)
            await eventually(lambda: broker.offsets[KEY] == 1 + PREFETCH, "a window's worth is stored at once")
            scene.forward(2 + PREFETCH)
            await scene.tracking.finish(0)
            assert broker.offsets[KEY] == 2 + PREFETCH


async def test_what_is_not_known_to_be_the_same_stream_is_stored_nothing_of() -> None:
    async with StreamBroker() as broker:
        scene = Scene(broker)
        async with scene.running():
            scene.may_store = lambda: False
            scene.forward(1)
            scene.tick()
            assert not scene.tracking._due.is_set()
            await scene.tracking.finish(0)
        assert KEY not in broker.offsets


async def test_a_failure_is_told_once_counted_and_tried_again_until_it_is_stored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bridge")
    async with StreamBroker() as broker:
        scene = Scene(broker)
        async with scene.running():
            scene.forward(1)
            broker.codes[QUERY] = 6
            for failures in (1, 2, 3):
                scene.tick()
                await eventually(lambda n=failures: scene.status.failures >= n, "it fails")  # type: ignore[misc]
            assert "has no leader" in scene.status.trouble
            broker.codes.clear()
            scene.tick()
            await eventually(lambda: broker.offsets.get(KEY) == 1 and not scene.status.trouble, "it is stored")
        told = [line.partition(":")[0] for line in caplog.messages if "the offset is" in line]
        assert told == ["the offset is not stored", "the offset is stored again"]


async def test_a_connection_that_the_broker_has_ended_is_followed_by_another_and_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """RabbitMQ 4.3 ends it with the token that it was opened with; at the end, too, what is due is stored."""
    async with StreamBroker() as broker:
        scene = Scene(broker)
        async with scene.running():
            for number, cut in ((1, broker.drop), (2, broker.end), (3, broker.drop)):
                scene.forward(number)
                scene.tick()
                await eventually(lambda n=number: scene.status.stored == n, "it is stored")  # type: ignore[misc]
                cut()
            scene.forward(4)
            await scene.tracking.finish(0)
            assert broker.offsets[KEY] == 4
        assert (scene.status.failures, scene.status.trouble, broker.connections) == (0, "", 4)
        assert not [record for record in caplog.records if "not stored" in record.message]


async def test_another_bridge_of_the_same_name_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async with StreamBroker() as broker:
        scene = Scene(broker)
        async with scene.running():
            scene.forward(5)
            scene.tick()
            await eventually(lambda: scene.status.stored == 5, "it is stored")
            assert "another" not in scene.status.others
            broker.offsets[KEY] = 3
            scene.forward(6)
            scene.tick()
            await eventually(lambda: broker.offsets[KEY] == 6, "ours is stored all the same")
            assert scene.status.others == "another bridge stores its offset of stream log as bridge, too"
            assert len([line for line in caplog.messages if "another bridge" in line]) == 1


@pytest.mark.parametrize("lets_in", (False, True))
async def test_several_urls_are_tried_in_turn(*, lets_in: bool) -> None:
    """Also where one lets the bridge in, and does not answer what it is asked."""
    async with StreamBroker({QUERY: 6}) as leaderless, StreamBroker() as broker:
        broker.offsets[KEY] = 41
        other = leaderless.url if lets_in else "rabbitmq-stream://a:b@127.0.0.1:1"
        scene = Scene(broker, f"{other},{broker.url}")
        with pytest.raises(ConnectError, match="has no leader" if lets_in else "nothing listens there"):
            await scene.tracking.look_up(0)
        await scene.tracking.look_up(0)
        assert scene.status.stored == 41
        await scene.tracking.finish(0)


async def test_the_end_waits_for_the_question_that_is_under_way_and_none_is_asked_after_it() -> None:
    """Two at a time would read from one connection; and a new connection would be one that nobody closes."""
    async with StreamBroker() as broker:
        scene = Scene(broker)
        async with scene.running():
            scene.forward(1)
            scene.tracking._due.set()
            await eventually(lambda: broker.offsets.get(KEY) == 1, "it is stored")
            asking = asyncio.ensure_future(scene.tracking._keep(0))
            await asyncio.sleep(0)
            await scene.tracking.finish(0)
            assert await asking
            scene.forward(2)
            assert await scene.tracking._keep(0)
        assert broker.offsets[KEY] == 1
        assert broker.connections == 1
        assert not scene.status.trouble


async def test_a_broker_that_is_silent_at_the_end_holds_nothing_up() -> None:
    async with StreamBroker() as broker:
        scene = Scene(broker)
        async with scene.running():
            scene.forward(1)
            broker.silent = True
            await scene.tracking.finish(0)
        assert scene.status.trouble == "no answer within 0.2 s"


async def test_a_bug_is_logged_and_reported_and_the_next_generation_begins_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with StreamBroker() as broker:
        scene = Scene(broker)

        def broken() -> bool:
            raise RuntimeError("mistake")

        async with scene.running():
            scene.may_store = broken
            scene.forward(1)
            scene.tracking._due.set()
            await eventually(lambda: "a bug in the bridge" in scene.status.trouble, "it is reported")
        assert "a bug in the bridge ended the storing of the offset" in caplog.messages
        scene.may_store = lambda: True
        async with scene.running():
            scene.tick()
            await eventually(lambda: broker.offsets.get(KEY) == 1, "it is stored")
