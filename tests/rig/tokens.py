"""Tokens for RabbitMQ's OAuth 2 backend, signed here: encoded apart from whatever of the bridge reads them."""

from __future__ import annotations

import itertools
import json
import time
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.rig.node import TOKEN_KEY_ID, TOKEN_RESOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERYTHING = tuple(f"{TOKEN_RESOURCE}.{right}:*/*" for right in ("configure", "read", "write"))


class Issuer:
    """Whoever signs tokens: a key of its own."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self._numbers = itertools.count()

    @property
    def public_pem(self) -> bytes:
        """What a broker verifies the tokens with."""
        key = self._key.public_key()
        return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def token(self, life_s: float, *, user: str = "bridge", scopes: Sequence[str] = EVERYTHING) -> str:
        """Return a token that no other one is like; RabbitMQ 3.10 and 4.3 count its life in whole seconds."""
        now_s = time.time()
        claims: dict[str, object] = {
            "sub": user,
            "aud": [TOKEN_RESOURCE],
            "scope": [*scopes],
            "iat": int(now_s),
            "exp": int(now_s + life_s),
        }
        claims["jti"] = str(next(self._numbers))
        signed = _part({"alg": "RS256", "kid": TOKEN_KEY_ID}) + b"." + _part(claims)
        return (signed + b"." + _encode(self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()


def unsigned(**claims: object) -> str:
    """Return a token whose signature nobody can verify."""
    return b".".join((_part({"alg": "RS256"}), _part(claims), _encode(b"nobody's"))).decode()


def _part(value: dict[str, object]) -> bytes:
    return _encode(json.dumps(value).encode())


def _encode(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
