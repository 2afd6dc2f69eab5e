"""Requests: the bytes of one client's connection through the parser, who may see what, and the answers.

Input: an octet of options, the size of the pieces in which the bytes come, and what the client sends until it closes.
Each answer is whole and nothing else is written; no line of the client becomes a header; and what is guarded by a token
is shown to nobody who has not sent it.
"""

from __future__ import annotations

import asyncio
import io
import re
from base64 import b64decode
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from bridge.observe.access import Access
from bridge.observe.answers import Answers
from bridge.observe.document import About
from bridge.observe.http import MAX_HEAD_BYTES, RequestHandler
from bridge.observe.status import Status
from bridge.settings.http import HttpSettings
from bridge.window.books import Books

MAX_BYTES = 400
"""Of an input."""
TOKEN = "token-of-the-fuzzer"  # noqa: S105 - it opens nothing
GUARDED = 1
"""Option: a token is wanted."""
STATUS_LINE = re.compile(rb"HTTP/1\.1 (100|200|400|401|403|404|405|408|414|421|431|501|503|505) [ -~\xa0-\xff]*")
HEADER_LINE = re.compile(
    rb"(Allow|Cache-Control|Connection|Content-(?:Length|Security-Policy|Type)|Cross-Origin-[A-Za-z-]+|Date|"
    rb"Referrer-Policy|Server|WWW-Authenticate|X-Content-Type-Options|X-Frame-Options): [ -~]*"
)
PROBES = (b'{"healthy"', b'{"ready"')
LARGEST_ANSWER_BYTES = 1 << 18


def new_answers() -> Answers:
    """Return the answers of a bridge whose loop has ended: none waits for it."""
    loop = asyncio.new_event_loop()
    made = Answers(lambda: (Books(), Status(consuming=True)), loop, About(source_queue="from"), loop_timeout_s=0.0)
    loop.close()
    return made


def token_file() -> Path:
    """Return a file with the token, for the life of this process."""
    with NamedTemporaryFile("w", delete=False, prefix="fuzz-token-") as file:
        file.write(TOKEN)
    return Path(file.name)


class Server:
    """What a handler knows of its server."""

    client_timeout_s = 5.0

    def __init__(self, settings: HttpSettings, answers: Answers) -> None:
        self.access = Access(settings)
        self.answers = answers


class Connection:
    """A client's connection: it has sent all its bytes and reads whatever comes."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = memoryview(data)
        self._step = step
        self.largest_read = 0
        self.sent = bytearray()

    def settimeout(self, _: float) -> None:
        """Do nothing: nothing is waited for."""

    def makefile(self, *_: object) -> io.BytesIO:
        """Return a reader that is not used."""
        return io.BytesIO()

    def recv_into(self, buffer: memoryview) -> int:
        """Hand over some bytes; none at the end."""
        size = min(len(buffer), self._step, len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        self.largest_read = max(self.largest_read, len(buffer))
        return size

    def sendall(self, data: bytes) -> None:
        """Take an answer."""
        self.sent += data


ANSWERS = new_answers()
SERVERS = (Server(HttpSettings(), ANSWERS), Server(HttpSettings(token_file=token_file()), ANSWERS))


def run(data: bytes) -> None:
    """Serve one client."""
    if len(data) < 3:
        return
    guarded, requests = data[0] & GUARDED, data[2:]
    connection = Connection(requests, 1 + data[1])
    peer: Any = connection
    server: Any = SERVERS[guarded]
    RequestHandler(peer, ("client", 0), server)  # it serves until the client has closed
    assert connection.largest_read <= MAX_HEAD_BYTES + io.DEFAULT_BUFFER_SIZE, "a buffer without bound"
    shown = answered(bytes(connection.sent), requests)
    if guarded and any(body and not body.startswith(PROBES) for body in shown):
        assert has_token(requests), "shown without the token"


def answered(sent: bytes, requests: bytes) -> list[bytes]:
    """Return the bodies of what was answered with 200; complain of what is no answer."""
    shown, answers = [], 0
    while sent.startswith(b"HTTP/"):
        head, end, rest = sent.partition(b"\r\n\r\n")
        assert end, "a head without its end"
        line, *headers = head.split(b"\r\n")
        status = STATUS_LINE.fullmatch(line)
        assert status, f"a status line that is none: {line!r}"
        found = {}
        for each in headers:
            assert HEADER_LINE.fullmatch(each), f"a header that is none of the bridge's: {each!r}"
            name, _, value = each.partition(b": ")
            assert name not in found, f"{name!r} stands twice"
            found[name] = value
        size = int(found.get(b"Content-Length", b"0"))
        if status[1] != b"100" and rest and not rest.startswith(b"HTTP/"):
            assert size <= len(rest), "less than was announced"
            if status[1] == b"200":
                shown.append(rest[:size])
            rest = rest[size:]
        sent = rest
        answers += 1
    assert answers <= requests.count(b"\n") + 2, "more answers than requests"
    assert not sent, "bytes that are no answer"
    assert sum(map(len, shown)) <= LARGEST_ANSWER_BYTES * answers
    return shown


def has_token(requests: bytes) -> bool:
    """Whether the client has sent the token, in one of the two ways."""
    for given in re.findall(rb"(?i)basic\s+(\S+)", requests):
        try:
            if TOKEN.encode() in b64decode(given):
                return True
        except ValueError:
            continue
    return TOKEN.encode() in requests
