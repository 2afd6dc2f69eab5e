"""The question about an exchange, as `exchanging` carries it: it takes its time, and may get no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.amqp.events import Close
    from bridge.window.exchanges import Exchanges
    from tests.simulation.destination import Destination
    from tests.simulation.process import Session

UNANSWERED = 0.1
"""Share of questions without an answer."""


class Asking:
    """Of one bridge."""

    def __init__(self, broker: Destination) -> None:
        self._broker = broker
        self._session: Session | None = None
        """The destination's generation that is asked, while it is."""
        self._exchange = b""
        self._exchanges: Exchanges | None = None
        """What belongs to that generation and takes the answer, also where it has ended meanwhile."""
        self._reached = False
        self._refusal: Close | None = None

    def begin(self, session: Session, exchange: bytes, exchanges: Exchanges) -> None:
        """The bridge wants to know whether an exchange accepts messages."""
        self._session, self._exchange, self._exchanges, self._reached = session, exchange, exchanges, False

    def step(self, now_s: float, fate: float) -> bool:
        """The question reaches the broker, or its answer the bridge; whether there was one under way."""
        session, exchanges = self._session, self._exchanges
        if session is None or exchanges is None or (session.link.frozen and not session.ended):
            return False
        if not (self._reached or session.ended):
            self._reached, self._refusal = True, self._broker.asked(session.link, self._exchange[1:].decode())
            return True
        self._session = self._exchanges = None
        if session.ended or fate < UNANSWERED:
            exchanges.unanswered(now_s)
        else:
            exchanges.answered(self._refusal, now_s)
        return True
