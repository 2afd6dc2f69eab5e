"""Exchanging: asks the destination whether an exchange accepts messages, where each message names its own.

Each refusal is logged once, and again when it changes (see `news`); so is that an exchange accepts messages again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bridge.connection.news import News
from bridge.errors import ConnectError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from bridge.amqp.events import Close
    from bridge.connection.session import DestinationSession
    from bridge.connection.tap import Pump
    from bridge.window.exchanges import Exchanges
    from bridge.window.window import Window

log = logging.getLogger(__name__)

MOST_NEWS = 1000
"""Of so many exchanges it is known what was logged last; of more, all is new."""


class Exchanging:
    """Carries the window's questions about exchanges to the destination, over all its generations."""

    def __init__(self, window: Window, pump: Pump) -> None:
        """`pump` writes what an answer lets go."""
        self._window = window
        self._pump = pump
        self._refused: dict[bytes, News] = {}

    def ask(self, session: DestinationSession, exchange: bytes) -> Coroutine[Any, Any, None]:
        """Ask over the present generation, and hand the answer to what belongs to it, also where it ends meanwhile."""
        return self._ask(session, exchange, self._window.exchanges)

    async def _ask(self, session: DestinationSession, exchange: bytes, exchanges: Exchanges) -> None:
        loop = asyncio.get_running_loop()
        try:
            refusal = await session.ask_exchange(exchange[1:])
        except ConnectError as error:
            if session.end is None:
                log.warning("exchange %s did not report whether it accepts messages: %s", _shown(exchange), error)
            exchanges.unanswered(loop.time())
            return
        self._tell(exchange, refusal, loop.time())
        exchanges.answered(refusal, loop.time())
        self._pump.run(loop.time())

    def _tell(self, exchange: bytes, refusal: Close | None, now_s: float) -> None:
        if refusal is None:
            if self._refused.pop(exchange, None) is not None:
                log.info("exchange %s accepts messages again", _shown(exchange))
            return
        if len(self._refused) >= MOST_NEWS:
            self._refused.clear()
        if self._refused.setdefault(exchange, News()).note(refusal.reply_text, now_s):
            log.warning(
                "exchange %s accepts no messages, others pass: %s",
                _shown(exchange),
                refusal.reply_text,
                extra={"reply_code": refusal.reply_code},
            )


def _shown(exchange: bytes) -> str:
    """Return the name of an exchange for the log; the default exchange has none."""
    return repr(exchange[1:].decode("utf-8", "backslashreplace"))
