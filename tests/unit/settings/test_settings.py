"""Settings: what is accepted, every mistake at once, and no secret where it may be read."""

# ruff: noqa: S105, S106 - the passwords are made up

from __future__ import annotations

import json
import os
import re
import ssl
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import aiormq
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError
from yarl import URL

from bridge.errors import ConfigurationError, CredentialsError, NotYetError
from bridge.settings.bindings import Binding
from bridge.settings.environment import load_settings, unknown_variables
from bridge.settings.files import MAX_SECRET_BYTES
from bridge.settings.options import Option, effective, options, settings_help
from bridge.settings.sides import SideSettings, mask, parse_urls
from tests.programs import bridge_env
from tests.rig.certificates import Certificates, make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.settings.settings import Settings

BRIDGE_ENV = Path(__file__).parents[3] / "config" / "bridge.env"
SECRET = "s3cr3t-Never-Shown"
LEAST = {
    "SOURCE_URL": f"amqp://reader:{SECRET}@source.example",
    "SOURCE_QUEUE": "from",
    "DESTINATION_URL": f"amqp://writer:{SECRET}@destination.example",
    "DESTINATION_QUEUE": "to",
}


def environ(**changes: str | None) -> dict[str, str]:
    """The least configuration with some variables changed, or taken out by None."""
    return {f"BRIDGE_{name}": text for name, text in (LEAST | changes).items() if text is not None}


def load(**changes: str | None) -> Settings:
    return load_settings(environ(**changes))


def problems(**changes: str | None) -> list[str]:
    """Every complaint; none of them may hold the secret."""
    return complaints(ConfigurationError, **changes)


def complaints(kind: type[ConfigurationError | NotYetError], **changes: str | None) -> list[str]:
    """Every complaint, raised as that kind of error; none of them may hold the secret."""
    with pytest.raises(kind) as caught:
        load(**changes)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value, ConfigurationError | NotYetError)
    return list(caught.value.problems)


def passing_problem(**changes: str | None) -> str:
    """The only complaint, about what may pass by itself."""
    (found,) = complaints(NotYetError, **changes)
    return found


def problem(**changes: str | None) -> str:
    found = problems(**changes)
    assert len(found) == 1, found
    return found[0]


def one_broker(**changes: str | None) -> Settings:
    """The destination is on the source's broker."""
    return load(DESTINATION_URL=None, **changes)


def tls(certificates: Certificates, side: str = "SOURCE") -> dict[str, str]:
    return {
        f"{side}_URL": "amqps://broker.example",
        f"{side}_CA_FILE": str(certificates.ca),
        f"{side}_CERT_FILE": str(certificates.client_cert),
        f"{side}_KEY_FILE": str(certificates.client_key),
    }


# --- what is there -------------------------------------------------------------------------------------------------


def test_the_defaults_are_as_documented() -> None:
    settings = load()
    assert (settings.source_prefetch, settings.max_in_flight_bytes) == (1000, 64 << 20)
    assert (settings.confirm_timeout, settings.hold_timeout, settings.shutdown_timeout) == (30, 300, 20)
    assert (settings.reconnect_min, settings.reconnect_max) == (0.2, 30)
    assert (settings.user_id, settings.cc, settings.delivery_count) == ("move", "move", "drop")
    assert (settings.delivery_limit, settings.deduplication) == (20, "message-id")
    assert (settings.http_host, settings.http_port) == (None, 8080)
    assert (settings.log_level, settings.log_format) == ("info", None)
    assert settings.quarantine_queue_name == "from.quarantine"
    assert not settings.source_declare
    assert not settings.destination_declare


def test_every_setting_is_explained() -> None:
    for option in options():
        assert option.description.endswith("."), option
        assert option.variable in settings_help()


def test_secrets_are_marked() -> None:
    secret = {option.variable for option in options() if option.secret}
    kinds = ("SOURCE_URL", "SOURCE_STREAM_URL", "SOURCE_PASSWORD", "DESTINATION_URL", "DESTINATION_PASSWORD")
    assert secret == {f"BRIDGE_{kind}" for kind in kinds}


@pytest.mark.parametrize("option", [o for o in options() if o.default_is_value], ids=lambda option: option.variable)
def test_a_default_that_is_written_out_is_the_default(option: Option) -> None:
    field = option.variable.removeprefix("BRIDGE_").lower()
    assert getattr(load_settings(environ() | {option.variable: option.default}), field) == getattr(load(), field)


def test_settings_cannot_be_changed() -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.source_prefetch = 5  # type: ignore[misc]


def test_only_the_given_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCE_PREFETCH", "7")
    assert load().source_prefetch == 1000


def test_names_are_exact() -> None:
    """Elsewhere a variable in lower case is no setting; it must neither count nor pass silently."""
    given = environ() | {"bridge_source_prefetch": "7"}
    assert load_settings(given).source_prefetch == 1000
    assert "BRIDGE_SOURCE_PREFETCH" in unknown_variables(given)[0]


def test_an_empty_variable_is_not_set_but_an_empty_quarantine_is_none() -> None:
    """Compose files and charts pass on what is not set as an empty variable."""
    settings = load(SOURCE_PREFETCH="", SOURCE_PASSWORD="", DESTINATION_EXCHANGE="", QUARANTINE_QUEUE="")
    assert settings.source_prefetch == 1000
    assert settings.quarantine_queue_name == ""


def test_a_source_is_known_as_a_stream_by_its_consumer_or_its_declaration() -> None:
    assert load().stated_source_type is None
    assert load(SOURCE_QUEUE_TYPE="classic").stated_source_type == "classic"
    assert load(SOURCE_CONSUMER_ARGUMENTS='{"x-stream-offset": "next"}').stated_source_type == "stream"


# --- how values are written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    (("30", 30), ("30s", 30), ("5m", 300), ("500ms", 0.5), ("0.5", 0.5), (" 1.5 s ", 1.5), ("1h", 3600)),
)
def test_durations(text: str, seconds: float) -> None:
    assert load(SHUTDOWN_TIMEOUT=text).shutdown_timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    (("1048576", 1 << 20), ("64MiB", 64 << 20), ("64MB", 64_000_000), ("1GiB", 1 << 30), ("1.5 kib", 1536), ("7B", 7)),
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert load(MAX_IN_FLIGHT_BYTES=text).max_in_flight_bytes == size_bytes


@pytest.mark.parametrize(
    ("text", "value"), (("true", True), ("Yes", True), ("1", True), ("on", True), ("FALSE", False), ("0", False))
)
def test_booleans(text: str, value: bool) -> None:  # noqa: FBT001 - a test's parameter
    assert load(SOURCE_DECLARE=text).source_declare is value


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    (
        ("SOURCE_PREFETCH", "many", '"many" is not a whole number; expected 1 to 65535'),
        ("SOURCE_PREFETCH", "0", '"0" is out of range; expected 1 to 65535'),
        ("SOURCE_PREFETCH", "65536", '"65536" is out of range; expected 1 to 65535'),
        ("SOURCE_PREFETCH", "1e3", '"1e3" is not a whole number; expected 1 to 65535'),
        ("SOURCE_CONSUMER_PRIORITY", "high", '"high" is not a whole number; expected -2147483648 to 2147483647'),
        ("MAX_IN_FLIGHT_BYTES", "64 pages", '"64 pages" is not a size'),
        ("MAX_IN_FLIGHT_BYTES", "0", '"0" is out of range; expected 1 to'),
        ("CONFIRM_TIMEOUT", "soon", '"soon" is not a duration such as 30, 30s, 5m or 500ms'),
        ("CONFIRM_TIMEOUT", "-1", '"-1" is not a duration'),
        ("HOLD_TIMEOUT", "30m", '"30m" is out of range; expected 1 to 1740 seconds, well below the broker\'s'),
        ("SOURCE_DECLARE", "maybe", '"maybe" is neither true nor false; expected true or false'),
        ("SOURCE_AUTH", "kerberos", '"kerberos" is not known; expected one of plain, external'),
        ("SOURCE_QUEUE_TYPE", "lazy", '"lazy" is not known; expected one of classic, quorum, stream'),
        ("USER_ID", "forge", '"forge" is not known; expected one of move, keep, drop'),
        ("DELIVERY_LIMIT", "3", '"3" is out of range; expected 0, or 4 to'),
        ("SOURCE_CONSUMER_ARGUMENTS", "x=1", '"x=1" is not JSON; expected an object'),
        ("SOURCE_CONSUMER_ARGUMENTS", "[1]", '"[1]" is not a JSON object; expected one'),
        ("SOURCE_CONSUMER_ARGUMENTS", '{"x": NaN}', "is not JSON"),
        ("SOURCE_CONSUMER_ARGUMENTS", '{"x": 1e400}', "has a number of more than 64 bits, which would be infinite"),
        ("SOURCE_QUEUE_ARGUMENTS", '{"x": [-1e400]}', "has a number of more than 64 bits, which would be infinite"),
        ("SOURCE_CONSUMER_ARGUMENTS", '{"x": 1, "x": 1}', "has a name twice in one object; expected each once"),
        ("ADD_HEADERS", '{"x": 1, "y": 2, "x": 3}', "has a name twice in one object; expected each once"),
        ("SOURCE_BINDINGS", '[{"exchange": "a", "exchange": "b"}]', "has a name twice in one object"),
        ("SOURCE_CONSUMER_ARGUMENTS", '{"x": 9223372036854775808}', "has a number of more than 64 bits"),
        ("SOURCE_CONSUMER_ARGUMENTS", '{"x": [{"y": -9223372036854775809}]}', "has a number of more than 64 bits"),
        ("SOURCE_CONSUMER_ARGUMENTS", f'{{"{"x" * 256}": 1}}', "has a name of more than 255 bytes"),
        ("SOURCE_CONSUMER_ARGUMENTS", r'{"\ud800": 1}', "has half a surrogate pair, which is no text"),
        ("SOURCE_CONSUMER_ARGUMENTS", r'{"x": ["y", "\udfff"]}', "has half a surrogate pair, which is no text"),
        ("SOURCE_CONSUMER_ARGUMENTS", '{"x": ' * 900 + "1" + "}" * 900, "expected an object"),
        ("DESTINATION_QUEUE", "x" * 256, "is 256 bytes long; expected a name of at most 255 bytes"),
        ("SOURCE_USERNAME", "é" * 128, "is 256 bytes long; expected a name of at most 255 bytes"),
        *(
            (name, "x" + "é" * 60, "is 121 bytes long and not in ASCII alone; expected at most 120 bytes then, as Rab")
            for name in ("SOURCE_QUEUE", "DESTINATION_QUEUE", "DESTINATION_EXCHANGE", "QUARANTINE_QUEUE")
        ),
        ("DESTINATION_EXCHANGE", "x" * 128, "has 128 characters; expected at most 127, as the client library sends no"),
        ("HTTP_HOST", "a" * 64, "is a host name that cannot exist; expected 1 to 63 characters from dot to dot, 253"),
        ("HTTP_PORT", "tcp://10.0.0.1:80", '"tcp://10.0.0.1:80" is not a whole number; expected 0 to 65535'),
        ("LOG_LEVEL", "loud", '"loud" is not known; expected one of debug, info, warning, error'),
        ("LOG_FORMAT", "xml", '"xml" is not known; expected one of json, console'),
        ("SOURCE_PASSWORD_FILE", "a\0b", "not a path"),
        ("SOURCE_PASSWORD_FILE", "s3cret", "BRIDGE_SOURCE_PASSWORD_FILE: this file cannot be read"),
        ("SOURCE_PASSWORD_FILE", "/etc", '"/etc" cannot be read (Is a directory)'),
    ),
)
def test_a_wrong_value_is_named_with_what_is_expected(name: str, text: str, complaint: str) -> None:
    found = problem(**{name: text})
    assert found.startswith(f"BRIDGE_{name}: ")
    assert complaint in found


def test_a_name_of_ascii_may_be_longer_than_another() -> None:
    settings = load(SOURCE_QUEUE="é" * 60, DESTINATION_QUEUE="x" * 255, QUARANTINE_QUEUE="x" * 255)
    assert settings.source_queue == "é" * 60
    to_exchange = load(DESTINATION_QUEUE=None, DESTINATION_EXCHANGE="x" * 127)
    assert to_exchange.destination_exchange == "x" * 127


@pytest.mark.parametrize("offset", ("first", "last", "next", 0, 1 << 62, "7D", "1h", "2Y", "3M", "30m", "90s"))
def test_a_stream_may_be_read_from_a_word_an_offset_or_an_interval_on(offset: object) -> None:
    arguments = {"x-stream-offset": offset}
    assert load(SOURCE_CONSUMER_ARGUMENTS=json.dumps(arguments)).source_consumer_arguments == arguments


@pytest.mark.parametrize(
    "offset", (1.5, -1, 5.0, True, None, [], {}, "", "foo", "First", "5", "h", "0s", "1.5h", "-1h", "1 h", "1d", "1h\n")
)
def test_another_offset_of_a_stream_is_refused(offset: object) -> None:
    text = json.dumps(offset)
    assert problem(SOURCE_CONSUMER_ARGUMENTS=json.dumps({"x-stream-offset": offset})) == (
        f'BRIDGE_SOURCE_CONSUMER_ARGUMENTS: x-stream-offset is {text}; expected "first", "last", "next", a whole '
        'number from 0 on, or an interval, such as "7D" or "1h", in Y, M, D, h, m or s'
    )


def test_a_long_value_is_cut_and_stays_on_one_line() -> None:
    found = problem(SOURCE_PREFETCH="x\n" * 1000)
    assert "\n" not in found
    assert len(found) < 250


def test_every_mistake_is_found_at_once() -> None:
    """Those in single values, those that are left out and those that do not go together."""
    found = problems(
        SOURCE_URL=None,
        SOURCE_PREFETCH="many",
        HTTP_PORT="70000",
        DESTINATION_QUEUE=None,
        DESTINATION_ROUTING_KEY="key",
        DESTINATION_PASSWORD=SECRET,
        DESTINATION_PASSWORD_FILE=str(BRIDGE_ENV),
        RECONNECT_MIN="60",
    )
    named = ["SOURCE_PREFETCH", "HTTP_PORT", "SOURCE_URL", "DESTINATION_QUEUE", "DESTINATION_ROUTING_KEY"]
    named += ["DESTINATION_PASSWORD", "RECONNECT_MIN"]
    assert [re.split(r"[: ]", line)[0] for line in found] == [f"BRIDGE_{name}" for name in named]


# --- URLs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "vhost"),
    (
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://h/%2F", "/"),
        ("amqp://h/%2f", "/"),
        ("amqp://h/orders", "orders"),
        ("amqp://h/a%2Fb", "a/b"),
        ("amqp://h/a/b", "a/b"),
        ("amqp://h/a%25b", "a%b"),
        ("amqp://h/a%20b", "a b"),
        ("amqp://h/a%3Fb", "a?b"),
        ("amqp://h/a+b", "a+b"),
        ("amqp://h/%C3%A9", "é"),
        ("amqp://h/a%40b", "a@b"),
        ("amqp://h/" + "%C3%A9" * 127, "é" * 127),
    ),
)
async def test_the_virtual_host_arrives_as_it_was_meant(text: str, vhost: str) -> None:
    """Pins how aiormq reads the path of a URL."""
    assert aiormq.Connection(load(SOURCE_URL=text).source.url(0)).vhost == vhost


@pytest.mark.parametrize(
    ("text", "complaint"),
    (
        ("http://h", '"http://h" has an unknown scheme; expected amqp:// or amqps://'),
        ("amqp://", "names no host"),
        ("amqp://h:99999", "expected a port from 1 to 65535"),
        ("amqp://h:0", "has port 0"),
        ("amqp://h/%252F", "has a virtual host that cannot be reached"),
        ("amqp://h/..", "has a virtual host that cannot be reached"),
        ("amqp://h/%FF", "has a virtual host that is not UTF-8"),
        ("amqp://h/v#x", "expected it written as %23"),
        ("amqp://h/" + "v" * 128, "has a virtual host of 128 characters, 128 bytes; expected at most 127 characters"),
        ("amqp://h/" + "€" * 86, "has a virtual host of 86 characters, 258 bytes; expected at most 127"),
        *(
            (f"amqp://{host}/", "has a host name that cannot exist; expected 1 to 63 characters from dot to dot")
            for host in ("a" * 64, "a." * 126 + "aa", "a..b", ".a", "a..")
        ),
        ("amqp://h?heartbeat=0", "has a bad heartbeat"),
        ("amqp://h?heartbeat=x", "has a bad heartbeat"),
        ("amqp://h?no_verify_ssl=1", "has an unknown query parameter"),
        ("amqp://h?name=a&name=b", "repeats a query parameter"),
        ("amqp://h,", "entry 2 of the list is empty"),
        (",amqp://h", "entry 1 of the list is empty"),
        ("broker.example", "entry 1 of the list is not a URL"),
        ("amqp://h,amqps://h", "mixes amqp:// and amqps://"),
        (f"amqp://u:{SECRET}@h:x", '"amqp://u:***@h:x" is not a valid URL'),
        (f"amqp://u:{SECRET}/1@h", "entry 1 of the list is not a valid URL"),
        (f"amqp://u:{SECRET}#1@h", "entry 1 of the list is not a valid URL"),
        (f"amqp://u:1?{SECRET}@h", "special characters of user and password percent-encoded"),
        (f"amqp://{SECRET}:/@1+&", "special characters of user and password percent-encoded"),
        (
            f"amqp://u:1/{SECRET}@h:5672/",
            'entry 1 of the list has an "@" behind a "/", "?" or "#"; expected special ch',
        ),
        (f"amqp://u:/{SECRET}@h/", 'and any other "@" written as %40'),
        (
            f"amqps://u:42/{SECRET[:9]}/{SECRET[9:]}+et==@h/vhost",
            'entry 1 of the list has an "@" behind a "/", "?" or "#"; expected special ch',
        ),
        (f"amqp://u/{SECRET}@h/", 'entry 1 of the list has an "@" behind a "/", "?" or "#"; expected special ch'),
        (
            f"amqp://u:1?name={SECRET}@h/",
            'entry 1 of the list has an "@" behind a "/", "?" or "#"; expected special ch',
        ),
        (f"amqp://u:1#{SECRET}@h/", 'entry 1 of the list has an "@" behind a "/", "?" or "#"; expected special ch'),
        (f"amqp:///{SECRET}@h/", 'entry 1 of the list has an "@" behind a "/", "?" or "#"; expected special ch'),
        (
            f"amqp://h,amqp://u:1/{SECRET}@h",
            'entry 2 of the list has an "@" behind a "/", "?" or "#"; expected special ch',
        ),
        (f"amqp://u:{SECRET[:9]},{SECRET[9:]}@h", "write a comma in a password as %2C"),
        (f"amqp://u:{SECRET}", '"amqp://u:***" is not a valid URL'),
    ),
)
def test_a_wrong_url_is_refused_and_its_password_masked(text: str, complaint: str) -> None:
    found = problem(SOURCE_URL=text)
    assert found.startswith("BRIDGE_SOURCE_URL: ")
    assert complaint in found
    assert SECRET[:9] not in found
    assert SECRET[9:] not in found


def test_a_wrong_url_is_refused_on_one_line() -> None:
    """Copied from anywhere, it may bring a line of its own."""
    found = problem(SOURCE_URL="amqq://h/x\namqp-bridge is well")
    assert found.startswith('BRIDGE_SOURCE_URL: "amqq://h/x\\namqp-bridge is well" has an unknown scheme; expected ')
    assert "\n" not in found


def damaged(text: str) -> Iterator[str]:
    """The text with each of its characters gone or another, cut after each, and with one more at each place."""
    for at in range(len(text) + 1):
        yield text[:at]
        yield text[at:]
        yield text[:at] + text[at + 1 :]
        for other in ":/@[]?#,%; \\&=":
            yield text[:at] + other + text[at + 1 :]
            yield text[:at] + other + text[at:]


def test_no_half_written_url_uncovers_its_password() -> None:
    """Whatever is left of the secret: four characters of it in a row are too many."""
    secret = "QwErTyUiOpAs"
    parts = {secret[at : at + 4] for at in range(len(secret) - 3)}
    tried = 0
    for text in damaged(f"amqps://reader:{secret}@source.example:5671/orders"):
        _, complaints = parse_urls(text)
        assert not any(part in complaint for part in parts for complaint in complaints), text
        tried += bool(complaints)
    assert tried > 500


def test_every_wrong_url_of_a_list_is_named() -> None:
    found = problem(SOURCE_URL="amqp://h:0,http://h")
    assert "has port 0" in found
    assert "unknown scheme" in found


@pytest.mark.parametrize("text", ("amqp://[::1]:5672", "amqp://h:5672/v"))
def test_what_holds_no_password_is_not_masked(text: str) -> None:
    assert mask(text) == text


def test_several_urls_each_with_its_port_and_login() -> None:
    side = load(SOURCE_URL=f"amqp://a:{SECRET}@one, amqp://b:x@[::1]:5673/v").source
    assert side.safe_urls == ("amqp://a@one:5672", "amqp://b@[::1]:5673/v")
    assert side.url(0).password == SECRET
    assert side.url(1).user == "b"


@pytest.mark.parametrize(("query", "heartbeat"), (("", "10"), ("?heartbeat=25", "25")))
def test_the_heartbeat_is_ten_seconds_unless_the_url_says_otherwise(query: str, heartbeat: str) -> None:
    assert load(SOURCE_URL=f"amqp://h{query}").source.url(0).query["heartbeat"] == heartbeat


# --- logging in ----------------------------------------------------------------------------------------------------


def test_without_any_login_it_is_guest() -> None:
    url = load(SOURCE_URL="amqp://h").source.url(0)
    assert (url.user, url.password) == ("guest", "guest")


async def test_a_login_of_its_own_replaces_the_urls_whatever_its_characters() -> None:
    password = "p%40 @:/?#[]é+&=%,"
    side = load(SOURCE_USERNAME="me@:/%", SOURCE_PASSWORD=password).source
    url = aiormq.Connection(side.url(0)).url
    assert (url.user, url.password) == ("me@:/%", password)
    assert side.username == "me@:/%"


def test_urls_that_name_different_users_have_no_common_one() -> None:
    """A `user_id` may then be refused by one broker and not by the other: none is known to be the destination's own."""
    urls = "amqp://one:1@a/,amqp://two:2@b/"
    assert load(DESTINATION_URL=urls).destination.username == ""
    assert load(DESTINATION_URL=urls.replace("two", "one")).destination.username == "one"


def test_a_password_file_is_re_read_each_time(tmp_path: Path) -> None:
    """One newline at the end is the editor's; another is the password's."""
    file = tmp_path / "password"
    file.write_text("first\n")
    side = load(SOURCE_PASSWORD_FILE=str(file)).source
    assert side.url(0).password == "first"
    file.write_text("second\n\n")
    assert side.url(0).password == "second\n"
    file.write_bytes(b"third\r\n")
    assert side.url(0).password == "third"
    assert {"first", "second\n", "third"} <= side.secrets()


@pytest.mark.parametrize(
    ("content", "reason"),
    (
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff", "not UTF-8 text"),
        (bytes(MAX_SECRET_BYTES + 1), "longer than 65536 bytes"),
    ),
)
def test_a_useless_password_file_is_named_when_it_is_needed(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    side = load(SOURCE_PASSWORD_FILE=str(file)).source
    with pytest.raises(CredentialsError, match=rf"{re.escape(str(file))}: {reason}"):
        side.url(0)


def test_a_password_file_that_is_gone_is_named(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("x")
    side = load(SOURCE_PASSWORD_FILE=str(file)).source
    file.unlink()
    with pytest.raises(CredentialsError, match=re.escape(f"{file}: No such file or directory")):
        side.url(0)


def test_password_and_password_file_exclude_each_other() -> None:
    found = problem(SOURCE_PASSWORD=SECRET, SOURCE_PASSWORD_FILE=str(BRIDGE_ENV))
    assert found == "BRIDGE_SOURCE_PASSWORD and BRIDGE_SOURCE_PASSWORD_FILE are both set; expected one of them"


@pytest.mark.parametrize(
    "changes", ({"SOURCE_URL": "amqp://reader@h"}, {"SOURCE_URL": "amqp://h", "SOURCE_USERNAME": "reader"})
)
def test_a_user_needs_a_password(changes: dict[str, str]) -> None:
    """The library would try "guest" for it."""
    assert problem(**changes).startswith("BRIDGE_SOURCE_PASSWORD is not set")


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_no_tls_context_for_amqp() -> None:
    assert load().source.ssl_context() is None


def test_amqps_checks_the_brokers_name_against_the_systems_cas() -> None:
    context = load(SOURCE_URL="amqps://h").source.ssl_context()
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_the_tls_files_are_re_read_each_time(certificates: Certificates, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(certificates.ca.read_bytes())
    side = load(**tls(certificates) | {"SOURCE_CA_FILE": str(ca)}).source
    first = side.ssl_context()
    assert first is not None
    other = make_certificates(tmp_path / "other")
    ca.write_bytes(other.ca.read_bytes())
    second = side.ssl_context()
    assert second is not None
    assert first.get_ca_certs() != second.get_ca_certs()
    ca.write_text("not a certificate")
    with pytest.raises(CredentialsError, match=re.escape(str(ca))):
        side.ssl_context()


@pytest.mark.parametrize(
    ("changes", "host", "name"),
    (
        ({}, "broker.example", "broker.example"),
        ({}, "broker.example.", "broker.example"),
        ({"SOURCE_TLS_SERVER_NAME": "rabbit.internal"}, "10.0.0.7", "rabbit.internal"),
        ({"SOURCE_TLS_SERVER_NAME": "rabbit.internal."}, "127.0.0.1", "rabbit.internal"),
        ({"SOURCE_TLS_SERVER_NAME": "2001:db8::7"}, "tunnel", "2001:db8::7"),
    ),
)
def test_the_certificate_must_have_the_hosts_name_or_the_one_that_is_set(
    changes: dict[str, str], host: str, name: str
) -> None:
    assert load(SOURCE_URL=f"amqps://u:p@{host}", **changes).source.server_name(host) == name


@pytest.mark.parametrize("host", ("a" * 63 + ".b", "a." * 125 + "aaa", "a." * 125 + "aaa.", "é" * 50))
def test_the_longest_host_name_is_taken(host: str) -> None:
    assert load(SOURCE_URL=f"amqp://{host}").source.urls[0].host == host


@pytest.mark.parametrize(
    "name",
    (
        *("rabbit.internal:5671", "amqps://rabbit", "a b", "", "rabbit..internal", "*.x"),
        *("a" * 64, "a." * 126 + "aa"),
    ),
)
def test_a_server_name_is_a_host_name_or_an_address(name: str) -> None:
    found = problem(SOURCE_URL="amqps://u:p@h", SOURCE_TLS_SERVER_NAME=name or " ")
    assert found.startswith("BRIDGE_SOURCE_TLS_SERVER_NAME")


def test_without_verification_any_certificate_is_accepted_and_the_operator_is_told() -> None:
    settings = load(SOURCE_URL="amqps://u:p@h", SOURCE_TLS_VERIFY="false", DESTINATION_URL="amqps://u:p@other")
    context = settings.source.ssl_context()
    assert context is not None
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_NONE)
    assert settings.source.unverified.startswith("BRIDGE_SOURCE_TLS_VERIFY=false: the source's certificate is not")
    assert settings.destination.unverified == ""
    assert load(SOURCE_TLS_VERIFY="true").source.unverified == ""


def encrypted(certificates: Certificates, folder: Path, passphrase: bytes) -> dict[str, str]:
    """TLS settings with an encrypted key, and the passphrase in a file."""
    key = load_pem_private_key(certificates.client_key.read_bytes(), None)
    file, secret = folder / "encrypted.pem", folder / "passphrase"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)))
    secret.write_bytes(passphrase + b"\n")
    return tls(certificates) | {"SOURCE_KEY_FILE": str(file), "SOURCE_KEY_PASSPHRASE_FILE": str(secret)}


def test_an_encrypted_key_is_read_with_its_passphrase(certificates: Certificates, tmp_path: Path) -> None:
    side = load(**encrypted(certificates, tmp_path, b"open sesame")).source
    assert side.ssl_context() is not None
    assert "open sesame" not in repr(side)
    (tmp_path / "passphrase").write_text("wrong")
    with pytest.raises(
        CredentialsError, match=re.escape(f"with the passphrase in {tmp_path / 'passphrase'}")
    ) as refused:
        side.ssl_context()
    assert "wrong" not in str(refused.value)
    (tmp_path / "passphrase").write_text("x" * 2000)
    with pytest.raises(CredentialsError, match="longer than 102"):
        side.ssl_context()
    (tmp_path / "passphrase").unlink()
    with pytest.raises(CredentialsError, match=r"passphrase file .*: No such file"):
        side.ssl_context()


def test_an_encrypted_key_without_a_passphrase_file_says_what_is_missing(
    certificates: Certificates, tmp_path: Path
) -> None:
    settings = encrypted(certificates, tmp_path, b"open sesame")
    del settings["SOURCE_KEY_PASSPHRASE_FILE"]
    assert "unless there is a passphrase file" in passing_problem(**settings)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    (
        ({"SOURCE_KEY_PASSPHRASE_FILE": str(BRIDGE_ENV)}, "BRIDGE_SOURCE_KEY_PASSPHRASE_FILE is set without"),
        ({"SOURCE_TLS_VERIFY": "false", "SOURCE_TLS_SERVER_NAME": "h"}, "BRIDGE_SOURCE_TLS_SERVER_NAME without effect"),
        ({"SOURCE_URL": "amqp://u:p@h", "SOURCE_TLS_VERIFY": "false"}, "BRIDGE_SOURCE_TLS_VERIFY without effect"),
    ),
)
def test_tls_settings_that_do_not_go_together_are_refused(changes: dict[str, str], complaint: str) -> None:
    assert problem(**{"SOURCE_URL": "amqps://u:p@h"} | changes).startswith(complaint)


def test_external_logs_in_by_certificate_alone(certificates: Certificates) -> None:
    side = load(**tls(certificates), SOURCE_AUTH="external").source
    url = side.url(0)
    assert (url.user, url.password, url.query["auth"]) == (None, None, "external")
    assert side.username == ""


def test_external_needs_amqps_and_a_certificate(certificates: Certificates) -> None:
    expected = "expected an amqps:// URL and BRIDGE_SOURCE_CERT_FILE"
    assert expected in problem(SOURCE_AUTH="external")
    without = tls(certificates) | {"SOURCE_CERT_FILE": None, "SOURCE_KEY_FILE": None, "SOURCE_AUTH": "external"}
    assert expected in problem(**without)
    named = problem(**tls(certificates), SOURCE_AUTH="external", SOURCE_USERNAME="me")
    assert "expected no BRIDGE_SOURCE_USERNAME" in named


def test_certificate_and_key_go_together(certificates: Certificates, tmp_path: Path) -> None:
    files = tls(certificates)
    without_key = problem(**files | {"SOURCE_KEY_FILE": None})
    assert without_key.startswith("BRIDGE_SOURCE_CERT_FILE: client certificate")
    assert "BRIDGE_SOURCE_KEY_FILE names the key's file" in without_key
    without_certificate = problem(**files | {"SOURCE_CERT_FILE": None})
    assert without_certificate == "BRIDGE_SOURCE_KEY_FILE is set without BRIDGE_SOURCE_CERT_FILE; expected both"
    another = passing_problem(**files | {"SOURCE_KEY_FILE": str(certificates.server_key)})
    assert another.startswith("BRIDGE_SOURCE_CERT_FILE: client certificate")
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.client_cert.read_bytes() + certificates.client_key.read_bytes())
    assert load(**files | {"SOURCE_CERT_FILE": str(both), "SOURCE_KEY_FILE": None}).source.ssl_context() is not None


@pytest.mark.parametrize(
    "changes",
    (
        {"SOURCE_QUEUE": "from ", "SOURCE_DECLARE": "true"},
        {"DESTINATION_QUEUE": "\tto", "DESTINATION_DECLARE": "true"},
        {"QUARANTINE_QUEUE": "aside\n"},
    ),
)
def test_a_queue_is_not_declared_with_white_space_at_an_end_of_its_name(changes: dict[str, str]) -> None:
    """Nobody means it; one that is there with such a name can be used all the same."""
    assert "begins or ends with white space" in problem(**changes)
    names = {name: text for name, text in changes.items() if "QUARANTINE" not in name and "DECLARE" not in name}
    load(**names)


# --- what may pass by itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ("PASSWORD", "CA", "CERT", "KEY"))
def test_a_file_that_is_not_mounted_yet_may_come(certificates: Certificates, kind: str) -> None:
    files = tls(certificates) | ({"SOURCE_URL": "amqps://me@h"} if kind == "PASSWORD" else {})
    found = passing_problem(**files | {f"SOURCE_{kind}_FILE": "/nowhere/file"})
    assert found.startswith(f'BRIDGE_SOURCE_{kind}_FILE: "/nowhere/file" cannot be read (No such file or directory)')


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """It would keep whoever opens it waiting for a writer."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "it is a pipe" in problem(SOURCE_URL="amqp://me@h", SOURCE_PASSWORD_FILE=str(pipe))


def test_beside_a_mistake_what_may_pass_is_listed_and_not_waited_for() -> None:
    found = problems(SOURCE_URL="amqp://me@h", SOURCE_PASSWORD_FILE="/nowhere/file", SOURCE_PREFETCH="many")
    assert [line.partition(":")[0] for line in found] == ["BRIDGE_SOURCE_PASSWORD_FILE", "BRIDGE_SOURCE_PREFETCH"]


def test_how_long_to_wait_is_known_though_a_file_is_missing() -> None:
    with pytest.raises(NotYetError) as caught:
        load(SOURCE_URL="amqp://me@h", SOURCE_PASSWORD_FILE="/nowhere/file", START_TIMEOUT="5m")
    assert caught.value.start_timeout_s == 300


@pytest.mark.parametrize("kind", ("CA", "CERT", "KEY"))
def test_files_that_are_not_pem_are_refused(certificates: Certificates, kind: str) -> None:
    found = passing_problem(**tls(certificates) | {f"SOURCE_{kind}_FILE": str(BRIDGE_ENV)})
    assert found.startswith(f"BRIDGE_SOURCE_{kind}_FILE: ")
    assert "PEM" in found


def test_tls_files_have_no_effect_without_tls(certificates: Certificates) -> None:
    found = problem(**tls(certificates) | {"SOURCE_URL": "amqp://h"})
    assert found.endswith("without effect on amqp://; expected an amqps:// URL")


# --- what goes together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    (
        ({"DESTINATION_QUEUE": None}, "BRIDGE_DESTINATION_QUEUE is not set"),
        ({"DESTINATION_EXCHANGE": "x"}, "BRIDGE_DESTINATION_QUEUE and BRIDGE_DESTINATION_EXCHANGE are both set"),
        ({"DESTINATION_ROUTING_KEY": "k"}, "BRIDGE_DESTINATION_ROUTING_KEY is set without"),
        (
            {"SOURCE_BINDINGS": '[{"exchange": "a"}]'},
            "BRIDGE_SOURCE_BINDINGS is set without BRIDGE_SOURCE_DECLARE=true",
        ),
        ({"MAX_HOPS": "3"}, "BRIDGE_MAX_HOPS is set without BRIDGE_PROVENANCE=true"),
        ({"DESTINATION_ROUTE": "original"}, "BRIDGE_DESTINATION_ROUTE=original and BRIDGE_DESTINATION_QUEUE are both"),
        (
            {"DESTINATION_QUEUE": None, "DESTINATION_ROUTE": "original", "DESTINATION_DECLARE": "true"},
            "BRIDGE_DESTINATION_DECLARE declares a queue",
        ),
        (
            {"DESTINATION_QUEUE": None, "DESTINATION_EXCHANGE": "x", "DESTINATION_DECLARE": "true"},
            "BRIDGE_DESTINATION_DECLARE declares a queue",
        ),
        ({"SOURCE_QUEUE": None}, "BRIDGE_SOURCE_QUEUE is not set"),
        ({"SOURCE_URL": None}, "BRIDGE_SOURCE_URL is not set"),
        ({"RECONNECT_MIN": "31"}, "BRIDGE_RECONNECT_MIN (31 s) is above BRIDGE_RECONNECT_MAX (30 s)"),
        ({"QUARANTINE_QUEUE": "from"}, "BRIDGE_QUARANTINE_QUEUE is the source queue itself"),
        (
            {"SOURCE_QUEUE": "x" * 250},
            "BRIDGE_QUARANTINE_QUEUE has to be set: the name that it has by default is 261 bytes long; expected",
        ),
        (
            {"SOURCE_QUEUE": "é" * 60},
            "BRIDGE_QUARANTINE_QUEUE has to be set: the name that it has by default is 131 bytes long and not in ASCII",
        ),
        (
            {"SOURCE_CONSUMER_PRIORITY": "1", "SOURCE_CONSUMER_ARGUMENTS": '{"x-priority": 2}'},
            "BRIDGE_SOURCE_CONSUMER_PRIORITY and x-priority",
        ),
        ({"DESTINATION_QUEUE_TYPE": "stream"}, "BRIDGE_DESTINATION_QUEUE_TYPE has no effect"),
        ({"SOURCE_QUEUE_ARGUMENTS": '{"x-expires": 1}'}, "BRIDGE_SOURCE_QUEUE_ARGUMENTS has no effect"),
        (
            {"SOURCE_DECLARE": "true", "SOURCE_QUEUE_ARGUMENTS": '{"x-queue-type": "classic"}'},
            "BRIDGE_SOURCE_QUEUE_ARGUMENTS names another x-queue-type",
        ),
        ({"SOURCE_DECLARE": "true", "SOURCE_QUEUE": "amq.q"}, 'BRIDGE_SOURCE_QUEUE: "amq.q" cannot be declared'),
    ),
)
def test_what_does_not_go_together_is_refused(changes: dict[str, str | None], complaint: str) -> None:
    assert problem(**changes).startswith(complaint)


@pytest.mark.parametrize(
    "destination",
    (
        None,
        "amqp://other:x@source.example:5672/",
        "amqp://other:x@SOURCE.example/%2F?heartbeat=5",
        "amqp://elsewhere,amqp://source.example",
    ),
)
def test_a_loop_is_refused_however_the_broker_is_written(destination: str | None) -> None:
    found = problem(DESTINATION_URL=destination, DESTINATION_QUEUE="from")
    assert found.startswith("BRIDGE_DESTINATION_QUEUE is the source queue itself")


@pytest.mark.parametrize(
    "destination", (None, "amqp://other:x@SOURCE.example/%2F", "amqp://elsewhere,amqp://source.example")
)
def test_original_routes_lead_to_another_broker_or_virtual_host(destination: str | None) -> None:
    route = {"DESTINATION_QUEUE": None, "DESTINATION_ROUTE": "original"}
    found = problem(DESTINATION_URL=destination, **route)
    assert found.startswith("BRIDGE_DESTINATION_ROUTE=original publishes to where each message came from")
    assert load(DESTINATION_URL="amqp://source.example/other", **route).destination_route == "original"


def test_the_quarantine_is_not_the_destination_of_the_same_broker() -> None:
    found = problem(DESTINATION_URL=None, DESTINATION_QUEUE="from.quarantine")
    assert found.startswith("BRIDGE_QUARANTINE_QUEUE is the destination queue")
    assert load(DESTINATION_QUEUE="from.quarantine").destination_queue == "from.quarantine"


@pytest.mark.parametrize(
    ("text", "complaint"),
    (
        ("[1]", "is not a JSON object"),
        ('{"a": 1.5}', '"a" is 1.5; expected a text, a whole number, true, false or null'),
        ('{"a": {"b": 1}}', '"a" is {"b": 1}; expected a text'),
        ('{"": 1}', "has a header without a name"),
        ('{"x-death": 1}', '"x-death" is a header that brokers or the bridge write'),
        ('{"X-Bridge-Hops": 1}', '"X-Bridge-Hops" is a header that brokers or the bridge write'),
        ('{"CC": "queue"}', '"CC" is a header that brokers or the bridge write'),
        ('{"x-first-death-queue": ""}', "is a header that brokers or the bridge write"),
        ('{"a": 9223372036854775808}', "has a number of more than 64 bits"),
        (f'{{"a": "{"b" * 3000}"}}', "it has 3009 bytes; expected at most 3000, to fit into any frame"),
    ),
)
def test_headers_to_add_are_simple_and_nobody_elses(text: str, complaint: str) -> None:
    assert complaint in problem(ADD_HEADERS=text)


BOUND = {"SOURCE_DECLARE": "true"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    (
        ("{}", "is not a JSON array"),
        ("[", "is not JSON; expected [{"),
        ('[{"exchange": 1e99}]', 'has a "exchange" that is not a text'),
        ("[1]", "binding 1 names no exchange"),
        ('[{"exchange": "a"}, {"routing_key": "k"}]', "binding 2 names no exchange"),
        ('[{"exchange": "a", "key": "k"}]', 'binding 1 has "key"; expected exchange, routing_key and arguments alone'),
        ('[{"exchange": "a", "routing_key": 1}]', 'has a "routing_key" that is not a text'),
        ('[{"exchange": "a", "arguments": []}]', 'has a "arguments" that is not an object'),
        (
            f'[{{"exchange": "{"e" * 256}"}}]',
            'has a "exchange" that has 256 characters; expected at most 127, as the cl',
        ),
        (f'[{{"exchange": "{"é" * 61}"}}]', 'has a "exchange" that is 122 bytes long and not in ASCII alone'),
        (
            f'[{{"exchange": "é", "routing_key": "{"é" * 128}"}}]',
            'binding 1 has a "routing_key" that is 256 bytes long; expected a key of at most 255 bytes',
        ),
    ),
)
def test_a_binding_names_an_exchange_and_perhaps_a_key_and_arguments(text: str, complaint: str) -> None:
    assert complaint in problem(**BOUND, SOURCE_BINDINGS=text)


def test_bindings_are_shown_as_they_could_be_set() -> None:
    text = '[{"exchange": "a", "routing_key": "k.#"}, {"exchange": "h", "routing_key": "", "arguments": {"x": 1}}]'
    settings = load(**BOUND, SOURCE_BINDINGS=text)
    assert settings.source_bindings == (Binding("a", "k.#"), Binding("h", "", {"x": 1}))
    shown = {each.variable: each.value for each in effective(settings)}
    assert shown["BRIDGE_SOURCE_BINDINGS"] == text
    assert {each.variable: each.value for each in effective(load())}["BRIDGE_SOURCE_BINDINGS"] == ""


def test_an_exchange_that_the_source_queue_is_bound_to_is_no_destination_for_the_same_keys() -> None:
    to_exchange = {"DESTINATION_QUEUE": None, "DESTINATION_EXCHANGE": "a", "SOURCE_BINDINGS": '[{"exchange": "a"}]'}
    found = problem(**BOUND, **to_exchange, DESTINATION_URL=None)
    assert found.startswith("BRIDGE_DESTINATION_EXCHANGE is one of BRIDGE_SOURCE_BINDINGS")
    load(**BOUND, **to_exchange)
    load(**BOUND, **to_exchange, DESTINATION_URL=None, DESTINATION_ROUTING_KEY="another")


def test_headers_to_add_may_be_texts_whole_numbers_booleans_and_null() -> None:
    given = {"a": "é", "b": -1, "c": True, "d": None}
    assert load(ADD_HEADERS=json.dumps(given)).add_headers == given


@pytest.mark.parametrize("destination", ("amqp://source.example/other", "amqp://source.example:5673"))
def test_the_same_name_elsewhere_is_another_queue(destination: str) -> None:
    assert load(DESTINATION_URL=destination, DESTINATION_QUEUE="from").destination_queue == "from"


# --- the destination's defaults ------------------------------------------------------------------------------------


def test_without_a_url_the_destination_is_the_sources_broker_with_its_login_and_tls(certificates: Certificates) -> None:
    settings = one_broker(**tls(certificates), SOURCE_USERNAME="me", SOURCE_PASSWORD=SECRET)
    assert settings.destination.url(0) == settings.source.url(0)
    assert settings.destination.tls == settings.source.tls
    assert settings.destination.queue == "to"


def test_the_sources_url_written_out_inherits_as_well() -> None:
    settings = load(DESTINATION_URL=LEAST["SOURCE_URL"], SOURCE_USERNAME="me", SOURCE_PASSWORD="x")
    assert settings.destination.url(0).user == "me"


def test_on_another_broker_nothing_is_inherited() -> None:
    """A password must not go to where it was not given for."""
    settings = load(SOURCE_USERNAME="me", SOURCE_PASSWORD="x", DESTINATION_URL="amqp://elsewhere")
    assert settings.destination.url(0).user == "guest"


def test_half_a_login_is_not_completed_with_the_sources() -> None:
    settings = one_broker(DESTINATION_USERNAME="me", DESTINATION_PASSWORD="x", SOURCE_PASSWORD="y")
    url = settings.destination.url(0)
    assert (url.user, url.password) == ("me", "x")


# --- secrets -------------------------------------------------------------------------------------------------------


def exposed(settings: Settings) -> Iterator[str]:
    yield repr(settings)
    yield str(settings)
    yield repr(settings.model_dump())
    yield repr(dict(settings))
    yield str(settings.source_url)
    yield str(settings.source_password)
    for side in (settings.source, settings.destination):
        yield repr(side)
        yield str(side)
        yield repr(side.urls)
        yield repr(side.safe_urls)
    yield repr(effective(settings))


def test_secrets_are_nowhere_to_be_read() -> None:
    for settings in (load(), load(SOURCE_PASSWORD=SECRET, DESTINATION_PASSWORD=SECRET), one_broker()):
        for text in exposed(settings):
            assert SECRET not in text


def test_the_side_knows_what_the_log_must_hide() -> None:
    side: SideSettings = load(SOURCE_URL="amqp://u:one@h,amqp://u:two@h", SOURCE_PASSWORD="three").source
    assert side.secrets() == {"one", "two", "three"}


# --- what is shown -------------------------------------------------------------------------------------------------


def test_the_effective_configuration_says_where_each_value_came_from() -> None:
    found = {entry.variable.removeprefix("BRIDGE_"): entry for entry in effective(one_broker(SOURCE_PASSWORD=SECRET))}
    assert found["SOURCE_URL"][1:] == ("amqp://reader@source.example:5672", "environment")
    assert found["DESTINATION_URL"][1:] == ("amqp://reader@source.example:5672", "source")
    assert found["DESTINATION_PASSWORD"][1:] == ("**********", "source")
    assert found["SOURCE_PREFETCH"][1:] == ("1000", "default")
    assert found["QUARANTINE_QUEUE"][1:] == ("from.quarantine", "default")
    assert found["RECONNECT_MIN"][1:] == ("0.2", "default")
    assert found["SOURCE_DECLARE"][1:] == ("false", "default")
    assert len(found) == len(options())


def test_unknown_variables_are_named_with_the_closest_setting() -> None:
    given = environ() | {"BRIDGE_SOURCE_PREFECTH": "5", "BRIDGE_WHATEVER": "", "OTHER": "x"}
    assert unknown_variables(given) == [
        "BRIDGE_SOURCE_PREFECTH is not a setting and has no effect; did you mean BRIDGE_SOURCE_PREFETCH?",
        "BRIDGE_WHATEVER is not a setting and has no effect",
    ]


def test_what_kubernetes_sets_for_a_service_is_nobodys_typo() -> None:
    links = {
        "BRIDGE_SERVICE_HOST": "10.0.0.1",
        "BRIDGE_SERVICE_PORT": "80",
        "BRIDGE_SERVICE_PORT_HTTP": "80",
        "BRIDGE_PORT": "tcp://10.0.0.1:80",
        "BRIDGE_ORDERS_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert unknown_variables(links) == []
    assert len(unknown_variables({"BRIDGE_SOURCE_PORT": "5672"})) == 1


# --- config/bridge.env ---------------------------------------------------------------------------------------------


def test_bridge_env_is_written_from_the_settings() -> None:
    hint = "python -m tests.programs.bridge_env > config/bridge.env"
    assert BRIDGE_ENV.read_text() == bridge_env.render(), f"run: {hint}"


def _assignments(*, commented: bool) -> dict[str, str]:
    pattern = r"^#?(BRIDGE_\w+)=(.*)$" if commented else r"^(BRIDGE_\w+)=(.*)$"
    return dict(re.findall(pattern, BRIDGE_ENV.read_text(), re.MULTILINE))


def test_bridge_env_works_as_it_is() -> None:
    settings = load_settings(_assignments(commented=False))
    assert settings.source.urls[0].with_query(None) == URL("amqp://source.example:5672/")


def test_bridge_env_works_with_every_line_uncommented() -> None:
    everything = _assignments(commented=True)
    assert list(everything) == [option.variable for option in options()]
    assert unknown_variables(everything) == []
    as_it_is = load_settings(_assignments(commented=False))
    changed = {"quarantine_queue"}  # set to nothing, it means none
    assert load_settings(everything).model_dump(exclude=changed) == as_it_is.model_dump(exclude=changed)


@pytest.mark.parametrize(
    ("variable", "wrong", "expected"),
    (
        ("MAX_RATE", "0", "1 to 1000000"),
        ("MAX_RATE", "2.5", "1 to 1000000"),
        ("MAX_RATE", "100/s", "1 to 1000000"),
        ("MAX_BYTES_PER_SECOND", "999", "1000 to 1099511627776 bytes"),
        ("MAX_BYTES_PER_SECOND", "1MB/s", "1000 to 1099511627776 bytes"),
        ("START_PAUSED", "maybe", "true or false"),
        ("DESTINATION_MAX_READY", "0", "1 to 1099511627776"),
        ("DESTINATION_MAX_READY", "many", "1 to 1099511627776"),
        ("DESTINATION_MIN_CONSUMERS", "-1", "1 to 1000000"),
    ),
)
def test_a_wrong_rate_or_pause_is_named_with_what_is_expected(variable: str, wrong: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(**{variable: wrong})
    (problem,) = raised.value.problems
    assert problem.startswith(f'BRIDGE_{variable}: "{wrong}" is ')
    assert problem.endswith(f"expected {expected}")


def test_a_rate_is_off_unless_it_is_set() -> None:
    assert (load().max_rate, load().max_bytes_per_second, load().start_paused) == (None, None, False)
    settings = load(MAX_RATE="20000", MAX_BYTES_PER_SECOND="1MiB", START_PAUSED="yes")
    assert (settings.max_rate, settings.max_bytes_per_second, settings.start_paused) == (20_000, 1 << 20, True)


@pytest.mark.parametrize("brake", ("DESTINATION_MAX_READY", "DESTINATION_MIN_CONSUMERS"))
def test_a_brake_needs_a_queue_that_is_counted(brake: str) -> None:
    assert load(**{brake: "1"}).braked
    assert not load().braked

    def problems(**settings: str) -> list[str]:
        with pytest.raises(ConfigurationError) as raised:
            load(**{brake: "1"}, **settings)
        return list(raised.value.problems)

    exchange = problems(DESTINATION_QUEUE="", DESTINATION_EXCHANGE="out")
    assert exchange == [f"BRIDGE_{brake} needs a queue to look at; expected BRIDGE_DESTINATION_QUEUE, not an exchange"]
    unasked = problems(QUEUE_POLL="0")
    assert unasked == [f"BRIDGE_{brake} needs the queue to be asked; expected BRIDGE_QUEUE_POLL above 0"]
    stream = problems(DESTINATION_DECLARE="true", DESTINATION_QUEUE_TYPE="stream")
    assert stream == [
        f"BRIDGE_{brake} needs a queue that counts; expected another BRIDGE_DESTINATION_QUEUE_TYPE than stream"
    ]
