"""Where the brokers' programs are, and how a command of theirs is run.

RabbitMQ 3.10 is the distribution's. RabbitMQ 4.3 lives in a folder of its own, a small Debian made by ``make brokers``;
its commands run there by ``chroot``, in a mount namespace of their own, so that no mount outlives them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSIONS = ("3.10", "4.3")

_LIB = "usr/lib/rabbitmq/bin"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENTER = """
set -e
root=$1 folder=$2; shift 2
: >> "$root/etc/hosts"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
mount --bind /etc/hosts "$root/etc/hosts"
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
exec chroot "$root" env -i "$@"
"""


def root(version: str) -> Path:
    """The root of the file system in which a version is installed."""
    if version == "3.10":
        return Path("/")
    cache = os.environ.get("AMQP_BRIDGE_BROKERS") or Path.home() / ".cache" / "amqp-bridge"
    return Path(cache) / f"rabbitmq-{version}"


def is_installed(version: str) -> bool:
    """Whether ``make brokers`` has been here."""
    return (root(version) / _LIB / "rabbitmq-server").exists()


def command(version: str, folder: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """The command line that runs one of a version's programs as the same process that is started (no fork between).

    ``folder`` has the same path inside and outside.
    """
    program = [f"{name}={value}" for name, value in ({"PATH": _PATH, "LANG": "C.UTF-8"} | {**environment}).items()]
    program += arguments
    if version == "3.10":
        return ["env", "-i", *program]
    return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(root(version)), str(folder), *program]


def script(name: str) -> str:
    """The path of one of RabbitMQ's own scripts; the distribution's wrappers around them change the user."""
    return f"/{_LIB}/{name}"
