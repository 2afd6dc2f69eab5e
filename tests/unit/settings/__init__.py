"""Tests of `bridge/settings/`."""
