"""The documents' commands, typed as they stand: what is marked as runnable is run, against real brokers."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from bridge.settings.options import options
from tests.documents.markdown import DOCUMENTS, ROOT, Block, blocks
from tests.documents.stage import runnable
from tests.rig import installation

SHELL = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}:{block.line}")
    for path in DOCUMENTS
    for block in blocks(path.read_text())
    if block.mark.startswith("sh")
]


@pytest.mark.broker
def test_every_runnable_block_does_what_the_document_says() -> None:
    if os.geteuid() != 0 or not installation.is_installed("3.10"):
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("needs root, for a network and an /etc of its own, and RabbitMQ")
    command = ("unshare", "--net", "--mount", sys.executable, "-m", "tests.documents.stage")
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=400, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(re.findall(r"^ran (\S+)$", result.stdout, re.MULTILINE)) == sorted(runnable())


@pytest.mark.parametrize("block", SHELL)
def test_every_shell_block_is_right_in_its_grammar(block: Block) -> None:
    result = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("block", SHELL)
def test_every_variable_in_a_shell_block_is_a_setting(block: Block) -> None:
    assert set(re.findall(r"\bBRIDGE_\w+", block.text)) <= {option.variable for option in options()}
