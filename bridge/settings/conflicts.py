"""Conflicts: settings that are right in themselves and do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.errors import CredentialsError
from bridge.settings import parsers
from bridge.settings.oauth import is_installed
from bridge.settings.settings import LOGIN_KINDS, OAUTH_KINDS, PREFIX, SIDE_KINDS, TLS_KINDS, Settings, variable
from bridge.settings.sides import EXAMPLE, has_outer_space
from bridge.settings.tracking import SECURE, has_rstream

if TYPE_CHECKING:
    from bridge.settings.sides import SideSettings

STREAMS = "pip install 'amqp-bridge[streams]'"
MISSING = "which is not installed; expected it to be, by: pip install 'amqp-bridge[oauth]'"


def conflicts(settings: Settings, wrong: set[str], *, targeted: bool = True) -> list[str]:
    """Return what does not go together; `wrong` are the fields that have been complained about already.

    Where it is not `targeted`, each message says itself where it goes, and no queue or exchange is needed.
    """
    lines = [
        f"{variable(field)} is not set; expected {expected}"
        for field, expected in (
            ("source_url", EXAMPLE),
            ("source_queue", "the name of the queue to take messages from"),
        )
        if getattr(settings, field) is None and field not in wrong
    ]
    if targeted and wrong.isdisjoint({"destination_queue", "destination_exchange"}):
        lines += _target_conflicts(settings)
    for side in (settings.source, settings.destination):
        lines += _side_conflicts(settings, side, wrong)
    if wrong.isdisjoint({"source_url", "destination_url"}):
        lines += _loops(settings, targeted=targeted)
    if settings.source_consumer_priority is not None and "x-priority" in settings.source_consumer_arguments:
        lines.append(
            f"{PREFIX}SOURCE_CONSUMER_PRIORITY and x-priority in {PREFIX}SOURCE_CONSUMER_ARGUMENTS are both set; "
            "expected one of them"
        )
    lines += _tracking_conflicts(settings, wrong)
    lines += _brake_conflicts(settings, wrong)
    lines += _binding_conflicts(settings, wrong)
    if settings.max_hops and not settings.provenance and "provenance" not in wrong:
        lines.append(f"{PREFIX}MAX_HOPS is set without {PREFIX}PROVENANCE=true, which counts them; expected both")
    lines += _http_conflicts(settings, wrong)
    if settings.reconnect_min > settings.reconnect_max and wrong.isdisjoint({"reconnect_min", "reconnect_max"}):
        lines.append(
            f"{PREFIX}RECONNECT_MIN ({settings.reconnect_min:g} s) is above {PREFIX}RECONNECT_MAX "
            f"({settings.reconnect_max:g} s); expected it below"
        )
    return lines


def _binding_conflicts(settings: Settings, wrong: set[str]) -> list[str]:
    lines = []
    if settings.source_bindings and not settings.source_declare and "source_declare" not in wrong:
        lines.append(f"{PREFIX}SOURCE_BINDINGS is set without {PREFIX}SOURCE_DECLARE=true; expected both")
    here, there = (_places(side) for side in (settings.source, settings.destination))
    exchange = settings.destination_exchange
    bound = any(binding.exchange == exchange and not binding.arguments for binding in settings.source_bindings)
    if bound and settings.destination_routing_key is None and here & there:
        lines.append(
            f"{PREFIX}DESTINATION_EXCHANGE is one of {PREFIX}SOURCE_BINDINGS, on the same broker, and each message "
            "keeps its key: it would come back; expected another exchange, or another broker"
        )
    return lines


def _tracking_conflicts(settings: Settings, wrong: set[str]) -> list[str]:
    """Return what keeps the offset of a stream from being kept."""
    tracking, name = settings.tracking, f"{PREFIX}SOURCE_OFFSET_NAME"
    if tracking is None:
        if settings.source_stream_url is not None and "source_offset_name" not in wrong:
            return [f"{PREFIX}SOURCE_STREAM_URL is set without {name}; expected both"]
        return []
    lines = []
    stated = "source_queue_type" in settings.model_fields_set or settings.source_declare
    if stated and settings.source_queue_type != "stream" and "source_queue_type" not in wrong:
        lines.append(
            f"{name} is for a stream, and {PREFIX}SOURCE_QUEUE_TYPE is {settings.source_queue_type}; expected stream, "
            f"or no {name}"
        )
    if settings.source.secure and tracking.addresses and tracking.addresses[0].scheme != SECURE:
        lines.append(
            f"{PREFIX}SOURCE_STREAM_URL has no TLS, and {PREFIX}SOURCE_URL has; expected {SECURE}://, or passwords "
            "would cross in the clear"
        )
    if not tracking.name:
        lines.append(f"{name} is empty; expected a name, or that it is not set")
    if not has_rstream():
        lines.append(f"{name} needs rstream, which is not installed; expected it to be, by: {STREAMS}")
    return lines


def _places(side: SideSettings) -> set[tuple[str | None, int | None, str]]:
    """Return where a side's URLs lead: host, port and virtual host."""
    return {(url.host, url.port, url.path.rstrip("/")) for url in side.addresses}


def _http_conflicts(settings: Settings, wrong: set[str]) -> list[str]:
    if settings.http_cert_file is not None or "http_cert_file" in wrong:
        return []
    idle = [field for field in ("http_key_file", "http_client_ca_file") if getattr(settings, field) is not None]
    return [f"{variable(field)} is set without {PREFIX}HTTP_CERT_FILE; expected both" for field in idle]


def _brake_conflicts(settings: Settings, wrong: set[str]) -> list[str]:
    """Return why a brake could not know its queue's state."""
    lines = []
    brakes = ("destination_max_ready", "destination_min_consumers")
    for brake in (variable(field) for field in brakes if getattr(settings, field) is not None):
        if settings.destination_queue is None and wrong.isdisjoint({"destination_queue", "destination_exchange"}):
            lines.append(f"{brake} needs a queue to look at; expected {PREFIX}DESTINATION_QUEUE, not an exchange")
        if not settings.queue_poll and "queue_poll" not in wrong:
            lines.append(f"{brake} needs the queue to be asked; expected {PREFIX}QUEUE_POLL above 0")
        if settings.destination_declare and settings.destination_queue_type == "stream":
            lines.append(
                f"{brake} needs a queue that counts; expected another {PREFIX}DESTINATION_QUEUE_TYPE than stream"
            )
    return lines


def _target_conflicts(settings: Settings) -> list[str]:
    queue, exchange, key = settings.destination_queue, settings.destination_exchange, settings.destination_routing_key
    lines = []
    if settings.destination_route is not None:
        where = ("destination_queue", "destination_exchange", "destination_routing_key")
        lines = [
            f"{PREFIX}DESTINATION_ROUTE=original and {variable(field)} are both set; expected one of them"
            for field in where
            if getattr(settings, field) is not None
        ]
        if settings.destination_declare:
            lines.append(
                f"{PREFIX}DESTINATION_DECLARE declares a queue; expected it with {PREFIX}DESTINATION_QUEUE only"
            )
        return lines
    if queue is None and exchange is None:
        lines.append(
            f"{PREFIX}DESTINATION_QUEUE is not set; expected it, or {PREFIX}DESTINATION_EXCHANGE, or "
            f"{PREFIX}DESTINATION_ROUTE=original"
        )
    if queue is not None and exchange is not None:
        lines.append(f"{PREFIX}DESTINATION_QUEUE and {PREFIX}DESTINATION_EXCHANGE are both set; expected one of them")
    if key is not None and exchange is None:
        lines.append(f"{PREFIX}DESTINATION_ROUTING_KEY is set without {PREFIX}DESTINATION_EXCHANGE; expected both")
    if settings.destination_declare and queue is None and exchange is not None:
        lines.append(f"{PREFIX}DESTINATION_DECLARE declares a queue; expected it with {PREFIX}DESTINATION_QUEUE only")
    return lines


def _side_conflicts(settings: Settings, side: SideSettings, wrong: set[str]) -> list[str]:
    name = variable(side.name)
    given = {kind for kind in SIDE_KINDS if f"{side.name}_{kind}" in settings.model_fields_set}
    bad = {kind for kind in SIDE_KINDS if settings.field_used(f"{side.name}_{kind}") in wrong}
    login = {"username", "password", "password_file"}
    tls = set(TLS_KINDS)
    lines = []
    if {"password", "password_file"} <= given:
        lines.append(f"{name}_PASSWORD and {name}_PASSWORD_FILE are both set; expected one of them")
    lines += _oauth_conflicts(name, given, bad)
    tracking = settings.tracking
    if side.name == "source" and tracking is not None and any(url.scheme == SECURE for url in tracking.addresses):
        tls = set()  # the stream protocol uses them
    lines += _tls_conflicts(side, given & tls, broken=bool(bad & tls))
    if side.auth == "external":
        if side.addresses and (not side.secure or side.tls.cert_file is None) and not bad & tls and "auth" in given:
            lines.append(f"{name}_AUTH=external logs in by certificate; expected an amqps:// URL and {name}_CERT_FILE")
        if given & {*LOGIN_KINDS}:
            lines.append(f"{name}_AUTH=external logs in by certificate; expected no {name}_USERNAME and no password")
    elif (
        given & (login | {"url"}) and not bad & {*LOGIN_KINDS} and not given & {*OAUTH_KINDS} and not side.has_password
    ):
        lines.append(f"{name}_PASSWORD is not set, nor in the URL; expected the password of the user that is named")
    return lines + _declare_conflicts(side, given)


def _oauth_conflicts(name: str, given: set[str], bad: set[str]) -> list[str]:
    """Return what is missing to fetch tokens, or in the way; `name` is how the side's variables begin."""
    oauth = given & {*OAUTH_KINDS}
    if not oauth and not bad & {*OAUTH_KINDS}:
        return []
    lines = [
        f"{name}_{kind.upper()} is not set; expected it with {name}_{min(oauth).upper()}"
        for kind in OAUTH_KINDS[:3]
        if oauth and kind not in given | bad
    ]
    lines += [
        f"{name}_{kind.upper()} is set, and tokens are fetched; expected one or the other"
        for kind in ("password", "password_file")
        if kind in given
    ]
    if not is_installed():
        lines.append(f"{name}_OAUTH_TOKEN_URL needs oauthlib, {MISSING}")
    return lines


def _tls_conflicts(side: SideSettings, given: set[str], *, broken: bool) -> list[str]:
    """`given` are the kinds of TLS settings that are set for the side; one of them is `broken` and reported already."""
    name = variable(side.name)
    if side.tls.verify:
        given = given - {"tls_verify"}  # the default

    def named(kinds: set[str]) -> str:
        return " and ".join(f"{name}_{kind.upper()}" for kind in sorted(kinds))

    lines = []
    client = side.credentials.client
    if client is not None and client.secure:
        given = given - {"ca_file"}  # the token server's, too
    if side.addresses and not side.secure and given:
        lines.append(f"{named(given)} without effect on amqp://; expected an amqps:// URL")
    if not side.tls.verify and (idle := given & {"ca_file", "tls_server_name"}):
        lines.append(f"{named(idle)} without effect with {name}_TLS_VERIFY=false; expected one or the other")
    if broken:
        return lines
    if "key_file" in given and side.tls.cert_file is None:
        lines.append(f"{name}_KEY_FILE is set without {name}_CERT_FILE; expected both")
    elif "key_passphrase_file" in given and side.tls.key_file is None:
        lines.append(f"{name}_KEY_PASSPHRASE_FILE is set without {name}_KEY_FILE; expected both")
    elif side.secure and "cert_file" in given and side.tls.key_file is None:
        lines += _pair(side)
    return lines


def unready(settings: Settings, wrong: set[str]) -> list[str]:
    """Return which certificates have not their keys: while both files are being rotated, or for good."""
    lines = []
    for side in (settings.source, settings.destination):
        files = {settings.field_used(f"{side.name}_{kind}") for kind in ("url", *TLS_KINDS)}
        own = f"{side.name}_cert_file" in settings.model_fields_set
        if own and side.secure and side.tls.cert_file and side.tls.key_file and not files & wrong:
            lines += _pair(side)
    tls = settings.http.tls
    if tls is not None and wrong.isdisjoint({"http_cert_file", "http_key_file", "http_client_ca_file"}):
        try:
            tls.context()
        except CredentialsError as error:
            lines.append(f"{PREFIX}HTTP_CERT_FILE: {error}; {PREFIX}HTTP_KEY_FILE names the key's file")
    return lines


def _pair(side: SideSettings) -> list[str]:
    name = variable(side.name)
    try:
        side.tls.context()
    except CredentialsError as error:
        return [f"{name}_CERT_FILE: {error}; {name}_KEY_FILE names the key's file"]
    return []


def _declare_conflicts(side: SideSettings, given: set[str]) -> list[str]:
    name = variable(side.name)
    if not side.declare:
        # The source's type is also the operator's word on a queue that the bridge may not ask.
        without = ("queue_arguments",) if side.name == "source" else ("queue_type", "queue_arguments")
        kinds = [kind for kind in without if kind in given and _departs(side, kind)]
        return [f"{name}_{kind.upper()} has no effect; expected it with {name}_DECLARE=true" for kind in kinds]
    lines = []
    if side.queue_arguments.get("x-queue-type", side.queue_type) != side.queue_type:
        lines.append(f"{name}_QUEUE_ARGUMENTS names another x-queue-type than {name}_QUEUE_TYPE; expected one")
    if side.queue is not None and side.queue.startswith("amq."):
        lines.append(f'{name}_QUEUE: "{side.queue}" cannot be declared; expected a name that begins not with "amq."')
    if side.queue is not None and has_outer_space(side.queue):
        lines.append(
            f'{name}_QUEUE: "{side.queue}" begins or ends with white space, and {name}_DECLARE would create a queue '
            "of that name; expected it without"
        )
    return lines


def _departs(side: SideSettings, kind: str) -> bool:
    return bool(getattr(side, kind) != Settings.model_fields[f"{side.name}_{kind}"].default)


def _loops(settings: Settings, *, targeted: bool) -> list[str]:
    """Return whether messages would come back to where they were taken from."""
    here, there = (_places(side) for side in (settings.source, settings.destination))
    lines = []
    queue = settings.source_queue
    if targeted and settings.destination_route is not None and here & there:
        lines.append(
            f"{PREFIX}DESTINATION_ROUTE=original publishes to where each message came from, and the destination is the "
            f"source's own broker and virtual host: each would come back; expected {PREFIX}DESTINATION_URL to lead to "
            "another one"
        )
    if queue is not None and queue == settings.destination_queue and here & there:
        lines.append(f"{PREFIX}DESTINATION_QUEUE is the source queue itself; expected another queue, or another broker")
    quarantine = settings.quarantine_queue_name
    if queue is None or not quarantine:
        return lines
    if quarantine == queue:
        lines.append(f"{PREFIX}QUARANTINE_QUEUE is the source queue itself; expected another queue")
    if quarantine == settings.destination_queue and here & there:
        lines.append(f"{PREFIX}QUARANTINE_QUEUE is the destination queue; expected another queue")
    if settings.quarantine_queue is not None and has_outer_space(quarantine):
        lines.append(
            f'{PREFIX}QUARANTINE_QUEUE: "{quarantine}" begins or ends with white space, and would be created with it; '
            "expected it without"
        )
    if fault := parsers.queue_fault(quarantine):
        lines.append(f"{PREFIX}QUARANTINE_QUEUE has to be set: the name that it has by default {fault}")
    return lines
