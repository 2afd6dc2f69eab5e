"""The targets that tests publish to."""

from __future__ import annotations

from bridge.amqp.target import Target

QUEUE = Target.queue("dq")
OWN_KEYS = Target("out")
"""An exchange, with each message's own routing key."""
