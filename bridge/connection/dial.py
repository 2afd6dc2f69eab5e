"""A socket to a host that may have several addresses, some of which lead nowhere.

All addresses are tried within one attempt, a new one every quarter of a second until one of them answers (RFC 8305).
This is `aiohappyeyeballs`' work: uvloop 0.23 tries them one after the other, each with the kernel's timeout of two
minutes.

An address may also accept connections and then say nothing, as a frozen broker's does; TCP cannot tell. One over which
no generation began is therefore tried last the next time.
"""

from __future__ import annotations

import os
import re
import socket
from functools import partial
from typing import TYPE_CHECKING

from aiohappyeyeballs import start_connection

from bridge.connection.offloop import off_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohappyeyeballs import AddrInfoType

STAGGER_S = 0.25
"""RFC 8305, 5: the recommended delay between two addresses."""
MAX_REMEMBERED = 100
"""Addresses that led nowhere; more than the settings' hosts have."""

_FAILED = re.compile(r"\[Errno (\d+)\] Connect call failed \('([^']+)'[^)]*\)")
"""What asyncio and uvloop say of an address: a number, where an operator needs words."""


def resolve(host: str, port: int) -> Sequence[AddrInfoType]:
    """Return the host's addresses, the preferred one first. Blocks. Raises `OSError`."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def connect(addresses: Sequence[AddrInfoType]) -> socket.socket:
    """Return a socket that is connected to the first address that answers. Raises `OSError`."""
    try:
        return await start_connection(addresses, happy_eyeballs_delay=STAGGER_S)
    except OSError as error:
        text = _FAILED.sub(lambda match: f"{match[2]}: {os.strerror(int(match[1]))}", str(error))
        raise OSError(error.errno or 0, text.rpartition("Multiple exceptions: ")[2]) from error


class Dialer:
    """Looks hosts up, and remembers which of their addresses led nowhere. It outlives the connections."""

    def __init__(self, resolve: Callable[[str, int], Sequence[AddrInfoType]] = resolve) -> None:
        """`resolve` asks the name server; it may block."""
        self._resolve = resolve
        self._led_nowhere: dict[object, None] = {}
        """The latest last."""

    async def look_up(self, host: str, port: int) -> Sequence[AddrInfoType]:
        """Return the host's addresses in the order in which to try them. Raises `OSError`."""
        try:
            # What is an address already asks no name server, so it cannot hang and needs no thread.
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await off_loop(f"look-up of {host}:{port}", partial(self._resolve, host, port))
        order = list(self._led_nowhere)
        return sorted(found, key=lambda info: order.index(info[4]) + 1 if info[4] in self._led_nowhere else 0)

    def led_nowhere(self, address: object) -> None:
        """Try the address, as `getpeername` writes it, after all others from now on."""
        self._led_nowhere.pop(address, None)
        self._led_nowhere[address] = None
        if len(self._led_nowhere) > MAX_REMEMBERED:
            del self._led_nowhere[next(iter(self._led_nowhere))]
