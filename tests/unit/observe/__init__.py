"""Tests of `bridge/observe/`."""
