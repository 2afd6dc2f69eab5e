"""A host with several addresses: real sockets on loopback, some of which do not answer."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from bridge.assembly import assemble
from bridge.connection import dial
from bridge.connection.limits import DEFAULT, TimeLimits
from bridge.connection.session import SourceSession
from bridge.errors import ConnectError
from bridge.relay.backoff import Backoff
from bridge.settings.environment import load_settings
from bridge.settings.sides import Credentials
from tests.rig.bridge_process import BridgeProcess
from tests.support.scripted import ScriptedBroker, bridge, eventually, on_both_loops

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aiohappyeyeballs import AddrInfoType

NAMED = "broker.example"


def addresses(*hosts: str, port: int) -> list[AddrInfoType]:
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)) for host in hosts]


@contextmanager
def deaf(host: str, port: int = 0) -> Iterator[int]:
    """A port whose backlog is full: the kernel drops every further attempt to connect, as a firewall does."""
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.create_server((host, port), backlog=0))
        port = listening.getsockname()[1]
        for _ in range(4):
            client = sockets.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex((host, port))
        yield port


@contextmanager
def mute(host: str, port: int) -> Iterator[None]:
    """A port that takes connections and says nothing, as a frozen broker's does."""
    with socket.create_server((host, port)):
        yield


def dialer(*known: AddrInfoType) -> dial.Dialer:
    """One for which every host has these addresses."""
    return dial.Dialer(lambda *_: known)


def session_to(url: str, limits: TimeLimits = DEFAULT, dialer: dial.Dialer | None = None, **more: str) -> SourceSession:
    environ = {"BRIDGE_SOURCE_URL": url, "BRIDGE_SOURCE_QUEUE": "in", "BRIDGE_DESTINATION_QUEUE": "out"}
    environ |= {f"BRIDGE_SOURCE_{name.upper()}": text for name, text in more.items()}
    settings = load_settings(environ)
    supervisor = assemble(settings)
    return SourceSession(supervisor.relay, supervisor._pump, settings, limits, dialer=dialer)


def named(broker: ScriptedBroker) -> tuple[str, int]:
    """Return the broker's URL by name, and its port."""
    return broker.url.replace("127.0.0.1", NAMED), int(broker.url.rstrip("/").rpartition(":")[2])


@on_both_loops
async def test_an_address_that_drops_what_comes_does_not_keep_from_the_next() -> None:
    async with ScriptedBroker() as broker:
        _, port = named(broker)
        with deaf("127.0.0.2", port):
            async with asyncio.timeout(10):
                found = await dial.connect(addresses("127.0.0.2", "127.0.0.1", port=port))
            with found:
                assert found.getpeername() == ("127.0.0.1", port)


@on_both_loops
async def test_where_no_address_answers_each_is_named_with_its_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as caught:
        await dial.connect(addresses("127.0.0.1", "127.0.0.2", port=port))
    assert caught.value.args[1] == "127.0.0.1: Connection refused, 127.0.0.2: Connection refused"


@on_both_loops
async def test_a_given_up_attempt_leaves_no_socket_open() -> None:
    """Pytest fails at one that the garbage collector has to close."""
    with deaf("127.0.0.2") as port:
        connecting = asyncio.ensure_future(dial.connect(addresses("127.0.0.2", "127.0.0.2", port=port)))
        await asyncio.wait([connecting], timeout=dial.STAGGER_S * 2)
        connecting.cancel()
        await asyncio.wait([connecting])
        assert connecting.cancelled()


@on_both_loops
async def test_an_address_needs_no_name_server() -> None:
    for host in ("127.0.0.1", "::1"):
        ((_, _, _, _, address),) = await dialer().look_up(host, 5672)
        assert address[:2] == (host, 5672)


@on_both_loops
async def test_a_session_connects_to_the_address_that_answers() -> None:
    async with ScriptedBroker() as broker:
        url, port = named(broker)
        with deaf("127.0.0.2", port):
            opened = session_to(url, dialer=dialer(*addresses("127.0.0.2", "127.0.0.1", port=port)))
            await opened.open(0)
            await opened.close()


@on_both_loops
async def test_an_address_that_takes_connections_and_says_nothing_is_tried_last_the_next_time() -> None:
    async with ScriptedBroker() as broker:
        url, port = named(broker)
        remembering = dialer(*addresses("127.0.0.2", "127.0.0.1", port=port))
        with mute("127.0.0.2", port):
            first = session_to(url, TimeLimits(connect_s=1.0), remembering)  # the look-up is to be within it, too
            with pytest.raises(ConnectError, match="did not answer"):
                await first.open(0)
            await first.close()
            second = session_to(url, dialer=remembering)
            await second.open(0)
            await second.close()


@on_both_loops
async def test_what_leads_nowhere_is_forgotten_in_the_end() -> None:
    known = addresses("127.0.0.1", "127.0.0.2", port=1)
    remembering = dialer(*known)
    remembering.led_nowhere(("127.0.0.1", 1))
    assert await remembering.look_up(NAMED, 1) == known[::-1]
    for number in range(dial.MAX_REMEMBERED):
        remembering.led_nowhere(("127.0.0.3", number))
    assert await remembering.look_up(NAMED, 1) == known


@pytest.mark.parametrize("side", ("source", "destination"))
@on_both_loops
async def test_a_look_up_that_hangs_says_so_and_does_not_keep_the_other_side_from_connecting(side: str) -> None:
    """However often it was tried; the bridge stops all the same, and leaves no task (see `scripted.bridge`)."""
    end = threading.Event()
    async with ScriptedBroker() as source, ScriptedBroker() as destination:
        dead, alive = (source, destination) if side == "source" else (destination, source)
        dead.url, _ = named(dead)

        def hang(_: str, port: int) -> Sequence[AddrInfoType]:
            end.wait()
            return addresses("127.0.0.1", port=port)

        async with bridge(source, destination, TimeLimits(connect_s=0.05), Backoff, dial.Dialer(hang)) as running:
            status = running.status.source if side == "source" else running.status.destination
            await eventually(lambda: status.connect_attempts.get("timeout", 0) >= 6)
            await eventually(lambda: f"the look-up of {NAMED} took longer than 0.05 s" in status.reason)
            await eventually(lambda: alive.open)
            end.set()


@on_both_loops
async def test_a_password_file_that_has_become_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Nobody may ever write into it. As soon as a file is there instead, the side connects."""
    secret = tmp_path / "password"
    secret.write_text("secret")
    async with ScriptedBroker() as broker:
        opened = session_to(broker.url, password_file=str(secret))
        secret.unlink()
        os.mkfifo(secret)
        with pytest.raises(ConnectError, match=r"password file .*: it is a pipe") as caught:
            await opened.open(0)
        assert caught.value.result == "credentials"
        await opened.close()


@on_both_loops
async def test_a_file_that_hangs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system that is away: no read of it ends."""
    end = threading.Event()
    secret = tmp_path / "password"  # another one each time: a late answer would serve the next who asks
    secret.write_text("secret")
    opened = session_to("amqp://guest@127.0.0.1/", TimeLimits(connect_s=0.05), password_file=str(secret))
    monkeypatch.setattr(Credentials, "read_password", lambda _: end.wait() and None)
    with pytest.raises(ConnectError, match=r"reading password and certificate files took longer than 0\.05 s"):
        await opened.open(0)
    await opened.close()
    end.set()


# --- The process, in a mount namespace of its own --------------------------------------------------------------


def in_namespace(path: str, mounted: Path) -> tuple[str, ...]:
    """Return what to put before a command so that it sees another file at that path; nobody else does."""
    return "unshare", "--mount", "sh", "-c", f'mount --bind "{mounted}" {path} && exec "$@"', "sh"


def bridge_to(url: str, wrapper: tuple[str, ...], command: str = "run") -> BridgeProcess:
    settings = {"BRIDGE_SOURCE_URL": url, "BRIDGE_SOURCE_QUEUE": "in", "BRIDGE_DESTINATION_QUEUE": "out"}
    return BridgeProcess(settings, command, wrapper=wrapper)


def test_a_name_whose_first_address_is_silent_is_connected_to_by_the_second(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.2 {NAMED}\n127.0.0.1 {NAMED}\n")
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(30)
        port = broker.getsockname()[1]
        url = f"amqp://guest:secret@{NAMED}:{port}/"
        wrapper = in_namespace("/etc/hosts", hosts)
        with deaf("127.0.0.2", port), bridge_to(url, wrapper), broker.accept()[0] as connection:
            assert connection.recv(4) == b"AMQP"


@pytest.mark.parametrize("command", ("run", "check"))
def test_a_look_up_that_hangs_does_not_hold_the_process_at_its_end(tmp_path: Path, command: str) -> None:
    """A name server that never answers holds the resolver for 150 s; what is waited for here is the process."""
    resolver = tmp_path / "resolv.conf"
    address = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"  # other test processes have theirs
    resolver.write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        name_server.bind((address, 53))
        name_server.settimeout(30)
        wrapper = in_namespace("/etc/resolv.conf", resolver)
        with bridge_to(f"amqp://guest:secret@{NAMED}/", wrapper, command) as running:
            name_server.recv(512)
            assert running.terminate(60) == (0 if command == "run" else 128 + signal.SIGTERM)
    assert "Traceback" not in running.logs
