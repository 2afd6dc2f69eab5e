"""Tests of `bridge/window/`."""
