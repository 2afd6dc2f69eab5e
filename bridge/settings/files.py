"""Files that settings name: opened so that no file keeps the bridge waiting, but one on a file system that is away."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from bridge.errors import CredentialsError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET_BYTES = 1 << 16
"""More than the longest token that RabbitMQ takes for a password; a file may be a device that never ends."""


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading. Raises `OSError`, also for a pipe: it may be silent for ever.

    It is opened without blocking, since to open a pipe waits for its writer otherwise.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - the caller closes it
    if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe")
    return file


def read_secret(path: Path, what: str) -> str:
    """Read what stands in a file, without the end of its line; `what` the file is. Raises `CredentialsError`."""
    try:
        with open_file(path) as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise CredentialsError(f"{what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CredentialsError(f"{what} {path}: not UTF-8 text") from None
    if len(data) > MAX_SECRET_BYTES:
        raise CredentialsError(f"{what} {path}: longer than {MAX_SECRET_BYTES} bytes")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise CredentialsError(f"{what} {path}: empty")
    return text
