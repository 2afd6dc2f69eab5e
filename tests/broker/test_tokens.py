"""Tokens of RabbitMQ's OAuth 2 backend: renewed over and over on open connections under load, bad ones in between."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uvloop import new_event_loop

from bridge.assembly import assemble
from bridge.connection.limits import TimeLimits
from bridge.settings.environment import load_settings
from tests.broker.scene import settings
from tests.rig.client import audit, drain, number_of, publish_numbered
from tests.rig.tokens import Issuer
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bridge.connection.supervisor import Supervisor
    from tests.rig.node import Node

LIFE_S = 10.0
"""RabbitMQ 4.3 closes the connection that lives longer than its token; 3.10.8 lets what it has allowed go on."""
RENEWALS = 10
BATCH = 100


@contextmanager
def running(environ: dict[str, str]) -> Iterator[Supervisor]:
    """The whole bridge on a thread's event loop, with a renewal that looks ten times a second and not each 10 s."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        loop = runner.get_loop()

        async def make() -> Supervisor:
            return assemble(load_settings(environ), TimeLimits(renew_s=0.1))

        supervisor = runner.run(make())
        thread = threading.Thread(target=runner.run, args=(supervisor.run(),))
        thread.start()
        try:
            yield supervisor
        finally:
            loop.call_soon_threadsafe(supervisor.stop)
            thread.join(60)
            assert not thread.is_alive()


def test_a_token_is_renewed_ten_times_under_load_and_no_generation_ends(
    source: Node, destination: Node, queue_name: str, issuer: Issuer, tmp_path: Path
) -> None:
    """Both sides' tokens stand in files; what is written between them, the broker would close a connection for."""
    name_in, name_out = source.declare(f"{queue_name}.in", "quorum"), destination.declare(f"{queue_name}.out", "quorum")
    files = [tmp_path / "source", tmp_path / "destination"]
    environ = {name: str(value) for name, value in settings(source, destination, name_in, name_out).items()}
    for side, node, file in zip(("SOURCE", "DESTINATION"), (source, destination), files, strict=True):
        environ[f"BRIDGE_{side}_URL"] = node.url.replace("guest:guest@", "bridge@")
        environ[f"BRIDGE_{side}_PASSWORD_FILE"] = str(file)

    def write(token: Callable[[], str]) -> None:
        for file in files:
            (new := file.with_suffix(".new")).write_text(token())
            new.replace(file)

    stranger = Issuer()
    bad = {3: lambda: stranger.token(LIFE_S), 6: lambda: issuer.token(LIFE_S, user="somebody")}
    sent = 0
    write(lambda: issuer.token(LIFE_S))
    first_ends_s = time.time() + LIFE_S
    with running(environ) as supervisor:
        status = supervisor.status
        sides = (status.source, status.destination)
        wait_until(lambda: status.source.up and status.destination.up, "both sides to be up")
        renewals = 0
        while renewals < RENEWALS or time.time() < first_ends_s + 1:
            if renewals in bad:
                write(bad[renewals])
                wait_until(lambda: all(side.token_trouble for side in sides), "the bad token to be refused")
            write(lambda: issuer.token(LIFE_S))
            publish_numbered(source.url, name_in, BATCH, first=sent)
            sent += BATCH
            present = {file.read_text() for file in files}

            def renewed(present: set[str] = present) -> bool:
                sessions = [keeper.session for keeper in (supervisor._source, supervisor._destination)]
                return {session.secret for session in sessions if session is not None} == present

            wait_until(renewed, "the new tokens to be accepted")
            renewals += 1
        wait_until(lambda: supervisor.books.forwarded == sent, "everything to be forwarded")
        assert [side.generations_ended for side in sides] == [{}, {}]
        assert [side.generation for side in sides] == [1, 1]
        assert [side.token_trouble for side in sides] == ["", ""]
        assert supervisor.books.received_redelivered == 0
    found = audit(map(number_of, drain(destination.url, name_out)), sent)
    assert found.is_perfect, found
