"""Loopback ports that stay ours.

A broker that is killed and started again needs its old port, so a port must not be lent to anybody in between. Two
things see to that: ports are taken from below the kernel's ephemeral range (an outgoing connection never gets one, nor
can a client that retries a closed port connect to itself), and each stays bound, but not listening, by this process. A
broker binds beside it with ``SO_REUSEADDR``; another run of the rig, which first binds without, sees that it is taken.
"""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 20_000, 32_000  # below Linux's ephemeral range, which begins at 32768

_reserved: list[socket.socket] = []


def free_port() -> int:
    """Reserve a port on the loopback interface until this process ends."""
    while True:
        port = random.randint(_FIRST, _LAST)
        reservation = socket.socket()
        try:
            reservation.bind((LOOPBACK, port))
        except OSError:
            reservation.close()
            continue
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _reserved.append(reservation)
        return port


def is_listening(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
