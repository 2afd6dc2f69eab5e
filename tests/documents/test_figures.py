"""Numbers rot: every figure in the documents' running text is derived here from what decides it.

Tables of figures are written by programs, between marks, and are left out here; so are code, and the versions that
stand behind a product's name. What is left must be a phrase of `OWN`, made from the project's constants, or one of
`OTHERS`, which says what others do, with where they say so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from bridge.amqp.content import PERSISTENT
from bridge.cli import commands, heap, streams
from bridge.connection import limits
from bridge.connection.dial import STAGGER_S
from bridge.drain import command as draining
from bridge.drain import receipt, sample
from bridge.drain.digest import DIGEST_BYTES
from bridge.drain.options import PEEKED, PEEKED_MOST
from bridge.observe import document, events, history, http
from bridge.relay.watchdog import ASK_EVERY_S
from bridge.settings import oauth
from bridge.settings.http import MIN_TOKEN_CHARACTERS
from bridge.settings.settings import CONSUMER_TIMEOUT_S, Settings
from bridge.settings.sides import DEFAULT_HEARTBEAT_S
from bridge.settings.tracking import PLAIN, SECURE, STREAM_PORTS
from bridge.window import gaps
from bridge.window.age import SAMPLE_S
from bridge.window.exchanges import OPEN_AGAIN_S, REFUSED_AGAIN_S
from bridge.window.limits import HELD_MOST_S, LIMIT_MARGIN
from bridge.window.rate import BURST_S
from tests.broker import test_memory as memory
from tests.documents.markdown import DOCUMENTS, ROOT, prose
from tests.programs import demo, faults

if TYPE_CHECKING:
    from pathlib import Path

EX_USAGE, EX_TEMPFAIL, EX_CONFIG = commands.EX_USAGE, commands.EX_TEMPFAIL, commands.EX_CONFIG
UNAVAILABLE = receipt.UNREACHABLE
MI = 1 << 20


def default(field: str) -> int:
    """The default of a setting that is a whole number."""
    return int(Settings.model_fields[field].default)


def found(file: str, pattern: str) -> str:
    """The number that a file of the project states once."""
    (text,) = set(re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE))
    return str(text)


USER = found("Dockerfile", r"^USER (\d+):\d+$")
COMPOSE = found("config/compose.yaml", r"Docker Compose ([\d.]+) or later")
PROCESS_MIB = memory.BASE_BYTES // MI
CONTAINER_MIB = int(found("helm/amqp-bridge/values.yaml", r"^ +memory: (256)Mi$"))
GAPS = 1.5
"""Messages of very different sizes leave gaps in memory: measured, from 10 B to 15 MB."""
LARGEST_MIB = int(CONTAINER_MIB - PROCESS_MIB - GAPS * default("max_in_flight_bytes") / MI)
"""What is left of the container is a message's."""
SIZE_MB = memory.SIZE_BYTES // 1_000_000
HELD_MOST_MIN = f"{HELD_MOST_S / 60:.0f} minutes"
SPANS = [int(seconds) for seconds in document.SPANS.values()]

OWN: dict[str, tuple[str, ...]] = {
    "README.md": (
        f"forwards {demo.MESSAGES:,} messages, kills",
        f"exits with {EX_CONFIG} before anything",
        f"answers on port {default('http_port')} with a page",
        f"becomes {PERSISTENT};",
        f"reconnects within {max(default('confirm_timeout'), int(2 * ASK_EVERY_S))} s (a queue with",
        "requeues what it has, exits 0 |",
        f"delivered too often, {default('delivery_limit')} times by default since RabbitMQ 4.0",
    ),
    "config/README.md": (
        "exits with 0 when there are warnings at most, with 1 for an error",
        f"with {EX_CONFIG} for a wrong configuration, with {EX_TEMPFAIL} where a file",
        "drains and exits with 0; another",
        f"numeric user {USER} on",
        f"The user {USER} must",
        f"Docker Compose {COMPOSE} or later",
        f"(exit status {EX_CONFIG}) is not restarted; what may pass by itself ({EX_TEMPFAIL}) is",
        f"exits with {EX_CONFIG} before anything connects",
        f"every {STAGGER_S * 1000:.0f} ms (RFC 8305)",
        f"again at {oauth.RENEWED_AT:.0%} of its life".replace("%", " %"),
        f"compares the file every {limits.DEFAULT.renew_s:.0f} s",
        f"that is port {STREAM_PORTS[PLAIN]} of the source's hosts, or {STREAM_PORTS[SECURE]} with TLS",
        f"more than {default('delivery_limit')} times by default since RabbitMQ 4.0",
        f"holds for up to {HELD_MOST_MIN}.",
        f"one count every {HELD_MOST_MIN}.",
        f"within {LIMIT_MARGIN} of _",
        f"{CONSUMER_TIMEOUT_S // 60} minutes by default; _ of a queue",
        f"above {HELD_MOST_MIN} for a quorum",
        f"They exit with 0 once it is so, with {UNAVAILABLE} where they may signal nobody, with {EX_TEMPFAIL} when",
        f"At most {BURST_S * 1000:.0f} ms of a rate",
        f"largest message divided by {CONSUMER_TIMEOUT_S // 60} minutes",
        f"The process takes {PROCESS_MIB} MiB",
        f"{PROCESS_MIB} MiB + {GAPS} * BRIDGE_MAX_IN_FLIGHT_BYTES + the largest message",
        f"default of {default('max_in_flight_bytes') // MI} MiB, {CONTAINER_MIB} MiB suffice",
        f"messages of up to {LARGEST_MIB} MiB.",
        f"up to {heap.KEPT_BYTES // MI} MiB stay with the process",
        f"every {gaps.ASK_AGAIN_S:.0f} s at most, by a second consumer",
        f"ends with exit status {EX_TEMPFAIL}, so that a supervisor",
        f"a file, exits with {EX_TEMPFAIL}: a supervisor",
        f"wrong command line exits with {EX_USAGE};",
        f"the first {PEEKED} messages (_, at most {PEEKED_MOST:,})",
        f"lists where the first {PEEKED} messages go back to",
        f"a message within {sample.LIMIT_MARGIN} of its limit",
        f"with exit status {receipt.NOT_ALL}, where more does not match",
        f"{draining.FILTERING_PREFETCH:,} on a quorum queue",
        f"modulo 2^{DIGEST_BYTES * 8} of a {DIGEST_BYTES * 8}-bit BLAKE2b",
        f"exits with 0 where all agree, with {receipt.NOT_ALL} where not",
        f"Exit statuses {receipt.NOT_ALL}, {EX_USAGE} and {EX_CONFIG} fail the Job",
        "| 0 | all that was asked for",
        f"| {receipt.NOT_ALL} | not all",
        f"| {EX_USAGE}, {EX_CONFIG} | the command line",
        f"| {UNAVAILABLE} | a side",
        f"| {EX_TEMPFAIL} | a file",
        f"| {streams.EX_IOERR} | the output",
        f"a token of at least {MIN_TOKEN_CHARACTERS} visible",
        f"At most {http.MAX_CLIENTS} clients are served",
        f"each has {http.CLIENT_TIMEOUT_S:.0f} s and {http.MAX_HEAD_BYTES >> 10} KiB for a request",
        f"the last {history.KEPT_S / 60:.0f} minutes as plots",
        f"over {SPANS[0]} s, {SPANS[1] // 60} and {SPANS[2] // 60} minutes, the window, the last {events.KEPT} events",
        f"exits with 0 when the bridge is ready, 1 when it is not, and {UNAVAILABLE} when none",
        f"at most {1 / SAMPLE_S:.0f} a second",
        f"the exit status is {EX_TEMPFAIL}. See",
        f"the exit status is {EX_TEMPFAIL}, and a supervisor",
        f"Exit status {EX_CONFIG} is a wrong configuration",
        f"below the heartbeat of {DEFAULT_HEARTBEAT_S} s",
        f"After {CONSUMER_TIMEOUT_S // 60} minutes the broker's consumer timeout",
        *("_ says 200 with", "_ stays 200, with", "_ would answer 200;", "_ is 503 with the reason", ": 200 unless"),
        *(": 200 while", "otherwise 503 with", "leaves it at 200", "answered with 200 also", "| 200: _ or SIGUSR1"),
        *("_, 200: the bridge rests", "_ is 1. A bridge", "_ is 1.", "| 1 while an operator", "| 1 while the bridge"),
        "0: not consuming",
        f"to an exchange, and every {OPEN_AGAIN_S / 60:.0f} minutes, the bridge asks",
        f"the bridge asks again every {REFUSED_AGAIN_S:.0f} s",
    ),
    "tests/README.md": (
        f"The {faults.MANY} messages that close the channel",
        f"plus {PROCESS_MIB} MiB while a blocked destination",
        f"lets {memory.MESSAGES * SIZE_MB} MB of {SIZE_MB} MB messages wait",
    ),
    "bridge/README.md": ("(_ is 503),", "numbered from 1."),
    "SECURITY.md": (f"the user {USER} on",),
}
"""By document, what the project's own constants make: where one of them changes, the phrase is not found any more."""

OTHERS: dict[str, tuple[str, ...]] = {
    "config/README.md": (
        "by itself Docker kills after 10 s",  # docs.docker.com: docker container stop
        "RFC 5280",  # the profile of certificates
        "as Python insists since 3.13",  # docs.python.org: ssl.create_default_context
        "before 4.3, a destination",  # measured: an explicit nack counts before it
        "for a quorum queue before 4.3",
        "RabbitMQ 3.x takes 128 MiB at most, 4.x 16 MiB (unless",  # rabbitmq.com: max_message_size
        "(measured from 10 B to 15 MB)",
        "such as messages above 16 MiB",
        "in the format of AMQP 1.0",
        "with 1 for 1.5",  # measured: a stream keeps no floating point number of a header
        "4.x destination refuses",
        "it was 2.",  # argparse's status for a wrong command line, which 0.1.0 had
        "| 130, 143 | SIGINT, SIGTERM",  # a shell's: 128 and the signal's number
        "with at most 100 messages per second",  # of the block below it, which is run
        "rests when 10,000 messages wait there",  # of the example before it
    ),
    "helm/amqp-bridge/README.md": (
        "OpenShift's pods answer on 5353",  # docs.openshift.com: the DNS operator
        "and is tested with Helm 3.17 and 4.1",  # tests/deploy/tools.py
    ),
    "CONTRIBUTING.md": ("has at most 72 characters",),
}
"""By document, what others do or decide."""

PRODUCT = r"(?:RabbitMQ|OAuth|Python|Debian|Helm|Kubernetes|AMQP)"
NUMBER = r"\d+(?:[.-](?:\d+|x))*"
NAMED = re.compile(rf"\b{PRODUCT} {NUMBER}(?:(?:,| or| and| to)+ {NUMBER})*|\b0\.1\.0\b")
"""Versions behind a product's name, and the version before this one."""


def running_text(text: str) -> str:
    """Return a document's running text in one line, with `_` for code."""
    text = re.sub(r"<!-- [^>]*: written by .*?<!-- end -->", "", prose(text), flags=re.DOTALL)
    text = re.sub(r"^(?:#.*|\d+\. )", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "_", text))
    return re.sub(r"\s+", " ", text)


def unknown_figures(text: str, phrases: tuple[str, ...]) -> list[str]:
    """Return the figures of running text that no phrase explains, with what stands around them."""
    for phrase in sorted(phrases, key=len, reverse=True):
        text = text.replace(phrase, re.sub(r"\d", "#", phrase))
    text = NAMED.sub("#", text)
    return [text[max(0, at.start() - 30) : at.end() + 30] for at in re.finditer(r"(?<![\w#])\d[\d.,]*", text)]


def explained(path: Path) -> tuple[str, ...]:
    name = str(path.relative_to(ROOT))
    return OWN.get(name, ()) + OTHERS.get(name, ())


WRITTEN_BY_HAND = [path for path in DOCUMENTS if path.parent.name != "measured" and path.name != "CHANGELOG.md"]
documents = pytest.mark.parametrize("path", WRITTEN_BY_HAND, ids=lambda path: str(path.relative_to(ROOT)))


@documents
def test_every_figure_is_that_of_what_decides_it(path: Path) -> None:
    text = running_text(path.read_text())
    assert [phrase for phrase in explained(path) if phrase not in text] == []


@documents
def test_no_figure_stands_alone(path: Path) -> None:
    """Have a program write it from `tests/measured/`, or put its phrase into `OWN`, made from a constant."""
    assert unknown_figures(running_text(path.read_text()), explained(path)) == []


def test_the_chart_is_tested_with_the_versions_of_helm_that_its_readme_names() -> None:
    tools = (ROOT / "tests" / "deploy" / "tools.py").read_text()
    assert sorted(set(re.findall(r'^    "(\d\.\d+)\.\d+": \(', tools, re.MULTILINE))) == ["3.17", "4.1"]


def test_the_charts_memory_is_enough_for_what_the_documents_say() -> None:
    assert PROCESS_MIB + default("max_in_flight_bytes") // MI + LARGEST_MIB <= CONTAINER_MIB
    assert f"mulf {PROCESS_MIB} 1048576" in (ROOT / "helm/amqp-bridge/templates/_validate.tpl").read_text()


@pytest.mark.parametrize(
    ("text", "unknown"),
    (
        ("It forwards 12,000 messages with RabbitMQ 4.3 and Python 3.11 or 3.12.", 1),
        ("It exits with 78.", 0),
        ("It exits with 79.", 1),
        ("## 3 things\n\n1. first\n\n`4` [5](#6)\n\n```sh\nsleep 7\n```", 1),
    ),
)
def test_a_figure_that_nothing_explains_is_seen(text: str, unknown: int) -> None:
    assert len(unknown_figures(running_text(text), ("exits with 78",))) == unknown
