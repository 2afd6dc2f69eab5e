"""A token that a broker takes for a password: a JWT (RFC 7519), read without its key.

What stands in it is the word of whoever wrote the file: good for messages to an operator, and for no decision about
what is allowed, which is the broker's alone.
"""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass

LATEST_S = 253402300799
"""The end of the year 9999: later times have no date in Python."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says of itself. It holds no part of the signature."""

    user: str
    """RabbitMQ's default for the user's name: `sub`, otherwise `client_id`; empty where there is neither."""
    issued_s: float | None
    """Unix time; None where it does not say."""
    expires_s: float | None
    """Unix time; None for never."""
    not_before_s: float | None
    """Unix time; None for at once."""
    scopes: tuple[str, ...]
    """RabbitMQ's default for what is granted: `scope`."""
    audience: tuple[str, ...]

    @classmethod
    def of(cls, secret: str) -> Token | None:
        """Return the token that a secret is; None where it is another password."""
        parts = secret.split(".")
        if len(parts) != 3:  # noqa: PLR2004 - RFC 7515, 3.1: header, payload, signature
            return None
        header, claims = map(_object, parts[:2])
        if header is None or claims is None or "alg" not in header:
            return None
        return cls(
            user=next((str(claims[name]) for name in ("sub", "client_id") if claims.get(name)), ""),
            issued_s=_time(claims.get("iat")),
            expires_s=_time(claims.get("exp")),
            not_before_s=_time(claims.get("nbf")),
            scopes=_words(claims.get("scope")),
            audience=_words(claims.get("aud")),
        )


def _object(part: str) -> dict[str, object] | None:
    try:
        value = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _time(value: object) -> float | None:
    """RFC 7519, 2: seconds, whole or not."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= LATEST_S else None


def _words(value: object) -> tuple[str, ...]:
    """One text with spaces in between (RFC 8693, 4.2), or a list."""
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(map(str, value)) if isinstance(value, list) else ()
