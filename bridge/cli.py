"""The command line: the composition root, signals and exit codes.

Exit codes: 0 after a drained SIGTERM or SIGINT, 78 (EX_CONFIG) for a wrong configuration, 130 at once after a
second signal. An unreachable broker, a refused login or a missing queue is no reason to exit: see `/readyz`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from importlib.metadata import version

from bridge.errors import BridgeError, ConfigurationError
from bridge.http import Endpoint
from bridge.log import configure_logging
from bridge.settings import Settings, load_settings, settings_help, unknown_variables
from bridge.supervisor import Supervisor

if sys.platform == "win32":
    new_event_loop = asyncio.new_event_loop
else:
    from uvloop import new_event_loop

log = logging.getLogger(__name__)

EX_CONFIG = 78
EX_SECOND_SIGNAL = 130
GC_THRESHOLD = 50_000
"""The young generation's: a message is some tuples that die young, and none of them is in a cycle."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load_settings(os.environ)
    except ConfigurationError as error:
        for problem in error.problems:
            sys.stderr.write(f"amqp-bridge: {problem}\n")
        hint = f"`amqp-bridge {arguments.command} --help` lists every setting"
        sys.stderr.write(f"amqp-bridge: nothing was connected; {hint}\n")
        return EX_CONFIG
    return run(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="amqp-bridge", description="Forward one RabbitMQ queue to another, losing nothing."
    )
    parser.add_argument("--version", action="version", version=f"amqp-bridge {version('amqp-bridge')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser(
        "run",
        help="forward messages until SIGTERM",
        description="Forward messages until SIGTERM. Configured by environment variables:",
        epilog=settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def run(settings: Settings) -> int:
    """Forward until a signal; return the exit code."""
    configure_logging(settings)
    for text in unknown_variables(os.environ):
        log.warning("%s", text)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(settings))
    except BridgeError as error:
        log.critical("%s", error)
        return EX_CONFIG
    return 0


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    supervisor = Supervisor(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _signalled, supervisor, number)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    with Endpoint(settings.http_host, settings.http_port, supervisor.snapshot, loop) as endpoint:
        log.info(
            "amqp-bridge %s started",
            version("amqp-bridge"),
            extra={
                "port": endpoint.port,
                "source": settings.source.safe_urls,
                "source_queue": settings.source_queue,
                "destination": settings.destination.safe_urls,
                "destination_queue": settings.destination_queue,
                "destination_exchange": settings.destination_exchange,
            },
        )
        await supervisor.run()


def _signalled(supervisor: Supervisor, number: int) -> None:
    if supervisor.status.stopping:
        log.warning("second signal: ending at once; what is in flight will be redelivered by the source")
        logging.shutdown()
        os._exit(EX_SECOND_SIGNAL)
    log.info("%s received", signal.Signals(number).name)
    supervisor.status.stopping = True
    supervisor.stop()
