"""The grammar of the command line: what may be typed, and its exit codes. What a command does is in `commands`.

Exit codes: 0 after a drained SIGTERM or SIGINT, 64 (EX_USAGE) for a wrong command line, 78 (EX_CONFIG) for a wrong
configuration, 75 (EX_TEMPFAIL) where only what may pass by itself is in the way (`run` waits for it first) and where
memory was used up, 130 at once after another signal a second later. An unreachable broker, a refused login or a
missing queue is no reason to exit: see `/readyz`; `amqp-bridge check` exits 1 for one. `amqp-bridge status` exits 1 for
a bridge that is not ready and 69 (EX_UNAVAILABLE) where none answers; `pause` and `resume` exit 69 where the bridge is
no process that they may signal, and 75 where it has not done so in time.

It needs nothing but the standard library: `--version`, `--help` and a mistake are answered before anything else is
imported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from bridge.cli import commands
from bridge.cli.early import PAUSE, RESUME, EarlySignals
from bridge.drain.options import add_options, add_peek_options, spelt_out
from bridge.version import __version__

EX_USAGE = 64


def main(argv: list[str] | None = None, early: EarlySignals | None = None) -> int:
    """Run the command line; return the exit code. `early` holds the signals that have come before."""
    parser = _parser()
    arguments = parser.parse_args(spelt_out(sys.argv[1:] if argv is None else argv))
    match arguments.command:
        case None:
            parser.print_help(sys.stderr)
            return EX_USAGE
        case "run":
            return commands.run(arguments, early or EarlySignals())
        case command:
            return commands.BY_NAME[command](arguments)


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
    def __init__(self, *args: Any, configured: bool = False, **options: Any) -> None:  # noqa: ANN401 - argparse's own
        """`configured`: of a command that has the settings of `run`; its help lists them all."""
        super().__init__(*args, **options)
        self._configured = configured

    def format_help(self) -> str:
        """Return the help; the settings are not imported before somebody reads of them."""
        return super().format_help() + (f"\n{commands.settings_help()}\n" if self._configured else "")

    def error(self, message: str) -> NoReturn:
        """Exit with 64, as documented, where argparse itself exits with 2."""
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {commands.mistake(message)}; `{self.prog} --help` has the details\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="amqp-bridge",
        description="Forward one RabbitMQ queue to another, losing nothing.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"amqp-bridge {__version__}")
    choice = parser.add_subparsers(dest="command", metavar="command", title="commands")
    for command, what in (
        ("run", "forward messages until SIGTERM"),
        ("check", "connect, look at queues and permissions, and report what is wrong; moves no message"),
        ("config", "print every setting's value and where it comes from, secrets hidden"),
    ):
        parser_of = _add_configured(choice, command, what, "Configured by environment variables:")
        if command != "run":
            parser_of.add_argument("--json", action="store_true", help="for machines")
    for command, what, add in (
        ("drain", "move the messages that a queue has now, once, and hand out a receipt", add_options),
        ("peek", "look at the first messages of a queue, in groups, and return them", add_peek_options),
    ):
        add(_add_configured(choice, command, what, "Configured as `run`, by environment variables:"))
    _add_verify(choice)
    _add_status(choice)
    return parser


def _add_configured(choice: argparse._SubParsersAction[_Parser], command: str, what: str, how: str) -> _Parser:
    """Add a command that has the settings of `run`; return its parser."""
    parser = choice.add_parser(
        command,
        help=what,
        description=f"{what[0].upper()}{what[1:]}. {how}",
        configured=True,
    )
    _add_env_file(parser)
    return parser


def _add_verify(choice: argparse._SubParsersAction[_Parser]) -> None:
    what = "hold two receipts against each other: what the first drain moved, and what the next one took"
    parser = choice.add_parser(
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


def _add_status(choice: argparse._SubParsersAction[_Parser]) -> None:
    what = "show what a running bridge does: exit 0 ready, 1 not ready, 69 unreachable"
    parser = choice.add_parser(
        "status",
        help=what,
        description=f"{what[0].upper()}{what[1:]}. It asks over HTTP and needs none of the settings.",
    )
    parser.add_argument("--watch", action="store_true", help="until a signal; on a terminal redrawn every second")
    parser.add_argument("--json", action="store_true", help="for machines: the document of /status")
    _add_where(parser)
    for command, signal, what in (
        ("pause", PAUSE, "have a running bridge of this host forward what it holds and consume nothing more"),
        ("resume", RESUME, "have a paused bridge consume again"),
    ):
        _add_where(
            choice.add_parser(
                command,
                help=what,
                description=f"{what[0].upper()}{what[1:]}, by {signal.name}. It waits until that is so, signals only a "
                "process that it knows for certain, and needs none of the settings.",
            )
        )


def _add_where(parser: argparse.ArgumentParser) -> None:
    """Add where the bridge is asked."""
    parser.add_argument(
        "--url", help="where the bridge listens (default: BRIDGE_HTTP_HOST and BRIDGE_HTTP_PORT, on this host)"
    )
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read these variables from a file")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the token that the bridge wants (default: BRIDGE_HTTP_TOKEN_FILE, without --url)",
    )
    parser.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="the CAs to trust, in PEM (default: the system's; without --url, the certificate BRIDGE_HTTP_CERT_FILE)",
    )
    parser.add_argument("--cert-file", type=Path, metavar="FILE", help="a client certificate, in PEM")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="its key, in PEM")
