"""Tests of `bridge/cli`."""
