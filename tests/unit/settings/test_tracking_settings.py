"""Where the offset of a stream is kept: its URL, its login, and what does not go together with it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bridge.errors import ConfigurationError
from bridge.settings.environment import load_settings

if TYPE_CHECKING:
    from bridge.settings.settings import Settings
    from tests.rig.certificates import Certificates


def load(**settings: str) -> Settings:
    environ = {
        "SOURCE_URL": "amqp://me:secret@one/team,amqp://two:5673/team",
        "SOURCE_QUEUE": "log",
        "SOURCE_OFFSET_NAME": "bridge",
        "DESTINATION_QUEUE": "out",
    } | settings
    return load_settings({f"BRIDGE_{name}": value for name, value in environ.items() if value})


def problems(**settings: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(**settings)
    return "\n".join(raised.value.problems)


def test_without_a_name_nothing_is_kept() -> None:
    assert load(SOURCE_OFFSET_NAME="").tracking is None


def test_with_a_name_the_queue_is_a_stream() -> None:
    assert load().stated_source_type == "stream"


def test_by_default_it_is_the_port_of_the_stream_protocol_on_the_sources_hosts_with_its_login() -> None:
    tracking = load(SOURCE_USERNAME="you", SOURCE_PASSWORD="secret").tracking  # noqa: S106 - a test's
    assert tracking is not None
    assert [str(tracking.address(index)) for index in range(tracking.number)] == [
        "rabbitmq-stream://one:5552",
        "rabbitmq-stream://two:5552",
    ]
    assert tracking.login(1) == ("you", "secret")
    assert tracking.virtual_host(0) == "team"
    assert tracking.ssl_context(0) is None
    assert tracking.seen_as_side(0).variables["url"] == "BRIDGE_SOURCE_URL"


@pytest.mark.parametrize(("path", "virtual_host"), (("", "/"), ("/", "/"), ("/%2F", "/"), ("/a b", "a b")))
def test_the_virtual_host_is_the_sources(path: str, virtual_host: str) -> None:
    tracking = load(SOURCE_URL=f"amqp://one{path}", SOURCE_STREAM_URL="rabbitmq-stream://tunnel").tracking
    assert tracking is not None
    assert tracking.virtual_host(0) == virtual_host


def test_with_tls_at_the_source_the_stream_protocol_has_it_too(certificates: Certificates) -> None:
    tracking = load(SOURCE_URL="amqps://one", SOURCE_CA_FILE=str(certificates.ca)).tracking
    assert tracking is not None
    assert str(tracking.address(0)) == "rabbitmq-stream+tls://one:5551"
    assert tracking.ssl_context(0) is not None
    text = problems(SOURCE_URL="amqps://one", SOURCE_STREAM_URL="rabbitmq-stream://one")
    assert text == (
        "BRIDGE_SOURCE_STREAM_URL has no TLS, and BRIDGE_SOURCE_URL has; expected rabbitmq-stream+tls://, or passwords "
        "would cross in the clear"
    )


def test_the_tls_files_of_the_source_may_be_for_the_stream_protocol_alone(certificates: Certificates) -> None:
    tracking = load(SOURCE_CA_FILE=str(certificates.ca), SOURCE_STREAM_URL="rabbitmq-stream+tls://one").tracking
    assert tracking is not None
    assert tracking.ssl_context(0) is not None


def test_a_url_may_have_a_port_and_a_login_of_its_own_and_there_may_be_several() -> None:
    settings = load(SOURCE_STREAM_URL="rabbitmq-stream://a:b%40@h:1, rabbitmq-stream://h2/")
    tracking = settings.tracking
    assert tracking is not None
    assert tracking.number == 2
    assert [tracking.login(index) for index in (0, 1)] == [("a", "b@"), ("me", "secret")]
    assert tracking.seen_as_side(0).safe_urls == ("rabbitmq-stream://a@h:1",)
    assert tracking.seen_as_side(0).login_variables() == "user and password in BRIDGE_SOURCE_STREAM_URL"
    assert "b@" in settings.secrets()
    assert "b@" not in repr(tracking)


def test_a_certificate_says_who_it_is(certificates: Certificates) -> None:
    tracking = load(
        SOURCE_URL="amqps://one",
        SOURCE_AUTH="external",
        SOURCE_CERT_FILE=str(certificates.client_cert),
        SOURCE_KEY_FILE=str(certificates.client_key),
    ).tracking
    assert tracking is not None
    assert tracking.login(0) is None


@pytest.mark.parametrize(
    ("url", "complaint"),
    (
        ("amqp://h", "entry 1 of the list has an unknown scheme"),
        ("rabbitmq-stream://h,amqp://secret", "entry 2 of the list has an unknown scheme"),
        ("rabbitmq-stream://", "names no host"),
        ("rabbitmq-stream://a b", "names no host"),
        ("rabbitmq-stream://h:0", "has port 0"),
        ("rabbitmq-stream://h:port", "is not a valid URL"),
        ("rabbitmq-stream://h/vhost", "has a path or a query"),
        ("rabbitmq-stream://h?x=1", "has a path or a query"),
        ("rabbitmq-stream://user@h", "names a user without a password"),
        ("rabbitmq-stream://user:1/secret@h", 'has an "@" behind a "/", "?" or "#"'),
        ("rabbitmq-stream://" + "a" * 64, "has a host name that cannot exist"),
        ("rabbitmq-stream://h,rabbitmq-stream+tls://h", "mixes rabbitmq-stream:// and rabbitmq-stream+tls://"),
    ),
)
def test_a_wrong_url_is_named_and_not_quoted(url: str, complaint: str) -> None:
    text = problems(SOURCE_STREAM_URL=url)
    assert text.startswith("BRIDGE_SOURCE_STREAM_URL: ")
    assert complaint in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("settings", "complaint"),
    (
        ({"SOURCE_QUEUE_TYPE": "quorum"}, "is for a stream, and BRIDGE_SOURCE_QUEUE_TYPE is quorum; expected stream"),
        ({"SOURCE_DECLARE": "true"}, "is for a stream, and BRIDGE_SOURCE_QUEUE_TYPE is quorum; expected stream"),
        ({"SOURCE_OFFSET_NAME": "ä" * 128}, "is 256 bytes long; expected a name of at most 255 bytes"),
        (
            {"SOURCE_OFFSET_NAME": "", "SOURCE_STREAM_URL": "rabbitmq-stream://h"},
            "BRIDGE_SOURCE_STREAM_URL is set without BRIDGE_SOURCE_OFFSET_NAME; expected both",
        ),
    ),
)
def test_what_does_not_go_together_with_it_is_refused(settings: dict[str, str], complaint: str) -> None:
    assert complaint in problems(**settings)


def test_without_the_library_for_streams_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rstream", None)
    assert (
        "needs rstream, which is not installed; expected it to be, by: pip install 'amqp-bridge[streams]'" in problems()
    )
