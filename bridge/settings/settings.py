"""The settings: every option is written here once, with its default, its check and what to say about it.

`--help`, the tables of the documents, `config/bridge.env` and the chart's values are made from or checked against this.
No secret is ever shown. Where the values come from is `environment`; which of them do not go together, `conflicts`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.amqp.target import OriginalRoutes, Target
from bridge.settings import bindings, parsers, tables
from bridge.settings.fields import (
    AuthWord,
    Bindings,
    CaFile,
    CertificateFile,
    ConsumerArguments,
    ExchangeName,
    File,
    Flag,
    HostNames,
    KeyFile,
    Name,
    Password,
    QueueName,
    QueueTypeWord,
    Scope,
    StreamUrls,
    Table,
    TokenFile,
    TokenUrl,
    TreatmentWord,
    Urls,
)
from bridge.settings.http import HttpSettings, ServerTls
from bridge.settings.oauth import TokenClient
from bridge.settings.sides import EXAMPLE, Credentials, QueueType, SideSettings
from bridge.settings.tls import Tls
from bridge.settings.tracking import STREAM_EXAMPLE, TrackingSettings
from bridge.words import SideName  # noqa: TC001 - beside types that pydantic reads

PREFIX = "BRIDGE_"
TLS_KINDS = ("ca_file", "cert_file", "key_file", "key_passphrase_file", "tls_server_name", "tls_verify")
OAUTH_KINDS = ("oauth_token_url", "oauth_client_id", "oauth_client_secret_file", "oauth_scope")
LOGIN_KINDS = ("username", "password", "password_file", *OAUTH_KINDS)
SIDE_KINDS = (
    *("url", *LOGIN_KINDS, *TLS_KINDS, "auth"),
    *("declare", "queue_type", "queue_arguments"),
)
"""What both sides have a setting of."""
MIN_DELIVERY_LIMIT = 4
"""The guard quarantines within 3 of the limit: with a lower one it would quarantine what comes for the first time."""
CONSUMER_TIMEOUT_S = 1800
"""RabbitMQ's default `consumer_timeout`: what is held must have been requeued before."""


class Settings(BaseSettings):
    """The configuration. Immutable; made by `environment.load_settings`, which also checks what goes together."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=False
    )

    # What a field's description does not say of its default, `json_schema_extra` does.
    source_url: Urls = Field(
        None,
        description=f"The source's broker: {EXAMPLE}. Several, comma-separated, are tried in turn.",
        json_schema_extra={"shown": "required", "secret": True},
    )
    source_queue: QueueName = Field(
        None, description="The queue to take messages from.", json_schema_extra={"shown": "required"}
    )
    source_username: Name = Field(
        None, description="The user, in place of the URL's.", json_schema_extra={"shown": "from the URL"}
    )
    source_password: Password = Field(
        None,
        description="The password, in place of the URL's.",
        json_schema_extra={"shown": "from the URL", "secret": True},
    )
    source_password_file: File = Field(
        None,
        description=(
            "A file with the password, re-read on every connect: rotated secrets just work. One with a token (OAuth 2, "
            "a JWT) is compared every 10 s, and a new token used on the open connection."
        ),
    )
    source_oauth_token_url: TokenUrl = Field(
        None,
        description="The token endpoint of an OAuth 2 server, which gives the bridge tokens by client credentials.",
        json_schema_extra={"shown": "a password"},
    )
    source_oauth_client_id: Name = Field(None, description="The client that the tokens are for.")
    source_oauth_client_secret_file: File = Field(None, description="A file with its secret, re-read for each token.")
    source_oauth_scope: Scope = Field(
        None,
        description="What to ask for, separated by spaces.",
        json_schema_extra={"shown": "what the server grants by itself"},
    )
    source_ca_file: CaFile = Field(
        None, description="The CAs to trust, in PEM.", json_schema_extra={"shown": "the system's CAs"}
    )
    source_cert_file: CertificateFile = Field(None, description="A client certificate, in PEM.")
    source_key_file: KeyFile = Field(None, description="Its key, in PEM.")
    source_key_passphrase_file: File = Field(None, description="A file with the passphrase of a key that is encrypted.")
    source_tls_server_name: Annotated[str | None, parsers.host_name()] = Field(
        None,
        description="The name that the broker's certificate has, where the URL has an address or a tunnel's end.",
        json_schema_extra={"shown": "the URL's host"},
    )
    source_tls_verify: Flag = Field(
        default=True,
        description="Whether the broker's certificate is verified. `false` trusts whoever answers.",
    )
    source_auth: AuthWord = Field(
        "plain", description="How to log in: `plain`, or `external` by the client certificate."
    )
    source_prefetch: Annotated[int, parsers.whole(1, 65535)] = Field(
        1000, description="How many messages may be in flight: received and not acked."
    )
    source_consumer_priority: Annotated[int | None, parsers.whole(-(2**31), 2**31 - 1)] = Field(
        None, description="The consumer's priority: a second bridge with a lower one is a standby."
    )
    source_consumer_arguments: ConsumerArguments = Field(
        {}, description='Arguments for the consumer as JSON; for a stream, `{"x-stream-offset": "first"}`.'
    )
    source_offset_name: Name = Field(
        None,
        description=(
            "Of a stream: the name under which the broker keeps how far it was forwarded, so that the next process "
            "reads on there. One bridge per name."
        ),
        json_schema_extra={"shown": "each process begins at x-stream-offset"},
    )
    source_stream_url: StreamUrls = Field(
        None,
        description=(
            f"Where the stream protocol is spoken for that: {STREAM_EXAMPLE}. Several, comma-separated, are tried in "
            "turn. No other address is followed, whatever the broker advertises."
        ),
        json_schema_extra={"shown": "the source's hosts, port 5552, or 5551 with TLS", "secret": True},
    )
    source_declare: Flag = Field(
        default=False, description="Declare the source queue, durable, when connecting; otherwise it must exist."
    )
    source_queue_type: QueueTypeWord = Field(
        "quorum",
        description=(
            "The source queue's type: `classic`, `quorum` or `stream`. For the declaration, and for a queue that the "
            "bridge may not ask (that needs the permission to configure it)."
        ),
    )
    source_queue_arguments: Table = Field({}, description="More arguments for its declaration, as JSON.")
    source_bindings: Bindings = Field(
        (),
        description=(
            "With `BRIDGE_SOURCE_DECLARE`: what the source queue is bound to when connecting, as JSON: "
            f"`{bindings.EXAMPLE}`, each with `arguments` where the exchange wants them. A binding that is "
            "removed here stays."
        ),
    )

    destination_url: Urls = Field(
        None,
        description="The destination's broker, in the same form.",
        json_schema_extra={"shown": "the source's, with its login", "secret": True},
    )
    destination_queue: QueueName = Field(
        None,
        description="The queue to publish to.",
        json_schema_extra={"shown": "this, an exchange or a route is required"},
    )
    destination_exchange: ExchangeName = Field(None, description="The exchange to publish to, in place of a queue.")
    destination_routing_key: Annotated[str | None, parsers.short_string("a routing key")] = Field(
        None, description="The routing key for the exchange.", json_schema_extra={"shown": "each message's own"}
    )
    destination_route: Annotated[Literal["original"] | None, parsers.choice("original")] = Field(
        None,
        description=(
            "`original`: publish each message to the exchange and with the routing key that it was delivered with, in "
            "place of a queue or an exchange. The destination is another broker or virtual host."
        ),
    )
    destination_username: Name = Field(
        None, description="The user, in place of the URL's.", json_schema_extra={"shown": "from the URL"}
    )
    destination_password: Password = Field(
        None,
        description="The password, in place of the URL's.",
        json_schema_extra={"shown": "from the URL", "secret": True},
    )
    destination_password_file: File = Field(
        None, description="A file with the password, or with a token, read in the same way."
    )
    destination_oauth_token_url: TokenUrl = Field(
        None,
        description="The token endpoint of an OAuth 2 server, which gives the bridge tokens by client credentials.",
        json_schema_extra={"shown": "a password"},
    )
    destination_oauth_client_id: Name = Field(None, description="The client that the tokens are for.")
    destination_oauth_client_secret_file: File = Field(
        None, description="A file with its secret, re-read for each token."
    )
    destination_oauth_scope: Scope = Field(
        None,
        description="What to ask for, separated by spaces.",
        json_schema_extra={"shown": "what the server grants by itself"},
    )
    destination_ca_file: CaFile = Field(
        None, description="The CAs to trust, in PEM.", json_schema_extra={"shown": "the system's CAs"}
    )
    destination_cert_file: CertificateFile = Field(None, description="A client certificate, in PEM.")
    destination_key_file: KeyFile = Field(None, description="Its key, in PEM.")
    destination_key_passphrase_file: File = Field(
        None, description="A file with the passphrase of a key that is encrypted."
    )
    destination_tls_server_name: Annotated[str | None, parsers.host_name()] = Field(
        None,
        description="The name that the broker's certificate has, where the URL has an address or a tunnel's end.",
        json_schema_extra={"shown": "the URL's host"},
    )
    destination_tls_verify: Flag = Field(
        default=True,
        description="Whether the broker's certificate is verified. `false` trusts whoever answers.",
    )
    destination_auth: AuthWord = Field(
        "plain", description="How to log in: `plain`, or `external` by the client certificate."
    )
    destination_declare: Flag = Field(
        default=False, description="Declare the destination queue, durable, when connecting; otherwise it must exist."
    )
    destination_queue_type: QueueTypeWord = Field(
        "quorum", description="Its type, when declared: `classic`, `quorum` or `stream`."
    )
    destination_queue_arguments: Table = Field({}, description="More arguments for its declaration, as JSON.")

    max_in_flight_bytes: Annotated[int, parsers.size(1, 1 << 40)] = Field(
        64 << 20,
        description="How many bytes may be in flight; past that, reading from the source pauses.",
        json_schema_extra={"shown": "64MiB"},
    )
    confirm_timeout: Annotated[float, parsers.duration(1, CONSUMER_TIMEOUT_S)] = Field(
        30.0,
        description="How long to wait for a confirm before reconnecting to the destination.",
        json_schema_extra={"shown": "30s"},
    )
    hold_timeout: Annotated[
        float,
        parsers.duration(1, CONSUMER_TIMEOUT_S - 60, hint=", well below the broker's consumer timeout of 30 minutes"),
    ] = Field(
        300.0,
        description="How long to hold messages for a destination that is away, blocked or refusing; "
        "then they are requeued.",
        json_schema_extra={"shown": "300s"},
    )
    start_timeout: Annotated[float, parsers.duration(0, 3600)] = Field(
        60.0,
        description="How long to wait at the start for what may pass by itself: a port that is taken, "
        "a file that is not mounted yet, a certificate without its key; then the exit status is 75.",
        json_schema_extra={"shown": "60s"},
    )
    unroutable_timeout: Annotated[float, parsers.duration(0, CONSUMER_TIMEOUT_S - 60)] = Field(
        300.0,
        description=(
            "How long a message that has no route is tried again before it goes to the quarantine; 0: it never does. "
            "While nothing has a route, all is held."
        ),
        json_schema_extra={"shown": "300s"},
    )
    shutdown_timeout: Annotated[float, parsers.duration(0, 3600)] = Field(
        20.0, description="How long to wait for confirms after SIGTERM.", json_schema_extra={"shown": "20s"}
    )
    max_rate: Annotated[int | None, parsers.whole(1, 1_000_000)] = Field(
        None,
        description="How many messages may be published per second at most, retries included.",
        json_schema_extra={"shown": "no limit"},
    )
    max_bytes_per_second: Annotated[int | None, parsers.size(1000, 1 << 40)] = Field(
        None,
        description="How many bytes of messages may be published per second at most, with their headers and retries.",
        json_schema_extra={"shown": "no limit"},
    )
    destination_max_ready: Annotated[int | None, parsers.whole(1, 1 << 40)] = Field(
        None,
        description=(
            "Rest when so many messages wait in the destination queue, until half of them do. The queue is asked every "
            "`BRIDGE_QUEUE_POLL`, and whenever by what was published it may be full."
        ),
        json_schema_extra={"shown": "no limit"},
    )
    destination_min_consumers: Annotated[int | None, parsers.whole(1, 1_000_000)] = Field(
        None,
        description="Rest while the destination queue has fewer consumers; asked every `BRIDGE_QUEUE_POLL`.",
        json_schema_extra={"shown": "not looked at"},
    )
    start_paused: Flag = Field(
        default=False, description="Start paused: connect and consume nothing until SIGUSR2, or `amqp-bridge resume`."
    )
    reconnect_min: Annotated[float, parsers.duration(0.001, 3600)] = Field(
        0.2,
        description="The longest first delay before reconnecting; the delays grow with the outage, with full jitter.",
        json_schema_extra={"shown": "200ms"},
    )
    reconnect_max: Annotated[float, parsers.duration(0.001, 3600)] = Field(
        30.0, description="The longest delay before reconnecting.", json_schema_extra={"shown": "30s"}
    )

    quarantine_queue: QueueName = Field(
        None,
        description="Where messages go that the destination can never take, on the source's broker. "
        "Empty: hold them instead.",
        json_schema_extra={"shown": "<source queue>.quarantine"},
    )
    user_id: TreatmentWord = Field(
        "move",
        description="A `user_id` that is not the destination's user: "
        "`move` to the header `x-bridge-user-id`, `keep` or `drop`.",
    )
    cc: TreatmentWord = Field(
        "move", description="The header `CC`: `move` to `x-bridge-cc`, `keep` (copies are routed again) or `drop`."
    )
    delivery_count: Annotated[Literal["drop", "keep"], parsers.choice("drop", "keep")] = Field(
        "drop", description="The headers `x-delivery-count` and `x-acquired-count` of a quorum queue: `drop` or `keep`."
    )
    add_headers: Annotated[dict[str, str | int | bool | None], NoDecode, tables.headers()] = Field(
        {},
        description=(
            'Headers to add to each message, as JSON: `{"site": "berlin"}`. Texts, whole numbers, `true`, `false` and '
            "`null`; they overwrite what a message carries under these names."
        ),
    )
    provenance: Flag = Field(
        default=False,
        description=(
            "Add the headers `x-bridge-source`, where a message was taken from, and `x-bridge-hops`, how many bridges "
            "it has passed."
        ),
    )
    max_hops: Annotated[int, parsers.whole(1, 1_000_000, or_zero=True)] = Field(
        0,
        description=(
            "With `BRIDGE_PROVENANCE`: a message that has passed more bridges than this, with this one, goes to the "
            "quarantine, so that a ring of bridges ends. 0: off."
        ),
    )
    delivery_limit: Annotated[int, parsers.whole(MIN_DELIVERY_LIMIT, 1 << 31, or_zero=True)] = Field(
        20,
        description="The source queue's delivery limit: a message that has come back within 3 of it is quarantined. "
        "0: off.",
    )
    deduplication: Annotated[Literal["message-id", "off"], parsers.choice("message-id", "off")] = Field(
        "message-id", description="Recognise redeliveries of what was forwarded: by `message-id`, or `off`."
    )

    http_host: Annotated[str | None, parsers.listening_address()] = Field(
        None,
        description="The address that `/status`, `/metrics`, `/healthz` and `/readyz` are served on.",
        json_schema_extra={"shown": "every one, of IPv4 and IPv6"},
    )
    http_port: Annotated[int, parsers.whole(0, 65535)] = Field(
        8080, description="Their port. 0: any free one, which is logged."
    )
    http_cert_file: CertificateFile = Field(
        None,
        description="Serve over TLS, with this certificate and its chain, in PEM; a rotated one is used at once.",
        json_schema_extra={"shown": "no TLS"},
    )
    http_key_file: KeyFile = Field(
        None, description="Its key, in PEM, not encrypted.", json_schema_extra={"shown": "in the certificate's file"}
    )
    http_client_ca_file: CaFile = Field(
        None,
        description="CAs of clients, in PEM: `/`, `/status` and `/metrics` want their certificate, or the token.",
    )
    http_token_file: TokenFile = Field(
        None,
        description=(
            "A file with the token that `/`, `/status` and `/metrics` want, re-read for each request: as a bearer "
            "token, or as the password of HTTP Basic. The probes want nothing."
        ),
    )
    http_allowed_hosts: HostNames = Field(
        (),
        description=(
            "More names, comma-separated, by which a browser may ask for `/` and `/status` without TLS or token; "
            "addresses and names that exist only inside of a network are always allowed."
        ),
    )
    queue_poll: Annotated[float, parsers.duration(0, 3600)] = Field(
        15.0,
        description="How often the brokers are asked for the length of both queues; 0: never.",
        json_schema_extra={"shown": "15s"},
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], parsers.choice("debug", "info", "warning", "error")
    ] = Field("info", description="The least level to log.")
    log_format: Annotated[Literal["json", "console"] | None, parsers.choice("json", "console")] = Field(
        None, description="`json` or `console`.", json_schema_extra={"shown": "console on a terminal, otherwise json"}
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but the environment that `load_settings` is given."""
        return (init_settings,)

    @cached_property
    def source(self) -> SideSettings:
        """The source for the control plane."""
        return self._side("source")

    @cached_property
    def destination(self) -> SideSettings:
        """The destination for the control plane; on the source's URL, with the source's login and TLS by default."""
        return self._side("destination")

    @cached_property
    def http(self) -> HttpSettings:
        """Where and how HTTP is served."""
        tls = None
        if self.http_cert_file is not None:
            tls = ServerTls(self.http_cert_file, self.http_key_file, self.http_client_ca_file)
        return HttpSettings(self.http_host, self.http_port, tls, self.http_token_file, self.http_allowed_hosts)

    def secrets(self) -> set[str]:
        """Return every password that is known, those read from a file included, for outputs to hide."""
        tracking = set() if self.tracking is None else self.tracking.secrets()
        return self.source.secrets() | self.destination.secrets() | tracking

    @cached_property
    def tracking(self) -> TrackingSettings | None:
        """Where the offset of a stream is kept; None for nowhere."""
        if self.source_offset_name is None:
            return None
        urls = self.source_stream_url
        addresses = () if urls is None else urls.get_secret_value()
        return TrackingSettings(self.source_offset_name, self.source_queue or "", self.source, addresses)

    @property
    def braked(self) -> bool:
        """Whether the bridge rests by the state of the destination's queue."""
        return self.destination_max_ready is not None or self.destination_min_consumers is not None

    @property
    def inherited(self) -> frozenset[str]:
        """Fields of the destination that are the source's, group by group: half a login is no login."""
        if self.destination_url not in (None, self.source_url):
            return frozenset()
        groups = (("url",), LOGIN_KINDS, TLS_KINDS, ("auth",))
        fields = [{f"destination_{kind}" for kind in group} for group in groups]
        return frozenset().union(*(group for group in fields if group.isdisjoint(self.model_fields_set)))

    def field_used(self, field: str) -> str:
        """Return the field whose value counts: the source's where the destination inherits."""
        return field.replace("destination", "source", 1) if field in self.inherited else field

    def _side(self, name: SideName) -> SideSettings:
        def value(kind: str) -> Any:  # noqa: ANN401 - of its field's type
            return getattr(self, self.field_used(f"{name}_{kind}"))

        tls = Tls(*map(value, TLS_KINDS))
        token_url, client_id, secret_file, scope = map(value, OAUTH_KINDS)
        client = None
        if token_url is not None and client_id is not None and secret_file is not None:
            client = TokenClient(token_url, client_id, secret_file, scope, tls.ca_file)
        return SideSettings(
            name=name,
            addresses=urls.get_secret_value() if (urls := value("url")) else (),
            credentials=Credentials(value("username"), value("password"), value("password_file"), client),
            tls=tls,
            auth=value("auth"),
            queue=value("queue"),
            declare=value("declare"),
            queue_type=value("queue_type"),
            queue_arguments=value("queue_arguments"),
            variables={kind: variable(self.field_used(f"{name}_{kind}")) for kind in SIDE_KINDS},
        )

    @property
    def quarantine_queue_name(self) -> str:
        """The quarantine's queue; empty when there is none."""
        return f"{self.source_queue}.quarantine" if self.quarantine_queue is None else self.quarantine_queue

    @property
    def target(self) -> Target:
        """What is published to."""
        if self.destination_route is not None:
            return OriginalRoutes()
        if self.destination_queue is not None:
            return Target.queue(self.destination_queue)
        return Target(self.destination_exchange or "", self.destination_routing_key)

    @property
    def stated_source_type(self) -> QueueType | None:
        """The source queue's type where the settings state it: outright, or by what only a stream has."""
        if "x-stream-offset" in self.source_consumer_arguments or self.source_offset_name is not None:
            return "stream"
        return self.source_queue_type if "source_queue_type" in self.model_fields_set else None


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return f"{PREFIX}{field.upper()}"
