"""Writes the table of dependencies and their licences into SECURITY.md: `python -m tests.programs.licences`."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
DOCUMENT = ROOT / "SECURITY.md"
MARK = "<!-- licences: written by `python -m tests.programs.licences` -->\n"
END = "<!-- end -->"
SPELT = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
"""SPDX identifiers for what packages write otherwise."""


class Pin(NamedTuple):
    """One line of a lock."""

    name: str
    version: str
    hashes: int


def pins(lock: Path) -> list[Pin]:
    """Return what a lock pins, with the number of hashes of each."""
    blocks = re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE)
    found = [(re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", block), block) for block in blocks]
    return [Pin(match[1], match[2], block.count("--hash=sha256:")) for match, block in found if match]


def licence(name: str) -> str:
    """Return a package's licence as SPDX has it, by what it says of itself."""
    about: dict[str, Any] = metadata(name).json
    said = str(about.get("license_expression", ""))
    if not said:
        kinds = [text for text in about.get("classifier", []) if text.startswith("License :: ")]
        said = kinds[0].rpartition(" :: ")[2] if kinds else str(about.get("license", "")).split("\n")[0]
    return SPELT.get(said, said)


def document() -> str:
    """Return SECURITY.md with the table of now."""
    rows = "".join(f"| {pin.name} | {pin.version} | {licence(pin.name)} |\n" for pin in pins(LOCK))
    head, mark, rest = DOCUMENT.read_text().partition(MARK)
    _, end, tail = rest.partition(END)
    assert mark, MARK
    assert end, END
    return f"{head}{mark}\n| package | version | licence |\n|---|---|---|\n{rows}\n{end}{tail}"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
