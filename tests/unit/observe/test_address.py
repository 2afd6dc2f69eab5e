"""Where a bridge listens, by its environment."""

from __future__ import annotations

import pytest

from bridge.observe.address import NoStatusError, default_url


@pytest.mark.parametrize(
    ("environ", "url"),
    (
        ({}, "http://127.0.0.1:8080"),
        ({"BRIDGE_HTTP_HOST": "0.0.0.0", "BRIDGE_HTTP_PORT": "9090"}, "http://127.0.0.1:9090"),  # noqa: S104
        ({"BRIDGE_HTTP_HOST": "::"}, "http://[::1]:8080"),
        ({"BRIDGE_HTTP_HOST": "[fe80::1]"}, "http://[fe80::1]:8080"),
        ({"BRIDGE_HTTP_HOST": "bridge.example"}, "http://bridge.example:8080"),
        ({"BRIDGE_HTTP_CERT_FILE": "/tls.crt"}, "https://127.0.0.1:8080"),
    ),
)
def test_by_default_it_asks_where_the_environment_has_the_bridge_listen(environ: dict[str, str], url: str) -> None:
    assert default_url(environ) == url


def test_a_port_that_the_system_chooses_has_to_be_given() -> None:
    with pytest.raises(NoStatusError, match="give it with --url"):
        default_url({"BRIDGE_HTTP_PORT": "0"})
