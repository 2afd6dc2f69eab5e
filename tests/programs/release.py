"""`make release`: everything that a release consists of, into `dist/`, and what is left to a person.

`python -m tests.programs.release version` carries the version from `pyproject.toml`, where alone it is chosen, to the
chart, the image and the package; a test sees that it was done.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
CHART = ROOT / "helm" / "amqp-bridge"
CHANGELOG = ROOT / "CHANGELOG.md"
REQUIREMENTS = ROOT / "requirements.lock"
SUMS = "SHA256SUMS"
SBOM = "amqp-bridge-{version}.cdx.json"
ARM64 = [f"--platform={name}_aarch64" for name in ("manylinux2014", "manylinux_2_28")]
IMAGE_PYTHON = "3.13"
"""Of the Dockerfile's base."""

COPIES = {
    CHART / "Chart.yaml": (r"^version: (.+)$", r'^appVersion: "(.+)"$'),
    ROOT / "Dockerfile": (r"^ARG VERSION=(.+)$",),
    ROOT / "bridge" / "version.py": (r'^__version__ = "(.+)"$',),
}
"""Where else the version stands, and how."""


def version() -> str:
    """Return the version of the project."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def with_version(path: Path) -> str:
    """Return a file of `COPIES` with the version of now."""
    text = path.read_text()
    for pattern in COPIES[path]:
        match = re.search(pattern, text, re.MULTILINE)
        assert match, f"{path} has no {pattern}"
        text = text[: match.start(1)] + version() + text[match.end(1) :]
    return text


def unready() -> list[str]:
    """Return what has to be done before this version can be built."""
    carry = "run `python -m tests.programs.release version`"
    found = [f"{path.relative_to(ROOT)} has another version: {carry}" for path in COPIES if not _has_version(path)]
    if not re.search(rf"^## \[{re.escape(version())}\] - \d{{4}}-\d\d-\d\d$", CHANGELOG.read_text(), re.MULTILINE):
        found.append(f"CHANGELOG.md has no [{version()}] with a date: give what is Unreleased that heading")
    return found


def _has_version(path: Path) -> bool:
    return path.read_text() == with_version(path)


def build_packages(folder: Path) -> list[Path]:
    """Build wheel and sdist, and have twine look at them."""
    _run(sys.executable, "-m", "hatchling", "build", "--directory", folder)
    packages = [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]
    _run(sys.executable, "-m", "twine", "check", "--strict", *packages)
    return packages


def bill_of_materials(path: Path) -> None:
    """Write the SBOM, as CycloneDX: what the pins install."""
    command = ("cyclonedx_py", "requirements", "--pyproject", ROOT / "pyproject.toml", "--output-reproducible")
    _run(sys.executable, "-m", *command, "--output-file", path, REQUIREMENTS)


def arm64_wheels(folder: Path) -> list[Path]:
    """Download the wheels that an arm64 image installs. Fails where a pin has none."""
    which = ("--only-binary=:all:", "--no-deps", "--require-hashes", *ARM64, f"--python-version={IMAGE_PYTHON}")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    _run(*pip, *which, "--dest", folder, "--requirement", REQUIREMENTS)
    return list(folder.glob("*.whl"))


def checksums(folder: Path) -> str:
    """Return the checksums of a folder's files, as `sha256sum --check` reads them."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def build() -> None:
    """Build everything and say what is left."""
    from tests.deploy import tools  # noqa: PLC0415 - only here: it needs the deployment tests' environment

    if problems := unready():
        sys.exit("\n".join(["nothing was built:", *(f"  {problem}" for problem in problems)]))
    shutil.rmtree(DIST, ignore_errors=True)
    build_packages(DIST)
    helm = tools.helm(max(tools.HELM_WHEELS))
    _run(helm, "package", CHART, "--destination", DIST)
    bill_of_materials(DIST / SBOM.format(version=version()))
    (DIST / SUMS).write_text(checksums(DIST))
    names = "\n".join(f"  {path.name}" for path in sorted(DIST.iterdir()))
    print(f"\ndist/ holds release {version()}:\n{names}\n\n{LEFT.format(version=version())}", end="")


LEFT = """\
What is left to a person:
  1. git tag --sign v{version} && git push origin v{version}
  2. docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION=$(git rev-parse HEAD) \\
         --build-arg CREATED=$(date --utc +%FT%TZ) \\
         --tag registry.example/amqp-bridge:{version} --push .
  3. python3 -m twine upload dist/*.whl dist/amqp_bridge-{version}.tar.gz
  4. helm push dist/amqp-bridge-{version}.tgz oci://registry.example/charts
  5. Attach everything in dist/ to the release.
"""


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(prog="tests.programs.release", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("build", "sbom", "version"), nargs="?", default="build")
    what = parser.parse_args().what
    if what == "build":
        build()
        return
    if what == "sbom":
        DIST.mkdir(exist_ok=True)
        bill_of_materials(DIST / SBOM.format(version=version()))
        return
    for path in COPIES:
        path.write_text(with_version(path))


if __name__ == "__main__":
    main()
