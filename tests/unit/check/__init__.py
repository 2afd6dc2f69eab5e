"""Tests of `bridge/check/`."""
