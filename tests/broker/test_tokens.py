"""Tokens of RabbitMQ's OAuth 2 backend: renewed over and over on open connections under load, bad ones in between."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from uvloop import new_event_loop

from bridge.assembly import assemble
from bridge.check.check import check
from bridge.connection.limits import TimeLimits
from bridge.settings.environment import load_settings
from tests.broker.scene import settings
from tests.rig.client import audit, drain, number_of, publish_numbered
from tests.rig.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer
from tests.rig.tokens import Issuer
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge.connection.supervisor import Supervisor
    from tests.rig.node import Node

LIFE_S = 10.0
"""RabbitMQ 4.3 closes the connection that lives longer than its token; 3.10.8 lets what it has allowed go on."""
RENEWALS, FETCHED = 10, 3
SHORT_LIFE_S = 5.0
FETCHED_LIFE_S = 3
"""As the token server announces it; they are good for longer, so that a slow machine is not too late."""
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
    """The source's stand in a file, bad ones among them that would end a connection; the destination's are fetched."""
    name_in, name_out = source.declare(f"{queue_name}.in", "quorum"), destination.declare(f"{queue_name}.out", "quorum")
    file, secret_file = tmp_path / "token", tmp_path / "client-secret"
    secret_file.write_text(CLIENT_SECRET)
    stranger = Issuer()
    bad = {3: lambda: stranger.token(LIFE_S), 6: lambda: issuer.token(LIFE_S, user="somebody")}

    def write(token: str) -> None:
        (new := tmp_path / "new").write_text(token)
        new.replace(file)

    def fetched() -> tuple[int, object]:
        return 200, {"access_token": issuer.token(3 * LIFE_S), "token_type": "bearer", "expires_in": FETCHED_LIFE_S}

    sent = 0
    with TokenServer(fetched) as server:
        environ = {name: str(value) for name, value in settings(source, destination, name_in, name_out).items()} | {
            "BRIDGE_SOURCE_URL": source.url.replace("guest:guest@", "bridge@"),
            "BRIDGE_SOURCE_PASSWORD_FILE": str(file),
            "BRIDGE_DESTINATION_URL": destination.url.replace("guest:guest@", ""),
            "BRIDGE_DESTINATION_OAUTH_TOKEN_URL": server.url,
            "BRIDGE_DESTINATION_OAUTH_CLIENT_ID": CLIENT_ID,
            "BRIDGE_DESTINATION_OAUTH_CLIENT_SECRET_FILE": str(secret_file),
        }
        write(issuer.token(LIFE_S))
        first_ends_s = time.time() + LIFE_S
        with running(environ) as supervisor:
            sides = (supervisor.status.source, supervisor.status.destination)
            wait_until(lambda: all(side.up for side in sides), "both sides to be up")
            there = supervisor._destination.session
            assert there is not None
            fetched_secrets = {there.secret}
            renewals = 0
            while renewals < RENEWALS or time.time() < first_ends_s + 1 or len(fetched_secrets) <= FETCHED:
                if renewals in bad:
                    write(bad[renewals]())
                    wait_until(lambda: bool(sides[0].token_trouble), "the bad token to be refused")
                write(issuer.token(LIFE_S))
                publish_numbered(source.url, name_in, BATCH, first=sent)
                sent += BATCH

                def renewed() -> bool:
                    here = supervisor._source.session
                    return here is not None and here.secret == file.read_text()

                wait_until(renewed, "the new token to be accepted")
                renewals += 1
                fetched_secrets.add(there.secret)
            wait_until(lambda: supervisor.books.forwarded == sent, "everything to be forwarded")
            assert [side.generations_ended for side in sides] == [{}, {}]
            assert [side.generation for side in sides] == [1, 1]
            assert [side.token_trouble for side in sides] == ["", ""]
            assert supervisor.books.received_redelivered == 0
        told = [each for each in asyncio.run(check(load_settings(environ))) if each.subject == "token"]
    assert [(each.level, each.side) for each in told] == [*[("ok", "source")] * 2, *[("ok", "destination")] * 2]
    assert all(each.text.startswith(('of user "bridge", good until', "it grants rabbitmq.")) for each in told)
    found = audit(map(number_of, drain(destination.url, name_out)), sent)
    assert found.is_perfect, found


def test_the_offset_of_a_stream_is_stored_beyond_the_end_of_the_first_token(
    source: Node, destination: Node, queue_name: str, issuer: Issuer, tmp_path: Path
) -> None:
    """RabbitMQ 4.3 ends the stream protocol's connection with its token: another one is opened, and nothing is said."""
    name_in, name_out = source.declare(f"{queue_name}.in", "stream"), destination.declare(f"{queue_name}.out")
    file = tmp_path / "token"
    environ = {name: str(value) for name, value in settings(source, destination, name_in, name_out).items()} | {
        "BRIDGE_SOURCE_URL": source.url.replace("guest:guest@", "bridge@"),
        "BRIDGE_SOURCE_PASSWORD_FILE": str(file),
        "BRIDGE_SOURCE_STREAM_URL": source.stream_url,
        "BRIDGE_SOURCE_OFFSET_NAME": queue_name,
    }
    file.write_text(issuer.token(SHORT_LIFE_S))
    ends_s = time.time() + SHORT_LIFE_S
    with running(environ) as supervisor:
        tracking, sent = supervisor.status.tracking, 0

        def stored(before: int) -> bool:
            return tracking.stored is not None and tracking.stored > before

        while time.time() < ends_s + 2:
            before = -1 if tracking.stored is None else tracking.stored
            publish_numbered(source.url, name_in, 1, first=sent)
            sent += 1
            wait_until(partial(stored, before), "the offset to be stored")
            (new := tmp_path / "new").write_text(issuer.token(600))
            new.replace(file)
        assert (tracking.failures, tracking.trouble) == (0, "")
        assert supervisor.status.source.generations_ended == {}
