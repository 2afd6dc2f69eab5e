"""Tests of the commands that end by themselves."""
