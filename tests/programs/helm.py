"""A bridge that is steered all the while: paused and resumed, and braked, since a consumer comes and goes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Self

from tests.rig.raw import RawClient, RawClosedError

if TYPE_CHECKING:
    from tests.rig.bridge_process import BridgeProcess

STEERED = {"BRIDGE_MAX_RATE": "20000", "BRIDGE_DESTINATION_MIN_CONSUMERS": "1", "BRIDGE_QUEUE_POLL": "1s"}
"""Settings of a bridge at the helm."""
PAUSED_S = 0.2
PAUSES = 3
"""As long as the consumer is there; one more while it is not."""
BETWEEN_S = 0.8
"""From a pause to the next: longer than it takes the bridge to see that a consumer is there again."""


class Helm:
    """The bridge from entry to exit, and the hand that steers it.

    Both brokers and the bridge may be away, frozen or restarted at any time: the hand tries again at its next turn.
    """

    def __init__(self, bridge: BridgeProcess, destination_url: str, queue_out: str) -> None:
        self._bridge, self._url, self._queue = bridge, destination_url, queue_out
        self._ended = threading.Event()
        self._hand = threading.Thread(target=self._steer, daemon=True)

    def __enter__(self) -> Self:
        self._bridge.start()
        self._hand.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._hand.join()
        self._bridge.kill()

    def _steer(self) -> None:
        while not self._ended.is_set():
            # What it has been sent it gives back: if it just left, each time would count towards a delivery limit, and
            # RabbitMQ 4 drops the first message of a quorum queue after the twentieth.
            with contextlib.suppress(RawClosedError, OSError), RawClient(self._url, timeout_s=2) as consumer:
                consumer.consume(self._queue, prefetch=1)
                self._pause(PAUSES)
                consumer.cancel()
                for held in [delivery.delivery_tag for delivery in consumer.deliveries()]:
                    consumer.reject(held, requeue=True)
            self._pause(1)

    def _pause(self, times: int) -> None:
        for _ in range(times):
            if self._ended.wait(BETWEEN_S):
                return
            # A process that answers knows the signals; that which follows it may not yet.
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):
                pid = self._bridge.status()["bridge"]["process"]["pid"]
                os.kill(pid, signal.SIGUSR1)
                self._ended.wait(PAUSED_S)
                os.kill(pid, signal.SIGUSR2)
