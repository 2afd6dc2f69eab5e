"""Tests of `bridge/amqp/`."""
