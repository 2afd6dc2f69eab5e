"""The corpus: what coverage-guided fuzzing has found worth keeping, a file for each target, an input a line.

The lines are ASCII, with the escapes of Python's string literals, so that a change can be read.
"""

from __future__ import annotations

import random
from pathlib import Path

FOLDER = Path(__file__).parent / "corpora"


def read(target: str) -> list[bytes]:
    """Return a target's inputs."""
    lines = (FOLDER / f"{target}.txt").read_text().splitlines()
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]


MOST_BYTES = 20_000
"""Of a target's inputs together: the repository is to stay small."""


def write(target: str, inputs: list[bytes]) -> None:
    """Keep these inputs of a target, the short ones first; of too many, some by chance."""
    known = sorted(set(inputs))
    random.Random(target).shuffle(known)
    while sum(map(len, known)) > MOST_BYTES:
        known.pop()
    ordered = sorted(known, key=lambda each: (len(each), each))
    lines = [f"{each.decode('latin-1').encode('unicode_escape').decode()}\n" for each in ordered]
    (FOLDER / f"{target}.txt").write_text("".join(lines))


def unpack(inputs: list[bytes], folder: Path) -> None:
    """Put each input into a file of its own, as libFuzzer reads them."""
    folder.mkdir()
    for number, each in enumerate(inputs):
        (folder / f"{number}").write_bytes(each)


def pack(folder: Path) -> list[bytes]:
    """Return the inputs that libFuzzer has left in a folder."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]
