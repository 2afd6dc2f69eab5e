"""What HTTP is served by: files that do not go together, tokens that are none, names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bridge.errors import ConfigurationError, NotYetError
from bridge.settings.environment import load_settings
from bridge.settings.http import MIN_TOKEN_CHARACTERS, token_fault
from bridge.settings.options import effective
from tests.rig.certificates import make_certificates

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.settings.settings import Settings
    from tests.rig.certificates import Certificates

LEAST = {"SOURCE_URL": "amqp://u:p@h", "SOURCE_QUEUE": "from", "DESTINATION_QUEUE": "to"}


def load(**given: object) -> Settings:
    return load_settings({f"BRIDGE_{name}": str(text) for name, text in (LEAST | given).items()})


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "tls")


def test_by_default_it_is_served_in_clear_to_everybody() -> None:
    assert load().http.open
    assert load().http.tls is None


def test_a_pair_a_client_ca_and_a_token_are_served_by(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * MIN_TOKEN_CHARACTERS)
    files = {"HTTP_CERT_FILE": certificates.server_cert, "HTTP_KEY_FILE": certificates.server_key}
    http = load(**files, HTTP_CLIENT_CA_FILE=certificates.ca, HTTP_TOKEN_FILE=tmp_path / "token").http
    assert (http.open, http.wants_certificate, http.token()) == (False, True, "x" * MIN_TOKEN_CHARACTERS)
    assert load(**files).http.open, "encrypted, and still open to everybody"


def test_a_certificate_may_hold_its_key(certificates: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.server_cert.read_bytes() + certificates.server_key.read_bytes())
    assert load(HTTP_CERT_FILE=both).http.tls is not None


@pytest.mark.parametrize("lonely", ("HTTP_KEY_FILE", "HTTP_CLIENT_CA_FILE"))
def test_a_key_or_a_client_ca_without_a_certificate_is_refused(certificates: Certificates, lonely: str) -> None:
    file = certificates.ca if "CA" in lonely else certificates.server_key
    with pytest.raises(
        ConfigurationError, match=f"BRIDGE_{lonely} is set without BRIDGE_HTTP_CERT_FILE; expected both"
    ):
        load(**{lonely: file})


def test_half_a_pair_may_be_one_in_the_middle_of_a_rotation(certificates: Certificates) -> None:
    with pytest.raises(NotYetError, match=r"BRIDGE_HTTP_CERT_FILE: certificate .*; BRIDGE_HTTP_KEY_FILE names"):
        load(HTTP_CERT_FILE=certificates.server_cert, HTTP_KEY_FILE=certificates.client_key)


@pytest.mark.parametrize(
    ("token", "words"),
    (
        ("", "empty"),
        ("x" * (MIN_TOKEN_CHARACTERS - 1), "holds 15 characters; expected a token of at least 16"),
        ("s3cr3t and words and more", "holds other characters than the visible ones of ASCII"),
        ("s3cr3t-\x1b[31m-and-so-on", "holds other characters"),
        ("s3cr3t-ü-and-so-on-and-on", "holds other characters"),
        ("s3cr3t-in-a-line\nand-another", "holds other characters"),
    ),
)
def test_a_token_that_no_header_can_carry_or_that_is_guessed_is_refused_and_not_repeated(
    token: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(NotYetError, match=words) as raised:
        load(HTTP_TOKEN_FILE=tmp_path / "token")
    assert "s3cr3t" not in str(raised.value)


def test_a_good_token_has_no_fault() -> None:
    assert token_fault("x" * MIN_TOKEN_CHARACTERS) == ""


@pytest.mark.parametrize("host", ("127.0.0.1", "::1", "[::]", "bridge.example"))
def test_what_is_listened_on_is_an_address_or_a_name(host: str) -> None:
    assert load(HTTP_HOST=host).http.host == host


def test_names_are_listed_in_any_case_and_without_ports() -> None:
    settings = load(HTTP_ALLOWED_HOSTS=" Bridge.example., 10.0.0.1 ,::1,")
    assert settings.http.allowed_hosts == ("bridge.example", "10.0.0.1", "::1")
    shown = {entry.variable: entry.value for entry in effective(settings)}
    assert shown["BRIDGE_HTTP_ALLOWED_HOSTS"] == "bridge.example,10.0.0.1,::1"
    with pytest.raises(
        ConfigurationError, match='BRIDGE_HTTP_ALLOWED_HOSTS: "orders:80" is not a host name; expected names'
    ):
        load(HTTP_ALLOWED_HOSTS="a.example, orders:80")
