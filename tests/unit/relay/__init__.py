"""Tests of `bridge/relay/`."""
