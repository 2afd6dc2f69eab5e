"""The project's documents, taken apart as far as the tests need it: links, headings, blocks of code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for folder in ("", "bridge", "config", "helm/amqp-bridge", "tests", "tests/measured")
    for path in Path(ROOT, folder).glob("*.md")
)


class Block(NamedTuple):
    """A block of code: what it is marked as, its text, and the line on which it begins."""

    mark: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks."""
    fence = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [Block(match[1].strip(), match[2], text.count("\n", 0, match.start()) + 2) for match in fence.finditer(text)]


def prose(text: str) -> str:
    """Return the text without its fenced blocks."""
    return re.sub(r"^```[^\n]*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """Return where the links and images of a document lead."""
    return re.findall(r"\]\(<?([^)\s>]+)>?\)", prose(text))


def anchors(text: str) -> list[str]:
    """Return the anchors of the headings, as GitHub and GitLab make them."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.append(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found
