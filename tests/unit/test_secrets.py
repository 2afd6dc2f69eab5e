"""No secret anywhere: every command and every failure with marked secrets, at debug level, and all that comes out.

The brokers of these tests repeat whatever they were sent, logins included, in what they refuse with.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pamqp import commands

from bridge.__main__ import end_of_thread
from bridge.__main__ import main as run_command
from bridge.cli.grammar import main
from tests.rig.bridge_process import BridgeProcess
from tests.rig.certificates import make_certificates
from tests.rig.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer
from tests.rig.tokens import unsigned
from tests.rig.waiting import wait_until
from tests.support.scripted import Peer, ScriptedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRETS = {
    "the source's URL": "Url-s3cret:/@1+&",
    "the destination's variable": "Variable-s3cret \"2'\\",
    "the file": "File-s3cret-3-ßé",
    "the broker's token": unsigned(sub="writer", exp=4_000_000_000, scope="s3cret-free"),
    "the stream's URL": "Stream-s3cret:/@6%",
    "the passphrase": "Passphrase-s3cret-4",
    "the token": "Token-s3cret-5-of-http",
    "the client's": CLIENT_SECRET,
}
COMMANDS = (
    ("check",),
    ("check", "--json"),
    ("config",),
    ("config",),
    ("config", "--json"),
    ("drain", "--yes", "--until-empty", "--receipt", "receipt.json"),
    ("peek", "--json", "--yes"),
    ("status",),
)


def forms(secret: str) -> set[str]:
    """The ways in which a secret may be written, its longest plain part among them."""
    plain = max(re.split(r"[^\w-]", secret), key=len)
    raw = secret.encode()
    login = b64encode(b":" + raw).decode()
    return {secret, quote(secret, safe=""), quote(secret), repr(secret)[1:-1], json.dumps(secret)[1:-1], plain, login}


def uncovered(text: str, key: Path) -> set[str]:
    """Which secrets stand in the text, in whatever form."""
    lines = [line for line in key.read_text().splitlines() if "--" not in line]
    found = {name for name, secret in SECRETS.items() if any(form in text for form in forms(secret))}
    return found | {"the private key" for line in lines if line in text}


def test_each_form_of_a_secret_is_seen(tmp_path: Path) -> None:
    """So that the tests below can fail."""
    (tmp_path / "key").write_text("-----BEGIN\nabcdef\n-----END\n")
    for secret in SECRETS.values():
        assert all(uncovered(f"x{form}x", tmp_path / "key") for form in forms(secret))
    assert uncovered("x abcdef", tmp_path / "key")


def gossip(peer: Peer, channel: int, _: object) -> None:
    """Refuse, and repeat the login of the connection."""
    response = str(peer.got(commands.Connection.StartOk)[0].response)
    _, user, password = response.split("\0")
    text = f"REFUSED - user '{user}', password '{password}', amqp://{user}:{quote(password, safe='')}@here"
    peer.close(403, text.encode()[:250].decode(errors="ignore"), channel=channel)


@contextmanager
def gossiping(answers: dict[type, Any]) -> Iterator[str]:
    """A broker on a thread of its own; gives host and port."""
    loop, broker = asyncio.new_event_loop(), ScriptedBroker()
    broker.answers |= answers
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(broker.__aenter__(), loop).result(30)
        yield broker.url.partition("@")[2].rstrip("/")
    finally:
        asyncio.run_coroutine_threadsafe(broker.__aexit__(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


BROKERS: dict[str, dict[type, Any]] = {
    "the login is refused": {commands.Connection.StartOk: gossip},
    "the virtual host is refused": {commands.Connection.Open: gossip},
    "the queue is refused": {commands.Queue.Declare: gossip},
    "consuming and publishing are refused": {commands.Basic.Consume: gossip, commands.Confirm.Select: gossip},
}


def environment(folder: Path, where: str) -> dict[str, str]:
    """Settings with each secret in its place."""
    (folder / "file").write_text(SECRETS["the file"] + "\n")
    (folder / "token").write_text(SECRETS["the token"])
    source = f"amqp://reader:{quote(SECRETS['the source' + chr(39) + 's URL'], safe='')}@{where}"
    return {
        "BRIDGE_SOURCE_URL": source,
        "BRIDGE_SOURCE_QUEUE": "from",
        "BRIDGE_DESTINATION_URL": f"amqp://{where}",
        "BRIDGE_DESTINATION_USERNAME": "writer",
        "BRIDGE_DESTINATION_PASSWORD": SECRETS["the destination's variable"],
        "BRIDGE_DESTINATION_QUEUE": "to",
        "BRIDGE_HTTP_TOKEN_FILE": str(folder / "token"),
        "BRIDGE_LOG_LEVEL": "debug",
    }


def by_file(environ: dict[str, str], folder: Path) -> dict[str, str]:
    """The same with the destination's password in a file."""
    changed = {**environ, "BRIDGE_DESTINATION_PASSWORD_FILE": str(folder / "file")}
    del changed["BRIDGE_DESTINATION_PASSWORD"]
    return changed


def by_token(environ: dict[str, str], folder: Path) -> dict[str, str]:
    """The same with a token in that file."""
    (folder / "broker-token").write_text(SECRETS["the broker's token"])
    return by_file(environ, folder) | {"BRIDGE_DESTINATION_PASSWORD_FILE": str(folder / "broker-token")}


def by_stream(environ: dict[str, str], where: str) -> dict[str, str]:
    """The same with the offset of a stream, kept by a login of its own."""
    secret = quote(SECRETS["the stream's URL"], safe="")
    url = f"rabbitmq-stream://keeper:{secret}@{where}"
    return environ | {"BRIDGE_SOURCE_OFFSET_NAME": "offset", "BRIDGE_SOURCE_STREAM_URL": url}


@contextmanager
def by_client(environ: dict[str, str], folder: Path) -> Iterator[dict[str, str]]:
    """The same with a token server, which repeats the client's secret and gives no token."""
    (folder / "client").write_text(CLIENT_SECRET)
    with TokenServer(lambda: (400, {"error": "never"})) as server:
        yield {name: text for name, text in environ.items() if name != "BRIDGE_DESTINATION_PASSWORD"} | {
            "BRIDGE_DESTINATION_OAUTH_TOKEN_URL": f"{server.url}/unknown",
            "BRIDGE_DESTINATION_OAUTH_CLIENT_ID": CLIENT_ID,
            "BRIDGE_DESTINATION_OAUTH_CLIENT_SECRET_FILE": str(folder / "client"),
        }


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls")).client_key


@pytest.mark.parametrize("why", BROKERS)
def test_a_running_bridge_tells_no_secret(why: str, tmp_path: Path, key: Path) -> None:
    """In its log for machines and for people, over HTTP, and in the list of processes."""
    with gossiping(BROKERS[why]) as where:
        plain = environment(tmp_path, where)
        shown = ""
        for settings in (plain, by_file(plain, tmp_path) | {"BRIDGE_LOG_FORMAT": "console"}):
            with BridgeProcess(settings | {"BRIDGE_LOG_FORMAT": "json"}) as bridge:
                wait_until(partial(logged, bridge, "REFUSED"), "a refusal to be logged")
                for path in ("/", "/status", "/readyz", "/metrics", "/healthz"):
                    shown += over_http(bridge.http_port, path)
                shown += Path(f"/proc/{bridge.pid}/cmdline").read_text()
                limits = Path(f"/proc/{bridge.pid}/limits").read_text()
                bridge.terminate()
            shown += "\n".join(bridge.log_lines)
            assert re.search(r"Max core file size +[01] +[01] ", limits)
    assert "REFUSED" in shown
    assert uncovered(shown, key) == set()


def logged(bridge: BridgeProcess, word: str) -> bool:
    return any(word in line for line in bridge.log_lines)


def over_http(port: int, path: str) -> str:
    """The whole answer, with its headers, shown the token."""
    headers = {"Authorization": f"Bearer {SECRETS['the token']}"}
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=30) as answer:
            return f"{answer.headers}\n{answer.read().decode()}"
    except OSError as error:  # 503 is one
        return f"{error} {getattr(error, 'fp', None) and error.fp.read().decode()}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("why", ("the login is refused", "the queue is refused"))
def test_no_command_tells_a_secret(why: str, tmp_path: Path, key: Path) -> None:
    with gossiping(BROKERS[why]) as where, by_client(environment(tmp_path, where), tmp_path) as fetching:
        plain = environment(tmp_path, where) | {"BRIDGE_HTTP_PORT": "1"}
        clean = {name: text for name, text in os.environ.items() if not name.startswith("BRIDGE_")}
        clean |= {"PYTHONPATH": str(Path(__file__).parents[2])}
        running = [
            subprocess.Popen(
                (sys.executable, "-m", "bridge", *command),
                env=clean | settings,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for command, settings in (
                *zip(COMMANDS, itertools.cycle((plain, by_file(plain, tmp_path))), strict=False),
                *((command, by_stream(plain, where)) for command in COMMANDS[:5]),
                (("check",), by_token(plain, tmp_path)),
                (("check",), fetching),
            )
        ]
        shown = [process.communicate(timeout=120)[0] for process in running]
    assert all(shown), "each says something"
    assert "401 invalid_client: not a bridge, or not ***" in shown[-1]
    assert "Traceback" not in "".join(shown)
    receipt = tmp_path / "receipt.json"
    text = "".join([*shown, receipt.read_text() if receipt.exists() else ""])
    assert uncovered(text, key) == set()


@pytest.mark.parametrize("command", ("run", "check", "config"))
def test_no_wrong_configuration_tells_a_secret(
    command: str, tmp_path: Path, key: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-written files and settings, each with a secret in it."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    url, passphrase = SECRETS["the source's URL"], SECRETS["the passphrase"]
    stream = SECRETS["the stream's URL"]
    encrypted = tmp_path / "encrypted.pem"
    private = load_pem_private_key(key.read_bytes(), None)
    encryption = BestAvailableEncryption(passphrase.encode())
    encrypted.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    for name, text in (
        ("passphrase", passphrase),
        ("wrong", SECRETS["the file"] + passphrase),
        ("lines", f"{SECRETS['the file']}\n{SECRETS['the token']}\n"),
        ("short-token", SECRETS["the token"][:12]),
        ("env", f"BRIDGE_SOURCE_QUEUE=a\n{SECRETS['the file']} is it\nBRIDGE_SOURCE_PASSWORD '{url}\n"),
    ):
        (tmp_path / name).write_text(text)
    secure = {
        "BRIDGE_SOURCE_URL": f"amqps://reader:{quote(url, safe='')}@h",
        "BRIDGE_SOURCE_CERT_FILE": str(key.with_name("client.pem")),
        "BRIDGE_SOURCE_KEY_FILE": str(encrypted),
    }
    wrong: list[dict[str, str]] = [
        *({"BRIDGE_SOURCE_URL": text.replace("SECRET", url)} for text in HALF_WRITTEN),
        *(
            {"BRIDGE_SOURCE_STREAM_URL": text.replace("amqp", "rabbitmq-stream").replace("SECRET", stream)}
            for text in HALF_WRITTEN
        ),
        {"BRIDGE_SOURCE_PASSWORD": url, "BRIDGE_SOURCE_PASSWORD_FILE": str(tmp_path / "wrong")},
        {"BRIDGE_SOURCE_PASSWORD_FILE": url},
        {"BRIDGE_HTTP_TOKEN_FILE": SECRETS["the token"]},
        {"BRIDGE_HTTP_TOKEN_FILE": str(tmp_path / "lines")},
        {"BRIDGE_HTTP_TOKEN_FILE": str(tmp_path / "short-token")},
        secure,
        secure | {"BRIDGE_SOURCE_KEY_PASSPHRASE_FILE": str(tmp_path / "wrong")},
        secure | {"BRIDGE_SOURCE_KEY_PASSPHRASE_FILE": str(tmp_path / "passphrase"), "BRIDGE_SOURCE_KEY_FILE": "/none"},
        secure | {"BRIDGE_SOURCE_CERT_FILE": str(key)},
    ]
    for settings in wrong:
        with monkeypatch.context() as patch:
            for name, text in settings.items():
                patch.setenv(name, text)
            patch.setenv("BRIDGE_START_TIMEOUT", "0")
            assert main([command]) in {75, 78}
    assert main([command, "--env-file", str(tmp_path / "env")]) == 78
    said = capfd.readouterr()
    assert said.err.count("\n") >= len(wrong)
    assert uncovered(said.out + said.err, key) == set()


HALF_WRITTEN = (
    *("SECRET", "SECRET@h", "amqp://reader:SECRET", "amqp://reader:SECRET@", "amqp:/reader:SECRET@h", "amqp://SECRET"),
    *("http://reader:SECRET@h", "amqp://reader:SECRET@h:x", "amqp://reader:SECRET@h:99999", "amqp://reader@h:SECRET"),
    *(
        "amqp://reader:1/SECRET@h",
        "amqp://reader/SECRET@h/",
        "amqp://reader:1?name=SECRET@h",
        "amqp://reader:#SECRET@h",
    ),
    *("amqp://h/#SECRET", "amqp://h?password=SECRET", "amqp://[reader:SECRET", "amqp://one,reader:SECRET@two"),
)


def test_a_bug_is_logged_and_ends_the_process_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So that secrets are hidden in its traceback, too."""
    monkeypatch.setattr(threading, "excepthook", end_of_thread)
    monkeypatch.setattr(sys, "argv", ["amqp-bridge", "--bug"])

    def fail(*_: object, **__: object) -> int:
        message = "a mistake"
        raise ZeroDivisionError(message)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", fail)
    with keeping_signals():
        assert run_command() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "a bug in the bridge ended the thread",
        "a bug in the bridge ended the process",
    ]
    assert all(record.exc_info is not None for record in caplog.records)
    assert capsys.readouterr().err == ""


@contextmanager
def keeping_signals() -> Iterator[None]:
    """What a process does with SIGTERM, core dumps and threads is as it was before; its limit of dumps may be lower."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("most", "expected"), ((-1, 1), (1 << 30, 1), (1, 1), (0, 0)))
def test_no_core_dump_is_written_and_no_limit_is_raised(most: int, expected: int) -> None:
    """In a process of its own, whose limit cannot be raised again."""
    code = (
        "import resource; from bridge.cli.early import forbid_core_dumps; forbid_core_dumps(); "
        "print(*resource.getrlimit(resource.RLIMIT_CORE))"
    )
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard != resource.RLIM_INFINITY and (most == -1 or most > hard):
        pytest.skip("NOT TESTED: this session may not have such a limit")
    result = subprocess.run(
        (sys.executable, "-c", code),
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)),
    )
    assert result.stdout == f"{expected} {expected}\n"


def test_nobody_listens_on_the_port_that_the_commands_ask() -> None:
    """What the tests above suppose."""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 1), 5)
