"""The command line of a drain: wrong use and wrong settings are named before anything is connected."""

from __future__ import annotations

import os

import pytest

from bridge.cli.grammar import main

SETTINGS = {
    "BRIDGE_SOURCE_URL": "amqp://127.0.0.1:1/",
    "BRIDGE_SOURCE_QUEUE": "orders",
    "BRIDGE_DESTINATION_QUEUE": "copies",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of these tests, and no others."""
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


def status(*arguments: str) -> int:
    """The exit status of the command line."""
    try:
        return main([*arguments])
    except SystemExit as error:
        return int(str(error.code))


@pytest.mark.parametrize(
    ("arguments", "said"),
    (
        ("drain dead --quarantine", "QUEUE and --quarantine are both given"),
        ("drain dead --limit 0", "argument --limit: '0' is not a whole number above zero"),
        ("drain dead --limit many", "argument --limit: 'many' is not"),
        ("drain dead --rate 0", "argument --rate: '0' is not"),
        ("drain dead --ramp 60s", "--ramp is given without --rate"),
        ("drain dead --rate 5 --ramp soon", "argument --ramp: 'soon' is not a time"),
        ("drain dead --allow-target orders", "--allow-target is given without --to-original"),
        ("drain dead --to-original=nowhere", "argument --to-original: invalid choice"),
        ("drain dead --match region", "argument --match: 'region' has no name and value"),
        ("drain dead --older-than 1w", "argument --older-than: '1w' is not a time"),
        ("drain dead --receipt /no-such-folder/receipt.json", "/no-such-folder/receipt.json cannot be written there"),
        ("drain dead --receipt /", "--receipt / cannot be written there"),
        ("drain dead other", "unrecognized arguments: other"),
        ("peek dead --quarantine", "QUEUE and --quarantine are both given"),
        ("peek --limit 0", "argument --limit: '0' is not a whole number above zero; expected 1 to 2000"),
        ("verify /no-such-receipt.json /neither.json", "/no-such-receipt.json cannot be read"),
    ),
)
def test_wrong_use_is_named(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*arguments.split()) == 64
    assert said in capsys.readouterr().err


def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BRIDGE_SOURCE_PREFETCH", "many")
    assert status("drain") == 78
    assert "BRIDGE_SOURCE_PREFETCH" in capsys.readouterr().err


def test_a_destination_is_needed_unless_messages_go_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BRIDGE_DESTINATION_QUEUE")
    assert status("drain") == 78
    assert "BRIDGE_DESTINATION_QUEUE" in capsys.readouterr().err
    assert status("drain", "--to-original") == 69, "nobody listens there"


def test_a_file_that_is_missing_may_be_there_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCE_PASSWORD_FILE", "/no-such-folder/password")
    assert status("drain") == 75


def test_what_a_bridge_is_set_to_do_with_a_stream_is_not_for_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead letters of a stream's bridge are drained with the same variables."""
    monkeypatch.setenv("BRIDGE_SOURCE_OFFSET_NAME", "bridge")
    monkeypatch.setenv("BRIDGE_SOURCE_STREAM_URL", "rabbitmq-stream://h")
    assert status("drain") == 69, "nobody listens there"
