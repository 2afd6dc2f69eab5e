"""Who may see what over HTTP: names, other websites, tokens, certificates."""

from __future__ import annotations

from base64 import b64encode
from email.message import Message
from http import HTTPStatus
from pathlib import Path

import pytest

from bridge.observe.access import GUARDED, PAGES, Access
from bridge.settings.http import HttpSettings, ServerTls

TOKEN = "correct-horse-battery"  # noqa: S105 - a test's
TLS = ServerTls(Path("cert.pem"))
MUTUAL = ServerTls(Path("cert.pem"), client_ca_file=Path("ca.pem"))
PROBES = ("/healthz", "/readyz")


def headers(*pairs: tuple[str, str], host: str = "127.0.0.1:8080") -> Message:
    made = Message()
    for name, text in (("Host", host), *pairs):
        made[name] = text
    return made


def refused(access: Access, path: str, given: Message | None = None, *, certified: bool = False) -> int:
    """The status of the refusal; 0 for none."""
    refusal = access.admit(path, "HTTP/1.1", headers() if given is None else given, certified=certified)
    return 0 if refusal is None else refusal.status


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def basic(token: str, user: str = "anybody") -> str:
    return f"Basic {b64encode(f'{user}:{token}'.encode()).decode()}"


# --- Names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    (
        *("127.0.0.1:8080", "[::1]:8080", "10.0.0.7", "192.0.2.1:80", "localhost", "LOCALHOST:8080", "localhost."),
        *(
            "bridge",
            "amqp-bridge-orders:8080",
            "orders.shop.svc",
            "orders.shop.svc.cluster.local:8080",
            "nas.home.arpa",
        ),
        *("bridge.corp.example", "configured.example"),
    ),
)
@pytest.mark.parametrize("path", sorted(PAGES))
def test_addresses_and_names_of_an_inner_network_are_answered(path: str, host: str) -> None:
    access = Access(HttpSettings("bridge.corp.example", allowed_hosts=("configured.example",)))
    assert refused(access, path, headers(host=host)) == 0


@pytest.mark.parametrize(
    "host",
    ("attacker.example", "attacker.example:8080", "localhost.attacker.example", "local", "127.0.0.1.attacker.example"),
)
@pytest.mark.parametrize("path", sorted(PAGES))
def test_a_name_that_somebody_may_own_and_give_our_address_is_not_answered(path: str, host: str) -> None:
    expected = 0 if "." not in host else HTTPStatus.MISDIRECTED_REQUEST
    assert refused(Access(HttpSettings()), path, headers(host=host)) == expected


@pytest.mark.parametrize("host", ("", ":80", "[::1", "a b.example", "x@attacker.example", "a\x00.example"))
def test_what_is_no_name_is_not_answered(host: str) -> None:
    assert refused(Access(HttpSettings()), "/status", headers(host=host)) == HTTPStatus.MISDIRECTED_REQUEST


def test_the_refusal_says_what_to_set() -> None:
    refusal = Access(HttpSettings()).admit("/", "HTTP/1.1", headers(host="a.example"), certified=False)
    assert refusal is not None
    assert "BRIDGE_HTTP_ALLOWED_HOSTS" in refusal.text
    assert "a.example" not in refusal.text


def test_one_host_header_is_needed_and_no_second() -> None:
    access = Access(HttpSettings())
    assert refused(access, "/status", Message()) == HTTPStatus.BAD_REQUEST
    assert refused(access, "/status", headers(("Host", "127.0.0.1"))) == HTTPStatus.BAD_REQUEST
    assert access.admit("/status", "HTTP/1.0", Message(), certified=False) is None


@pytest.mark.parametrize("path", ("/metrics", *PROBES))
def test_scrapers_and_probes_may_use_any_name(path: str) -> None:
    assert refused(Access(HttpSettings()), path, headers(host="bridge.example")) == 0


def test_behind_a_token_or_tls_any_name_will_do_since_a_browser_shows_neither_to_another(token_file: Path) -> None:
    there = headers(("Authorization", f"Bearer {TOKEN}"), host="bridge.example")
    assert refused(Access(HttpSettings(token_file=token_file)), "/", there) == 0
    assert refused(Access(HttpSettings(tls=TLS)), "/", headers(host="bridge.example")) == 0


# --- Other websites ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "status"),
    (
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 0),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 0),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 0),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 0),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),
    ),
)
@pytest.mark.parametrize("path", sorted(PAGES))
def test_no_other_website_reads_or_embeds_it_and_a_link_may_lead_there(
    path: str, given: dict[str, str], status: int
) -> None:
    assert refused(Access(HttpSettings()), path, headers(*given.items())) == status


# --- Tokens and certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", (*sorted(GUARDED), *PROBES, "/else"))
def test_without_either_nothing_is_asked_for(path: str) -> None:
    assert refused(Access(HttpSettings()), path) == 0


@pytest.mark.parametrize("path", sorted(GUARDED))
def test_a_token_is_taken_as_a_bearers_and_as_the_password_of_any_user(path: str, token_file: Path) -> None:
    access = Access(HttpSettings(token_file=token_file))
    for shown in (f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic(TOKEN), basic(TOKEN, ""), basic(TOKEN, "Jürgen")):
        assert refused(access, path, headers(("Authorization", shown))) == 0


@pytest.mark.parametrize(
    "shown",
    (
        *("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Digest {TOKEN}"),
        *(basic(""), basic("wrong"), f"Basic {TOKEN}", "Basic %%%", "Basic é", f"Bearer {TOKEN}\xff", "Basic Og=="),
    ),
)
def test_another_token_is_not(shown: str, token_file: Path) -> None:
    access = Access(HttpSettings(token_file=token_file))
    refusal = access.admit("/metrics", "HTTP/1.1", headers(("Authorization", shown)), certified=False)
    assert refusal is not None
    assert refusal.status == HTTPStatus.UNAUTHORIZED
    assert refusal.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("path", PROBES)
def test_probes_show_nothing(path: str, token_file: Path) -> None:
    assert refused(Access(HttpSettings(token_file=token_file, tls=MUTUAL)), path, Message()) == 0


def test_a_certificate_or_the_token_is_enough(token_file: Path) -> None:
    both = Access(HttpSettings(token_file=token_file, tls=MUTUAL))
    assert refused(both, "/status") == HTTPStatus.UNAUTHORIZED
    assert refused(both, "/status", certified=True) == 0
    assert refused(both, "/status", headers(("Authorization", f"Bearer {TOKEN}"))) == 0
    certificate = Access(HttpSettings(tls=MUTUAL))
    assert refused(certificate, "/status") == HTTPStatus.FORBIDDEN
    assert refused(certificate, "/status", certified=True) == 0


def test_a_rotated_token_counts_at_once(token_file: Path) -> None:
    access = Access(HttpSettings(token_file=token_file))
    token_file.write_text("another-token-of-20c")
    assert refused(access, "/", headers(("Authorization", f"Bearer {TOKEN}"))) == HTTPStatus.UNAUTHORIZED
    assert refused(access, "/", headers(("Authorization", "Bearer another-token-of-20c"))) == 0


def test_without_its_file_nobody_gets_in_and_that_is_logged_once(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(HttpSettings(token_file=token_file))
    for text in ("", "short", "no visible \x1b characters", "x" * 100_000):
        token_file.write_text(text)
        for _ in range(2):
            for shown in (f"Bearer {text}", "Bearer ", "Basic Og=="):
                assert refused(access, "/", headers(("Authorization", shown))) == HTTPStatus.SERVICE_UNAVAILABLE
        assert caplog.text.count("nobody gets in by a token") == 1
        assert "\x1b" not in caplog.text
        caplog.clear()
    token_file.unlink()
    assert refused(access, "/") == HTTPStatus.SERVICE_UNAVAILABLE
    assert "No such file" in caplog.text
