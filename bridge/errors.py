"""The bridge's errors, each named by the reaction that it asks for.

BridgeError                everything that the bridge raises on purpose
├── ConfigurationError     give up: the operator must change a setting
├── NotYetError            wait, for a limited time: the bridge cannot start now, and it may pass by itself
├── ExhaustedError         end the process in order: memory or threads are used up, and it may start again
├── CredentialsError       try again later: a secret or certificate cannot be read now
├── ConnectError           try again later: a side cannot be opened; says what to do
└── MalformedFrameError    end the generation: the byte stream cannot be trusted any more
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.words import Outcome


class BridgeError(Exception):
    """What the bridge raises on purpose. The text is for an operator and holds no secret."""


class ConfigurationError(BridgeError):
    """The configuration cannot work as it is; `problems` lists every mistake, a line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NotYetError(BridgeError):
    """The bridge cannot start as things are; `problems` lists what is in the way, a line each.

    `start_timeout_s` is how long to wait for it, where the settings that say so cannot be loaded because of it.
    """

    def __init__(self, problems: Iterable[str], start_timeout_s: float = 0.0) -> None:
        self.problems = tuple(problems)
        self.start_timeout_s = start_timeout_s
        super().__init__("\n".join(self.problems))


class ExhaustedError(BridgeError):
    """Memory, or threads, are used up. What was received is requeued; a supervisor may restart the process."""


class CredentialsError(BridgeError):
    """A password file or certificate cannot be used now: mounted secrets may be in the middle of a rotation."""


class ConnectError(BridgeError):
    """A side could not be opened or did not hold what it must; `result` is the short word for `/metrics`."""

    def __init__(self, result: Outcome, message: str) -> None:
        self.result = result
        super().__init__(message)


class MalformedFrameError(BridgeError):
    """Bytes that are not AMQP 0-9-1, or not where they may stand: nothing after them can be trusted."""
