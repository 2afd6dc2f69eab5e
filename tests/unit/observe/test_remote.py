"""A running bridge, asked over HTTP: by a token, by a certificate, and nothing sent to anybody else."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from bridge.observe.address import NoStatusError
from bridge.observe.remote import Visit, fetch, http_url, own_visit
from bridge.settings.http import HttpSettings, ServerTls
from tests.rig.certificates import make_certificates
from tests.support.http_service import Service

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.certificates import Certificates

TOKEN = "correct-horse-battery"  # noqa: S105 - a test's


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


def secured(certificates: Certificates, token_file: Path | None = None) -> Service:
    tls = ServerTls(certificates.server_cert, certificates.server_key, certificates.ca)
    return Service(settings=HttpSettings(tls=tls, token_file=token_file))


@pytest.mark.parametrize(
    "url", ("file:///etc/passwd", "127.0.0.1:8080", "ftp://h/", "http://", "http://[::1", "http://h:0")
)
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(NoStatusError, match="is no HTTP address; expected such as http://"):
        http_url(url)


def test_a_login_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(NoStatusError, match="expected --token-file") as raised:
        http_url("http://user:s3cr3t-token@127.0.0.1:8080")
    assert "s3cr3t" not in str(raised.value)


def test_a_bridge_that_wants_a_token_is_asked_with_it(token_file: Path) -> None:
    with Service(settings=HttpSettings(token_file=token_file)) as service:
        url = f"http://127.0.0.1:{service.server.port}"
        assert fetch(url, own_visit({"BRIDGE_HTTP_TOKEN_FILE": str(token_file)}))["version"] == 1
        with pytest.raises(NoStatusError, match=r"it answers 401: a token is needed.*--token-file"):
            fetch(url)


def test_on_its_own_host_a_bridge_is_known_by_its_certificate_whatever_its_name(
    certificates: Certificates, token_file: Path, tmp_path: Path
) -> None:
    with secured(certificates, token_file) as service:
        url = f"https://127.0.0.1:{service.server.port}"
        own = {"BRIDGE_HTTP_CERT_FILE": str(certificates.server_cert), "BRIDGE_HTTP_TOKEN_FILE": str(token_file)}
        assert fetch(url, own_visit(own))["version"] == 1
        other = make_certificates(tmp_path / "other")
        with pytest.raises(NoStatusError, match="certificate verify failed"):
            fetch(url, own_visit(own | {"BRIDGE_HTTP_CERT_FILE": str(other.server_cert)}))


def test_a_client_certificate_is_as_good_as_the_token(certificates: Certificates) -> None:
    with secured(certificates) as service:
        url = f"https://127.0.0.1:{service.server.port}/"
        visit = Visit(ca_file=certificates.ca, cert_file=certificates.client_cert, key_file=certificates.client_key)
        assert fetch(url, visit)["version"] == 1
        with pytest.raises(NoStatusError, match=r"it answers 403: a client certificate is needed.*--cert-file"):
            fetch(url, Visit(ca_file=certificates.ca))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoStatusError, match=r"token file .*gone: No such file"):
        fetch("http://127.0.0.1:1", Visit(token_file=tmp_path / "gone"))


@pytest.mark.parametrize(
    "answer",
    (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/stolen\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /stolen\r\nContent-Length: 0\r\n\r\n",
    ),
)
def test_a_token_follows_no_redirection_and_no_proxy(
    answer: bytes, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                client, _ = listener.accept()
                with client:
                    request = client.recv(65536)
                    if request == b"end":
                        return
                    asked.append(request)
                    client.sendall(answer.replace(b"{port}", str(listener.getsockname()[1]).encode()))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(NoStatusError, match="it answers 30"):
                fetch(f"http://127.0.0.1:{listener.getsockname()[1]}", Visit(token_file=token_file))
        finally:
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(b"end")
            thread.join()
    assert len(asked) == 1, "it asked once, and there"
    assert asked[0].startswith(b"GET /status ")


def test_what_a_refusal_says_is_not_obeyed_by_a_terminal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 500 \x1b[2J\r\nContent-Length: 6\r\n\r\n\x1b]0;x\x07")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NoStatusError, match="it answers 500") as raised:
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert str(raised.value).isprintable()
