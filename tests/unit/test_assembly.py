"""The assembly: what the settings make of the parts."""

from __future__ import annotations

from bridge.amqp.fields import read_table
from bridge.assembly import additions, plan, window_limits
from bridge.settings.environment import load_settings

ENVIRON = {
    "BRIDGE_SOURCE_URL": "amqps://me:hunter2@berlin.example/shop?heartbeat=5,amqps://other.example/shop",
    "BRIDGE_SOURCE_QUEUE": "orders",
    "BRIDGE_SOURCE_PASSWORD": "hunter2",
    "BRIDGE_DESTINATION_QUEUE": "to",
}


def test_without_headers_on_request_nothing_is_added() -> None:
    settings = load_settings(ENVIRON)
    assert (additions(settings), plan(settings).policy.additions, window_limits(settings).max_hops) == (None, None, 0)


def test_provenance_names_the_first_broker_and_the_queue_without_login() -> None:
    more = {"BRIDGE_PROVENANCE": "true", "BRIDGE_MAX_HOPS": "3", "BRIDGE_ADD_HEADERS": '{"site": "berlin"}'}
    settings = load_settings(ENVIRON | more)
    assert window_limits(settings).max_hops == 3
    found = plan(settings).policy.additions
    assert found is not None
    fields = found.after(1)
    assert read_table(len(fields).to_bytes(4, "big") + fields) == {
        "site": "berlin",
        "x-bridge-source": "amqps://berlin.example:5671/shop orders",
        "x-bridge-hops": 2,
    }
