"""The words that several layers share."""

from __future__ import annotations

from typing import Literal

SideName = Literal["source", "destination"]
