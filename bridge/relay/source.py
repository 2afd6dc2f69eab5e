"""The source's port, sans-I/O: deliveries in; acks, requeues, cancels and publishes to the quarantine out.

It writes the consumer's cancel, too, since its place on the wire matters: a message that is requeued before the cancel
is written comes straight back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.amqp.events import Blocked, Close, Confirm, ConsumerCancelled, Deliveries, Dropped, Return, Unblocked
from bridge.amqp.frames import QUARANTINE_CHANNEL, ack_frame, cancel_frame, requeue_frame
from bridge.amqp.preparer import ContentPreparer
from bridge.errors import MalformedFrameError
from bridge.relay.port import Port

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.amqp.events import Event
    from bridge.amqp.preparer import HeaderPolicy
    from bridge.relay.port import Closed
    from bridge.relay.quarantine import Quarantine
    from bridge.relay.queue import QueueFacts
    from bridge.relay.steering import Steering
    from bridge.window.window import Window


class Source(Port):
    """One connection to the source."""

    def __init__(
        self, window: Window, steering: Steering, quarantine: Quarantine, policy: HeaderPolicy, closed: Closed
    ) -> None:
        self._preparer = ContentPreparer(policy)
        super().__init__(self._preparer, closed)
        self._window, self._steering, self._quarantine = window, steering, quarantine
        self._frame_max = 0
        self._output: list[bytes] = []
        self._unfit_bytes = 0

    @property
    def unfit_bytes(self) -> int:
        """Size of a message that memory had no room for; 0 for none. It was requeued, and will come again."""
        return self._unfit_bytes

    @property
    def unfinished(self) -> tuple[int, int, int]:
        """Numbers that change while a delivery arrives (see `Cutter.unfinished`)."""
        return self._cutter.unfinished

    @property
    def has_data_to_send(self) -> bool:
        """Whether there are frames to write."""
        return bool(self._output)

    def opened(self, frame_max: int, facts: QueueFacts | None = None) -> None:
        """The channel is open: a generation begins; `facts` are what the broker said of the queue."""
        self._begin(frame_max)
        self._frame_max = frame_max
        self._window.source_opened(frame_max)
        self._steering.source_opened(facts)
        self._preparer.believe(self._steering.facts.counts)

    def _end(self, now_s: float) -> None:
        self._output = []
        self._quarantine.source_lost()
        self._steering.source_lost(self.close, now_s)
        self._window.source_lost()

    def take(self, events: Iterable[Event], now_s: float) -> None:
        """Act on what was cut. Raises `MalformedFrameError` for what cannot be."""
        for event in events:
            match event:
                case Deliveries(items, notable):
                    self._steering.delivered(items[0])
                    self._window.receive(items, now_s, notable=notable)
                case Dropped(delivery_tag, redelivered, unfit_bytes):
                    self._unfit_bytes = max(unfit_bytes, self._unfit_bytes)
                    self._window.drop(delivery_tag, redelivered, "memory")
                case Confirm(channel=channel) | Return(channel=channel) if channel == QUARANTINE_CHANNEL:
                    self._quarantine.answered(event, now_s)
                case ConsumerCancelled(by_us, consumer_tag):
                    self._steering.cancelled(consumer_tag, now_s, by_us=by_us)
                    self.shed()
                case Close(channel=channel) if channel == QUARANTINE_CHANNEL:
                    self._quarantine.closed(event, now_s)
                case Close():
                    self._note(event)
                case Blocked() | Unblocked():
                    pass  # it publishes nothing but what goes to the quarantine, which waits for its confirms
                case _:
                    message = f"a {type(event).__name__} from the source"
                    raise MalformedFrameError(message)
        self.settle(now_s)

    def shed(self) -> None:
        """Begin or cease to drop the bodies of deliveries, as the steering has decided."""
        self._cutter.drop(on=self._steering.shedding)

    def quarantine(self, now_s: float) -> None:
        """Publish what has been condemned, as far as the quarantine is open and has room."""
        self._output += self._quarantine.take_publishes(self._frame_max, now_s)

    def settle(self, now_s: float) -> None:
        """Encode what was decided for the source."""
        self.quarantine(now_s)
        window, steering, output = self._window, self._steering, self._output
        if steering.settle(now_s):
            output += map(cancel_frame, steering.take_cancels())
            if steering.withholds:
                return
        settlement = window.settlement
        if settlement.acks:
            output += [ack_frame(tag, multiple=multiple) for tag, multiple in settlement.take_acks()]
        if settlement.requeues:
            requeues = settlement.take_requeues()
            if window.in_flight == 0 and not settlement.keeps:
                # Nothing else is unsettled, so that `multiple` can only mean these: one frame, and the source puts all
                # back in one go, in their order where the queue keeps it.
                output.append(requeue_frame(max(requeues), multiple=True))
            else:
                output += [requeue_frame(tag, multiple=False) for tag in requeues]

    def data_to_send(self) -> list[bytes]:
        """Hand over the frames for the source; empty when there is nothing to write now."""
        if not self._output:
            return []
        output, self._output = self._output, []
        return output

    def take_piece(self) -> list[bytes | memoryview]:
        """Hand over the next piece of a large message for the quarantine, to be written after `data_to_send`."""
        return self._quarantine.take_piece()
