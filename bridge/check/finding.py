"""A finding: what an inspection says about one thing, for an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer."""

    level: Level
    side: str
    """`source` or `destination`, with the URL's number where there are several, or `bridge`."""
    subject: str
    text: str
    """A sentence; of a warning or an error, also what to do."""
