"""The command line as a user meets it: a process, its exit codes and what it writes. No broker is needed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from bridge.cli import daemon, grammar
from bridge.settings.options import options
from tests.rig.bridge_process import BridgeProcess, StartBridge
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "n3ver-Sh0wn"  # noqa: S105 - made up


@pytest.fixture
def silent_broker() -> Iterator[socket.socket]:
    """Something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        yield listening


def settings_for(listening: socket.socket, **more: str) -> dict[str, str]:
    return {
        "BRIDGE_SOURCE_URL": f"amqp://reader:{PASSWORD}@127.0.0.1:{listening.getsockname()[1]}",
        "BRIDGE_SOURCE_QUEUE": "from",
        "BRIDGE_DESTINATION_QUEUE": "to",
    } | {f"BRIDGE_{name}": text for name, text in more.items()}


def test_every_mistake_is_listed_and_nothing_is_connected(silent_broker: socket.socket) -> None:
    settings = settings_for(silent_broker, SOURCE_PREFETCH="many", HTTP_PORT="-1", DESTINATION_EXCHANGE="x")
    with BridgeProcess(settings) as bridge:
        assert bridge.wait() == os.EX_CONFIG
    assert bridge.log_lines == [
        'amqp-bridge: BRIDGE_SOURCE_PREFETCH: "many" is not a whole number; expected 1 to 65535',
        'amqp-bridge: BRIDGE_HTTP_PORT: "-1" is out of range; expected 0 to 65535',
        "amqp-bridge: BRIDGE_DESTINATION_QUEUE and BRIDGE_DESTINATION_EXCHANGE are both set; expected one of them",
        "amqp-bridge: nothing was connected; `amqp-bridge run --help` lists every setting",
    ]
    silent_broker.settimeout(0)
    with pytest.raises(BlockingIOError):
        silent_broker.accept()


def test_a_port_that_is_taken_is_waited_for_and_told_once(silent_broker: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with BridgeProcess(settings_for(silent_broker, HTTP_PORT=str(port), START_TIMEOUT="0.5")) as bridge:
            assert bridge.wait() == os.EX_TEMPFAIL
        taken = f"BRIDGE_HTTP_PORT={port} cannot be listened on (Address already in use)"
        waiting, gave_up = (event["event"] for event in bridge.events)
        assert taken in waiting
        assert taken in gave_up
        assert gave_up.endswith("gave up after 0.5 s")
        running = BridgeProcess(settings_for(silent_broker, HTTP_PORT=str(port))).start()
        wait_until(lambda: "waiting for it for up to 60 s" in running.logs, "the bridge to wait for the port")
    with running:
        assert running.get("/healthz")[0] == 200


def test_a_password_file_that_is_not_mounted_yet_is_waited_for_and_told_once(
    silent_broker: socket.socket, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    settings = settings_for(silent_broker, SOURCE_PASSWORD_FILE=str(secret))
    settings["BRIDGE_SOURCE_URL"] = f"amqp://reader@127.0.0.1:{silent_broker.getsockname()[1]}"
    with BridgeProcess(settings | {"BRIDGE_START_TIMEOUT": "0.5"}) as bridge:
        assert bridge.wait() == os.EX_TEMPFAIL
    missing = bridge.log_lines[0]
    assert missing.startswith('amqp-bridge: BRIDGE_SOURCE_PASSWORD_FILE: "/')
    assert missing.endswith("cannot be read (No such file or directory); expected the path of a readable file")
    assert bridge.log_lines == [
        missing,
        "amqp-bridge: waiting for up to 0.5 s until that has passed",
        missing,
        "amqp-bridge: nothing was connected; `amqp-bridge run --help` lists every setting",
    ]
    with BridgeProcess(settings) as bridge:
        wait_until(lambda: "waiting for up to 60 s" in bridge.logs, "the bridge to wait for the file")
        secret.write_text(PASSWORD)
        assert bridge.http_port


def test_a_signal_ends_a_bridge_that_waits_to_start(silent_broker: socket.socket) -> None:
    port = silent_broker.getsockname()[1]
    taken = settings_for(silent_broker, HTTP_PORT=str(port))
    for settings in (taken, taken | {"BRIDGE_SOURCE_CA_FILE": "/nowhere/ca"}):
        with BridgeProcess(settings) as bridge:
            wait_until(lambda: "waiting for" in bridge.logs, "the bridge to wait")
            assert bridge.terminate() == 0


@pytest.mark.parametrize("command", ("check", "config"))
def test_what_may_pass_is_75_for_every_command_and_only_run_waits(silent_broker: socket.socket, command: str) -> None:
    with BridgeProcess(settings_for(silent_broker, SOURCE_CA_FILE="/nowhere/file"), command) as bridge:
        assert bridge.wait() == os.EX_TEMPFAIL
    assert "waiting" not in bridge.logs


def test_a_typo_is_warned_of_and_the_bridge_runs(silent_broker: socket.socket, start_bridge: StartBridge) -> None:
    bridge = start_bridge(settings_for(silent_broker, SOURCE_PREFECTH="5"))
    assert bridge.http_port
    warnings = [event["event"] for event in bridge.events if event["level"] == "warning"]
    expected = "BRIDGE_SOURCE_PREFECTH is not a setting and has no effect; did you mean BRIDGE_SOURCE_PREFETCH?"
    assert expected in warnings


def test_the_start_is_logged_without_the_password(silent_broker: socket.socket, start_bridge: StartBridge) -> None:
    bridge = start_bridge(settings_for(silent_broker, LOG_LEVEL="debug"))
    assert bridge.http_port
    started = next(event for event in bridge.events if event["event"].endswith("started"))
    assert started["source"] == [f"amqp://reader@127.0.0.1:{silent_broker.getsockname()[1]}"]
    silent_broker.accept()[0].close()
    wait_until(lambda: "not connected" in bridge.logs, "the failure to be logged")
    assert PASSWORD not in bridge.logs
    assert PASSWORD not in bridge.get("/readyz")[1]
    assert PASSWORD.encode() not in Path(f"/proc/{bridge.pid}/cmdline").read_bytes()


def test_without_a_broker_it_runs_is_healthy_and_says_why_it_is_not_ready(start_bridge: StartBridge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = settings_for(listening)
    bridge = start_bridge(settings)
    wait_until(lambda: "nothing listens there" in bridge.get("/readyz")[1], "the reason to be known")
    assert bridge.get("/readyz")[0] == 503
    assert bridge.get("/healthz")[0] == 200


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_ends_a_bridge_that_is_not_connected(
    silent_broker: socket.socket, start_bridge: StartBridge, number: int
) -> None:
    """In the middle of connecting, with nothing in flight: nothing to wait for, so not for the shutdown timeout."""
    bridge = start_bridge(settings_for(silent_broker, SHUTDOWN_TIMEOUT="50s"))
    with silent_broker.accept()[0]:
        assert bridge.http_port
        os.kill(bridge.pid, number)
        assert bridge.wait(40) == 0
    assert "Traceback" not in bridge.logs


def test_two_signals_at_once_are_one(silent_broker: socket.socket, start_bridge: StartBridge) -> None:
    """As when a wrapper passes a signal on that its whole group has got. Both wait for a bridge that is stopped."""
    bridge = start_bridge(settings_for(silent_broker))
    assert bridge.http_port
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        os.kill(bridge.pid, number)
    assert bridge.wait() == 0


def test_a_second_signal_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    stops: list[None] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(time, "monotonic", iter((100.0, 100.9, 101.0)).__next__)
    supervisor = SimpleNamespace(stopping=False)

    def stop() -> None:
        supervisor.stopping = True
        stops.append(None)

    supervisor.stop = stop
    signals = daemon.Signals(supervisor)  # type: ignore[arg-type]  # what it needs of one
    for number in (signal.SIGTERM, signal.SIGTERM):
        signals.received(number)
        assert ended == []
    signals.received(signal.SIGINT)
    assert (ended, len(stops)) == ([daemon.EX_SECOND_SIGNAL], 1)


def test_text_that_is_not_utf8_is_a_mistake_of_the_configuration() -> None:
    wrong = {b"BRIDGE_SOURCE_QUEUE": b"\xff", b"BRIDGE_SOURCE_PASSWORD": b"s3cr3t\xff", b"BRIDGE_HTTP_HOST": b"\xff"}
    run = subprocess.run(
        [sys.executable, "-m", "bridge", "run"], env=os.environb | wrong, capture_output=True, timeout=60, check=False
    )
    assert run.returncode == daemon.EX_CONFIG
    for name in wrong:
        assert name + b": is not valid UTF-8 text" in run.stderr
    assert b"Traceback" not in run.stderr
    assert b"s3cr3t" not in run.stderr


def test_a_sigterm_while_the_bridge_is_being_imported_is_not_lost(silent_broker: socket.socket) -> None:
    """PID 1 has no default handler, so the first thing to do is to install one."""
    variables = {name: text for name, text in os.environ.items() if not name.startswith("BRIDGE_")}
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "bridge", "run"],
        env=variables | settings_for(silent_broker),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        assert any("bridge.errors" in line for line in process.stderr)
        process.terminate()
        rest = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in rest


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_check_that_is_ended_by_a_signal_does_not_say_that_all_is_well(
    silent_broker: socket.socket, number: signal.Signals
) -> None:
    with BridgeProcess(settings_for(silent_broker), "check") as bridge, silent_broker.accept()[0]:
        os.kill(bridge.pid, number)
        assert bridge.wait() == 128 + number
    assert "Traceback" not in bridge.logs


def test_the_configuration_is_shown_with_its_origins_and_without_secrets(silent_broker: socket.socket) -> None:
    settings = settings_for(silent_broker, SOURCE_PREFETCH="5", SOURCE_PREFECTH="6")
    with BridgeProcess(settings, "config") as table, BridgeProcess(settings, "config", "--json") as document:
        assert (table.wait(), document.wait()) == (0, 0)
    rows = {line.split()[0]: line.split()[1:] for line in table.log_lines if line.startswith("BRIDGE_")}
    url = f"amqp://reader@127.0.0.1:{silent_broker.getsockname()[1]}"
    assert rows["BRIDGE_SOURCE_URL"] == [url, "environment"]
    assert rows["BRIDGE_DESTINATION_URL"] == [url, "the", "source's"]
    assert rows["BRIDGE_SOURCE_PREFETCH"] == ["5", "environment"]
    assert rows["BRIDGE_HOLD_TIMEOUT"] == ["300", "default"]
    assert list(rows) == [option.variable for option in options()]
    entries = json.loads("\n".join(line for line in document.log_lines if "is not a setting" not in line))
    assert {"variable": "BRIDGE_SOURCE_PREFETCH", "value": "5", "origin": "environment"} in entries
    for shown in (table, document):
        assert PASSWORD not in shown.logs
        assert "BRIDGE_SOURCE_PREFECTH is not a setting" in shown.logs


@pytest.mark.parametrize("command", ("check", "config"))
def test_a_wrong_configuration_is_78_for_every_command(silent_broker: socket.socket, command: str) -> None:
    with BridgeProcess(settings_for(silent_broker, SOURCE_PREFETCH="many"), command) as bridge:
        assert bridge.wait() == os.EX_CONFIG
    assert bridge.log_lines == [
        'amqp-bridge: BRIDGE_SOURCE_PREFETCH: "many" is not a whole number; expected 1 to 65535',
        f"amqp-bridge: nothing was connected; `amqp-bridge {command} --help` lists every setting",
    ]


@pytest.mark.parametrize("command", ("run", "check", "config"))
def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        grammar.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in options():
        assert f"  {option.variable}" in text
        assert option.description.split()[-1] in text


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        grammar.main(["--version"])
    assert ended.value.code == 0
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"amqp-bridge {project['version']}\n"


def test_without_a_command_it_prints_what_a_newcomer_can_act_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert grammar.main([]) == os.EX_USAGE
    text = capsys.readouterr().err
    assert "usage: amqp-bridge" in text
    for step in ("export BRIDGE_SOURCE_URL=amqp", "amqp-bridge check", "amqp-bridge run", "--env-file", "run --help"):
        assert step in text


@pytest.mark.parametrize("wrong", (["walk"], ["run", "--fast"], ["run", "--env-file"]))
def test_a_wrong_command_line_ends_with_64(capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        grammar.main(wrong)
    assert ended.value.code == os.EX_USAGE
    assert "--help` has the details" in capsys.readouterr().err


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_no_settings")
def test_a_file_adds_to_the_environment_which_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bridge.env"
    file.write_text(
        "# a comment\n"
        f"BRIDGE_SOURCE_URL=amqp://reader:{PASSWORD}$HOME@a/\n"
        "BRIDGE_SOURCE_QUEUE=from\n"
        "export BRIDGE_DESTINATION_QUEUE='to there'\n"
        "BRIDGE_QUARANTINE_QUEUE=\n"
        'BRIDGE_SOURCE_CONSUMER_ARGUMENTS={"x-stream-offset": "first"}\n'
        "BRIDGE_SOURCE_PREFECTH=5\n"
    )
    monkeypatch.setenv("BRIDGE_SOURCE_QUEUE", "from the environment")
    assert grammar.main(["config", "--env-file", str(file)]) == 0
    shown, log = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert rows["BRIDGE_SOURCE_QUEUE"] == ["from", "the", "environment", "environment"]
    assert rows["BRIDGE_DESTINATION_QUEUE"] == ["to", "there", "file"]
    assert rows["BRIDGE_QUARANTINE_QUEUE"] == ["file"]
    assert rows["BRIDGE_SOURCE_CONSUMER_ARGUMENTS"] == ['{"x-stream-offset":', '"first"}', "file"]
    assert rows["BRIDGE_SOURCE_URL"] == ["amqp://reader@a:5672/", "file"]
    assert "BRIDGE_SOURCE_PREFECTH is not a setting" in log
    assert PASSWORD not in shown + log


@pytest.mark.usefixtures("_no_settings")
def test_the_example_file_can_be_used_as_it_is() -> None:
    assert grammar.main(["config", "--env-file", str(Path(__file__).parents[3] / "config" / "bridge.env")]) == 0


def test_every_wrong_line_of_a_file_is_named_and_none_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bridge.env"
    file.write_text(f"BRIDGE_SOURCE_QUEUE=a\n\n{PASSWORD}\nBRIDGE_SOURCE_PASSWORD\n= x\n")
    assert grammar.main(["run", "--env-file", str(file)]) == os.EX_CONFIG
    lines = capsys.readouterr().err.splitlines()
    wrong = [f"amqp-bridge: --env-file {file}, line {n}: is not a variable; expected NAME=value" for n in (3, 4, 5)]
    assert lines[:-1] == wrong
    for path, reason in ((tmp_path / "none.env", "No such file or directory"), (tmp_path, "Is a directory")):
        assert grammar.main(["run", "--env-file", str(path)]) == os.EX_CONFIG
        assert f"--env-file {path} cannot be read ({reason})" in capsys.readouterr().err
    file.write_bytes(b"\xff")
    assert grammar.main(["run", "--env-file", str(file)]) == os.EX_CONFIG
    assert "(not UTF-8 text)" in capsys.readouterr().err


def test_without_its_dependencies_it_says_so_in_one_sentence() -> None:
    """By an interpreter that sees the checkout and nothing that is installed."""
    code = f"import sys; sys.argv = ['amqp-bridge', 'run']; sys.path.insert(0, {str(Path(__file__).parents[3])!r})"
    code += "; from bridge.__main__ import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == os.EX_CONFIG
    (line,) = run.stderr.splitlines()
    assert "is not installed for" in line
    assert "pip install" in line


def status_of(url: str, *arguments: str, **environ: str) -> tuple[int, str]:
    """Run `amqp-bridge status` with no setting but these: its exit code and what it writes."""
    command = (sys.executable, "-m", "bridge", "status", *(("--url", url) if url else ()), *arguments)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env={**clean, **environ})
    return result.returncode, result.stdout + result.stderr


def test_status_asks_a_running_bridge_and_needs_no_settings(start_bridge: StartBridge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = settings_for(listening)
    bridge = start_bridge(settings)
    wait_until(lambda: "nothing listens there" in bridge.get("/readyz")[1], "the reason to be known")
    code, text = status_of(f"http://127.0.0.1:{bridge.http_port}")
    assert code == 1
    assert text.startswith("not ready: source not connected since ")
    assert PASSWORD not in text
    code, text = status_of("", "--json", BRIDGE_HTTP_PORT=str(bridge.http_port), BRIDGE_HTTP_HOST="127.0.0.1")
    assert (code, json.loads(text)["source"]["queue"]) == (1, "from")
    bridge.kill()
    code, text = status_of(f"http://127.0.0.1:{bridge.http_port}")
    assert code == 69
    assert text.startswith("amqp-bridge: no status from http://127.0.0.1:")


def test_status_of_a_port_that_nobody_knows_is_wrong_use() -> None:
    code, text = status_of("", BRIDGE_HTTP_PORT="0")
    assert (code, "--url" in text) == (64, True)


def test_status_of_what_is_no_address_is_wrong_use() -> None:
    code, text = status_of("nonsense")
    assert (code, "nonsense is no HTTP address" in text) == (64, True)


def test_a_signal_ends_a_watch_as_it_ends_other_programs() -> None:
    command = (sys.executable, "-m", "bridge", "status", "--watch", "--url", "http://127.0.0.1:1")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stderr is not None
        assert "no status from" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130


def test_a_watch_ends_quietly_when_nobody_reads_it_any_more(start_bridge: StartBridge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = settings_for(listening)
    bridge = start_bridge(settings)
    url = f"http://127.0.0.1:{bridge.http_port}"
    command = (sys.executable, "-m", "bridge", "status", "--watch", "--url", url)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert "not ready" in watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(30) == 128 + signal.SIGPIPE
        assert watching.stderr.read() == ""
