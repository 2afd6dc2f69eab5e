"""TLS with real brokers: every kind of key, every wrong certificate, and whom EXTERNAL takes the bridge for.

Each case is a connection of its own, to a node whose files are rotated on its disk. The same cases under either version
of TLS, against a peer of the tests' own: `tests/unit/connection/test_tls.py`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bridge.connection.session import SourceSession
from bridge.errors import ConnectError
from tests.rig.mint import DAY, KEYS, WRONG, mint, mint_wrong
from tests.unit.connection.test_session import session_of
from tests.unit.connection.test_tls import HERE, REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.certificates import Certificates
    from tests.rig.mint import Minted
    from tests.rig.node import Node


@contextmanager
def rotated(node: Node, certificates: Certificates) -> Iterator[None]:
    """The node's files may be others within; after it they are its own again."""
    try:
        yield
    finally:
        node.serve_tls(certificates.ca, certificates.server_cert, certificates.server_key)


def serve(node: Node, folder: Path, ca: Minted, server: Minted, *, chain: bool = True) -> Path:
    """Rotate the node's files; return the CA's."""
    trusted = ca.write(folder, "ca")[0]
    node.serve_tls(trusted, *server.write(folder, "server", chain=chain))
    return trusted


async def opened(node: Node, **settings: object) -> str:
    """Connect as the bridge does; return the version of TLS. Raises `ConnectError`."""
    async with session_of(SourceSession, source_url=node.tls_url, **settings) as (session, _):
        await session.open(0)
        return str(session.tap.transport.get_extra_info("ssl_object").version())


async def test_each_certificate_that_a_broker_may_have(
    source: Node, certificates: Certificates, queue_name: str, tmp_path: Path
) -> None:
    """By a private authority and one between; and each that is wrong is refused with what is wrong about it."""
    source.declare(queue_name)
    with rotated(source, certificates):
        for kind in KEYS:
            authority = mint("root", authority=True, kind=kind)
            server = mint(HERE, mint("between", authority, kind=kind, authority=True), kind=kind)
            ca = serve(source, tmp_path, authority, server)
            assert await opened(source, source_ca_file=ca, source_queue=queue_name) == "TLSv1.3"
        authority = mint("root", authority=True)
        for wrong in WRONG:
            made, trusted = mint_wrong(wrong, HERE, authority)
            ca = serve(source, tmp_path, trusted, made, chain=wrong != "without its intermediate")
            with pytest.raises(ConnectError) as refused:
                await opened(source, source_ca_file=ca, source_queue=queue_name)
            assert all(words in str(refused.value) for words in REFUSED[wrong]), (wrong, str(refused.value))
        ca = serve(source, tmp_path, authority, mint(HERE, authority))
        source.serve_tls(ca, tmp_path / "server.pem", mint(HERE, authority).write(tmp_path, "other")[1])
        with pytest.raises(ConnectError, match="the broker's key is not its certificate's"):
            await opened(source, source_ca_file=ca, source_queue=queue_name)


async def test_each_certificate_that_the_bridge_may_have(
    source: Node, certificates: Certificates, queue_name: str, tmp_path: Path
) -> None:
    """EXTERNAL takes the bridge for the name in its certificate; which must be a user's, and hold."""
    source.declare(queue_name)
    authority = mint("root", authority=True)
    with rotated(source, certificates):
        ca = serve(source, tmp_path, authority, mint(HERE, authority))

        async def presenting(client: Minted) -> str:
            cert, key = client.write(tmp_path, "client")
            files = {"source_ca_file": ca, "source_cert_file": cert, "source_key_file": key}
            return await opened(source, source_queue=queue_name, source_auth="external", **files)

        for kind in KEYS:
            assert await presenting(mint("guest", authority, kind=kind))
        for client, words in (
            (mint("nobody", authority), "ACCESS_REFUSED"),
            (mint("guest", mint("other", authority=True)), "BRIDGE_SOURCE_CERT_FILE"),
            (mint("guest", authority, valid=(-2 * DAY, -DAY)), "BRIDGE_SOURCE_CERT_FILE"),
        ):
            with pytest.raises(ConnectError) as refused:
                await presenting(client)
            assert words in str(refused.value), str(refused.value)
