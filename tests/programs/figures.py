"""How figures are written in the documents."""

from __future__ import annotations


def three_digits(value: float) -> str:
    """Round to what the noise leaves."""
    if value < 10:
        return f"{value:.1f}"
    digits = max(0, len(f"{value:.0f}") - 3)
    return f"{round(value / 10**digits) * 10**digits:,}"


def name_size(size: int) -> str:
    """Return a size in bytes with its unit."""
    if size >= 1_000_000:
        return f"{size // 1_000_000} MB"
    return f"{size // 1000} kB" if size >= 1000 else f"{size} B"
