"""What a release consists of: packages that are sound, whose tests run, and pins that an arm64 image can install."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.deploy import tools
from tests.programs import release

if TYPE_CHECKING:
    from pathlib import Path

FROM_THE_SDIST = ("tests/unit/relay", "tests/unit/settings", "tests/unit/observe", "tests/documents")
"""A good part of the tests, in little time: what they need must be in the archive."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist, which twine has found sound."""
    folder = tmp_path_factory.mktemp("dist")
    release.build_packages(folder)
    return folder


def test_the_wheel_holds_the_package_alone(packages: Path) -> None:
    (wheel,) = packages.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {
            "bridge",
            f"amqp_bridge-{release.version()}.dist-info",
        }
        assert "bridge/py.typed" in archive.namelist()


def test_packages_built_again_are_the_same_byte_for_byte(packages: Path, tmp_path: Path) -> None:
    """Under another umask, as in somebody else's checkout."""
    before = os.umask(0o077)
    try:
        release.build_packages(tmp_path)
    finally:
        os.umask(before)
    first, second = (
        {path.name: path.read_bytes() for path in folder.glob("amqp_*")} for folder in (packages, tmp_path)
    )
    assert len(first) == 2
    assert first == second


def test_the_tests_run_from_the_sdist(packages: Path, tmp_path: Path) -> None:
    (sdist,) = packages.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not broker", *FROM_THE_SDIST)
    result = tools.attempt(*command, cwd=folder, timeout_s=300)
    assert result.returncode == 0, result.stdout[-4000:]


def test_an_arm64_image_finds_a_wheel_for_every_pin(tmp_path: Path) -> None:
    found = release.arm64_wheels(tmp_path)
    pins = [line for line in release.REQUIREMENTS.read_text().splitlines() if "==" in line and not line.startswith(" ")]
    assert len(found) == len(pins)
    assert not [wheel.name for wheel in found if "x86_64" in wheel.name]


def test_the_bill_of_materials_has_every_pin_with_its_hashes(tmp_path: Path) -> None:
    release.bill_of_materials(tmp_path / "sbom.json")
    document = json.loads((tmp_path / "sbom.json").read_text())
    found = {f"{component['name']}=={component['version']}" for component in document["components"]}
    lines = release.REQUIREMENTS.read_text().splitlines()
    assert found == {line.split(" ")[0] for line in lines if "==" in line and not line.startswith(" ")}
    assert document["metadata"]["component"]["version"] == release.version()


def test_checksums_are_what_sha256sum_reads(packages: Path) -> None:
    (packages / release.SUMS).write_text(release.checksums(packages))
    result = tools.attempt("sha256sum", "--check", "--strict", release.SUMS, cwd=packages)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", release.COPIES, ids=lambda path: path.name)
def test_the_version_stands_in_one_place(path: Path) -> None:
    """`python -m tests.programs.release version` carries it to the others."""
    assert path.read_text() == release.with_version(path)


def test_the_changelog_knows_the_version_and_so_a_release_can_be_built() -> None:
    assert release.unready() == []


def test_a_release_without_its_version_in_a_file_or_the_changelog_is_not_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(release, "version", lambda: "9.9.9")
    monkeypatch.setattr(sys, "argv", ["release"])
    with pytest.raises(SystemExit) as ended:
        release.main()
    for named in ("nothing was built", "Chart.yaml", "Dockerfile", "bridge/version.py", "CHANGELOG.md has no [9.9.9]"):
        assert named in str(ended.value)
    assert capsys.readouterr().out == ""
