"""The events of the data plane: what was said on the wire, as values. The cutter makes them, the ports act on them."""

from __future__ import annotations

from typing import NamedTuple


class Delivery(NamedTuple):
    """A message as the source handed it over, ready to be published. Made once a message: a plain tuple."""

    delivery_tag: int
    redelivered: int
    """1 when the broker says that it was delivered before, otherwise 0."""
    delivery_count: int
    """How often the source's quorum queue says that it came back; 0 where it does not say.

    Of a delivery without the redelivered flag always 0: what stands in its headers then is the 0 of a quorum queue of
    RabbitMQ 3.10, or was copied there by a shovel or an application, and says nothing of this queue.
    """
    route: bytes
    """Its exchange and routing key as two short strings, as they stand in the delivery."""
    content: bytes
    """Header frame and body frames (see `content`)."""
    body_size: int
    received_s: float
    """Monotonic time; the deliveries of a chunk share one float."""


class Deliveries(NamedTuple):
    """A run of deliveries from one chunk."""

    items: list[Delivery]
    notable: bool
    """Whether any of them is redelivered, and so needs a closer look."""


class Dropped(NamedTuple):
    """A delivery whose content was not kept, since the cutter was told to drop (see `Cutter.drop`), or had to."""

    delivery_tag: int
    redelivered: int
    """As of a `Delivery`."""
    unfit_bytes: int = 0
    """Size of a body that memory had no room for; 0 where the cutter was told to drop."""


class Confirm(NamedTuple):
    """`basic.ack` or `basic.nack` from a broker that was published to."""

    channel: int
    publish_seqno: int
    multiple: bool
    accepted: bool


class Return(NamedTuple):
    """`basic.return`: a mandatory message that no queue takes. It carries no sequence number."""

    channel: int
    reply_code: int
    reply_text: str
    route: bytes
    content: bytes
    """Its header frame and body frames; of a large one (see `pieces`) the header frame alone."""
    body_size: int


class Close(NamedTuple):
    """`channel.close`, or `connection.close` with channel 0."""

    channel: int
    reply_code: int
    reply_text: str


class Blocked(NamedTuple):
    """`connection.blocked`: the broker accepts no more publishes on this connection."""

    reason: str


class Unblocked(NamedTuple):
    """`connection.unblocked`."""


class ConsumerCancelled(NamedTuple):
    """`basic.cancel` from the broker, or (`by_us`) its `cancel-ok`: no delivery follows."""

    by_us: bool
    consumer_tag: str = ""


Event = Deliveries | Dropped | Confirm | Return | Close | Blocked | Unblocked | ConsumerCancelled
