"""What a drain is asked for, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path  # noqa: TC003 - a dataclass names its types

from bridge.amqp.origin import By  # noqa: TC001
from bridge.drain.filter import Filter
from bridge.errors import BridgeError

EVERYTHING = Filter()


class WrongUseError(BridgeError):
    """The command line asks for what cannot be done; says what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options of `amqp-bridge drain`."""

    limit: int | None = None
    """At most so many messages."""
    until_empty: bool = False
    """What arrives meanwhile is moved, too."""
    yes: bool = False
    """Nothing is asked."""
    dry_run: bool = False
    """The plan is all that is wanted."""
    receipt: Path | None = None
    """Where the receipt goes, as JSON."""
    to_original: By | None = None
    """Back to where each message came from; None for the settings' destination."""
    allowed: tuple[str, ...] = ()
    """Patterns of the names that messages may go back to; empty for any."""
    wanted: Filter = EVERYTHING
    """Which messages are moved."""
    ramp_s: float = 0.0
    """For so long the rate grows to what it is to be."""

    @property
    def exact(self) -> bool:
        """Whether no delivery is to be taken that is not moved, as far as that can be."""
        return not self.wanted

    def allows(self, target: str) -> bool:
        """Whether messages may go back there."""
        return not self.allowed or any(fnmatchcase(target, pattern) for pattern in self.allowed)
