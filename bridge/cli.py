"""The command line: its commands and their exit codes.

Exit codes: 0 after a drained SIGTERM or SIGINT, 64 (EX_USAGE) for a wrong command line, 78 (EX_CONFIG) for a wrong
configuration, 75 (EX_TEMPFAIL) where only what may pass by itself is in the way (`run` waits for it first) and where
memory was used up, 130 at once after another signal a second later. An unreachable broker, a refused login or a
missing queue is no reason to exit: see `/readyz`; `amqp-bridge check` exits 1 for one. `amqp-bridge status` exits 1 for
a bridge that is not ready and 69 (EX_UNAVAILABLE) where none answers; `pause` and `resume` exit 69 where the bridge is
no process that they may signal, and 75 where it has not done so in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from uvloop import new_event_loop

from bridge.assembly import assemble
from bridge.check.check import as_json, as_table, check, failed
from bridge.daemon import EX_CONFIG, EX_TEMPFAIL, run
from bridge.drain.command import add_options, add_peek_options, drain, environment, peek, request, spelt_out, verify
from bridge.drain.request import WrongUseError
from bridge.early import EarlySignals
from bridge.errors import ConfigurationError, NotYetError
from bridge.observe.events import EventLog
from bridge.observe.log import configure_logging
from bridge.observe.terminal import NoStatusError, default_url, http_url, status
from bridge.patience import Patience
from bridge.settings.environment import load_settings, read_file, unknown_variables
from bridge.settings.settings import Settings, effective, settings_help
from bridge.steer import ORDERS, steer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from bridge.check.inspection import Finding
    from bridge.connection.supervisor import Supervisor
    from bridge.window.terms import Terms

log = logging.getLogger(__name__)

EX_USAGE = 64
START_POLL_S = 0.2
"""How often what is in the way at the start is looked at again."""


STEERED_WITHIN_S = 60.0
"""How long `pause` and `resume` wait until it is so."""


def main(argv: list[str] | None = None, early: EarlySignals | None = None) -> int:
    """Run the command line; return the exit code. `early` holds the signals that have come before."""
    parser = _parser()
    arguments = parser.parse_args(spelt_out(sys.argv[1:] if argv is None else argv))
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return EX_USAGE
    if (at_once := _AT_ONCE.get(arguments.command)) is not None:
        return at_once(arguments)
    patience = Patience()
    try:
        file = read_file(arguments.env_file) if arguments.env_file else {}
        environ = file | os.environ
        settings = load_patiently(environ, patience) if arguments.command == "run" else load_settings(environ)
    except (ConfigurationError, NotYetError) as error:
        hint = f"`amqp-bridge {arguments.command} --help` lists every setting"
        _complain(*error.problems, f"nothing was connected; {hint}")
        return EX_CONFIG if isinstance(error, ConfigurationError) else EX_TEMPFAIL
    events = EventLog()
    configure_logging(settings, events)
    for text in unknown_variables(environ):
        log.warning("%s", text)
    if arguments.command == "check":
        return check_settings(settings, in_json=arguments.json)
    if arguments.command == "config":
        return show(settings, file.keys() - os.environ.keys(), in_json=arguments.json)
    return run(settings, events, patience, early or EarlySignals())


def move(arguments: argparse.Namespace) -> int:
    """Drain a queue, or look at one; return the exit code."""
    peeks = arguments.command == "peek"
    try:
        file = read_file(arguments.env_file) if arguments.env_file else {}
        wanted = None if peeks else request(arguments)
        environ = environment(file | os.environ, arguments)
        settings = load_settings(environ, targeted=not peeks and arguments.to_original is None)
    except WrongUseError as error:
        _complain(str(error))
        return EX_USAGE
    except (ConfigurationError, NotYetError) as error:
        hint = f"`amqp-bridge {arguments.command} --help` lists every setting"
        _complain(*error.problems, f"nothing was connected; {hint}")
        return EX_CONFIG if isinstance(error, ConfigurationError) else EX_TEMPFAIL
    configure_logging(settings)
    for text in unknown_variables(environ):
        log.warning("%s", text)
    if wanted is None:
        return peek(settings, limit=arguments.limit, yes=arguments.yes, in_json=arguments.json)

    def assemble_with(settings: Settings, terms: Terms) -> Supervisor:
        return assemble(settings, terms=terms)

    return drain(settings, wanted, assemble_with, input if sys.stdin.isatty() and sys.stdout.isatty() else None)


def tell(arguments: argparse.Namespace) -> int:
    """Show the status of a running bridge, or tell it to pause or to resume; return the exit code."""
    try:
        file = read_file(arguments.env_file) if arguments.env_file else {}
        url = http_url(arguments.url or default_url(file | os.environ))
    except (ConfigurationError, NoStatusError) as error:
        _complain(str(error))
        return EX_CONFIG if isinstance(error, ConfigurationError) else EX_USAGE
    # It holds nothing that would have to be put in order, so that a signal may end it as it ends other programs.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if arguments.command in ORDERS:
        return steer(arguments.command, url, timeout_s=STEERED_WITHIN_S, write=_say)
    try:
        return status(url, watch=arguments.watch, in_json=arguments.json, live=sys.stdout.isatty(), write=_say)
    except BrokenPipeError:  # what reads the lines has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def load_patiently(environ: Mapping[str, str], patience: Patience) -> Settings:
    """Return the settings; wait for the files that they name. Raises `ConfigurationError` or `NotYetError`."""
    while True:
        try:
            return load_settings(environ)
        except NotYetError as error:
            if patience.endure(error, error.start_timeout_s):
                _complain(*error.problems, f"waiting for up to {error.start_timeout_s:g} s until that has passed")
        time.sleep(START_POLL_S)


def _complain(*lines: str) -> None:
    """Say what is wrong before there is a log."""
    sys.stderr.writelines(f"amqp-bridge: {line}\n" for line in lines)


_AT_ONCE: dict[str, Callable[[argparse.Namespace], int]] = {
    **dict.fromkeys(("drain", "peek"), move),
    "verify": lambda arguments: verify(arguments.first, arguments.second),
    **dict.fromkeys(("status", *ORDERS), tell),
}
"""Commands that do not begin with the settings of `run`."""


FIRST_STEPS = """\
to begin, set where messages come from and where they go:
  export BRIDGE_SOURCE_URL=amqp://user:password@source.example/
  export BRIDGE_SOURCE_QUEUE=orders
  export BRIDGE_DESTINATION_URL=amqp://user:password@destination.example/
  export BRIDGE_DESTINATION_QUEUE=orders
  amqp-bridge check     # connects, moves nothing, and reports what would not work
  amqp-bridge run

The same lines without "export" may stand in a file: amqp-bridge run --env-file bridge.env
`amqp-bridge run --help` lists every setting.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with 64, as documented, where argparse itself exits with 2."""
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}; `{self.prog} --help` has the details\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="amqp-bridge",
        description="Forward one RabbitMQ queue to another, losing nothing.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"amqp-bridge {version('amqp-bridge')}")
    commands = parser.add_subparsers(dest="command", metavar="command", title="commands")
    for command, what in (
        ("run", "forward messages until SIGTERM"),
        ("check", "connect, look at queues and permissions, and report what is wrong; moves no message"),
        ("config", "print every setting's value and where it comes from, secrets hidden"),
    ):
        parser_of = _add_configured(commands, command, what, "Configured by environment variables:")
        if command != "run":
            parser_of.add_argument("--json", action="store_true", help="for machines")
    for command, what, add in (
        ("drain", "move the messages that a queue has now, once, and hand out a receipt", add_options),
        ("peek", "look at the first messages of a queue, in groups, and return them", add_peek_options),
    ):
        add(_add_configured(commands, command, what, "Configured as `run`, by environment variables:"))
    _add_verify(commands)
    _add_status(commands)
    return parser


def _add_configured(commands: argparse._SubParsersAction[_Parser], command: str, what: str, how: str) -> _Parser:
    """Add a command that has the settings of `run`; return its parser."""
    parser = commands.add_parser(
        command,
        help=what,
        description=f"{what[0].upper()}{what[1:]}. {how}",
        epilog=settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_env_file(parser)
    return parser


def _add_verify(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "hold two receipts against each other: what the first drain moved, and what the next one took"
    parser = commands.add_parser(
        "verify", help=what, description=f"{what[0].upper()}{what[1:]}. Exit 0 where they agree, 1 where not."
    )
    parser.add_argument("first", type=Path, metavar="A.json", help="the receipt of a drain")
    parser.add_argument(
        "second", type=Path, metavar="B.json", help="that of the next hop, which drained A's destination"
    )


def _add_env_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        help="read variables from a file such as config/bridge.env; those of the environment take precedence",
    )


def _add_status(commands: argparse._SubParsersAction[_Parser]) -> None:
    what = "show what a running bridge does: exit 0 ready, 1 not ready, 69 unreachable"
    parser = commands.add_parser(
        "status",
        help=what,
        description=f"{what[0].upper()}{what[1:]}. It asks over HTTP and needs none of the settings.",
    )
    parser.add_argument("--watch", action="store_true", help="until a signal; on a terminal redrawn every second")
    parser.add_argument("--json", action="store_true", help="for machines: the document of /status")
    _add_where(parser)
    for command, what in (
        ("pause", "have a running bridge of this host forward what it holds and consume nothing more"),
        ("resume", "have a paused bridge consume again"),
    ):
        number = signal.Signals(ORDERS[command].signal).name
        _add_where(
            commands.add_parser(
                command,
                help=what,
                description=f"{what[0].upper()}{what[1:]}, by {number}. It waits until that is so, signals only a "
                "process that it knows for certain, and needs none of the settings.",
            )
        )


def _add_where(parser: argparse.ArgumentParser) -> None:
    """Add where the bridge is asked."""
    parser.add_argument(
        "--url", help="where the bridge listens (default: BRIDGE_HTTP_HOST and BRIDGE_HTTP_PORT, on this host)"
    )
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read these two variables from a file")


def check_settings(settings: Settings, *, in_json: bool) -> int:
    """Check what the settings lead to; return the exit code: 1 for an error, a signal's as a shell reports it."""
    received: list[int] = []
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            findings = runner.run(_check(settings, received))
        except asyncio.CancelledError:
            return 128 + received[0]
    sys.stdout.write(as_json(findings) if in_json else as_table(findings))
    return int(failed(findings))


def show(settings: Settings, from_file: Collection[str], *, in_json: bool) -> int:
    """Print the effective configuration; `from_file` are the variables of the file. Return the exit code."""
    entries = [
        entry._asdict() | ({"origin": "file"} if entry.origin == "environment" and entry.variable in from_file else {})
        for entry in effective(settings)
    ]
    if in_json:
        sys.stdout.write(json.dumps(entries, indent=2) + "\n")
        return 0
    names, values = (max(len(entry[column]) for entry in entries) for column in ("variable", "value"))
    for entry in entries:
        origin = "the source's" if entry["origin"] == "source" else entry["origin"]
        sys.stdout.write(f"{entry['variable']:{names}}  {entry['value']:{values}}  {origin}\n")
    return 0


async def _check(settings: Settings, received: list[int]) -> list[Finding]:
    """Check until a signal, which is noted: it cancels, since an exception out of nowhere would leave a traceback."""
    checking = asyncio.ensure_future(check(settings))

    def end(number: int) -> None:
        received.append(number)
        checking.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    return await checking
