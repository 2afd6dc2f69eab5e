"""What each command does, with what it needs.

A command is a function here, and imports what it needs when it is called; nothing else in the project does so. No
command waits for what only another one needs, and `--version`, `--help` and a typing error wait for none.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from bridge.cli.early import EarlySignals
    from bridge.cli.patience import Patience
    from bridge.connection.supervisor import Supervisor
    from bridge.errors import ConfigurationError, NotYetError
    from bridge.observe.document import Document
    from bridge.observe.events import EventLog
    from bridge.observe.remote import Visit
    from bridge.settings.settings import Settings
    from bridge.window.terms import Terms

EX_USAGE, EX_TEMPFAIL, EX_CONFIG = 64, 75, 78
START_POLL_S = 0.2
"""How often what is in the way at the start is looked at again."""
STEERED_WITHIN_S = 60.0
"""How long `pause` and `resume` wait until it is so."""


def run(arguments: argparse.Namespace, early: EarlySignals) -> int:
    """Forward until a signal; return the exit code."""
    from bridge.cli import heap

    heap.begin()
    from bridge.cli import daemon
    from bridge.cli.patience import Patience
    from bridge.errors import ConfigurationError, NotYetError
    from bridge.observe.events import EventLog
    from bridge.settings.environment import load_settings

    patience, events = Patience(), EventLog()  # patience begins here: imports use up none of it
    try:
        environ = _variables(arguments) | os.environ
        settings = _load_patiently(load_settings, environ, patience)
    except (ConfigurationError, NotYetError) as error:
        return _unusable(arguments, error)
    _log(settings, environ, events)
    return daemon.run(settings, events, patience, early)


def check(arguments: argparse.Namespace) -> int:
    """Report what the settings lead to; return the exit code."""
    from bridge.check.command import check_settings
    from bridge.errors import ConfigurationError, NotYetError
    from bridge.settings.environment import load_settings

    try:
        environ = _variables(arguments) | os.environ
        settings = load_settings(environ)
    except (ConfigurationError, NotYetError) as error:
        return _unusable(arguments, error)
    _log(settings, environ)
    return check_settings(settings, in_json=arguments.json)


def config(arguments: argparse.Namespace) -> int:
    """Print the effective settings; return the exit code."""
    from bridge.errors import ConfigurationError, NotYetError
    from bridge.settings import shown
    from bridge.settings.environment import load_settings

    try:
        file = _variables(arguments)
        environ = file | os.environ
        settings = load_settings(environ)
    except (ConfigurationError, NotYetError) as error:
        return _unusable(arguments, error)
    _log(settings, environ)
    _say((shown.as_json if arguments.json else shown.as_table)(settings, file.keys() - os.environ.keys()))
    return 0


def drain(arguments: argparse.Namespace) -> int:
    """Move what a queue has now; return the exit code."""
    from bridge.assembly import assemble
    from bridge.cli import heap
    from bridge.drain.command import drain, environment, request
    from bridge.drain.request import WrongUseError
    from bridge.errors import ConfigurationError, NotYetError
    from bridge.settings.environment import load_settings

    try:
        wanted = request(arguments)
        environ = environment(_variables(arguments) | os.environ, arguments)
        settings = load_settings(environ, targeted=arguments.to_original is None)
    except WrongUseError as error:
        return _complain(EX_USAGE, str(error))
    except (ConfigurationError, NotYetError) as error:
        return _unusable(arguments, error)
    _log(settings, environ)
    heap.prepare()

    def assemble_with(settings: Settings, terms: Terms) -> Supervisor:
        return assemble(settings, terms=terms)

    return drain(settings, wanted, assemble_with, on_terminal=sys.stdin.isatty() and sys.stdout.isatty())


def peek(arguments: argparse.Namespace) -> int:
    """Show the first messages of a queue; return the exit code."""
    from bridge.drain.command import environment, peek
    from bridge.drain.request import WrongUseError
    from bridge.errors import ConfigurationError, NotYetError
    from bridge.settings.environment import load_settings

    try:
        environ = environment(_variables(arguments) | os.environ, arguments)
        settings = load_settings(environ, targeted=False)
    except WrongUseError as error:
        return _complain(EX_USAGE, str(error))
    except (ConfigurationError, NotYetError) as error:
        return _unusable(arguments, error)
    _log(settings, environ)
    return peek(settings, limit=arguments.limit, yes=arguments.yes, in_json=arguments.json)


def verify(arguments: argparse.Namespace) -> int:
    """Hold two receipts against each other; return the exit code."""
    from bridge.drain.command import verify

    return verify(arguments.first, arguments.second)


def status(arguments: argparse.Namespace) -> int:
    """Show what a running bridge does; return the exit code."""
    from bridge.observe.terminal import status

    def show(url: str, ask: Callable[[str], Document]) -> int:
        live = sys.stdout.isatty()
        return status(url, watch=arguments.watch, in_json=arguments.json, live=live, write=_say, ask=ask)

    try:
        return _of_a_running_bridge(arguments, show)
    except BrokenPipeError:  # what reads the lines has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def steer(arguments: argparse.Namespace) -> int:
    """Have a running bridge pause or resume; return the exit code."""
    from bridge.cli.steer import steer

    return _of_a_running_bridge(
        arguments,
        lambda url, ask: steer(arguments.command, url, timeout_s=STEERED_WITHIN_S, write=_say, ask=ask),
    )


BY_NAME: dict[str, Callable[[argparse.Namespace], int]] = {
    "check": check,
    "config": config,
    "drain": drain,
    "peek": peek,
    "verify": verify,
    "status": status,
    "pause": steer,
    "resume": steer,
}
"""All commands but `run`, which alone is told what signals came early."""


def settings_help() -> str:
    """Return every setting as text for a terminal."""
    from bridge.settings.options import settings_help

    return settings_help()


def mistake(text: str) -> str:
    """Return what is wrong with the arguments, fit for a terminal: they may have been copied from anywhere."""
    if text.isprintable():
        return text
    from bridge.observe.text import visible

    return visible(text)


# --- What they have in common -----------------------------------------------------------------------------


def _variables(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the variables of the file that is named, if one is. Raises `ConfigurationError`."""
    if arguments.env_file is None:
        return {}
    from bridge.settings.environment import read_file

    return read_file(arguments.env_file)


def _load_patiently(
    load: Callable[[Mapping[str, str]], Settings], environ: Mapping[str, str], patience: Patience
) -> Settings:
    """Return the settings; wait for the files that they name. Raises `ConfigurationError` or `NotYetError`."""
    from bridge.errors import NotYetError

    while True:
        try:
            return load(environ)
        except NotYetError as error:
            if patience.endure(error, error.start_timeout_s):
                waiting = f"waiting for up to {error.start_timeout_s:g} s until that has passed"
                _complain(EX_TEMPFAIL, *error.problems, waiting)
        time.sleep(START_POLL_S)


def _log(settings: Settings, environ: Mapping[str, str], *more: EventLog) -> None:
    """Log as the settings say; warn of variables that are none."""
    import logging

    from bridge.observe.log import configure_logging
    from bridge.settings.environment import unknown_variables

    configure_logging(settings, *more)
    for text in unknown_variables(environ):
        logging.getLogger(__name__).warning("%s", text)


def _of_a_running_bridge(arguments: argparse.Namespace, do: Callable[[str, Callable[[str], Document]], int]) -> int:
    """Do something with the URL of a running bridge, and with what asks it; return the exit code."""
    from functools import partial

    from bridge.errors import ConfigurationError
    from bridge.observe.address import NoStatusError, default_url
    from bridge.observe.remote import fetch, http_url

    try:
        environ = _variables(arguments) | os.environ
        url = http_url(arguments.url or default_url(environ))
    except (ConfigurationError, NoStatusError) as error:
        return _complain(EX_CONFIG if isinstance(error, ConfigurationError) else EX_USAGE, str(error))
    # It holds nothing that would have to be put in order, so that a signal may end it as it ends other programs.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    return do(url, partial(fetch, visit=_visit(arguments, environ)))


def _visit(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Visit:
    """Return how the bridge is asked: the environment's token is for the bridge of this environment alone."""
    from dataclasses import replace

    from bridge.observe.remote import Visit, own_visit

    visit = Visit() if arguments.url else own_visit(environ)
    if arguments.ca_file is not None:
        visit = replace(visit, ca_file=arguments.ca_file, pinned=False)
    return replace(
        visit,
        token_file=arguments.token_file or visit.token_file,
        cert_file=arguments.cert_file,
        key_file=arguments.key_file,
    )


def _unusable(arguments: argparse.Namespace, error: ConfigurationError | NotYetError) -> int:
    """Say what is wrong with the settings; return the exit code."""
    from bridge.errors import ConfigurationError

    hint = f"nothing was connected; `amqp-bridge {arguments.command} --help` lists every setting"
    return _complain(EX_CONFIG if isinstance(error, ConfigurationError) else EX_TEMPFAIL, *error.problems, hint)


def _complain(status: int, *lines: str) -> int:
    """Say what is wrong before there is a log; return the exit code that is given."""
    from bridge.observe.text import visible_lines

    sys.stderr.writelines(f"amqp-bridge: {visible_lines(line)}\n" for line in lines)
    return status


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
