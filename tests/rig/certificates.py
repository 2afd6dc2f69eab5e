"""Certificates for TLS tests: an authority, a server on loopback, a client with a user's name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority, and certificate and key of a server and of a client."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def make_certificates(
    folder: Path,
    client_name: str = "guest",
    lacking: str = "",
    server_names: tuple[str, ...] = ("localhost", "127.0.0.1"),
) -> Certificates:
    """Write a new authority's certificates into the folder; the client's common name is ``client_name``.

    ``lacking`` is an extension that the authority's or the server's certificate has not, or not as it should:
    ``authorityKeyIdentifier``, ``basicConstraints`` or ``keyUsage``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = Certificates(*(folder / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key")))
    authority = trustme.CA()
    server = authority.issue_cert(*server_names, common_name=server_names[0])
    client = authority.issue_cert(f"{client_name}@localhost", common_name=client_name)
    authority.cert_pem.write_to_path(files.ca)
    server.cert_chain_pems[0].write_to_path(files.server_cert)
    server.private_key_pem.write_to_path(files.server_key)
    client.cert_chain_pems[0].write_to_path(files.client_cert)
    client.private_key_pem.write_to_path(files.client_key)
    if lacking:
        _write_lax(files, lacking)
    return files


def _write_lax(files: Certificates, lacking: str) -> None:
    """Replace the authority's and the server's certificate by ones of which one lacks an extension."""
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lax authority")])
    ca = _unsigned(authority, authority, ca_key).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=lacking != "basicConstraints"
    )
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
    if lacking != "keyUsage":
        ca = ca.add_extension(SIGNS_CERTIFICATES, critical=True)
    server = _unsigned(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), authority, server_key)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    server = server.add_extension(names, critical=False)
    if lacking != "authorityKeyIdentifier":
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        server = server.add_extension(identifier, critical=False)
    files.ca.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files.server_cert.write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files.server_key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1)
    )


SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
