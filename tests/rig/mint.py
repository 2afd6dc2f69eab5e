"""Certificates that are right or wrong in one way: a chain, its keys, its dates and its names, for a TLS peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from tests.rig.certificates import SIGNS_CERTIFICATES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
DAY = timedelta(days=1)
KEYS: dict[str, Callable[[], Key]] = {
    "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


@dataclass
class Minted:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key
    above: list[x509.Certificate] = field(default_factory=list)
    """The certificates between it and the root, which a peer sends along."""

    def write(self, folder: Path, name: str, *, chain: bool = True) -> tuple[Path, Path]:
        """Write both as PEM; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / f"{name}.pem", folder / f"{name}-key.pem"
        pem = serialization.Encoding.PEM
        sent = [self.certificate, *(self.above if chain else ())]
        paths[0].write_bytes(b"".join(each.public_bytes(pem) for each in sent))
        encryption = serialization.NoEncryption()
        paths[1].write_bytes(self.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
        return paths


def mint(
    name: str,
    issuer: Minted | None = None,
    *,
    kind: str = "ECDSA",
    authority: bool = False,
    valid: tuple[timedelta, timedelta] = (-DAY, DAY),
) -> Minted:
    """Return a certificate: of an authority or of a peer, by an issuer or by itself, valid from and until."""
    key, now = KEYS[kind](), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, by = (issuer.key, issuer.certificate.subject) if issuer else (key, subject)
    from_, until = (now + each for each in valid)
    built = x509.CertificateBuilder(by, subject, key.public_key(), x509.random_serial_number(), from_, until)
    built = built.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    built = built.add_extension(above, critical=False)
    if authority:
        built = built.add_extension(SIGNS_CERTIFICATES, critical=True)
    else:
        names = x509.SubjectAlternativeName([_general(name)])
        built = built.add_extension(names, critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    chain = [issuer.certificate, *issuer.above] if issuer and not _is_root(issuer.certificate) else []
    return Minted(built.sign(signer, algorithm), key, chain)


WRONG = (
    *("expired", "of an authority that has expired", "not valid yet", "self-signed", "of another authority"),
    *("without its intermediate", "for another name"),
)
"""What may be wrong with a peer's certificate."""


def mint_wrong(wrong: str, name: str, authority: Minted) -> tuple[Minted, Minted]:
    """Return a certificate for this name that is wrong in this way, and the authority that is to be trusted."""
    trusted = authority
    match wrong:
        case "expired":
            made = mint(name, authority, valid=(-2 * DAY, -DAY))
        case "of an authority that has expired":
            trusted = mint("old", authority=True, valid=(-3 * DAY, -DAY))
            made = mint(name, trusted)
        case "not valid yet":
            made = mint(name, authority, valid=(DAY, 2 * DAY))
        case "self-signed":
            made = mint(name)
        case "of another authority":
            made = mint(name, mint("other", authority=True))
        case "without its intermediate":
            made = mint(name, mint("between", authority, authority=True))
        case _:
            made = mint("rabbit.example", authority)
    return made, trusted


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
