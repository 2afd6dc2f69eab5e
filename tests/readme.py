"""Writes the README's table of settings from the settings: `python -m tests.readme`."""

from __future__ import annotations

from pathlib import Path

from bridge.settings import options

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- settings: written by `python -m tests.readme` -->\n", "<!-- end of settings -->\n"


def settings_table() -> str:
    """Return the table in Markdown."""
    lines = ["| variable | default | |", "|---|---|---|"]
    for option in options():
        default = f"`{option.default}`" if option.default_is_value and option.default else option.default
        lines.append(f"| `{option.variable}` | {default} | {option.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """Return the README with the table of now between its marks. Raises ValueError when a mark is missing."""
    before = text.index(BEGIN) + len(BEGIN)
    return text[:before] + settings_table() + text[text.index(END) :]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
