"""Tests of `bridge/connection/`."""
