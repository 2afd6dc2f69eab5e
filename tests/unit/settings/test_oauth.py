"""Tokens by client credentials, from a real HTTP server: when one is fetched, what is held, and what goes wrong."""

from __future__ import annotations

import re
import ssl
import sys
from typing import TYPE_CHECKING

import pytest

from bridge.errors import ConfigurationError, CredentialsError
from bridge.settings.environment import load_settings
from bridge.settings.oauth import LEAST_PAUSE_S, RENEWED_AT, RETRIED_AFTER, TokenClient
from tests.rig.certificates import make_certificates
from tests.rig.ports import LOOPBACK, free_port
from tests.rig.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer
from tests.rig.tokens import unsigned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIFE_S = 100


class Scene:
    """A client, its clock, and a server whose answers are numbered."""

    def __init__(self, secret_file: Path) -> None:
        secret_file.write_text(f"{CLIENT_SECRET}\n")
        self.secret_file = secret_file
        self.now_s = 1000.0
        self.answers = 0
        self.extra: dict[str, object] = {"expires_in": LIFE_S}
        self.server = TokenServer(self.numbered)
        self.client = self.new_client()

    def new_client(self, scope: str | None = None) -> TokenClient:
        """Another one of the same server."""
        return TokenClient(self.server.url, CLIENT_ID, self.secret_file, scope, clock=lambda: self.now_s)

    def numbered(self) -> tuple[int, object]:
        """A token that is the number of the answer."""
        self.answers += 1
        return 200, {"access_token": f"token-{self.answers}", "token_type": "bearer", **self.extra}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "client-secret")
    with scene.server:
        yield scene


def test_a_token_is_fetched_once_and_again_at_80_percent_of_its_life(scene: Scene) -> None:
    assert scene.client.fetch() == scene.client.login() == scene.client.fetch() == "token-1"
    assert scene.server.forms == [{"grant_type": ["client_credentials"]}]
    assert scene.client.pause_s(10) == 10
    scene.now_s += LIFE_S * RENEWED_AT - 3
    assert scene.client.fetch() == "token-1"
    assert scene.client.pause_s(10) == pytest.approx(3)
    scene.now_s += 3.5
    assert scene.client.pause_s(10) == LEAST_PAUSE_S
    assert scene.client.fetch() == "token-2"
    assert len(scene.server.forms) == 2


def test_what_is_asked_for_is_the_scope(scene: Scene) -> None:
    """And a server that grants another one is no reason to fail."""
    scene.extra = {"scope": "other"}
    assert scene.new_client("rabbitmq.read:*/* rabbitmq.write:*/*").fetch() == "token-1"
    assert scene.server.forms[0]["scope"] == ["rabbitmq.read:*/* rabbitmq.write:*/*"]


def test_while_the_server_is_away_the_held_token_logs_in_and_fetching_is_retried_soon(scene: Scene) -> None:
    scene.client.fetch()
    scene.server.answer = lambda: (503, "")
    scene.now_s += LIFE_S * RENEWED_AT + 1
    with pytest.raises(CredentialsError, match="503 without a reason"):
        scene.client.fetch()
    assert scene.client.pause_s(10) == LIFE_S * RETRIED_AFTER
    assert scene.client.login() == "token-1"
    scene.now_s += LIFE_S
    with pytest.raises(CredentialsError, match="503"):
        scene.client.login()
    scene.server.answer = scene.numbered
    assert scene.client.login() == "token-2"
    assert scene.client.pause_s(10) == 10


def test_a_token_that_the_broker_refuses_is_fetched_again(scene: Scene) -> None:
    token = scene.client.login()
    scene.client.refused("another")
    assert scene.client.login() == token
    scene.client.refused(token)
    assert scene.client.pause_s(10) == 10
    assert scene.client.login() == "token-2"


@pytest.mark.parametrize("life_s", (LIFE_S, None))
def test_without_a_stated_life_the_token_itself_says_it(scene: Scene, life_s: int | None) -> None:
    exp = {} if life_s is None else {"exp": 5000 + LIFE_S}
    scene.extra = {"access_token": unsigned(iat=5000, **exp)}
    scene.client.fetch()
    scene.now_s += LIFE_S * 2
    assert scene.client.pause_s(10) == (10 if life_s is None else LEAST_PAUSE_S)
    scene.client.fetch()
    assert scene.answers == (1 if life_s is None else 2)


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    (
        (400, {"error": "invalid_scope"}, "400 invalid_scope$"),
        (400, {"error": "invalid_scope", "error_description": "no such"}, "400 invalid_scope: no such$"),
        (404, "<html>", r"404 without a reason; is it the URL of the token endpoint\?"),
        (400, ["error"], "400 error$|400 without a reason"),
        (200, "<html>", "its answer has no token"),
        (200, [], "its answer is no JSON object"),
        (200, {"token_type": "bearer"}, r"its answer has no token \(.*[Mm]issing access token"),
        (200, {"error": "invalid_client"}, r"its answer has no token \(.*invalid_client"),
        (200, {"access_token": "a", "token_type": "bearer", "expires_in": "soon"}, "its answer has no token"),
        (302, "", "302 without a reason"),
    ),
)
def test_an_answer_without_a_token_is_told_in_the_server_s_words(
    scene: Scene, status: int, said: object, reason: str
) -> None:
    scene.server.answer = lambda: (status, said)
    with pytest.raises(CredentialsError, match=reason) as error:
        scene.client.fetch()
    assert str(error.value).startswith(f"token server {scene.server.url}: ")
    assert len(scene.server.forms) == 1, "no redirection is followed"


def test_a_wrong_secret_is_told_and_is_among_what_the_log_hides(scene: Scene) -> None:
    scene.secret_file.write_text("wrong-s3cret")
    with pytest.raises(CredentialsError, match="401 invalid_client: not a bridge, or"):
        scene.client.fetch()
    assert scene.client.secrets() == {"wrong-s3cret"}
    scene.secret_file.write_text("")
    with pytest.raises(CredentialsError, match=re.escape(f"client secret file {scene.secret_file}: empty")):
        scene.client.fetch()


def test_a_server_that_is_not_there_or_hangs_up_is_told(scene: Scene, tmp_path: Path) -> None:
    nobody = TokenClient(f"http://{LOOPBACK}:{free_port()}/token", CLIENT_ID, scene.secret_file)
    with pytest.raises(CredentialsError, match="Connection refused"):
        nobody.fetch()
    files = make_certificates(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.server_cert, files.server_key)
    with TokenServer(scene.numbered, context) as server:
        with pytest.raises(CredentialsError, match="certificate verify failed"):
            TokenClient(server.url, CLIENT_ID, scene.secret_file).fetch()
        assert TokenClient(server.url, CLIENT_ID, scene.secret_file, ca_file=files.ca).fetch() == "token-1"
        with pytest.raises(CredentialsError, match=r"Remote end closed|Connection reset|timed out"):
            TokenClient(server.url.replace("https", "http"), CLIENT_ID, scene.secret_file).fetch()


# --- The settings ---------------------------------------------------------------------------------------------


def environ(tmp_path: Path, **settings: str) -> dict[str, str]:
    (tmp_path / "client-secret").write_text(CLIENT_SECRET)
    found = {
        "SOURCE_URL": "amqp://here",
        "SOURCE_QUEUE": "in",
        "SOURCE_OAUTH_TOKEN_URL": "https://tokens.example/token",
        "SOURCE_OAUTH_CLIENT_ID": CLIENT_ID,
        "SOURCE_OAUTH_CLIENT_SECRET_FILE": str(tmp_path / "client-secret"),
        "DESTINATION_QUEUE": "out",
    } | settings
    return {f"BRIDGE_{name}": text for name, text in found.items() if text}


def test_the_destination_on_the_source_s_url_has_its_client_and_the_client_is_the_user(tmp_path: Path) -> None:
    settings = load_settings(environ(tmp_path, SOURCE_OAUTH_SCOPE="  a   b "))
    assert settings.source_oauth_scope == "a b"
    for side in (settings.source, settings.destination):
        assert side.credentials.where == "token server https://tokens.example/token"
        assert side.user(0) == CLIENT_ID
        assert side.username == "", "whom a token is for, the broker alone knows"
        assert side.renewable
        assert "the client in BRIDGE_SOURCE_OAUTH_CLIENT_ID" in side.login_variables()


def test_another_destination_has_a_login_of_its_own(tmp_path: Path) -> None:
    settings = load_settings(environ(tmp_path, DESTINATION_URL="amqp://a:b@there"))
    assert settings.destination.credentials.client is None
    assert settings.destination.username == "a"


@pytest.mark.parametrize(
    ("changes", "problem"),
    (
        (
            {"SOURCE_OAUTH_CLIENT_ID": ""},
            "BRIDGE_SOURCE_OAUTH_CLIENT_ID is not set; expected it with BRIDGE_SOURCE_OAUTH",
        ),
        (
            {"SOURCE_OAUTH_TOKEN_URL": ""},
            "BRIDGE_SOURCE_OAUTH_TOKEN_URL is not set; expected it with BRIDGE_SOURCE_OAUTH",
        ),
        ({"SOURCE_PASSWORD": "x"}, "BRIDGE_SOURCE_PASSWORD is set, and tokens are fetched; expected one or the other"),
        ({"SOURCE_AUTH": "external"}, "BRIDGE_SOURCE_AUTH=external logs in by certificate; expected no"),
        ({"SOURCE_OAUTH_TOKEN_URL": "tokens.example"}, "BRIDGE_SOURCE_OAUTH_TOKEN_URL: is not a URL of a server; exp"),
        (
            {"SOURCE_OAUTH_TOKEN_URL": "https://a:b@tokens"},
            'BRIDGE_SOURCE_OAUTH_TOKEN_URL: holds a login, an "@" or a "#"; exp',
        ),
        (
            {"SOURCE_OAUTH_TOKEN_URL": "https://a:1/s3cret@tokens"},
            'BRIDGE_SOURCE_OAUTH_TOKEN_URL: holds a login, an "@" or a "#"; exp',
        ),
        (
            {"SOURCE_OAUTH_TOKEN_URL": "https://tokens..example/"},
            "BRIDGE_SOURCE_OAUTH_TOKEN_URL: has a host name that cannot exist",
        ),
        ({"SOURCE_OAUTH_TOKEN_URL": "https://[x/"}, "BRIDGE_SOURCE_OAUTH_TOKEN_URL: is not a valid URL; expected"),
        ({"SOURCE_OAUTH_TOKEN_URL": "https://a b/"}, "BRIDGE_SOURCE_OAUTH_TOKEN_URL: has spaces, or characters that"),
        ({"SOURCE_OAUTH_SCOPE": "größer"}, 'BRIDGE_SOURCE_OAUTH_SCOPE: "größer" has characters that no scope has; exp'),
    ),
)
def test_what_does_not_go_together_is_named(tmp_path: Path, changes: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_settings(environ(tmp_path, **changes))
    assert any(line.startswith(problem) for line in error.value.problems), error.value.problems


def test_the_token_server_s_ca_may_be_set_without_tls_to_the_broker(tmp_path: Path) -> None:
    ca = str(make_certificates(tmp_path).ca)
    load_settings(environ(tmp_path, SOURCE_CA_FILE=ca))
    with pytest.raises(ConfigurationError, match="BRIDGE_SOURCE_CA_FILE without effect on amqp"):
        load_settings(environ(tmp_path, SOURCE_CA_FILE=ca) | {"BRIDGE_SOURCE_OAUTH_TOKEN_URL": "http://tokens"})


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oauthlib", None)
    with pytest.raises(ConfigurationError, match=r"needs oauthlib, .* pip install 'amqp-bridge\[oauth\]'"):
        load_settings(environ(tmp_path))
