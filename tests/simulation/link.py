"""A connection between the bridge and a broker: bytes under way in both directions, and how they get lost."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from random import Random

_frame_head = Struct(">BHI")


class Frame(NamedTuple):
    """One AMQP frame, its end octet taken off."""

    kind: int
    channel: int
    payload: bytes


class FrameReader:
    """Cuts a stream into frames, apart from the bridge's own cutter."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes; return the frames that they complete."""
        data = self._rest + data
        frames: list[Frame] = []
        position, end = 0, len(data)
        while position + 7 <= end:
            kind, channel, size = _frame_head.unpack_from(data, position)
            stop = position + 8 + size
            if stop > end:
                break
            assert data[stop - 1] == 0xCE, "a frame without its end octet"
            frames.append(Frame(kind, channel, data[position + 7 : stop - 1]))
            position = stop
        self._rest = data[position:]
        return frames


class Pipe:
    """One direction."""

    __slots__ = ("data", "ended")

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False

    def write(self, raw: bytes) -> None:
        """Put bytes under way; into an ended pipe they vanish."""
        if not self.ended:
            self.data += raw

    def read(self, size: int) -> bytes:
        """Take what has arrived: at most `size` bytes."""
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken

    def end(self, keep: int | None = None) -> None:
        """Nothing follows; of what is under way only the first `keep` bytes arrive, or all."""
        if keep is not None:
            del self.data[keep:]
        self.ended = True

    @property
    def at_end(self) -> bool:
        """Whether its reader has read all that ever comes."""
        return self.ended and not self.data


@dataclass(slots=True, eq=False)
class Link:
    """Both directions. Each end learns of the other's end when it has read what still arrives."""

    to_broker: Pipe = field(default_factory=Pipe)
    to_bridge: Pipe = field(default_factory=Pipe)
    frozen: bool = False
    """Nothing moves, and nobody is told."""
    returned: deque[int] = field(default_factory=deque)
    """What the broker knows and does not say: the publish_seqno of each return that is under way."""
    drained: bool = False
    """The bridge left it with everything settled: if what it wrote arrives, nothing is to be taken back."""

    def cut(self, rng: Random) -> None:
        """Lose the connection: of what is under way, some may arrive."""
        for pipe in (self.to_broker, self.to_bridge):
            pipe.end(rng.choice((0, len(pipe.data), rng.randint(0, len(pipe.data)))))
        self.frozen = self.drained = False

    def leave(self) -> None:
        """The bridge says goodbye: what it has written arrives."""
        self.to_broker.end()
        self.to_bridge.end(0)
