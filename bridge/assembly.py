"""What a bridge is made of, on one page: every part, what it is given, and who knows whom.

::

    Supervisor ── Keeper (each side) ── Session = a link joined to the relay ── Tap ── socket
        │                                  │
        └──────────── Relay ───────────────┘  a port for each connection: bytes in, bytes out
                        ├── Steering    what comes next
                        ├── Quarantine  its channel beside the consumer's
                        └── Window      every delivery in flight; counts in the Books

Chance and time limits are arguments: a test makes both its own.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING

from bridge.amqp.additions import Additions
from bridge.amqp.preparer import HeaderPolicy
from bridge.connection.braking import Braking
from bridge.connection.channels import Channels
from bridge.connection.counting import Counting
from bridge.connection.dial import Dialer
from bridge.connection.keeper import Keeper
from bridge.connection.limits import DEFAULT
from bridge.connection.renewal import Renewal
from bridge.connection.session import DestinationSession, SourceSession
from bridge.connection.supervisor import Supervisor
from bridge.connection.tap import Pump
from bridge.connection.tracking import Tracking
from bridge.connection.trial import try_login
from bridge.observe.status import Status, TrackingStatus
from bridge.relay.backoff import Backoff
from bridge.relay.consumer import Consumer
from bridge.relay.plan import Plan
from bridge.relay.relay import Relay
from bridge.window.books import Books
from bridge.window.limits import WindowLimits
from bridge.window.memory import Memory
from bridge.window.terms import UNLIMITED
from bridge.window.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.connection.limits import TimeLimits
    from bridge.settings.settings import Settings
    from bridge.window.terms import Terms


PACED_S = 60.0
"""At most what a rate forwards in this time is held: well below every timeout."""


def assemble(  # noqa: PLR0913 - what a bridge is made of that tests or commands vary
    settings: Settings,
    limits: TimeLimits = DEFAULT,
    chance: Callable[[], float] = random.random,
    new_backoff: Callable[[float, float, Callable[[], float]], Backoff] = Backoff,
    dialer: Dialer | None = None,
    *,
    terms: Terms = UNLIMITED,
) -> Supervisor:
    """Return a bridge that is not connected yet; `chance` returns a number from 0 to 1.

    `terms` are those of a bridge that ends by itself.
    """
    name = settings.source_offset_name or ""
    books, status = Books(), Status(tracking=TrackingStatus(name))
    memory = Memory(enabled=settings.deduplication == "message-id")
    target = terms.target or settings.target
    window = Window(window_limits(settings, limits), target, books, memory, chance, terms=terms)
    relay = Relay(window, plan(settings, limits), chance)
    changed = asyncio.Event()
    pump = Pump(relay, changed.set)
    dialer = dialer or Dialer()
    tracking = None
    if settings.tracking is not None:
        tracking = Tracking(
            settings.tracking,
            window,
            status.tracking,
            new_backoff(settings.reconnect_min, settings.reconnect_max, chance),
            may_store=lambda: relay.steering.consumer is not Consumer.LOST,
            begins_at=settings.source_consumer_arguments.get("x-stream-offset", "first"),
            limits=limits,
            dialer=dialer,
        )
    source, destination = (
        Keeper(
            books=books,
            changed=changed,
            side=side,
            status=side_status,
            backoff=new_backoff(settings.reconnect_min, settings.reconnect_max, chance),
            make=partial(session, relay, pump, settings, limits, channels=Channels(), dialer=dialer),
            stable_s=limits.stable_s,
        )
        for side, side_status, session in (
            (settings.source, status.source, partial(SourceSession, tracking=tracking)),
            (settings.destination, status.destination, DestinationSession),
        )
    )
    for keeper, side, side_status in (
        (source, settings.source, status.source),
        (destination, settings.destination, status.destination),
    ):
        keeper.accompany(Renewal(side, side_status, limits.renew_s, partial(try_login, settings, side, limits)).run)
    steering, every_s = relay.steering, settings.queue_poll
    counting = Counting(
        settings.source_queue,
        status.source.backlog,
        every_s,
        stream=lambda: steering.stream,
        consumed=lambda: steering.consumer is Consumer.ON,
    )
    source.accompany(counting.run)
    if tracking is not None:
        source.accompany(tracking.run)
    counting_there = Counting(
        settings.destination_queue,
        status.destination.backlog,
        every_s,
        listener=Braking(steering.brake, changed.set) if settings.braked else None,
    )
    destination.accompany(counting_there.run)
    return Supervisor(
        settings,
        relay=relay,
        pump=pump,
        status=status,
        source=source,
        destination=destination,
        changed=changed,
        count_source=counting.ask,
        count_destination=counting_there.ask,
        tracking=tracking,
    )


def window_limits(settings: Settings, limits: TimeLimits = DEFAULT) -> WindowLimits:
    """Return what the settings hold the window to."""
    return WindowLimits(
        prefetch=settings.source_prefetch,
        max_in_flight_bytes=settings.max_in_flight_bytes,
        confirm_timeout_s=settings.confirm_timeout,
        hold_timeout_s=settings.hold_timeout,
        unroutable_timeout_s=settings.unroutable_timeout,
        retry_max_s=limits.retry_max_s,
        delivery_limit=settings.delivery_limit,
        quarantine=bool(settings.quarantine_queue_name),
        max_hops=settings.max_hops,
        stream_filtered="x-stream-filter" in settings.source_consumer_arguments,
        destination_counted=settings.braked,
        destination_max_ready=settings.destination_max_ready or 0,
        max_rate=settings.max_rate or 0.0,
        max_bytes_per_s=settings.max_bytes_per_second or 0.0,
        # A shutdown, too, forwards at this rate what is held, and its consumer may stay for half of its time.
        paced_s=min(PACED_S, max(1.0, settings.shutdown_timeout / 2)),
    )


def additions(settings: Settings) -> Additions | None:
    """Return the headers that each message gets; None for none."""
    url = settings.source.urls[0].with_query(None) if settings.provenance else None
    return Additions.of(settings.add_headers, "" if url is None else f"{url} {settings.source_queue}")


def plan(settings: Settings, limits: TimeLimits = DEFAULT) -> Plan:
    """Return what the settings ask of the relay."""
    policy = HeaderPolicy(
        destination_user=settings.destination.username.encode(),
        user_id=settings.user_id,
        cc=settings.cc,
        delivery_count=settings.delivery_count,
        additions=additions(settings),
    )
    return Plan(
        quarantine_queue=settings.quarantine_queue_name,
        source_queue=settings.source_queue or "",
        policy=policy,
        queue_type=settings.stated_source_type,
        shutdown_timeout_s=settings.shutdown_timeout,
        start_paused=settings.start_paused,
        destination_max_ready=settings.destination_max_ready or 0,
        destination_min_consumers=settings.destination_min_consumers or 0,
        reconnect_min_s=settings.reconnect_min,
        reconnect_max_s=settings.reconnect_max,
        ask_every_s=limits.ask_every_s,
        unused_pause_s=limits.unused_pause_s,
    )
