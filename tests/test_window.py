"""The window against a naive model, and each row of its table."""

from __future__ import annotations

from hypothesis import settings

from tests.window_model import WindowMachine

TestWindow = WindowMachine.TestCase
TestWindow.settings = settings(max_examples=400, stateful_step_count=60, deadline=None)
