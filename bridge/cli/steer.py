"""`amqp-bridge pause` and `resume`: signal a running bridge of this host, and wait until it has done it.

HTTP only reads. So the bridge says over it which process it is, and only a process of this pid namespace, with that
number and that start, asked over a loopback address, is sent a signal. For every other one it prints the command that
does it there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from bridge.cli.early import PAUSE, RESUME
from bridge.errors import BridgeError
from bridge.observe.address import NoStatusError
from bridge.observe.process import Process, process_of
from bridge.observe.remote import fetch
from bridge.observe.sentence import number
from bridge.observe.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.observe.document import Document

DONE, UNREACHABLE, LATER = 0, 69, 75
"""Exit codes: EX_UNAVAILABLE and EX_TEMPFAIL."""
EVERY_S = 0.1
COUNTED_WITHIN_S = 5.0
"""How long to wait for how many consumers the queue has left: it is asked as soon as the pause is complete."""


class Order(NamedTuple):
    """What a running bridge can be told."""

    verb: str
    signal: int
    done: Callable[[Document], bool]


ORDERS = {
    "pause": Order("pause", PAUSE, lambda document: document["consumer"]["state"] == "paused"),
    "resume": Order("resume", RESUME, lambda document: not document["consumer"]["paused"]),
}


class ElsewhereError(BridgeError):
    """The bridge is not a process that this one can know for certain; says why, and what to do instead."""


def steer(  # noqa: PLR0913 - an order, and how to wait for it
    verb: str,
    url: str,
    *,
    timeout_s: float,
    write: Callable[[str], object],
    ask: Callable[[str], Document] = fetch,
    counted_within_s: float = COUNTED_WITHIN_S,
) -> int:
    """Tell the bridge at a URL to pause or to resume; return the exit code: 0 once it is so, 69, or 75 if not yet.

    `ask` returns the status document from a URL.
    """
    order = ORDERS[verb]
    if not is_loopback(url):
        _complain(_instead(order, f"{url} is not a loopback address, so the bridge may be elsewhere"))
        return UNREACHABLE
    try:
        _send(order, ask(url))
        document = _wait(order, partial(ask, url), timeout_s)
        if document is None:
            _complain(f"told to {verb}, and has not done so within {timeout_s:g} s; `amqp-bridge status` says why")
            return LATER
        said = (
            f"resumed: {document['sentence']}"
            if verb == "resume"
            else _left(partial(ask, url), document, counted_within_s)
        )
    except (NoStatusError, ElsewhereError) as error:
        _complain(str(error))
        return UNREACHABLE
    write(f"{said}\n")
    return DONE


def _complain(text: str) -> None:
    sys.stderr.writelines(f"amqp-bridge: {visible(line)}\n" for line in text.splitlines())


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this host, whatever names resolve to."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # no address, or a name
        return False


def _send(order: Order, document: Document) -> None:
    """Signal the bridge that the document is of. Raises `ElsewhereError`, and then has sent nothing."""
    process = document["bridge"].get("process") or {}
    pid, started_ticks, namespace = (process.get(field) for field in Process._fields)
    if not (isinstance(pid, int) and pid > 0 and isinstance(started_ticks, int) and isinstance(namespace, str)):
        raise ElsewhereError(_instead(order, "the bridge does not say for certain which process it is"))
    told = Process(pid, started_ticks, namespace)
    try:
        descriptor = os.pidfd_open(told.pid)
    except (AttributeError, OSError):
        raise ElsewhereError(_instead(order, "the bridge is no process of this pid namespace")) from None
    try:
        # The descriptor stays that of the process that is looked at now, whoever gets its number later.
        if process_of(told.pid) != told:
            raise ElsewhereError(_instead(order, "the bridge is no process of this pid namespace"))
        signal.pidfd_send_signal(descriptor, order.signal)
    except PermissionError:
        raise ElsewhereError(_instead(order, f"this user may not signal process {told.pid}")) from None
    except ProcessLookupError:
        raise ElsewhereError("the bridge has just ended; nothing was sent") from None
    finally:
        os.close(descriptor)


def _instead(order: Order, reason: str) -> str:
    name = signal.Signals(order.signal).name
    return "\n".join(
        (
            f"{reason}; nothing was sent. Use the one that fits:",
            f"  docker kill --signal={name} CONTAINER",
            f"  kubectl exec POD -- amqp-bridge {order.verb}",
            f"  systemctl kill --kill-whom=main --signal={name} amqp-bridge",
        )
    )


def _wait(order: Order, ask: Callable[[], Document], timeout_s: float) -> Document | None:
    """Return the first document that shows it done; None when time is up."""
    until_s = time.monotonic() + timeout_s
    while True:
        document = ask()
        if order.done(document):
            return document
        if document["consumer"]["stopping"]:
            raise ElsewhereError(f"the bridge is stopping; it cannot {order.verb}")
        if time.monotonic() >= until_s:
            return None
        time.sleep(EVERY_S)


def _left(ask: Callable[[], Document], document: Document, counted_within_s: float) -> str:
    """Say what is left of a paused bridge's queue, once it has been asked since: the bridge's own consumer is gone."""
    queue, paused_at = document["source"]["queue"], document["bridge"]["now"]
    until_s = time.monotonic() + counted_within_s
    while True:
        backlog = document["backlog"]["source"]
        counted = backlog["consumers"] is not None and backlog["asked"] >= paused_at
        if counted or time.monotonic() >= until_s:
            break
        time.sleep(EVERY_S)
        document = ask()
    if not counted:
        reason = backlog["unknown"] or "it has not been asked since"
        return f"paused; how many consumers queue {queue} has left is unknown: {reason}"
    consumers, waiting = backlog["consumers"], backlog.get("messages_ready")
    left = f"{number(consumers)} consumer{'' if consumers == 1 else 's'} left"
    return f"paused; queue {queue} has {left}" + ("" if waiting is None else f" and {number(waiting)} messages waiting")
