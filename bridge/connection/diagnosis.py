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
    from bridge.words import ConnectResult, Outcome

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
VAGUE: frozenset[Outcome] = frozenset({"connection-lost", "unreachable"})
"""Results behind which there may be a reason that only the tap saw."""

_NOISE = re.compile(r"^\[Errno -?\d+\] | object at 0x[0-9a-f]+")
"""What says nothing to an operator; an address would make the same trouble look new at every try."""


@asynccontextmanager
async def explained(side: SideSettings, index: int, timeout_s: float) -> AsyncIterator[None]:
    """Bound what is done within, and turn what goes wrong into a `ConnectError` that says what to do."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (Exception, asyncio.CancelledError) as error:
        # aiormq 7.2.4 cancels its own waiters when it loses the connection, and where we cancel one at that moment it
        # raises what it lost the connection for (`TaskWrapper`). A cancellation of ours goes on, whatever comes of it.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        found = _connect_error(error, side, index, timeout_s)
        if found is None:
            raise
        raise found from error


def _connect_error(error: BaseException, side: SideSettings, index: int, timeout_s: float) -> ConnectError | None:
    """Return what an operator is told of an error; None for one that says so itself, or is a bug."""
    where = side.safe_urls[index]
    match error:
        case CredentialsError():
            return ConnectError("credentials", str(error))
        case BridgeError():
            return None
        case TimeoutError():
            text = f"{where} did not answer within {timeout_s:.0f} s; is it overloaded, or a firewall in between?"
            return ConnectError("timeout", text)
        case asyncio.CancelledError():
            return ConnectError("connection-lost", f"{where} closed the connection while it was being opened")
        case Exception() if isinstance(error, CONTROL_PLANE_ERRORS):
            return explain(error, side, index)
        case _:
            return None


def explain(error: Exception, side: SideSettings, index: int) -> ConnectError:
    """Return the error as a short fixed word and a sentence; no secret is in it."""
    where = side.safe_urls[index]
    cause = error.__cause__ or error
    if side.secure and isinstance(cause, ConnectionResetError):
        return ConnectError("tls", f"{where}: {BROKEN_OFF.format(**side.variables)}")
    for kind, pattern, result, advice in _ANSWERS:
        found = next((each for each in (error, cause) if isinstance(each, kind)), None)
        if found is not None and re.search(pattern, said := _text(found)):
            sentence = advice.format(said=said, login=side.login_variables(), **side.variables)
            return ConnectError(result, f"{where}: {sentence}{_blemish(result, said, side, index)}")
    return ConnectError("protocol", f"{where}: {type(error).__name__}: {_text(error)}")


def explain_close(code: int, text: str, side: SideSettings) -> str:
    """Return what the broker said when it closed a channel or the connection, and what to do where that is known."""
    said = f"{code} {text}"
    for pattern, advice in _TOKENS.items():
        if pattern in text:
            return f"{said}; {advice.format(login=side.login_variables())}"
    for kind, pattern, _, advice in _ANSWERS:
        if kind is _REFUSALS.get(code) and re.search(pattern, text):
            return advice.format(said=said, login=side.login_variables(), **side.variables)
    return said


def _blemish(result: ConnectResult, said: str, side: SideSettings, index: int) -> str:
    """Return what an operator would not see in the names."""
    blemish = ""
    if result == "login-refused":
        blemish = side.login_blemish(index)
    elif result == "missing" and _OUTER_SPACE.search(said):
        blemish = "its name begins or ends with white space"
    return blemish and f" ({blemish})"


def other_protocol(text: str) -> str:
    """Return what a peer is whose first bytes were refused as a frame, and what to do; empty where that is unknown."""
    found = _FRAME_TYPE.search(text)
    return _OTHER_PROTOCOLS.get(chr(int(found[1])), "") if found else ""


BEFORE_A_WORD = (
    "it closed the connection before it said a word; is a broker behind that port, and is it the one for AMQP "
    "(5672 by default, 5671 with TLS)?"
)
BROKEN_OFF = (
    "it broke off the TLS handshake; does it want a client certificate ({cert_file}), or one that its CAs have signed, "
    "and does it speak TLS 1.2 or 1.3?"
)
CERTIFICATE_TOO = "; if it is, it may refuse the bridge's certificate, or want one: see {cert_file}"
"""Under TLS 1.3 a broker says so when the handshake has succeeded for the bridge (RFC 8446, 4.4.2.4)."""
_REFUSALS = {
    403: amqp.ChannelAccessRefused,
    404: amqp.ChannelNotFoundEntity,
    405: amqp.ChannelLockedResource,
}
"""By AMQP 0-9-1's reply code, the closes of a channel that say what an operator can do."""
_TOKENS = {
    "credential expired": "the token has expired: have a new one written, in good time, to where it is read: {login}",
    "New secret was refused": "the connection is open again as soon as the new token logs in; check {login}",
}
"""By what RabbitMQ says when it closes a connection for its token, what to do (4.3.6; 3.10.8 says the second alone)."""
_OUTER_SPACE = re.compile(r"no (?:queue|exchange) '(?:\s[^']*|[^']*\s)' in vhost")
_FRAME_TYPE = re.compile(r"a frame of type (\d+)")
_OTHER_PROTOCOLS = {
    "\x15": "it speaks TLS on this port; use amqps://, or the port for plain AMQP (5672 by default)",  # an alert
    "H": "it speaks HTTP on this port; use the port for AMQP (5672 by default; 15672 is the management UI's)",
    "S": "it speaks SSH on this port; use the port for AMQP (5672 by default)",
}
"""By the first byte of what came where a frame should: RFC 8446, 5.1; RFC 9112, 4; RFC 4253, 4.2."""
_NO_TLS = "WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|UNKNOWN_PROTOCOL|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST"
"""What OpenSSL 3.0 to 3.5 makes of an answer that is not TLS."""
_REFUSES_OURS = "CERTIFICATE_REQUIRED|ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE|HANDSHAKE_FAILURE|ACCESS_DENIED)"
"""An alert of the broker's about what the bridge has shown, or not (RFC 8446, 6.2)."""
_STRICT = (
    "the broker's certificate is refused ({{said}}): it or its CA's lacks the extension {extension}, on which Python "
    "insists from 3.13 on and the bridge always; have it issued again, with the extension"
)
_ANSWERS: tuple[tuple[type[Exception], str, ConnectResult, str], ...] = (
    (amqp.ProbableAuthenticationError, "", "login-refused", "it refused the login ({said}); check {login}"),
    (amqp.AuthenticationError, "", "login-refused", "it offers no login mechanism that {auth} allows ({said})"),
    (amqp.ConnectionNotAllowed, "", "vhost", "{said}; create the virtual host, or give the user permissions in it"),
    (amqp.ChannelNotFoundEntity, "no queue", "missing", "{said}; create it, or set {declare}=true"),
    (amqp.ChannelNotFoundEntity, "", "missing", "{said}; create it"),
    (
        amqp.ChannelAccessRefused,
        "in exclusive use",
        "locked",
        "{said}; another consumer has it for itself alone (exclusive): stop that one, or have it consume without",
    ),
    (
        amqp.ChannelAccessRefused,
        "access to topic",
        "forbidden",
        "{said}; give the user the topic permission (rabbitmqctl set_topic_permissions)",
    ),
    (
        amqp.ChannelAccessRefused,
        "internal exchange",
        "forbidden",
        "{said}; nobody can publish to it: name another exchange, or declare it again without `internal`",
    ),
    (amqp.ChannelAccessRefused, "", "forbidden", "{said}; give the user the permission (rabbitmqctl set_permissions)"),
    (amqp.ChannelLockedResource, "", "locked", "{said}; another connection uses it exclusively"),
    (amqp.ChannelPreconditionFailed, "", "mismatch", "{said}; change the settings, or the queue"),
    (amqp.ChannelClosed, "", "refused", "it closed the channel ({said})"),
    (amqp.ConnectionClosed, "", "refused", "it closed the connection ({said})"),
    *(
        (ssl.SSLCertVerificationError, pattern, "tls", _STRICT.format(extension=extension))
        for pattern, extension in (
            ("Missing Authority Key Identifier", "authorityKeyIdentifier"),
            ("Missing Subject Key Identifier", "subjectKeyIdentifier"),
            ("does not include key usage", "keyUsage (with keyCertSign)"),
            ("Basic Constraints of CA cert not marked critical", "basicConstraints as a critical one"),
        )
    ),
    (
        ssl.SSLCertVerificationError,
        "has expired",
        "tls",
        "the broker's certificate, or one of its CAs', has expired ({said}); have it renewed, or set the clock",
    ),
    (
        ssl.SSLCertVerificationError,
        "not yet valid",
        "tls",
        "the broker's certificate, or one of its CAs', is not valid yet ({said}); look at the clocks here and there",
    ),
    (
        ssl.SSLCertVerificationError,
        r"self.signed certificate(?: \(_ssl|$)",
        "tls",
        "the broker's certificate is self-signed ({said}); put it into {ca_file}, or have it signed by a CA there",
    ),
    (
        ssl.SSLCertVerificationError,
        "self.signed certificate in|unable to get (?:local )?issuer|unable to verify the first",
        "tls",
        "the broker's certificate is signed by nobody in {ca_file} ({said}); put its CA there, or send the chain",
    ),
    (
        ssl.SSLCertVerificationError,
        "[Mm]ismatch",
        "tls",
        "the broker's certificate is refused ({said}); use a name of it in {url}, or set {tls_server_name} to one",
    ),
    (
        ssl.SSLCertVerificationError,
        "",
        "tls",
        "the broker's certificate is refused ({said}); check {ca_file} and the host name in {url}",
    ),
    (
        ssl.SSLError,
        _NO_TLS,
        "tls",
        "it does not speak TLS on this port; use the port for TLS (5671 by default), or amqp://",
    ),
    (
        ssl.SSLError,
        _REFUSES_OURS,
        "tls",
        "the broker refuses the bridge's certificate, or wants one ({said}); see {cert_file} and the broker's CAs",
    ),
    (
        ssl.SSLError,
        "PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE|protocol version",
        "tls",
        "there is no version of TLS that both speak ({said}); the bridge speaks 1.2 and 1.3",
    ),
    (
        ssl.SSLError,
        "BAD_SIGNATURE|bad signature",
        "tls",
        "the broker's key is not its certificate's ({said}); were both rotated at the broker?",
    ),
    (ssl.SSLError, "", "tls", "TLS failed ({said}); check {ca_file}, {cert_file} and the host name in {url}"),
    (socket.gaierror, "", "unresolvable", "the host name does not resolve ({said})"),
    (ConnectionRefusedError, "", "unreachable", "nothing listens there; is the broker running?"),
    (OSError, "", "unreachable", "{said}"),
    (StopAsyncIteration, "", "connection-lost", BEFORE_A_WORD),
)
"""The first that fits counts: an error or its cause, a pattern in what it says, the result, and what to do."""


def _text(error: BaseException) -> str:
    """Return what the broker or the system said, without errno and addresses."""
    said = [str(arg) for arg in error.args if isinstance(arg, str) and arg] or [str(error)]
    return _NOISE.sub("", said[-1]).removesuffix(".")
