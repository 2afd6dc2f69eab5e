"""An inspection: what one URL of a side leads to, as findings for an operator; moves no message and creates nothing.

What is asked, and how, is `inquiry`'s.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.amqp.target import Target
from bridge.check.finding import Finding
from bridge.check.inquiry import Inquiry
from bridge.check.tokens import judged
from bridge.connection.kind import DELAYED, UNSERVED, Queue
from bridge.connection.limits import DEFAULT
from bridge.connection.stream import stored_offset
from bridge.errors import BridgeError, ConnectError
from bridge.settings.settings import MIN_DELIVERY_LIMIT
from bridge.settings.sides import has_outer_space
from bridge.window.blame import FORBIDDEN_KEY

if TYPE_CHECKING:
    from bridge.check.finding import Level
    from bridge.connection.limits import TimeLimits
    from bridge.settings.settings import Settings
    from bridge.settings.sides import SideSettings
    from bridge.settings.tracking import TrackingSettings

EXPIRES_SOON_DAYS = 30.0
"""A certificate that ends sooner is a warning."""
QUORUM_MAX_PREFETCH = 2000
"""RabbitMQ's documentation, of quorum queues."""
RABBITMQ_4 = (4, 0)
DEFAULT_DELIVERY_LIMIT = 20
"""A quorum queue's since 4.0; before, there was none by default."""


class Inspection:
    """One URL of one side, and what was found there."""

    def __init__(self, settings: Settings, side: SideSettings, index: int, limits: TimeLimits = DEFAULT) -> None:
        self.inquiry = Inquiry(settings, side, index, limits)
        self.findings: list[Finding] = []
        self._settings = settings
        self._side = side
        self._index = index
        self._limits = limits
        self._label = side.name if len(side.addresses) == 1 else f"{side.name} {index + 1}"

    def found(self, level: Level, subject: str, text: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(level, self._label, subject, text))

    async def inspect(self) -> None:
        """Connect and look at everything; what goes wrong is a finding. To close the inquiry is the caller's."""
        self._inspect_names()
        await self._inspect_own_certificate()
        await self._inspect_token()
        try:
            await self.inquiry.open(self._index)
        except BridgeError as error:
            self.found("error", "connection", str(error))
            return
        try:
            self._inspect_connection()
            self._inspect_certificates()
            if self._side.name == "source":
                await self._inspect_source()
            else:
                await self._inspect_destination()
        except ConnectError as error:
            self.found("error", "connection", str(error))

    def _inspect_connection(self) -> None:
        broker, url = self.inquiry.broker, self._side.safe_urls[self._index]
        name = f"{broker.product} {broker.version_text}, cluster {broker.cluster or 'unknown'}"
        self.found("ok", "connection", f"{url}: {name}; logged in")
        self.found("ok", "tuning", f"heartbeat {broker.heartbeat_s} s, frame_max {broker.frame_max} bytes")
        if not broker.version:
            text = f"{broker.product} is not RabbitMQ: types and permissions were not looked at"
            self.found("warning", "server", text)

    def _inspect_names(self) -> None:
        """Done before connecting: what begins or ends with white space is refused as unknown, and looks right."""
        side = self._side
        exchange = self._settings.destination_exchange if side.name == "destination" else None
        for what, name in (("queue", side.queue), ("exchange", exchange), ("user", side.user(self._index))):
            if name is not None and has_outer_space(name):
                text = f'the name of {what} "{name}" begins or ends with white space; check that this is intended'
                self.found("warning", "white space", text)

    async def _inspect_own_certificate(self) -> None:
        """Done before connecting: a broker that refuses it may not say why."""
        tls = self._side.tls
        if tls.cert_file is None or self._side.addresses[self._index].scheme != "amqps":
            return
        for not_after in await self.inquiry.client_certificate_ends():
            self._inspect_expiry(f"the client certificate {tls.cert_file}", not_after, ended="error")

    async def _inspect_token(self) -> None:
        """Done before connecting: a broker that refuses it does not say why."""
        token = await self.inquiry.token()
        if token is not None:
            for level, text in judged(token, self._side, time.time()):
                self.found(level, "token", text)

    def _inspect_certificates(self) -> None:
        if self._side.unverified:
            self.found("warning", "certificate", self._side.unverified)
            return
        brokers, authorities = self.inquiry.certificate_ends()
        for not_after in brokers:
            self._inspect_expiry("the broker's certificate", not_after)
        for not_after in authorities if self._side.tls.ca_file else ():
            self._inspect_expiry(f"a CA in {self._side.tls.ca_file}", not_after)

    def _inspect_expiry(self, whose: str, not_after: str, ended: Level = "warning") -> None:
        """`ended` is the level of one that has: a connection that is open needed no such CA."""
        days = (ssl.cert_time_to_seconds(not_after) - time.time()) / 86400
        soon = days < EXPIRES_SOON_DAYS
        text = f"{whose} {'was' if days < 0 else 'is'} good until {not_after} ({days:.0f} days)"
        level: Level = ended if days < 0 else "warning" if soon else "ok"
        self.found(level, "certificate", text + ("; renew it" if soon else ""))

    async def _inspect_source(self) -> None:
        settings = self._settings
        queue = await self._inspect_queue(settings.source_queue or "")
        if queue is not None:
            await self._inspect_reading(queue)
            self._inspect_prefetch(queue)
            await self._inspect_offset(queue)
            self._inspect_delivery_limit(queue)
        await self._inspect_bindings(exists=queue is not None)
        await self._inspect_quarantine()

    async def _inspect_bindings(self, *, exists: bool) -> None:
        """`exists` says whether the source queue does."""
        bindings, name = self._settings.source_bindings, self._side.queue or ""
        if not bindings:
            return
        for exchange in dict.fromkeys(binding.exchange for binding in bindings):
            try:
                await self.inquiry.find_exchange(exchange)
                if exists and self.inquiry.broker.version:
                    await self.inquiry.may_bind(name, exchange)
            except ConnectError as error:
                self.found("error", "bindings", str(error))
            else:
                what = "exists, and the user may bind the queue to it" if exists else "exists"
                self.found("ok", "bindings", f'exchange "{exchange}" {what}')
        command = f'rabbitmqctl list_bindings --vhost "{self.inquiry.vhost[1:] or "/"}"'
        text = f"AMQP lists no bindings, and one that is removed from BRIDGE_SOURCE_BINDINGS stays: see `{command}`"
        self.found("ok", "bindings", text)

    async def _inspect_destination(self) -> None:
        settings = self._settings
        if settings.destination_queue is not None:
            queue = await self._inspect_queue(settings.destination_queue)
            self._inspect_stream(queue)
            if queue is not None:
                text = f'publishing to queue "{settings.destination_queue}" is allowed'
                await self._inspect_publishing("route", settings.target, text)
            return
        target = settings.target
        exchange = target.exchange
        if settings.destination_route is not None:
            await self._inspect_publishing("route", target, "publishing to the default exchange is allowed")
            vhost = self.inquiry.vhost[1:] or "/"
            text = (
                "AMQP lists no exchanges: which of those that messages name exist here, and may be published to, is "
                "asked when the first message for each comes; compare "
                f'`rabbitmqctl list_exchanges --vhost "{vhost}" name type` and `rabbitmqctl list_permissions` here '
                "with what publishers use at the source"
            )
            self.found("ok", "exchanges", text)
            return
        try:
            await self.inquiry.find_exchange(exchange)
        except ConnectError as error:
            self.found("error", "exchange", str(error))
            return
        if self.inquiry.broker.version and await self.inquiry.exchange_type_of(exchange) == DELAYED:
            self.found("error", "exchange", f'exchange "{exchange}" {UNSERVED}')
            return
        which = "each message's key" if target.keeps_keys else f'key "{target.routing_key}"'
        text = (
            f'exchange "{exchange}" exists and publishing is allowed; only a publish shows whether {which} has a route'
        )
        await self._inspect_publishing("route", target, text)

    def _inspect_stream(self, queue: Queue | None) -> None:
        """`queue` is None where it is missing, or cannot be used."""
        known = queue.queue_type if queue is not None else ""
        if (known or (self._side.declare and self._side.queue_type)) == "stream":
            # Its messages are stored in the format of AMQP 1.0 (measured on 3.10.8 and 4.3.6).
            text = (
                "a stream keeps no arrays and tables of a header (x-death is one) and makes 1.5 to 1, so that messages "
            )
            self.found(
                "warning", "stream", text + "with such headers are changed; a classic or quorum queue keeps them"
            )

    async def _inspect_queue(self, name: str) -> Queue | None:
        """Return what is known of the side's queue, None where it cannot be used."""
        try:
            state = await self.inquiry.state_of(name)
            if self._side.declare:
                await self.inquiry.declare(name)
        except ConnectError as error:
            if error.result != "missing" or not self._side.declare:
                self.found("error", "queue", str(error))
                return None
            refusal = await self._refusal_to_declare(name)
            if refusal is not None:
                self.found("error", "queue", refusal)
            else:
                self.found("ok", "queue", f'queue "{name}" is missing; the bridge will declare it')
            return None
        queue = await self.inquiry.kind_of(name) if self.inquiry.broker.version else Queue()
        counts = f"{state.ready} messages ready, {state.consumers} consumers"
        kind = queue.queue_type or "of unknown type (the user may not declare it)"
        self.found("ok", "queue", f'queue "{name}", {kind}: {counts}')
        if not queue.durable:
            text = f'queue "{name}" is not durable: a restart of the broker deletes it; make it durable'
            self.found("warning", "durability", text)
        return replace(queue, consumers=state.consumers)

    async def _refusal_to_declare(self, name: str) -> str | None:
        return await self.inquiry.refusal_to_declare(name) if self.inquiry.broker.version else None

    async def _inspect_reading(self, queue: Queue) -> None:
        if not self.inquiry.broker.version:
            return
        try:
            await self.inquiry.may_consume(self._side.queue or "")
        except ConnectError as error:
            self.found("error", "consuming", str(error))
        else:
            self.found("ok", "consuming", "the user may consume; nothing was consumed")
            if queue.consumers == 1 and queue.queue_type in {"classic", ""}:
                # To ask, one would have to consume. Quorum queues and streams let others consume all the same.
                text = f'queue "{self._side.queue}" has a consumer; AMQP does not tell whether it is an exclusive one, '
                text += (
                    "beside which the bridge cannot consume: see `rabbitmqctl list_queues name exclusive_consumer_tag`"
                )
                self.found("warning", "exclusive", text)

    async def _inspect_publishing(self, subject: str, target: Target, text: str) -> None:
        if not self.inquiry.broker.version:
            return
        try:
            await self.inquiry.may_publish(target)
        except ConnectError as error:
            if target.keeps_keys and FORBIDDEN_KEY in str(error):
                text = f'the user has topic permissions on exchange "{target.exchange}", and each message has its own '
                text += "key: one with a key that they do not cover closes the channel; see that they cover them all"
                self.found("warning", subject, text)
                return
            # An alarm is not the configuration's fault, and a quarantine is not needed to forward.
            mild = error.result == "blocked" or subject == "quarantine"
            advice = "; it forwards nothing until the alarm is cleared" if error.result == "blocked" else ""
            self.found("warning" if mild else "error", subject, f"{error}{advice}")
        else:
            self.found("ok", subject, f"{text} (an empty message in a transaction, rolled back)")

    def _inspect_prefetch(self, queue: Queue) -> None:
        prefetch = self._settings.source_prefetch
        if prefetch > QUORUM_MAX_PREFETCH and queue.queue_type in {"quorum", ""}:
            text = (
                f"{prefetch} is above a quorum queue's cap; set BRIDGE_SOURCE_PREFETCH to {QUORUM_MAX_PREFETCH} or less"
            )
            self.found("warning", "prefetch", text)

    async def _inspect_offset(self, queue: Queue) -> None:
        """Look at where the bridge would begin to read a stream."""
        tracking = self._settings.tracking
        begins_at = self._settings.source_consumer_arguments.get("x-stream-offset")
        if tracking is None:
            if queue.queue_type == "stream":
                text = (
                    f'each start of the bridge reads the stream from x-stream-offset on, here "{begins_at or "next"}", '
                )
                text += (
                    "so that messages are missed or come again; set BRIDGE_SOURCE_OFFSET_NAME, and the broker keeps "
                )
                self.found("warning", "offset", f"{text}how far it was forwarded")
            return
        if queue.queue_type not in {"stream", ""}:
            text = f"BRIDGE_SOURCE_OFFSET_NAME is for a stream, and the queue is a {queue.queue_type} queue; unset it"
            self.found("error", "offset", text)
            return
        indices = range(tracking.number) if tracking.addresses else [self._index]
        for index in indices if self._index == 0 or not tracking.addresses else ():
            await self._inspect_stored(tracking, index, begins_at or "first")

    async def _inspect_stored(self, tracking: TrackingSettings, index: int, begins_at: object) -> None:
        where = tracking.seen_as_side(index).safe_urls[0]
        try:
            stored = await stored_offset(tracking, index, self._limits)
        except BridgeError as error:
            text = f"{error}; the bridge does not begin before it has asked where to"
            self.found("error", "offset", text)
            return
        if stored is None:
            text = f'{where}: none is stored as {tracking.name}; the bridge would begin at "{begins_at}"'
        else:
            text = f"{where}: {stored} is stored as {tracking.name}; the bridge would read on after it"
        self.found("ok", "offset", text)

    def _inspect_delivery_limit(self, queue: Queue) -> None:
        version = self.inquiry.broker.version
        if queue.queue_type not in {"quorum", ""} or not version:
            return
        default = DEFAULT_DELIVERY_LIMIT if version >= RABBITMQ_4 else -1
        limit = default if queue.delivery_limit is None else queue.delivery_limit
        ours = self._settings.delivery_limit
        if limit < 0:
            self.found("ok", "delivery limit", "the queue has none, unless a policy sets one (AMQP does not show it)")
        elif limit < MIN_DELIVERY_LIMIT:
            text = f"the broker drops a message that comes back {limit} times, before the bridge can quarantine it: "
            text += f"give the queue a limit of {MIN_DELIVERY_LIMIT} or more (x-delivery-limit, or a policy), and set "
            self.found("warning", "delivery limit", f"{text}BRIDGE_DELIVERY_LIMIT to the same")
        elif 0 < ours <= limit:
            text = f"the queue's is {limit} unless a policy sets another; the bridge quarantines within 3 of {ours}"
            self.found("ok", "delivery limit", text)
        else:
            text = f"the broker drops a message that comes back {limit} times; set BRIDGE_DELIVERY_LIMIT={limit}"
            self.found("warning", "delivery limit", f"{text}, so that the bridge quarantines it before")

    async def _inspect_quarantine(self) -> None:
        name = self._settings.quarantine_queue_name
        if not name:
            text = "BRIDGE_QUARANTINE_QUEUE is empty: what the destination can never take is held"
            self.found("ok", "quarantine", text)
            return
        try:
            await self.inquiry.state_of(name)
        except ConnectError as error:
            if error.result != "missing":
                self.found("warning", "quarantine", str(error))
                return
            refusal = await self._refusal_to_declare(name)
            if refusal is not None:
                text = f'queue "{name}" is missing and cannot be declared: {refusal}, or create it'
                self.found("warning", "quarantine", text)
                return
            text = f'queue "{name}" is missing and will be declared when it is needed; publishing to it is allowed'
        else:
            text = f'queue "{name}" exists; publishing to it is allowed'
        await self._inspect_publishing("quarantine", Target.queue(name), text)
        if self.inquiry.broker.version:
            command = f'`rabbitmqctl list_policies --vhost "{self.inquiry.vhost[1:] or "/"}"`'
            text = f'AMQP shows no policies: one with message-ttl, expires or max-length could empty "{name}"; '
            self.found("ok", "policies", f"{text}see {command}, and the README for a policy that protects it")
