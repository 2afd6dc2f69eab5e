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

    from bridge.side import SideSettings

CONTROL_PLANE_ERRORS = (amqp.AMQPError, PAMQPException, OSError, RuntimeError, ValueError)
"""What aio-pika, aiormq and pamqp raise when a broker or a network misbehaves."""

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


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
        message = f"{side.safe_urls[index]} did not answer within {timeout_s:.0f} s; is the broker overloaded or a firewall in between?"
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
    what = _text(error)
    cause = error.__cause__
    match error:
        case amqp.ProbableAuthenticationError():
            return ConnectError("login-refused", f"{where} refused the login ({what}); check {prefix}USERNAME and {prefix}PASSWORD(_FILE)")
        case amqp.AuthenticationError():
            return ConnectError("login-refused", f"{where} offers no login mechanism that {prefix}AUTH={side.auth} allows")
        case amqp.ConnectionNotAllowed():
            return ConnectError("vhost", f"{where} refused the virtual host ({what}); create it, or give the user permissions in it")
        case amqp.ChannelNotFoundEntity():
            return ConnectError("missing", f"{where}: {what}; create it, or set {prefix}DECLARE=true")
        case amqp.ChannelAccessRefused():
            return ConnectError("forbidden", f"{where}: {what}; give the user the permission")
        case amqp.ChannelLockedResource():
            return ConnectError("locked", f"{where}: {what}; another connection uses it exclusively")
        case amqp.ChannelPreconditionFailed():
            return ConnectError("mismatch", f"{where}: {what}; change the arguments, or the queue")
        case amqp.ChannelClosed() | amqp.ConnectionClosed():
            return ConnectError("refused", f"{where}: {what}")
    if isinstance(cause, ssl.SSLError) or isinstance(error, ssl.SSLError):
        return ConnectError("tls", f"{where}: TLS failed ({_text(cause or error)}); check {prefix}CA_FILE, {prefix}CERT_FILE and the host name")
    if isinstance(cause, socket.gaierror):
        return ConnectError("unresolvable", f"{where}: the host name does not resolve ({_text(cause)})")
    if isinstance(cause, ConnectionRefusedError):
        return ConnectError("unreachable", f"{where}: nothing listens there; is the broker running?")
    if isinstance(error, ConnectionError) or isinstance(cause, OSError):
        return ConnectError("unreachable", f"{where}: {what}")
    return ConnectError("protocol", f"{where}: {type(error).__name__}: {what}")


def _text(error: BaseException) -> str:
    """Return what the broker or the system said, without errno and class names."""
    said = [str(arg) for arg in error.args if isinstance(arg, str) and arg] or [str(error)]
    return _ERRNO.sub("", said[-1]).removesuffix(".")
