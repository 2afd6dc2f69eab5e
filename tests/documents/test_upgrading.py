"""Whoever upgrades from 0.1.0 reads which words are new on `/metrics`, and that none is gone."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from bridge.words import EndReason, QuarantineReason, RequeueReason, RetryReason
from tests.programs.documents import OPERATIONS

OF_0_1_0 = {
    "bridge_messages_quarantined_total": {"poison", "too-large", "delivery-limit"},
    "bridge_messages_requeued_total": {
        *("shutdown", "hold-timeout", "unroutable", "poison", "too-large", "delivery-limit"),
    },
    "bridge_publish_retries_total": {"nack", "returned", "destination-lost"},
    "bridge_generations_ended_total": {
        *("connection-lost", "connection-closed", "channel-closed", "heartbeat", "confirm-timeout"),
        *("consumer-cancelled", "stalled", "cancel-timeout", "quarantine-timeout", "closed-by-us", "malformed", "bug"),
    },
}
"""Words of the label `reason` that 0.1.0 had."""


def words(literal: object) -> set[str]:
    """The words of a closed set; a `Literal` may hold others."""
    return {word for each in get_args(literal) for word in ([each] if isinstance(each, str) else words(each))}


NOW = {
    "bridge_messages_quarantined_total": words(QuarantineReason),
    "bridge_messages_requeued_total": words(RequeueReason),
    "bridge_publish_retries_total": words(RetryReason),
    "bridge_generations_ended_total": words(EndReason),
}
UPGRADING = re.search(r"^From 0\.1\.0:$(.*?)^## ", OPERATIONS.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("metric", NOW)
def test_no_reason_of_0_1_0_was_renamed(metric: str) -> None:
    assert OF_0_1_0[metric] <= NOW[metric]


@pytest.mark.parametrize("metric", [name for name in NOW if NOW[name] - OF_0_1_0[name]])
def test_the_notes_name_each_reason_that_is_new(metric: str) -> None:
    assert UPGRADING is not None
    (named,) = re.findall(rf"((?:`[a-z-]+`(?:,\s+|\s+and\s+)?)+) of\s+`{metric}`", UPGRADING[1])
    assert set(re.findall(r"`([a-z-]+)`", named)) == NOW[metric] - OF_0_1_0[metric]
