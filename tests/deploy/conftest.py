"""Fixtures of the deployment tests. `python -m tests.deploy.tools` fetches what they need."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import tools

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session", params=sorted(tools.HELM_WHEELS))
def helm(request: pytest.FixtureRequest) -> Path:
    """Each version of helm."""
    return tools.helm(request.param)


@pytest.fixture
def values_file(tmp_path: Path) -> Callable[[Manifest], Path]:
    """Write values to a file of the test's own."""

    def write(values: Manifest) -> Path:
        path = tmp_path / f"values-{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def _rendered(helm: Path, values: Path, options: tuple[str, ...]) -> str:
    return tools.run(helm, "template", "release", tools.CHART, "--values", values, *options)


@pytest.fixture
def render(helm: Path, values_file: Callable[[Manifest], Path]) -> Render:
    """Render the chart with values, given as a mapping or a file, to its manifests."""

    def template(values: Manifest | Path, *options: str) -> list[Manifest]:
        if isinstance(values, Path):
            text = _rendered(helm, values, options)
        else:
            text = _rendered.__wrapped__(helm, values_file(values), options)
        return [document for document in yaml.load_all(text, _YAML) if document]

    return template


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image, built from the Dockerfile as it is in the tree. Skips where podman cannot be had, but not in CI."""
    if missing := tools.missing_packages():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say(f"not installed, so no image is built: {', '.join(missing)}; `python -m tests.deploy.tools` installs them")
    tools.build_image()
    yield tools.IMAGE
    tools.podman("image", "rm", "--force", tools.IMAGE)
