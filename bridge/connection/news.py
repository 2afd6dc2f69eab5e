"""News: what may last is logged once for each change, and every `LOG_AGAIN_S`."""

from __future__ import annotations

LOG_AGAIN_S = 300.0
"""Seconds after which a reason that has not changed is logged again."""


class News:
    """What was last logged of something that may last."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Whatever comes next is new."""
        self.repeated = False
        """Whether the last was not worth a line."""
        self.told = False
        """Whether anything was worth a line."""
        self._text = ""
        self._logged_s = 0.0

    def note(self, text: str, now_s: float) -> bool:
        """Note the present state in words; return whether to log it now."""
        self.repeated = text == self._text and now_s - self._logged_s < LOG_AGAIN_S
        if not self.repeated:
            self._text, self._logged_s, self.told = text, now_s, True
        return not self.repeated
