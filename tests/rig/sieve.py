"""Loses chosen methods out of what a broker sends, each with its content, as a faulty link in between might.

Heartbeats and all other frames pass, so that nothing but the missing methods gives the loss away.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

Method = tuple[int, int]
"""AMQP's numbers of a class and of a method in it."""

DELIVER: Method = (60, 60)
CONFIRM: Method = (60, 80)
"""``basic.ack``, which is a confirm when a broker sends it."""

_HEAD = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3


@dataclass
class Swallowing:
    """What is to be lost from now on, and what has been; shared by a proxy's connections."""

    methods: frozenset[Method] = frozenset()
    number: int = 0
    """Methods lost so far."""


class Sieve:
    """One connection's bytes from the broker, cut into frames."""

    def __init__(self, swallowing: Swallowing) -> None:
        self._swallowing = swallowing
        self._rest = b""
        self._losing: set[int] = set()
        """Channels whose last method was lost: a content goes the way of its method, whatever is decided meanwhile."""

    def sift(self, data: bytes) -> bytes:
        """Take bytes of any length and return those of the whole frames that pass."""
        data = self._rest + data
        passing = bytearray()
        position = 0
        while len(data) - position >= _HEAD.size:
            kind, channel, size = _HEAD.unpack_from(data, position)
            stop = position + _HEAD.size + size + 1
            if stop > len(data):
                break
            if not self._is_lost(kind, channel, data[position + _HEAD.size : position + _HEAD.size + 4]):
                passing += data[position:stop]
            position = stop
        self._rest = data[position:]
        return bytes(passing)

    def _is_lost(self, kind: int, channel: int, method: bytes) -> bool:
        if kind == _METHOD:
            self._losing.discard(channel)
            if struct.unpack(">HH", method) in self._swallowing.methods:
                self._losing.add(channel)
                self._swallowing.number += 1
        return kind in {_METHOD, _HEADER, _BODY} and channel in self._losing
