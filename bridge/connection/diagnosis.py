"""What went wrong when a side was opened, in an operator's words: what happened, and what to do."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiormq import exceptions as amqp
from pamqp.exceptions import PAMQPException

from bridge.errors import BridgeError, ConnectError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bridge.settings.sides import SideSettings

CONTROL_PLANE_ERRORS = (
    amqp.AMQPError,
    PAMQPException,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,  # aiormq 7.2.4, of a broker that names no capabilities
    StopAsyncIteration,  # aiormq 7.2.4, of a peer that has hung up before aiormq reads
)
"""What aio-pika, aiormq and pamqp raise when a broker or a network misbehaves."""
VAGUE = frozenset({"connection-lost", "unreachable"})
"""Results behind which there may be a reason that only the tap saw."""

_NOISE = re.compile(r"^\[Errno -?\d+\] | object at 0x[0-9a-f]+")
"""What says nothing to an operator; an address would make the same trouble look new at every try."""


@asynccontextmanager
async def explained(side: SideSettings, index: int, timeout_s: float) -> AsyncIterator[None]:
    """Bound what is done within, and turn what goes wrong into a `ConnectError` that says what to do."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except CredentialsError as error:
        raise ConnectError("credentials", str(error)) from error
    except BridgeError:
        raise
    except TimeoutError as error:
        where = side.safe_urls[index]
        message = f"{where} did not answer within {timeout_s:.0f} s; is it overloaded, or a firewall in between?"
        raise ConnectError("timeout", message) from error
    except asyncio.CancelledError as error:
        # aiormq cancels its own waiters when it loses the connection; a cancellation of ours goes on.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        message = f"{side.safe_urls[index]} closed the connection while it was being opened"
        raise ConnectError("connection-lost", message) from error
    except CONTROL_PLANE_ERRORS as error:
        raise explain(error, side, index) from error


def explain(error: Exception, side: SideSettings, index: int) -> ConnectError:
    """Return the error as a short fixed word and a sentence; no secret is in it."""
    prefix = f"BRIDGE_{side.name.upper()}_"
    where = side.safe_urls[index]
    cause = error.__cause__ or error
    for kind, result, advice in _ANSWERS:
        if isinstance(error, kind) or isinstance(cause, kind):
            said = _text(error if isinstance(error, kind) else cause)
            return ConnectError(result, f"{where}: {advice.format(said=said, prefix=prefix)}")
    return ConnectError("protocol", f"{where}: {type(error).__name__}: {_text(error)}")


_ANSWERS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        amqp.ProbableAuthenticationError,
        "login-refused",
        "it refused the login ({said}); check {prefix}USERNAME and {prefix}PASSWORD or {prefix}PASSWORD_FILE",
    ),
    (amqp.AuthenticationError, "login-refused", "it offers no login mechanism that {prefix}AUTH allows ({said})"),
    (amqp.ConnectionNotAllowed, "vhost", "{said}; create the virtual host, or give the user permissions in it"),
    (amqp.ChannelNotFoundEntity, "missing", "{said}; create it, or set {prefix}DECLARE=true for a queue"),
    (amqp.ChannelAccessRefused, "forbidden", "{said}; give the user the permission"),
    (amqp.ChannelLockedResource, "locked", "{said}; another connection uses it exclusively"),
    (amqp.ChannelPreconditionFailed, "mismatch", "{said}; change the settings, or the queue"),
    (amqp.ChannelClosed, "refused", "it closed the channel ({said})"),
    (amqp.ConnectionClosed, "refused", "it closed the connection ({said})"),
    (ssl.SSLError, "tls", "TLS failed ({said}); check {prefix}CA_FILE, {prefix}CERT_FILE and the host name"),
    (socket.gaierror, "unresolvable", "the host name does not resolve ({said})"),
    (ConnectionRefusedError, "unreachable", "nothing listens there; is the broker running?"),
    (OSError, "unreachable", "{said}"),
    (StopAsyncIteration, "connection-lost", "it closed the connection before a word was said"),
)
"""The first that fits counts: an error or its cause, the result, and what an operator can do."""


def _text(error: BaseException) -> str:
    """Return what the broker or the system said, without errno and addresses."""
    said = [str(arg) for arg in error.args if isinstance(arg, str) and arg] or [str(error)]
    return _NOISE.sub("", said[-1]).removesuffix(".")
