"""The corpus, as it is and damaged, through every target; that each target complains; and the program itself."""

from __future__ import annotations

import importlib
import random
import tracemalloc
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.content import HEADERS, MESSAGE_ID
from bridge.amqp.events import Confirm
from tests.fuzz import __main__ as program
from tests.fuzz import corpus
from tests.fuzz.targets import content, cutter, http, relay, settings
from tests.support import frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAMAGED = {"cutter": 3000, "content": 3000, "relay": 60, "http": 1000, "settings": 600}
"""Inputs with a damage of a fixed seed; as many as a second or two has room for."""
INSTALLED = find_spec("atheris") is not None


def damage(data: bytes, chance: random.Random) -> bytes:
    """Change, insert, drop, double or turn round some bytes."""
    found = bytearray(data)
    for _ in range(1 + chance.randrange(3)):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(5):
            case 0:
                found[at : at + 1] = chance.randbytes(1)
            case 1:
                found[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                del found[at : at + chance.randrange(1, 9)]
            case 3:
                found[at:at] = found[at : at + chance.randrange(1, 300)]
            case _:
                found[at : at + 8] = found[at : at + 8][::-1]
    return bytes(found)


def of(target: str) -> Callable[[bytes], None]:
    run: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.targets.{target}").run
    return run


@pytest.mark.parametrize("target", program.TARGETS)
def test_all_holds_for_the_corpus_as_it_is_and_damaged(target: str) -> None:
    run, inputs = of(target), corpus.read(target)
    for data in inputs:
        run(data)
    for seed in range(DAMAGED[target]):
        chance = random.Random(seed)
        data = damage(chance.choice(inputs), chance)
        try:
            run(data)
        except Exception as error:
            error.add_note(f"the input: {data!r}")
            raise


def test_no_stream_makes_the_cutter_take_memory_that_it_has_only_announced() -> None:
    for data in corpus.read("cutter"):
        tracemalloc.start()
        cutter.run(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 1 << 20, data


# --- Each target can complain ----------------------------------------------------------------------------


def test_the_cutter_s_complains_of_other_events_and_of_what_others_read() -> None:
    event = Confirm(1, 7, multiple=False, accepted=True)
    seen = cutter.Cut([event], b"", malformed=False, waits=False)
    cutter.compare(seen, seen)
    for other in (seen._replace(events=[]), seen._replace(control=b"x"), seen._replace(malformed=True)):
        with pytest.raises(AssertionError):
            cutter.compare(seen, other)
    cutter.ask_others(seen, frames.confirm(7))
    for stream in (frames.confirm(8), frames.confirm(7) * 2):
        with pytest.raises(AssertionError):
            cutter.ask_others(seen, stream)


def test_the_content_s_complains_of_another_value_than_both_others_read() -> None:
    fields = {name: value for name, value in frames.FIELD_TYPES.items() if name != "double"}  # pika reads no NaN
    header = frames.header(0, frames.EVERY_PROPERTY | {"headers": frames.table(fields)})
    properties = content.read(header)
    assert properties is not None
    content.ask_others(header, properties)
    for flag, byte in ((MESSAGE_ID, b"1"), (HEADERS, b"\xfc")):
        with pytest.raises(AssertionError):
            content.ask_others(header, properties | {flag: properties[flag].replace(byte, b"0")})


def test_the_relay_s_complains_of_acks_and_publishes_of_what_never_was() -> None:
    ledger = relay.Ledger()
    ledger.bodies, ledger.delivered = {b"a"}, {1: b"a"}
    with pytest.raises(AssertionError):
        ledger.publishes(b"b", quarantine=False)
    for delivery_tag, acked in ((2, False), (1, True)):
        with pytest.raises(AssertionError):
            ledger.settled(delivery_tag, multiple=False, acked=acked)
    ledger.delivered = {1: b"a"}
    ledger.publishes(b"a", quarantine=False)
    ledger.confirms(1, multiple=False, accepted=True, quarantine=False)
    ledger.settled(1, multiple=False, acked=True)


def test_the_relay_s_inputs_forward_and_lose_connections() -> None:
    """So that its corpus is worth something."""
    scene = relay.Scene(0)
    for step, argument in ((relay.Scene.deliver, 4), (relay.Scene.confirm, 0), (relay.Scene.lose, 0)):
        step(scene, argument)
        scene.pump()
        relay.check(scene)
    assert (scene.books.received, scene.books.forwarded) == (1, 1)


@pytest.mark.parametrize(
    "sent",
    (
        b"400 Bad Request\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: x\r\n\r\n",
        b"HTTP/1.1 299 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\n" * 9,
    ),
)
def test_the_request_s_complains_of_what_is_no_answer(sent: bytes) -> None:
    with pytest.raises(AssertionError):
        http.answered(sent, b"GET / HTTP/1.1\r\n\r\n")


def test_the_settings_complain_of_a_password_and_of_a_second_line() -> None:
    url = {"BRIDGE_SOURCE_URL": f"amqp://u:{settings.SECRET}@h"}
    settings.check(url, "amqp://u@h", ["amqp://u@h"])
    for said, lines in ((url["BRIDGE_SOURCE_URL"], []), ("", ["a line\nand another"])):
        with pytest.raises(AssertionError):
            settings.check(url, said, lines)


# --- The program -----------------------------------------------------------------------------------------


def test_where_atheris_is_not_installed_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([], installed=False) == program.NOT_TESTED
    assert capsys.readouterr().err.startswith("NOT TESTED: ")


def test_an_input_is_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "input").write_bytes(corpus.read("cutter")[0])
    assert program.main(["--target", "cutter", "--input", str(tmp_path / "input")]) == program.PASSED
    assert "all held" in capsys.readouterr().out


def test_what_does_not_hold_is_found_counted_and_written_down(tmp_path: Path) -> None:
    if not INSTALLED:
        pytest.skip("NOT TESTED: atheris is not installed")
    found = program.fuzz("tests.support.complaining", [b"a"], ["-runs=1000000"], tmp_path)
    assert found.executions > 0
    assert "it begins with an x" in found.output
    (path,) = tmp_path.iterdir()
    assert path.read_bytes()[:1] == b"x"


def test_a_corpus_is_read_as_it_was_written() -> None:
    for target in program.TARGETS:
        inputs = corpus.read(target)
        assert len(inputs) > 20
        assert sum(map(len, inputs)) < 200_000
        assert [*inputs] == sorted({*inputs}, key=lambda each: (len(each), each))
