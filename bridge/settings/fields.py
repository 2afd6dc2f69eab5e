"""The types of the settings' fields: each reads a variable's text into a value, or says what was expected."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator, Secret, SecretStr
from pydantic_settings import NoDecode
from yarl import URL

from bridge.amqp.preparer import Treatment
from bridge.errors import CredentialsError
from bridge.settings import bindings, parsers, tables
from bridge.settings.files import read_secret
from bridge.settings.http import token_fault
from bridge.settings.sides import Auth, QueueType, parse_urls
from bridge.settings.tracking import parse_stream_urls


def _urls() -> PlainValidator:
    def parse(text: str) -> Secret[tuple[URL, ...]]:
        urls, problems = parse_urls(text)
        if problems:
            raise ValueError("; ".join(problems))
        return Secret(urls)

    url = r"amqps?://[^\s,/]+(/[^\s,@]*)?"
    return parsers.validator(parse, type="string", pattern=rf"^\s*{url}\s*(,\s*{url}\s*)*$")


def _stream_urls() -> PlainValidator:
    def parse(text: str) -> Secret[tuple[URL, ...]]:
        urls, problems = parse_stream_urls(text)
        if problems:
            raise ValueError("; ".join(problems))
        return Secret(urls)

    url = r"rabbitmq-stream(\+tls)?://[^\s,/]+/?"
    return parsers.validator(parse, type="string", pattern=rf"^\s*{url}\s*(,\s*{url}\s*)*$")


def _secret() -> PlainValidator:
    return parsers.validator(SecretStr, type="string")


def _pem(what: str) -> PlainValidator:
    def check(path: Path) -> str:
        return "" if b"-----BEGIN" in path.read_bytes() else f"holds no PEM block; expected {what} in PEM"

    return parsers.readable_file(check)


def _ca() -> PlainValidator:
    def check(path: Path) -> str:
        try:
            ssl.create_default_context(cafile=path)
        except OSError:  # ssl.SSLError is one
            return "holds no CA certificate; expected PEM"
        return ""

    return parsers.readable_file(check)


def _token() -> PlainValidator:
    def check(path: Path) -> str:
        try:
            return token_fault(read_secret(path, "token file"))
        except CredentialsError as error:
            return f"cannot be used: {error}"

    return parsers.readable_file(check)


Name = Annotated[str | None, parsers.short_string("a name")]
QueueName = Annotated[str | None, parsers.queue_name()]
ExchangeName = Annotated[str | None, parsers.exchange_name()]
Urls = Annotated[Secret[tuple[URL, ...]] | None, NoDecode, _urls()]
StreamUrls = Annotated[Secret[tuple[URL, ...]] | None, NoDecode, _stream_urls()]
Password = Annotated[SecretStr | None, _secret()]
File = Annotated[Path | None, parsers.readable_file()]
CaFile = Annotated[Path | None, _ca()]
CertificateFile = Annotated[Path | None, _pem("a certificate")]
KeyFile = Annotated[Path | None, _pem("a private key")]
TokenFile = Annotated[Path | None, _token()]
TokenUrl = Annotated[str | None, parsers.http_url()]
Scope = Annotated[str | None, parsers.scope()]
HostNames = Annotated[tuple[str, ...], NoDecode, parsers.host_names()]
Table = Annotated[dict[str, object], NoDecode, tables.table()]
ConsumerArguments = Annotated[dict[str, object], NoDecode, tables.consumer_arguments()]
Bindings = Annotated[
    tuple[bindings.Binding, ...],
    NoDecode,
    parsers.validator(bindings.parse, type=["array", "string"], pattern=r"^\s*\["),
]
Flag = Annotated[bool, parsers.boolean()]
AuthWord = Annotated[Auth, parsers.choice("plain", "external")]
QueueTypeWord = Annotated[QueueType, parsers.choice("classic", "quorum", "stream")]
TreatmentWord = Annotated[Treatment, parsers.choice("move", "keep", "drop")]
