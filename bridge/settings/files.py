"""Files that settings name: opened so that no file keeps the bridge waiting, but one on a file system that is away."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading. Raises `OSError`, also for a pipe: it may be silent for ever.

    It is opened without blocking, since to open a pipe waits for its writer otherwise.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - the caller closes it
    if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe")
    return file
