"""A private RabbitMQ node on loopback that can be killed, frozen, restarted and asked.

Questions and small commands go to the node by ``erl_call``, which costs some 10 ms; ``rabbitmqctl`` costs a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pika

from tests.rig import guardian, installation
from tests.rig.ports import LOOPBACK, free_port, is_listening
from tests.rig.usage import cpu_seconds
from tests.rig.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pika.adapters.blocking_connection import BlockingChannel

    from tests.rig.certificates import Certificates
    from tests.rig.tokens import Issuer

CONNECTED_WITHIN_S = 20.0
"""On a busy machine a node may be late to answer, and its host to accept a connection."""
TOKEN_KEY_ID, TOKEN_RESOURCE = "rig", "rabbitmq"
"""What tokens name: the key that signs them, and the broker that they are for."""
TLS_FILES = ("cacert", "cert", "key")
NOT_CONNECTED = "failed to connect to node"
_COOKIE = secrets.token_hex(8)  # one for all nodes of this process, so that they can be joined to clusters
_epmd_port = 0
_epmd: subprocess.Popen[bytes] | None = None  # kept: to drop a child that runs is a ResourceWarning


class Node:
    """One broker; ``with Node() as node:`` starts it, waits until it is ready, and removes it in the end.

    ``config`` are lines of ``rabbitmq.conf`` by key. The data folder is kept from one start to the next, and so are the
    ports. ``peers`` are the names of the cluster's nodes, this one included.
    """

    def __init__(  # noqa: PLR0913 - all but the version by name
        self,
        version: str = "3.10",
        *,
        folder: Path | None = None,
        name: str = "",
        config: Mapping[str, object] | None = None,
        plugins: Sequence[str] = (),
        certificates: Certificates | None = None,
        issuer: Issuer | None = None,
        peers: Sequence[str] = (),
    ) -> None:
        self.version = version
        self.name = f"{name or 'n' + secrets.token_hex(3)}@localhost" if "@" not in name else name
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="amqp-bridge-node-"))
            guardian.guard_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.amqp_port = free_port()
        self.tls_port = free_port() if certificates else 0
        self.management_port = free_port() if "rabbitmq_management" in plugins else 0
        streams = "rabbitmq_stream" in plugins
        self.stream_port = free_port() if streams else 0
        self.stream_tls_port = free_port() if streams and certificates else 0
        self._distribution_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        lines = {"listeners.tcp.1": f"{LOOPBACK}:{self.amqp_port}", "log.console": "false"}
        if self.management_port:
            lines |= {"management.tcp.ip": LOOPBACK, "management.tcp.port": str(self.management_port)}
        if certificates:
            lines |= self._tls_lines(certificates)
        if self.stream_port:
            lines["stream.listeners.tcp.1"] = f"{LOOPBACK}:{self.stream_port}"
        if self.stream_tls_port:
            lines["stream.listeners.ssl.1"] = f"{LOOPBACK}:{self.stream_tls_port}"
        if issuer:
            lines |= self._token_lines(issuer)
        lines |= {f"cluster_formation.classic_config.nodes.{i}": peer for i, peer in enumerate(peers, 1)}
        lines |= {key: str(value) for key, value in (config or {}).items()}
        self._write("rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in lines.items()))
        self._write("enabled_plugins", f"[{','.join(plugins)}].\n")
        self._write(".erlang.cookie", _COOKIE)
        (self.folder / ".erlang.cookie").chmod(0o400)

    def _tls_lines(self, certificates: Certificates) -> dict[str, str]:
        self._copy_tls(certificates.ca, certificates.server_cert, certificates.server_key)
        return {
            "listeners.ssl.1": f"{LOOPBACK}:{self.tls_port}",
            **{f"ssl_options.{kind}file": str(self.folder / f"{kind}.pem") for kind in TLS_FILES},
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "false",
            "ssl_cert_login_from": "common_name",
        }

    def serve_tls(self, ca: Path, certificate: Path, key: Path) -> None:
        """Have new TLS connections meet other files, in PEM: as if they had been rotated on the node's disk."""
        self._copy_tls(ca, certificate, key)
        self.eval("ssl:clear_pem_cache()")

    @property
    def stream_url(self) -> str:
        """Where the stream protocol is spoken, without a login."""
        return f"rabbitmq-stream://{LOOPBACK}:{self.stream_port}"

    @property
    def stream_tls_url(self) -> str:
        """As ``stream_url``, over TLS."""
        return f"rabbitmq-stream+tls://{LOOPBACK}:{self.stream_tls_port}"

    @property
    def tls_ca(self) -> Path:
        """The CA that its certificate is signed by, in PEM."""
        return self.folder / f"{TLS_FILES[0]}.pem"

    def _copy_tls(self, *files: Path) -> None:
        for kind, file in zip(TLS_FILES, files, strict=True):  # a node of 4.3 sees no other folder than its own
            shutil.copy(file, self.folder / f"{kind}.pem")

    def _token_lines(self, issuer: Issuer) -> dict[str, str]:
        """For the plugin `rabbitmq_auth_backend_oauth2`: whom the node knows not may come with the issuer's token."""
        self._write("token-key.pem", issuer.public_pem.decode())
        return {
            "auth_backends.1": "rabbit_auth_backend_internal",
            "auth_backends.2": "rabbit_auth_backend_oauth2",
            "auth_oauth2.resource_server_id": TOKEN_RESOURCE,
            "auth_oauth2.default_key": TOKEN_KEY_ID,
            f"auth_oauth2.signing_keys.{TOKEN_KEY_ID}": str(self.folder / "token-key.pem"),
        }

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(text)

    # Life

    def start(self) -> Self:
        """Start the node and return at once; ``wait_ready`` waits for it. Two nodes start faster side by side."""
        if self.is_running:
            raise RuntimeError(f"{self.name} is running already")
        _start_epmd()
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                self._command(installation.script("rabbitmq-server")),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        guardian.guard_group(self._process.pid)
        return self

    def wait_ready(self, timeout_s: float = 60) -> Self:
        """Wait until the node accepts AMQP connections. Raises RuntimeError with its log if it ends instead."""

        def ready() -> bool:
            if not self.is_running:
                raise RuntimeError(f"{self.name} ended while starting:\n{self.log[-4000:]}")
            ports = (self.amqp_port, self.tls_port, self.management_port, self.stream_port, self.stream_tls_port)
            return all(is_listening(port) for port in ports if port)

        wait_until(ready, f"{self.name} to accept connections, see {self.folder}", timeout_s)
        return self

    def stop(self) -> None:
        """End the node in good order, as ``systemctl stop`` does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the node and its helper processes: a crash. What was written to disk stays."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop in good order, start, wait until ready."""
        self.stop()
        return self.start().wait_ready()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, not even heartbeats."""
        os.killpg(self.pid, signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")

        def stopped() -> bool:
            states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads.iterdir()]
            return set(states) == {"T"}

        # The signal is on its way when killpg returns: a thread that runs on another core may still answer.
        wait_until(stopped, "every thread to stop")

    def thaw(self) -> None:
        """SIGCONT: go on after ``freeze``."""
        os.killpg(self.pid, signal.SIGCONT)

    def _end(self, sign: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, sign)
                os.kill(process.pid, signal.SIGCONT)
            process.wait(60)
        with contextlib.suppress(ProcessLookupError):  # helpers end by themselves when the node does; make sure
            os.killpg(process.pid, signal.SIGKILL)
        guardian.release_group(process.pid)
        self._process = None

    def __enter__(self) -> Self:
        try:
            return self.start().wait_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        self.kill()

    # What it is

    @property
    def is_running(self) -> bool:
        """Whether the node's process lives (it may be starting, or frozen)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The Erlang machine's process id, which leads its group."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def url(self) -> str:
        """Where AMQP clients connect, with the administrator's login."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.amqp_port}/"

    @property
    def tls_url(self) -> str:
        """As ``url``, over TLS; the certificate names localhost and 127.0.0.1."""
        return f"amqps://guest:guest@{LOOPBACK}:{self.tls_port}/"

    @property
    def log(self) -> str:
        """Everything the node has logged, and what it printed before it could."""
        files = [*(self.folder / "log").glob(f"{self.name}*.log"), self.folder / "console.log"]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def cpu_seconds(self) -> float:
        """User and system time of the node's process since it started."""
        return cpu_seconds(self.pid)

    # Asking and telling

    def _command(self, *arguments: str) -> list[str]:
        environment = {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(_epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP": str(self.folder / "erl_crash.dump"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "1",  # the start script then becomes the Erlang machine: one process, one pid
        }
        return installation.command(self.version, self.folder, environment, arguments)

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` and return what it prints. Slow, a second or two: ``eval`` where it does.

        Raises subprocess.CalledProcessError.
        """
        command = self._command(installation.script("rabbitmqctl"), "--quiet", *arguments)
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def eval(self, expressions: str) -> str:
        """Evaluate Erlang expressions on the node and return the last one's value as Erlang prints it.

        Raises RuntimeError with the node's answer when it is an error, subprocess.TimeoutExpired when there is none.
        """
        call = ["-address", f"{LOOPBACK}:{self._distribution_port}", "-c", _COOKIE, "-timeout", "20", "-e"]
        deadline_s = time.monotonic() + CONNECTED_WITHIN_S
        while True:
            answer = subprocess.run(
                self._command("erl_call", *call),
                input=f"{expressions.rstrip('. ')}.\n",
                capture_output=True,
                text=True,
                timeout=25,
                check=False,
            )
            if (
                NOT_CONNECTED not in answer.stdout + answer.stderr
                or not self.is_running
                or time.monotonic() > deadline_s
            ):
                break
            time.sleep(0.1)  # nothing was evaluated
        match = re.fullmatch(r"\{ok, (.*)\}", answer.stdout.strip(), re.DOTALL)
        if not match:
            raise RuntimeError(f"{self.name}: {expressions!r} gave {answer.stdout}{answer.stderr}")
        return match[1]

    @contextlib.contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """A channel of the independent client, on a connection of its own."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def declare(
        self,
        queue: str,
        queue_type: str = "classic",
        arguments: Mapping[str, Any] | None = None,
        *,
        auto_delete: bool = False,
    ) -> str:
        """Declare a durable queue (idempotent) and return its name."""
        arguments = {"x-queue-type": queue_type, **(arguments or {})}
        with self.channel() as channel:
            channel.queue_declare(queue, durable=True, auto_delete=auto_delete, arguments=arguments)
        # RabbitMQ writes some of what it knows of a new queue to disk seconds late. When the node is SIGKILLed before
        # that, 3.10.8 forgets a classic queue altogether, and 3.10.8 and 4.3.6 do not know whose log a quorum queue's
        # is, so that it is empty (measured). Tests kill nodes young, and are not about that.
        self.eval("[dets:sync(Table) || Table <- dets:all()], catch mnesia:sync_log(), ok")
        return queue

    def delete(self, queue: str) -> None:
        """Delete a queue, with its messages."""
        with self.channel() as channel:
            channel.queue_delete(queue)

    def accept_only(self, queue: str, max_length: int) -> None:
        """Have the queue refuse whatever exceeds this length (reject-publish), by a policy, until ``accept_all``.

        A classic queue is exact about it; a quorum queue accepts a few messages more. Either drops what exceeds the
        length already.
        """
        limits = f'[{{<<"max-length">>, {max_length}}}, {{<<"overflow">>, <<"reject-publish">>}}]'
        policy = f'<<"/">>, <<"limit {queue}">>, <<"^{queue}$">>, {limits}, 0, <<"queues">>, <<"rig">>'
        self.eval(f"ok = rabbit_policy:set({policy})")

    def accept_all(self, queue: str) -> None:
        """End ``accept_only``."""
        self.eval(f'ok = rabbit_policy:delete(<<"/">>, <<"limit {queue}">>, <<"rig">>)')

    def delete_all_queues(self) -> None:
        """Delete every queue."""
        self.eval('[rabbit_amqqueue:delete(Q, false, false, <<"rig">>) || Q <- rabbit_amqqueue:list()], ok')

    def has_queue(self, queue: str) -> bool:
        """Whether the queue exists."""
        return self.eval(f'rabbit_amqqueue:exists(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>))') == "true"

    def queue_ready(self, queue: str) -> int:
        """How many messages wait in the queue, not counting those that a consumer has.

        A quorum queue that has just been restarted may say 0 (3.10.8); ``queue_depth`` tells the truth.
        """
        return self._ask_queue(queue, "{ok, Ready, _} = rabbit_amqqueue:stat(Q), Ready")

    def queue_consumers(self, queue: str) -> int:
        """How many consumers the queue has."""
        return self._ask_queue(queue, "{ok, _, Consumers} = rabbit_amqqueue:stat(Q), Consumers")

    def forget_consumers(self, queue: str) -> None:
        """Remove the queue's consumers behind their channels' backs: they are told nothing, and get nothing more."""
        classic = 'gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, Channel, Tag, undefined, <<"rig">>})'
        if self.version != "3.10":
            classic = """
                gen_server2:call(amqqueue:get_pid(Q),
                    {stop_consumer, #{pid => Channel, consumer_tag => Tag, user => <<"rig">>}})"""
        forget = f"""
            Forget = fun(Channel, Tag) ->
                case amqqueue:get_type(Q) of
                    rabbit_quorum_queue ->
                        Cancel = rabbit_fifo:make_checkout({{Tag, Channel}}, cancel, #{{}}),
                        {{ok, _, _}} = ra:process_command(amqqueue:get_pid(Q), Cancel);
                    _ ->
                        ok = {classic}
                end
            end,
            Consumers = rabbit_amqqueue:consumers(Q),
            [Forget(element(1, C), element(2, C)) || C <- Consumers], length(Consumers)"""
        if not self._ask_queue(queue, forget):
            raise RuntimeError(f"{queue} has no consumers")

    def queue_depth(self, queue: str) -> int:
        """How many messages the queue holds, those included that a consumer has and has not acked.

        Waits some seconds for a quorum queue that is electing its leader.
        """
        return self._ask_queue(
            queue,
            """
            case amqqueue:get_type(Q) of
                rabbit_quorum_queue ->
                    Ask = fun(Retry, Times) ->
                        case ra:consistent_query(amqqueue:get_pid(Q), {rabbit_fifo, query_messages_total, []}, 1000) of
                            {ok, Total, _} -> Total;
                            _ when Times > 0 -> timer:sleep(50), Retry(Retry, Times - 1)
                        end
                    end,
                    Ask(Ask, 15);
                _ ->
                    [{messages, Messages}] = rabbit_amqqueue:info(Q, [messages]),
                    Messages
            end""",
        )

    def _ask_queue(self, queue: str, expressions: str) -> int:
        lookup = f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>))'
        return int(self.eval(f"{lookup}, {expressions}"))

    def alarm(self, *, on: bool) -> None:
        """Raise or clear a memory alarm: the broker reads no more from connections that publish, and says so."""
        alarm = "{resource_limit, memory, node()}"
        self.eval(f"rabbit_alarm:set_alarm({{{alarm}, []}})" if on else f"rabbit_alarm:clear_alarm({alarm})")

    def connection_count(self) -> int:
        """How many clients are connected to this node."""
        return int(self.eval("length(rabbit_networking:local_connections())"))

    def close_connections(self, reason: str = "closed by the rig") -> int:
        """Close this node's client connections (320, connection forced) as the management API does; return how many.

        Also those of a node that has just been started, which it does not count among the running ones yet.
        """
        # One that ends by itself meanwhile makes the call exit: it is gone, as was wanted.
        closing = f'lists:foreach(fun(C) -> catch rabbit_networking:close_connection(C, "{reason}") end, Connections)'
        return int(self.eval(f"Connections = rabbit_networking:local_connections(), {closing}, length(Connections)"))


def _start_epmd() -> None:
    """Start this process's own port mapper, so that nodes are neither seen by nor confused with others'."""
    global _epmd, _epmd_port  # noqa: PLW0603 - one for each process, begun when first needed
    if _epmd_port:
        return
    _epmd_port = free_port()
    command = ["epmd", "-port", str(_epmd_port), "-address", LOOPBACK]
    quiet = subprocess.DEVNULL
    _epmd = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    guardian.guard_group(_epmd.pid)
    wait_until(lambda: is_listening(_epmd_port), "epmd to listen", 10)
