"""Other Pythons are found where they run, and one that does not run is not taken for one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.programs.pythons import CHOSEN, ROOT, find, first_that_runs, supported

if TYPE_CHECKING:
    from pathlib import Path

OWN = "{}.{}".format(*sys.version_info)


def test_this_python_is_supported_and_found() -> None:
    assert OWN in supported()
    assert find(OWN) is not None
    assert find("3.1") is None


def test_one_that_does_not_run_or_is_another_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / f"python{OWN}"
    shim.write_text("#!/bin/sh\necho not selected >&2\nexit 127\n")
    shim.chmod(0o755)
    assert first_that_runs([str(shim), sys.executable], OWN) == sys.executable
    assert first_that_runs([str(shim)], OWN) is None
    assert first_that_runs([sys.executable], "3.99") is None


def test_what_is_tried_is_there() -> None:
    assert [name for name in CHOSEN if not (ROOT / name).is_file()] == []
