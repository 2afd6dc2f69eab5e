"""A token as its reader sees it: what stands in it, and what is none."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest

from bridge.settings.token import LATEST_S, Token
from tests.rig.tokens import Issuer, unsigned


def test_what_a_signed_token_says_is_read_without_its_key() -> None:
    token = Token.of(Issuer().token(60, user="bridge", scopes=("rabbitmq.read:*/in",)))
    assert token is not None
    assert token.user == "bridge"
    assert token.scopes == ("rabbitmq.read:*/in",)
    assert token.audience == ("rabbitmq",)


@pytest.mark.parametrize(
    ("claims", "expected"),
    (
        ({}, Token("", None, None, None, (), ())),
        ({"sub": "one", "client_id": "two"}, Token("one", None, None, None, (), ())),
        ({"client_id": "two"}, Token("two", None, None, None, (), ())),
        ({"scope": "a b", "aud": "c"}, Token("", None, None, None, ("a", "b"), ("c",))),
        ({"iat": 1, "exp": 12.5, "nbf": 3}, Token("", 1, 12.5, 3, (), ())),
        ({"exp": LATEST_S + 1, "nbf": True, "scope": 7}, Token("", None, None, None, (), ())),
        ({"exp": "soon", "nbf": -1}, Token("", None, None, None, (), ())),
    ),
)
def test_claims_that_are_missing_or_written_otherwise_are_no_reason_to_fail(
    claims: dict[str, object], expected: Token
) -> None:
    assert Token.of(unsigned(**claims)) == expected


@pytest.mark.parametrize(
    "secret",
    (
        "",
        "secret",
        "se.cr.et",
        "a.b",
        "ß.ß.ß",
        "....",
        f"{urlsafe_b64encode(b'[1]').decode()}.e30.x",
        "e30.e30.x",  # a header without an algorithm
        f"{urlsafe_b64encode(b'[' * 100_000).decode()}.e30.x",
        unsigned().replace(".", "", 1),
    ),
)
def test_a_password_is_no_token(secret: str) -> None:
    assert Token.of(secret) is None
