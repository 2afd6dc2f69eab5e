"""The HTTP server over TLS and with a token: what answers whom, files rotated under it, and clients that dawdle."""

from __future__ import annotations

import shutil
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from bridge.errors import CredentialsError, NotYetError
from bridge.observe.access import GUARDED
from bridge.observe.http import MAX_CLIENTS, HttpServer
from bridge.settings.http import HttpSettings, ServerTls
from tests.rig.certificates import make_certificates
from tests.rig.waiting import wait_until
from tests.support.http_service import TIMEOUT_S, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.certificates import Certificates

TOKEN = "correct-horse-battery"  # noqa: S105 - a test's


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "tls")


@pytest.fixture
def mutual(certificates: Certificates, tmp_path: Path) -> Iterator[Service]:
    """One that wants a certificate or the token, and soon gives up a client that is silent."""
    (tmp_path / "token").write_text(TOKEN)
    tls = ServerTls(certificates.server_cert, certificates.server_key, certificates.ca)
    settings = HttpSettings(tls=tls, token_file=tmp_path / "token")
    with Service(settings=settings) as running:
        yield running


def client_of(certificates: Certificates, *, certified: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.ca)
    if certified:
        context.load_cert_chain(certificates.client_cert, certificates.client_key)
    return context


def test_probes_show_nothing_and_all_else_a_certificate_or_the_token(
    mutual: Service, certificates: Certificates
) -> None:
    nobody, known = client_of(certificates), client_of(certificates, certified=True)
    for path in ("/healthz", "/readyz"):
        assert mutual.ask(path, tls=nobody).status == 200
    for path in sorted(GUARDED):
        refused = mutual.ask(path, tls=nobody)
        assert (refused.status, refused.headers["www-authenticate"][:6]) == (401, "Basic ")
        assert b"a token or a client certificate is needed" in refused.body
        assert mutual.ask(path, tls=known).status == 200
        assert mutual.ask(path, tls=nobody, Authorization=f"Bearer {TOKEN}").status == 200
        assert mutual.ask(path, "HEAD", tls=nobody).body == b""


def test_a_certificate_of_another_authority_gets_no_connection(
    mutual: Service, certificates: Certificates, tmp_path: Path
) -> None:
    stranger = make_certificates(tmp_path / "stranger")
    context = client_of(certificates)
    context.load_cert_chain(stranger.client_cert, stranger.client_key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        mutual.ask("/healthz", tls=context)


def test_plain_http_on_a_tls_port_is_dropped_in_silence(
    mutual: Service, certificates: Certificates, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with mutual.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        while client.recv(4096):
            pass
    assert mutual.ask("/healthz", tls=client_of(certificates)).status == 200
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_tls_before_1_2_is_not_spoken(mutual: Service, certificates: Certificates) -> None:
    context = client_of(certificates)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        mutual.ask("/healthz", tls=context)


def test_a_rotated_certificate_is_served_to_the_next_client_and_half_a_pair_is_not(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The new certificate comes before its key: until then that of before is served, which is logged once."""
    renewed = make_certificates(tmp_path / "renewed")
    tls = ServerTls(certificates.server_cert, certificates.server_key)
    before, after = client_of(certificates), client_of(renewed)
    with Service(settings=HttpSettings(tls=tls)) as service:
        assert service.ask("/healthz", tls=before).status == 200
        shutil.copy(renewed.server_cert, certificates.server_cert)
        for _ in range(2):
            assert service.ask("/healthz", tls=before).status == 200
        assert caplog.text.count("HTTP goes on with the certificate of before: certificate ") == 1
        shutil.copy(renewed.server_key, certificates.server_key)
        assert service.ask("/healthz", tls=after).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            service.ask("/healthz", tls=before)
        certificates.server_cert.unlink()
        assert service.ask("/healthz", tls=after).status == 200
        assert "No such file" in caplog.text


def test_a_pair_that_does_not_match_at_the_start_may_be_one_in_the_middle_of_a_rotation(
    certificates: Certificates, mutual: Service
) -> None:
    tls = ServerTls(certificates.server_cert, certificates.client_key)
    with pytest.raises(
        NotYetError, match=r"BRIDGE_HTTP_CERT_FILE: certificate .* with key .*PEM certificate and its key"
    ):
        HttpServer(HttpSettings(tls=tls), mutual.answers)


@pytest.mark.parametrize("field", ("cert_file", "key_file", "client_ca_file"))
def test_each_file_that_cannot_be_used_is_named(certificates: Certificates, tmp_path: Path, field: str) -> None:
    files = {
        "cert_file": certificates.server_cert,
        "key_file": certificates.server_key,
        "client_ca_file": certificates.ca,
    }
    (tmp_path / "empty").touch()
    for wrong in (tmp_path / "gone", tmp_path / "empty"):
        with pytest.raises(CredentialsError, match=wrong.name):
            ServerTls(**files | {field: wrong}).context()


def test_clients_that_only_shake_hands_do_not_keep_a_probe_out_and_leave_no_thread(
    mutual: Service, certificates: Certificates
) -> None:
    silent = [mutual.connect() for _ in range(2 * MAX_CLIENTS)]
    assert mutual.ask("/healthz", tls=client_of(certificates)).status == 200
    for client in silent:
        client.close()
    wait_until(lambda: serving() == 0, "the threads of those who left to end")


def serving() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_a_handshake_that_stops_in_the_middle_is_given_up(certificates: Certificates) -> None:
    tls = ServerTls(certificates.server_cert, certificates.server_key)
    with Service(settings=HttpSettings(tls=tls), client_timeout_s=0.05) as service, service.connect() as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01")
        client.settimeout(TIMEOUT_S)
        assert client.recv(1) == b""


def test_a_request_after_the_page_over_tls_uses_the_same_connection(
    mutual: Service, certificates: Certificates
) -> None:
    with (
        mutual.connect() as plain,
        client_of(certificates).wrap_socket(plain, server_hostname="localhost") as client,
    ):
        for _ in range(2):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while b'"reason": ""}' not in answer:
                answer += client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 ")
        client.shutdown(socket.SHUT_RDWR)
