"""TLS as a matrix: what is accepted, and for each refusal which check failed, on which side, and what to do.

A peer on loopback shakes hands and hangs up: what comes after is AMQP, and the same with TLS as without (real brokers:
`tests/broker/test_tls.py`, `test_check.py`).
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from bridge.connection.session import SourceSession
from bridge.errors import ConnectError
from tests.rig.mint import DAY, KEYS, WRONG, Minted, mint, mint_wrong
from tests.unit.connection.test_session import session_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HERE = "127.0.0.1"
ACCEPTED = "it closed the connection before it said a word"
"""What the bridge says once the handshake is over."""


def context_of(files: tuple[Path, Path], *, client_ca: Path | None = None) -> ssl.SSLContext:
    """What a broker serves with; with a client CA it insists on a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def peer(context: ssl.SSLContext) -> AsyncIterator[str]:
    """A peer that shakes hands, reads the protocol header and hangs up; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):  # it was refused, or refuses
            await reader.readexactly(8)
        writer.close()

    server = await asyncio.start_server(serve, HERE, 0, ssl=context)
    async with server:
        yield f"amqps://guest:secret@{HERE}:{server.sockets[0].getsockname()[1]}/"


async def said(context: ssl.SSLContext, **settings: object) -> str:
    """What the bridge says of a connection to a peer that serves so."""
    async with peer(context) as url, session_of(SourceSession, source_url=url, **settings) as (session, _):
        with pytest.raises(ConnectError) as refused:
            await session.open(0)
    return str(refused.value)


def root(folder: Path, name: str = "root", kind: str = "ECDSA") -> tuple[Minted, Path]:
    made = mint(name, authority=True, kind=kind)
    return made, made.write(folder, name)[0]


@pytest.mark.parametrize("version", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), ids=("1.2", "1.3"))
@pytest.mark.parametrize("kind", KEYS)
async def test_each_kind_of_key_under_each_version_is_accepted(
    kind: str, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """With an intermediate authority, which the broker sends along, and a client's certificate of that kind."""
    authority, ca = root(tmp_path, kind=kind)
    between = mint("between", authority, kind=kind, authority=True)
    files = mint(HERE, between, kind=kind).write(tmp_path, "server")
    cert, key = mint("bridge", authority, kind=kind).write(tmp_path, "client")
    context = context_of(files, client_ca=ca)
    context.minimum_version = context.maximum_version = version
    text = await said(context, source_ca_file=ca, source_cert_file=cert, source_key_file=key)
    assert ACCEPTED in text


async def test_an_intermediate_authority_may_be_all_that_is_trusted(tmp_path: Path) -> None:
    """And then the root is not needed."""
    authority, _ = root(tmp_path)
    between = mint("between", authority, authority=True)
    files = mint(HERE, between).write(tmp_path, "server")
    trusted = between.write(tmp_path, "between", chain=False)[0]
    assert ACCEPTED in await said(context_of(files), source_ca_file=trusted)


REFUSED = {
    "expired": ("has expired", "have it renewed"),
    "of an authority that has expired": ("has expired", "have it renewed"),
    "not valid yet": ("is not valid yet", "clock"),
    "self-signed": ("is self-signed", "BRIDGE_SOURCE_CA_FILE"),
    "of another authority": ("signed by nobody in BRIDGE_SOURCE_CA_FILE", "put its CA there"),
    "without its intermediate": ("signed by nobody in BRIDGE_SOURCE_CA_FILE", "send the chain"),
    "for another name": ("match", "BRIDGE_SOURCE_TLS_SERVER_NAME"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_each_wrong_certificate_of_a_broker_is_refused_and_the_sentence_says_why(
    wrong: str, tmp_path: Path
) -> None:
    made, trusted = mint_wrong(wrong, HERE, root(tmp_path)[0])
    ca = trusted.write(tmp_path, "trusted")[0]
    files = made.write(tmp_path, "server", chain=wrong != "without its intermediate")
    text = await said(context_of(files), source_ca_file=ca)
    assert "the broker's certificate" in text
    for words in REFUSED[wrong]:
        assert words in text


@pytest.mark.parametrize("version", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), ids=("1.2", "1.3"))
@pytest.mark.parametrize("wrong", ("none", "of another authority", "expired"))
async def test_a_client_certificate_that_the_broker_refuses_is_named_as_the_bridges_own(
    wrong: str, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """Under 1.3 the broker says so after the handshake, which has succeeded for the bridge by then."""
    authority, ca = root(tmp_path)
    files = mint(HERE, authority).write(tmp_path, "server")
    context = context_of(files, client_ca=ca)
    context.minimum_version = context.maximum_version = version
    settings: dict[str, object] = {"source_ca_file": ca}
    if wrong != "none":
        issuer = authority if wrong == "expired" else root(tmp_path, "other")[0]
        valid = (-2 * DAY, -DAY) if wrong == "expired" else (-DAY, DAY)
        cert, key = mint("bridge", issuer, valid=valid).write(tmp_path, "client")
        settings |= {"source_cert_file": cert, "source_key_file": key}
    text = await said(context, **settings)
    words = (
        "it broke off the TLS handshake" if version is ssl.TLSVersion.TLSv1_2 else "may refuse the bridge's certificate"
    )
    assert words in text
    assert "BRIDGE_SOURCE_CERT_FILE" in text


async def test_a_broker_that_speaks_no_version_of_ours_is_named(tmp_path: Path) -> None:
    authority, ca = root(tmp_path)
    context = context_of(mint(HERE, authority).write(tmp_path, "server"))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    text = await said(context, source_ca_file=ca)
    assert "does it speak TLS 1.2 or 1.3?" in text


async def test_files_that_are_rotated_are_used_at_the_next_connect_and_half_a_pair_is_waited_for(
    tmp_path: Path,
) -> None:
    authority, ca = root(tmp_path)
    files = mint(HERE, authority).write(tmp_path, "server")
    cert, key = mint("bridge", root(tmp_path, "before")[0]).write(tmp_path, "client")
    new_cert, new_key = mint("bridge", authority).write(tmp_path, "new")
    context = context_of(files, client_ca=ca)
    settings = {"source_ca_file": ca, "source_cert_file": cert, "source_key_file": key}
    async with peer(context) as url, session_of(SourceSession, source_url=url, **settings) as (session, _):
        for step, words in (
            (lambda: None, "may refuse the bridge's certificate"),
            (lambda: shutil.copy(new_cert, cert), "a PEM certificate and its key are needed"),
            (lambda: shutil.copy(new_key, key), ACCEPTED),
        ):
            step()
            with pytest.raises(ConnectError, match=words):
                await session.open(0)
