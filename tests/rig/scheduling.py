"""Which of pytest's processes runs which test: what shares brokers or an image runs in one, and starts them once.

The groups that marks name are not used: xdist 3.8 writes them into the ids of the tests, which pytest 9.2 ignores.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

_VERSION = re.compile(r"[\[-](3\.10|4\.3)[\]-]")
_USE_THE_IMAGE = {"test_image.py", "test_pod.py"}


def group(nodeid: str) -> str:
    """Name the group of a test by its id: what is not in one is a group by itself.

    Nodes of one version are started for a whole run of files (see `tests/conftest.py`), so that what of a file needs
    one version stays together. What is set up for a whole file of the deployment is set up once, and so is the image.
    """
    path, _, test = nodeid.partition("::")
    folder, _, file = path.removeprefix("tests/").rpartition("/")
    if folder == "deploy":
        return "image" if file in _USE_THE_IMAGE else path
    version = _VERSION.search(test)
    if folder in {"broker", "rig"} and version:
        return f"{path} {version[1]}"
    return nodeid


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Hands out the tests by `group`, in the order in which pytest has put them: by the version of the brokers."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
