"""Types the documents' commands as they stand: `python -m tests.documents.stage`, in namespaces of its own.

The stage has a network of its own, in which `rabbit-a.example` is a broker, and an `/etc` of its own, in which
`/etc/amqp-bridge` has the files; `test_commands` starts it so (`unshare --net --mount`). Nothing of it is seen outside.
Prints the name of each block that did what the document says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

from tests.documents.markdown import DOCUMENTS, ROOT, Block, blocks
from tests.rig.certificates import Certificates
from tests.rig.node import Node
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RUNNABLE = "sh runnable="
MESSAGES = 25
SOURCES = ("rabbit", "old.example", "berlin.example", "production.example")
DESTINATIONS = ("new.example", "headquarters.example", "staging.example")
"""Names by which the documents reach a broker without TLS."""
HOSTS = {
    name: f"127.0.0.{number}"
    for number, name in enumerate(("rabbit-a.example", "rabbit-b.example", *SOURCES, *DESTINATIONS), 2)
}
LOGINS = {"bridge": "s3cret", "user": "password"}


def runnable() -> dict[str, Block]:
    """Return the blocks that are to be run, by name."""
    found = [block for path in DOCUMENTS for block in blocks(path.read_text()) if block.mark.startswith(RUNNABLE)]
    return {block.mark.removeprefix(RUNNABLE): block for block in found}


class Stage:
    """Two brokers under the documents' names, and a shell that finds the bridge."""

    def __init__(self, folder: Path, source: Node, destination: Node) -> None:
        self.source = source
        self.destination = destination
        self._folder = folder
        self._blocks = runnable()

    @contextmanager
    def typed(self, name: str, after: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Type a block into a shell that stops at the first command that fails; it ends well or this raises.

        The shell has the settings of the block `after` which it is typed, where it has none of its own.
        """
        environment = {"PATH": f"{self._folder}:{os.environ['PATH']}", "HOME": str(self._folder)}
        before = "".join(re.findall(r"^export .*\n", self._blocks[after].text, re.MULTILINE)) if after else ""
        command = ("bash", "-euo", "pipefail", "-c", before + self._blocks[name].text)
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            shell = subprocess.Popen(command, env=environment, cwd=self._folder, stdout=output, stderr=output)
            try:
                yield shell
                status = shell.wait(60)
            except BaseException:
                print(log.read_text())
                raise
            finally:
                shell.kill()
                shell.wait()
        assert status == 0, f"{name} ended with {status}:\n{log.read_text()}"
        print(f"ran {name}", flush=True)

    def forwards(self, name: str, node: Node, queue: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Type a block that ends with `amqp-bridge run`, wait until all has arrived, and send the bridge SIGTERM."""
        with self.typed(name) as shell:

            def arrived() -> bool:
                assert shell.poll() is None, f"it ended with {shell.returncode}"
                with contextlib.suppress(RuntimeError):  # a queue that the bridge declares
                    return node.queue_ready(queue) == MESSAGES
                return False

            wait_until(arrived, f"{MESSAGES} messages in {queue}", 60)
            meanwhile()
            # The shell's child, or the shell itself: bash may become its last command.
            children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
            os.kill(int(children[0]) if children else shell.pid, signal.SIGTERM)

    def publish(self, queue: str, queue_type: str = "classic") -> None:
        """Fill a queue of the source."""
        self.source.declare(queue, queue_type)
        with self.source.channel() as channel:
            channel.confirm_delivery()
            for number in range(MESSAGES):
                channel.basic_publish("", queue, str(number).encode())

    # What each block is to do

    def first_run(self) -> None:
        """The first page: from one broker to another over TLS, and watched meanwhile."""
        self.publish("orders")
        self.destination.declare("orders")
        self.forwards("first-run", self.destination, "orders", self.watch)

    def watch(self) -> None:
        """What is typed while a bridge runs, on the first page and by operators."""
        for name in ("first-watch", "watch"):
            with self.typed(name):
                pass

    def first_drain(self) -> None:
        """Dead letters, rejected by a consumer, go back to their queue."""
        where = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "orders.dead"}
        for queue, arguments in (("orders.dead", {}), ("parcels", where)):
            self.source.declare(queue, arguments=arguments)
        with self.source.channel() as channel:
            channel.confirm_delivery()
            for number in range(MESSAGES):
                channel.basic_publish("", "parcels", str(number).encode())
                method, _, _ = channel.basic_get("parcels")
                channel.basic_reject(method.delivery_tag, requeue=False)
        wait_until(lambda: self.source.queue_ready("orders.dead") == MESSAGES, "the dead letters")
        with self.typed("first-drain", after="first-run"):
            pass
        assert self.source.queue_ready("parcels") == MESSAGES
        assert self.source.queue_ready("orders.dead") == 0

    def quorum(self) -> None:
        """A classic queue is emptied into a quorum queue that the bridge declares."""
        self.publish("orders")
        self.forwards("quorum", self.source, "orders.quorum")

    def dead_letters(self) -> None:
        """Dead letters go back to work."""
        self.publish("orders.dead")
        self.forwards("dead-letters", self.source, "orders")

    def quarantine(self) -> None:
        """What was quarantined goes back to its queue."""
        self.source.declare("tasks")
        self.publish("tasks.quarantine")
        self.forwards("quarantine", self.source, "tasks")

    def migration(self) -> None:
        """A queue moves from the old cluster to the new one, which has none of it yet."""
        self.publish("invoices")
        self.forwards("migration", self.destination, "invoices")

    def many_to_one(self) -> None:
        """A site's queue goes to the exchange that all sites have in common; each message keeps its key."""
        self.publish("readings")
        self.destination.declare("readings.all")
        with self.destination.channel() as channel:
            channel.exchange_declare("readings", "topic", durable=True)
            channel.queue_bind("readings.all", "readings", "readings")
        self.forwards("many-to-one", self.destination, "readings.all")

    def original(self) -> None:
        """A queue of the old cluster, whose messages came to it by the default exchange, goes to the new one."""
        self.publish("audit")
        self.destination.declare("audit")
        self.forwards("original", self.destination, "audit")

    def staging(self) -> None:
        """Production's copy goes to staging at a bounded rate."""
        self.publish("orders.to-staging")
        self.forwards("staging", self.destination, "orders.from-production")

    def stream(self) -> None:
        """A stream is read from its beginning."""
        self.publish("events", "stream")
        self.forwards("stream", self.source, "events.copy")


def prepare(folder: Path) -> Certificates:
    """Make the network, `/etc` and the command."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    upper, work = folder / "upper", folder / "work"
    upper.mkdir()
    work.mkdir()
    options = f"lowerdir=/etc,upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "/etc"], check=True)
    names = "".join(f"{address} {name}\n" for name, address in HOSTS.items())
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{names}")
    own = Path("/etc/amqp-bridge")
    own.mkdir(exist_ok=True)
    for side in ("source", "destination"):
        (own / f"{side}-password").write_text(LOGINS["bridge"] + "\n")
    authority = trustme.CA()
    server = authority.issue_cert(*HOSTS)
    authority.cert_pem.write_to_path(own / "ca.pem")
    files = Certificates(
        own / "ca.pem", *(folder / f"{n}.pem" for n in ("server", "server-key", "client", "client-key"))
    )
    server.cert_chain_pems[0].write_to_path(files.server_cert)
    server.private_key_pem.write_to_path(files.server_key)
    program = folder / "amqp-bridge"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m bridge "$@"\n')
    program.chmod(0o755)
    return files


def forward(routes: list[tuple[str, int, int]]) -> None:
    """Listen under the documents' names, in a thread: address and port there, port of the broker here."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve() -> None:
        for address, port, target in routes:

            async def connected(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int = target
            ) -> None:
                other_reader, other_writer = await asyncio.open_connection("127.0.0.1", target)
                await asyncio.gather(pipe(reader, other_writer), pipe(other_reader, writer))

            await asyncio.start_server(connected, address, port)
        listening.set()
        await asyncio.Event().wait()

    listening = threading.Event()
    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    assert listening.wait(10)


def admit(node: Node) -> None:
    """Give the documents' users their logins."""
    users = "rabbit_auth_backend_internal"
    for name, password in LOGINS.items():
        node.eval(f'{users}:add_user(<<"{name}">>, <<"{password}">>, <<"stage">>)')
        node.eval(f'{users}:set_permissions(<<"{name}">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"stage">>)')


def main() -> None:
    """Run every block."""
    folder = Path(tempfile.mkdtemp(prefix="amqp-bridge-stage-"))
    try:
        certificates = prepare(folder)
        nodes = [Node("3.10", certificates=certificates).start() for _ in range(2)]
        try:
            for node in nodes:
                node.wait_ready(120)
                admit(node)
            source, destination = nodes
            forward(
                [
                    (HOSTS["rabbit-a.example"], 5671, source.tls_port),
                    (HOSTS["rabbit-b.example"], 5671, destination.tls_port),
                    *((HOSTS[name], 5672, source.amqp_port) for name in SOURCES),
                    *((HOSTS[name], 5672, destination.amqp_port) for name in DESTINATIONS),
                ]
            )
            stage = Stage(folder, source, destination)
            for act in (
                *(stage.first_run, stage.first_drain, stage.quorum, stage.dead_letters, stage.quarantine),
                *(stage.migration, stage.many_to_one, stage.original, stage.staging, stage.stream),
            ):
                act()
        finally:
            for node in nodes:
                node.kill()
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)  # everything else goes with the namespace
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
